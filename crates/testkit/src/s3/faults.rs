//! Faults and misbehaviour, changeable while the server runs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Faults injected into requests; replaced as a whole with [`FaultControl::set`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Faults {
    /// Added before every request is looked at.
    pub latency: Duration,
    /// Seconds by which the whole server's clock is ahead (negative: behind).
    ///
    /// Moves the `Date` header, the times of objects, retention, and the window in which a signature is accepted: a
    /// request signed more than 15 minutes away from this clock gets `RequestTimeTooSkewed`.
    pub clock_skew_seconds: i64,
    /// Seed of the probabilities; the same seed and the same order of requests give the same faults.
    pub seed: u64,
    /// Rules; of those that fire for a request the first one acts.
    pub rules: Vec<FaultRule>,
}

impl Faults {
    /// Sets the latency of every request.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Sets how far the server's clock is ahead.
    #[must_use]
    pub fn clock_skew_seconds(mut self, seconds: i64) -> Self {
        self.clock_skew_seconds = seconds;
        self
    }

    /// Sets the seed of the probabilities.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Adds a rule.
    #[must_use]
    pub fn rule(mut self, rule: FaultRule) -> Self {
        self.rules.push(rule);
        self
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// 500 `InternalError`, nothing done.
    InternalError,
    /// 503 `ServiceUnavailable`, nothing done.
    ServiceUnavailable,
    /// 503 `SlowDown`, nothing done.
    SlowDown,
    /// 403 `AccessDenied`, nothing done.
    AccessDenied,
    /// 409 `ConditionalRequestConflict`, nothing done.
    Conflict,
    /// 500 `InternalError` inside a reply with status 200, as `CompleteMultipartUpload` may do; nothing done.
    ErrorInside200,
    /// Any other error, nothing done.
    Error {
        /// HTTP status.
        status: u16,
        /// S3 error code.
        code: String,
    },
    /// Waits, then goes on as usual.
    Delay(Duration),
    /// Closes the connection without doing anything.
    DropRequest,
    /// Does the work, then closes the connection without a reply.
    LoseReply,
    /// Closes the connection after this many bytes of the request body; nothing becomes visible.
    CutUpload(u64),
    /// Closes the connection after this many bytes of the reply body.
    CutReply(u64),
    /// Stops sending the reply body for a while after this many bytes, then goes on.
    StallReply {
        /// Bytes sent before the pause.
        after: u64,
        /// How long nothing is sent.
        pause: Duration,
    },
    /// Sends the reply with the lowest bit of this body byte turned over.
    FlipReplyBit(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Always,
    Nth(u64),
    First(u64),
    From(u64),
    Probability(f64),
}

/// Which requests a fault hits. Counting starts when the rule is installed.
#[derive(Clone, Debug)]
pub struct FaultRule {
    operation: Option<String>,
    key_part: Option<String>,
    when: When,
    effect: Effect,
}

impl FaultRule {
    /// Hits every request of the S3 operation, for example `PutObject`.
    #[must_use]
    pub fn on(operation: impl Into<String>, effect: Effect) -> Self {
        Self { operation: Some(operation.into()), key_part: None, when: When::Always, effect }
    }

    /// Hits every request.
    #[must_use]
    pub fn any(effect: Effect) -> Self {
        Self { operation: None, key_part: None, when: When::Always, effect }
    }

    /// Only requests whose key contains the text.
    #[must_use]
    pub fn key_contains(mut self, text: impl Into<String>) -> Self {
        self.key_part = Some(text.into());
        self
    }

    /// Only the nth matching request, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.when = When::Nth(n);
        self
    }

    /// Only the first n matching requests.
    #[must_use]
    pub fn first(mut self, n: u64) -> Self {
        self.when = When::First(n);
        self
    }

    /// The nth matching request and all after it, counted from 1.
    #[must_use]
    pub fn from_nth(mut self, n: u64) -> Self {
        self.when = When::From(n);
        self
    }

    /// Each matching request with this probability (0 to 1).
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.when = When::Probability(probability.clamp(0.0, 1.0));
        self
    }

    fn matches(&self, operation: &str, key: Option<&str>) -> bool {
        self.operation.as_deref().is_none_or(|name| name == operation)
            && self.key_part.as_deref().is_none_or(|part| key.is_some_and(|key| key.contains(part)))
    }
}

/// Ways in which some store out there breaks the promises of S3; each can be switched on for a storage check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// `If-None-Match: *` is accepted and means nothing.
    IgnoresIfNoneMatch,
    /// Two creates of one key at the same moment both succeed; one after the other still gives 412.
    TwoWinners,
    /// `If-Match` is accepted and means nothing.
    IgnoresIfMatch,
    /// A body that does not match its checksum or Content-MD5 is stored.
    AcceptsWrongChecksums,
    /// A body that does not match its checksum is refused, but has replaced the object already.
    StoresRejectedBodies,
    /// An object shows up in listings only this long after it was written.
    StaleListing(Duration),
    /// Retention and legal holds are recorded and mean nothing.
    DeletesLockedVersions,
    /// Retention and legal hold in a write are accepted and forgotten.
    ForgetsLocks,
    /// Aborting a multipart upload answers 204 and leaves it there.
    KeepsAbortedUploads,
    /// The `Date` header is this many seconds off; nothing else is.
    WrongDate(i64),
}

