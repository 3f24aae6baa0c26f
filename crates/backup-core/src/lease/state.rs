//! What a record of a lease means: pure functions, tested at every moment without a store.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::Stanza;
use crate::manifest::{FORMAT_MAJOR, ManifestError};

/// Stores tell times in whole seconds; a lease is over that much after its time, never before.
const SLACK: SignedDuration = SignedDuration::from_secs(2);
/// Longest time to live that is believed, in seconds: a record cannot block everybody for longer than this.
pub(super) const MAX_TTL: u64 = 24 * 3600;

/// The stored record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Record {
    pub(super) format: u32,
    pub(super) stanza: Stanza,
    pub(super) name: String,
    /// The fencing token: one more than that of the holder before.
    pub(super) token: u64,
    /// Who holds it, in words.
    pub(super) holder: String,
    /// Random name of this one holding; two processes of one name are two sessions.
    pub(super) session: String,
    pub(super) ttl_seconds: u64,
    /// Makes every version of the record different from the one before.
    pub(super) renewals: u64,
    pub(super) released: bool,
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// A record as found, and when the store received it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) record: Record,
    pub(super) modified: Timestamp,
}

impl Seen {
    /// When it ends by itself, by the store's clock.
    pub(super) fn until(&self) -> Timestamp {
        let ttl = SignedDuration::from_secs(self.record.ttl_seconds.min(MAX_TTL).cast_signed());
        self.modified.saturating_add(ttl).unwrap_or(Timestamp::MAX)
    }

    fn is_over(&self, store_now: Timestamp) -> bool {
        self.record.released || store_now.duration_since(self.until()) >= SLACK
    }
}

/// Who wants a lease.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) stanza: Stanza,
    pub(super) name: String,
    pub(super) holder: String,
    pub(super) session: String,
    pub(super) ttl_seconds: u64,
}

/// What a contender does next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Store this record over the one seen.
    Take(Box<Record>),
    /// The record seen is this contender's own: an earlier write arrived though its reply did not.
    Mine,
    /// Find out the store's time and decide again.
    AskTime,
    /// Somebody else holds it.
    Busy { holder: String, until: Timestamp },
}

/// Decides what a contender does about the record seen. `store_now` is a lower bound of the store's time.
pub(super) fn contend(
    seen: Option<&Seen>,
    store_now: Option<Timestamp>,
    claim: &Claim,
) -> Result<Step, ManifestError> {
    let Some(seen) = seen else { return Ok(Step::Take(Box::new(claim.record(1)))) };
    let record = &seen.record;
    if record.session == claim.session && !record.released {
        return Ok(Step::Mine);
    }
    if !record.released && store_now.is_none() {
        return Ok(Step::AskTime);
    }
    if !store_now.is_some_and(|now| seen.is_over(now)) && !record.released {
        return Ok(Step::Busy { holder: record.holder.clone(), until: seen.until() });
    }
    let exhausted = || ManifestError::Damaged { problem: "its token cannot grow any more".to_owned() };
    let token = record.token.checked_add(1).ok_or_else(exhausted)?;
    Ok(Step::Take(Box::new(claim.record(token))))
}

/// Whether a holder still holds what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Held,
    Lost { holder: String },
}

/// Compares the record seen with the one that a holder wrote.
pub(super) fn standing(seen: Option<&Seen>, mine: &Record) -> Standing {
    match seen {
        Some(Seen { record, .. }) if record.token == mine.token && record.session == mine.session => {
            if record.released {
                Standing::Lost { holder: "nobody: it was released".to_owned() }
            } else {
                Standing::Held
            }
        }
        Some(Seen { record, .. }) => Standing::Lost { holder: record.holder.clone() },
        None => Standing::Lost { holder: "nobody: its record was removed".to_owned() },
    }
}

impl Claim {
    fn record(&self, token: u64) -> Record {
        Record {
            format: FORMAT_MAJOR,
            stanza: self.stanza.clone(),
            name: self.name.clone(),
            token,
            holder: self.holder.clone(),
            session: self.session.clone(),
            ttl_seconds: self.ttl_seconds,
            renewals: 0,
            released: false,
            unknown: Map::new(),
        }
    }
}

impl Record {
    /// The record that extends it.
    pub(super) fn renewed(&self) -> Self {
        Self { renewals: self.renewals.saturating_add(1), ..self.clone() }
    }

    /// The record that gives it up.
    pub(super) fn released(&self) -> Self {
        Self { released: true, ..self.renewed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(session: &str) -> Claim {
        Claim {
            stanza: Stanza::parse("main").unwrap(),
            name: "backup".to_owned(),
            holder: format!("host of {session}"),
            session: session.to_owned(),
            ttl_seconds: 60,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn seen(session: &str, token: u64) -> Seen {
        Seen { record: claim(session).record(token), modified: at(0) }
    }

    fn taken_token(step: Result<Step, ManifestError>) -> u64 {
        match step.unwrap() {
            Step::Take(record) => record.token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_token_is_one_and_each_holder_has_one_more() {
        assert_eq!(taken_token(contend(None, None, &claim("a"))), 1);
        assert_eq!(taken_token(contend(Some(&seen("a", 7)), Some(at(62)), &claim("b"))), 8);
    }

    #[test]
    fn a_held_lease_is_busy_until_the_stores_clock_says_otherwise() {
        let held = seen("a", 1);
        assert_eq!(contend(Some(&held), None, &claim("b")).unwrap(), Step::AskTime);
        for second in [-100, 0, 59, 60, 61] {
            let step = contend(Some(&held), Some(at(second)), &claim("b")).unwrap();
            assert!(matches!(step, Step::Busy { until, .. } if until == at(60)), "{second}");
        }
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let released = Seen { record: seen("a", 4).record.released(), modified: at(0) };
        assert_eq!(taken_token(contend(Some(&released), None, &claim("b"))), 5);
    }

    #[test]
    fn a_lost_reply_is_recognised_as_ones_own() {
        assert_eq!(contend(Some(&seen("a", 1)), None, &claim("a")).unwrap(), Step::Mine);
    }

    #[test]
    fn tokens_never_wrap() {
        assert!(contend(Some(&seen("a", u64::MAX)), Some(at(1000)), &claim("b")).is_err());
    }

    #[test]
    fn a_record_cannot_claim_eternity() {
        let mut eternal = seen("a", 1);
        eternal.record.ttl_seconds = u64::MAX;
        assert_eq!(taken_token(contend(Some(&eternal), Some(at(24 * 3600 + 2)), &claim("b"))), 2);
    }

    #[test]
    fn a_holder_knows_its_standing() {
        let mine = claim("a").record(3);
        let found = |record: Record| standing(Some(&Seen { record, modified: at(0) }), &mine);
        assert_eq!(found(mine.renewed()), Standing::Held);
        assert!(matches!(found(mine.released()), Standing::Lost { .. }));
        assert_eq!(found(claim("b").record(4)), Standing::Lost { holder: "host of b".to_owned() });
        assert!(matches!(found(claim("a").record(5)), Standing::Lost { .. }));
        assert!(matches!(standing(None, &mine), Standing::Lost { .. }));
    }
}
