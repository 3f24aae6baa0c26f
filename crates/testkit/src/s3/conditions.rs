//! `If-None-Match` and `If-Match` of writes, and the reads' conditions.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};
use tokio::sync::Notify;

use super::faults::Quirks;
use super::model::Object;

/// How long a misbehaving create waits for a rival.
const RIVAL_WAIT: Duration = Duration::from_secs(1);

/// Conditions of a write.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteConditions {
    create_only: bool,
    matches: Option<ETagCondition>,
}

impl WriteConditions {
    pub(super) fn new(none_match: Option<ETagCondition>, matches: Option<ETagCondition>) -> S3Result<Self> {
        let create_only = none_match.is_some();
        match (none_match, matches) {
            (Some(ETagCondition::ETag(_)), _) => {
                Err(s3_error!(NotImplemented, "If-None-Match of a write takes only the value *"))
            }
            (Some(_), Some(_)) => {
                Err(s3_error!(InvalidRequest, "If-None-Match and If-Match exclude each other"))
            }
            (_, matches) => Ok(Self { create_only, matches }),
        }
    }

    pub(super) fn is_create_only(&self) -> bool {
        self.create_only
    }

    /// To be called under the lock under which the write happens.
    pub(super) fn check(&self, current: Option<&Object>, quirks: &Quirks) -> S3Result<()> {
        if self.create_only && !quirks.ignores_if_none_match && current.is_some() {
            return Err(precondition_failed());
        }
        let Some(wanted) = self.matches.as_ref().filter(|_| !quirks.ignores_if_match) else { return Ok(()) };
        match current {
            None => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            Some(object) if names(wanted, &object.etag) => Ok(()),
            Some(_) => Err(precondition_failed()),
        }
    }
}

fn names(condition: &ETagCondition, etag: &str) -> bool {
    condition.as_etag().is_none_or(|wanted| wanted.as_strong() == Some(etag))
}

fn precondition_failed() -> s3s::S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

/// Conditions of a read.
pub(super) struct ReadConditions {
    pub(super) matches: Option<ETagCondition>,
    pub(super) none_match: Option<ETagCondition>,
    pub(super) modified_since: Option<Timestamp>,
    pub(super) unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    pub(super) fn check(&self, object: &Object, modified: &Timestamp) -> S3Result<()> {
        let matched = self.matches.as_ref().map(|wanted| names(wanted, &object.etag));
        let stale = self.unmodified_since.as_ref().is_some_and(|limit| modified > limit);
        if matched == Some(false) || (matched.is_none() && stale) {
            return Err(precondition_failed());
        }
        let known = self.none_match.as_ref().map(|unwanted| names(unwanted, &object.etag));
        let unchanged = self.modified_since.as_ref().is_some_and(|limit| modified <= limit);
        if known == Some(true) || (known.is_none() && unchanged) {
            return Err(s3_error!(NotModified));
        }
        Ok(())
    }
}

/// Lets a misbehaving store look before it leaps: creates of one key wait here for each other after their check.
#[derive(Debug, Default)]
pub(super) struct RivalGate {
    waiting: Mutex<HashMap<(String, String), Rivals>>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Rivals {
    present: usize,
    /// Stays set when one of them has left already.
    met: bool,
}

impl RivalGate {
    /// Returns once a rival for the same key was here too, or after a short while.
    pub(super) async fn meet(&self, bucket: &str, key: &str) {
        let place = (bucket.to_owned(), key.to_owned());
        {
            let mut waiting = self.lock();
            let rivals = waiting.entry(place.clone()).or_default();
            rivals.present += 1;
            rivals.met |= rivals.present > 1;
        }
        self.arrived.notify_waiters();
        let rival = async {
            loop {
                let arrival = self.arrived.notified();
                if self.lock().get(&place).is_some_and(|rivals| rivals.met) {
                    return;
                }
                arrival.await;
            }
        };
        // Running into the timeout only means that nobody else wanted the key.
        let _ = tokio::time::timeout(RIVAL_WAIT, rival).await;
    }

    pub(super) fn leave(&self, bucket: &str, key: &str) {
        let place = (bucket.to_owned(), key.to_owned());
        let mut waiting = self.lock();
        if let Some(rivals) = waiting.get_mut(&place) {
            rivals.present = rivals.present.saturating_sub(1);
            if rivals.present == 0 {
                waiting.remove(&place);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Rivals>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