/// The switches as the operations read them.
#[derive(Clone, Debug, Default)]
pub(super) struct Quirks {
    pub(super) ignores_if_none_match: bool,
    pub(super) two_winners: bool,
    pub(super) ignores_if_match: bool,
    pub(super) accepts_wrong_checksums: bool,
    pub(super) stores_rejected_bodies: bool,
    pub(super) stale_listing: Option<Duration>,
    pub(super) deletes_locked_versions: bool,
    pub(super) forgets_locks: bool,
    pub(super) keeps_aborted_uploads: bool,
    pub(super) date_offset: i64,
}

impl Quirks {
    fn of(switches: &BTreeSet<Misbehaviour>) -> Self {
        let mut quirks = Self::default();
        for switch in switches {
            match *switch {
                Misbehaviour::IgnoresIfNoneMatch => quirks.ignores_if_none_match = true,
                Misbehaviour::TwoWinners => quirks.two_winners = true,
                Misbehaviour::IgnoresIfMatch => quirks.ignores_if_match = true,
                Misbehaviour::AcceptsWrongChecksums => quirks.accepts_wrong_checksums = true,
                Misbehaviour::StoresRejectedBodies => quirks.stores_rejected_bodies = true,
                Misbehaviour::StaleListing(delay) => quirks.stale_listing = Some(delay),
                Misbehaviour::DeletesLockedVersions => quirks.deletes_locked_versions = true,
                Misbehaviour::ForgetsLocks => quirks.forgets_locks = true,
                Misbehaviour::KeepsAbortedUploads => quirks.keeps_aborted_uploads = true,
                Misbehaviour::WrongDate(seconds) => quirks.date_offset = seconds,
            }
        }
        quirks
    }
}

#[derive(Debug)]
struct State {
    faults: Faults,
    seen: Vec<u64>,
    rng: StdRng,
    fired: u64,
    quirks: Arc<Quirks>,
}

/// Changes the faults of a running server; cheap to clone.
#[derive(Clone, Debug)]
pub struct FaultControl {
    state: Arc<Mutex<State>>,
}

impl FaultControl {
    pub(super) fn new() -> Self {
        let state = State {
            faults: Faults::default(),
            seen: Vec::new(),
            rng: StdRng::seed_from_u64(0),
            fired: 0,
            quirks: Arc::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces all faults; counters and the random sequence start again.
    pub fn set(&self, faults: Faults) {
        let mut state = self.lock();
        state.seen = vec![0; faults.rules.len()];
        state.rng = StdRng::seed_from_u64(faults.seed);
        state.fired = 0;
        state.faults = faults;
    }

    /// Adds one rule and leaves everything else as it is.
    pub fn add(&self, rule: FaultRule) {
        let mut state = self.lock();
        state.seen.push(0);
        state.faults.rules.push(rule);
    }

    /// Removes all faults and misbehaviour.
    pub fn clear(&self) {
        self.set(Faults::default());
        self.misbehave([]);
    }

    /// Switches on exactly these kinds of misbehaviour.
    pub fn misbehave(&self, switches: impl IntoIterator<Item = Misbehaviour>) {
        let switches = switches.into_iter().collect();
        self.lock().quirks = Arc::new(Quirks::of(&switches));
    }

    /// Number of requests a rule has hit since [`FaultControl::set`].
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.lock().fired
    }

    pub(super) fn latency(&self) -> Duration {
        self.lock().faults.latency
    }

    pub(super) fn quirks(&self) -> Arc<Quirks> {
        Arc::clone(&self.lock().quirks)
    }

    /// The time by the server's clock.
    pub(super) fn now(&self) -> SystemTime {
        shifted(SystemTime::now(), self.lock().faults.clock_skew_seconds)
    }

    /// The time that goes into the `Date` header.
    pub(super) fn date(&self) -> SystemTime {
        shifted(self.now(), self.quirks().date_offset)
    }

    /// Counts the request against every rule and returns the effect of the first that fires.
    pub(super) fn decide(&self, operation: &str, key: Option<&str>) -> Option<Effect> {
        let mut guard = self.lock();
        let State { faults, seen, rng, fired, .. } = &mut *guard;
        let mut effect = None;
        for (rule, seen) in faults.rules.iter().zip(seen) {
            if !rule.matches(operation, key) {
                continue;
            }
            *seen += 1;
            let fires = match rule.when {
                When::Always => true,
                When::Nth(n) => *seen == n,
                When::First(n) => *seen <= n,
                When::From(n) => *seen >= n,
                When::Probability(p) => rng.random_bool(p),
            };
            if fires && effect.is_none() {
                effect = Some(rule.effect.clone());
            }
        }
        if effect.is_some() {
            *fired += 1;
        }
        effect
    }
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { time.checked_sub(distance) } else { time.checked_add(distance) };
    moved.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nth_hits_once_and_counts_only_matching_requests() {
        let control = FaultControl::new();
        control.set(Faults::default().rule(FaultRule::on("PutObject", Effect::SlowDown).nth(2)));
        assert_eq!(control.decide("PutObject", Some("a")), None);
        assert_eq!(control.decide("GetObject", Some("a")), None);
        assert_eq!(control.decide("PutObject", Some("a")), Some(Effect::SlowDown));
        assert_eq!(control.decide("PutObject", Some("a")), None);
        assert_eq!(control.fired(), 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let draw = |seed| {
            let control = FaultControl::new();
            let rule = FaultRule::any(Effect::InternalError).probability(0.5);
            control.set(Faults::default().seed(seed).rule(rule));
            (0..64).map(|_| control.decide("GetObject", None).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((10..54).contains(&draw(7).iter().filter(|hit| **hit).count()));
    }
}
