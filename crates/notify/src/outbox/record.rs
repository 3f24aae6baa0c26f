//! What the outbox writes down.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::incident::Event;
use crate::notice::Notice;

/// Version of the records.
pub(super) const FORMAT: u32 = 1;
/// Whoever has not tried for so long after it was time was not there.
const IDLE: SignedDuration = SignedDuration::from_hours(1);

/// A notice and whom it goes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Parcel {
    /// Major version of the format.
    pub format: u32,
    /// The notice; none when only the event is to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
    /// Names of channels.
    pub channels: Vec<String>,
    /// What happened to the incident, for the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// Whether it speaks for a channel that fails; such a parcel has no fallback of its own.
    #[serde(default)]
    pub is_fallback: bool,
}

impl Parcel {
    /// A notice for these channels.
    #[must_use]
    pub fn new(notice: Option<Notice>, channels: Vec<String>, event: Option<Event>) -> Self {
        Self { format: FORMAT, notice, channels, event, is_fallback: false }
    }

    /// Its name, the same for the same thing.
    #[must_use]
    pub fn id(&self) -> String {
        match (&self.notice, &self.event) {
            (Some(notice), _) => notice.id.clone(),
            (None, Some(event)) => format!("event-{}", event.id),
            (None, None) => "empty".to_owned(),
        }
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// To be tried.
    #[default]
    Waiting,
    /// Being tried, or it was when the process died.
    Trying,
    /// The channel has it.
    Accepted,
    /// The channel may have it, and trying again would tell it a third time.
    Unconfirmed,
    /// Given up.
    Dead,
    /// Not told, because something newer says more.
    Superseded,
}

impl Phase {
    /// Whether nothing more is to be done.
    #[must_use]
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Waiting | Self::Trying)
    }
}

/// How far the delivery of one parcel through one channel is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Attempted {
    /// Major version of the format.
    pub format: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Attempts so far.
    pub attempts: u32,
    /// How many of them may have arrived.
    pub unknown: u32,
    /// The first failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// When this was written.
    pub written: Timestamp,
    /// Not to be tried before.
    pub not_before: Timestamp,
    /// Whether the channel itself asked to be left alone until then.
    #[serde(default)]
    pub is_limited: bool,
    /// Later parcels that this message tells as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<u64>,
    /// Whether the fallback was asked.
    #[serde(default)]
    pub fell_back: bool,
    /// The last problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Attempted {
    /// Not tried yet.
    #[must_use]
    pub fn fresh(now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            phase: Phase::Waiting,
            attempts: 0,
            unknown: 0,
            failing_since: None,
            written: now,
            not_before: now,
            is_limited: false,
            group: Vec::new(),
            fell_back: false,
            problem: None,
        }
    }

    /// As it is seen after the process that wrote it has died: an intent without an outcome may have arrived.
    #[must_use]
    pub fn recovered(mut self) -> Self {
        if self.phase == Phase::Trying {
            self.phase = Phase::Waiting;
            self.unknown += 1;
            self.problem = Some("the process ended during the attempt".to_owned());
        }
        self
    }

    /// As it is seen by a host that was off for a while, or had no time yet when it started: it has not failed meanwhile,
    /// because nobody tried.
    #[must_use]
    pub fn resumed(mut self, now: Timestamp) -> Self {
        let idle = now.duration_since(self.written.max(self.not_before));
        if idle > IDLE {
            let later = |since: Timestamp| since.saturating_add(idle).map_or(now, |since| since.min(now));
            self.failing_since = self.failing_since.map(later);
        }
        self
    }

    /// When it may be tried.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        self.not_before
    }

    /// The same wait from now on, after the clock was set back behind the moment this was written; `None` otherwise.
    /// Nobody then waits longer than was meant.
    #[must_use]
    pub fn rebased(&self, now: Timestamp) -> Option<Self> {
        if now >= self.written || self.phase.is_settled() {
            return None;
        }
        let wait = self.not_before.duration_since(self.written).max(SignedDuration::ZERO);
        let not_before = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        // It has failed for as long as it had by then, or its fallback would wait for the old time to come again.
        let failed_for = |since| self.written.duration_since(since).max(SignedDuration::ZERO);
        let failing_since =
            self.failing_since.map(|since| now.saturating_sub(failed_for(since)).unwrap_or(now));
        Some(Self { written: now, not_before, failing_since, ..self.clone() })
    }
}

/// How one delivery ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Settled {
    /// Major version of the format.
    pub format: u32,
    /// When.
    pub at: Timestamp,
    /// The parcel.
    pub seq: u64,
    /// Each channel and its end.
    pub ends: Vec<(String, Phase, Option<String>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_delays_by_the_wait_that_was_meant_and_no_more() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut state = Attempted::fresh(at(100_000));
        state.not_before = at(100_060);
        assert_eq!(state.rebased(at(100_010)), None);
        let back = state.rebased(at(10_000)).unwrap();
        assert_eq!(back.due(), at(10_060), "an hour or a day back: one minute");
        assert_eq!(back.rebased(at(10_001)), None);
        state.failing_since = Some(at(99_900));
        let back = state.rebased(at(10_000)).unwrap();
        assert_eq!(
            back.failing_since,
            Some(at(9_900)),
            "a fallback after two minutes is due in twenty seconds"
        );
    }
}
