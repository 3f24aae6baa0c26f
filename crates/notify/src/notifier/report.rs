//! What a round did.

use jiff::Timestamp;
use serde::Serialize;

use crate::incident::Incident;

/// What a round did, and what is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Report {
    /// What channels took.
    pub delivered: Vec<Delivered>,
    /// What is still to be delivered.
    pub waiting: Vec<Waiting>,
    /// What never will be.
    pub given_up: Vec<GivenUp>,
    /// Reminders and escalations that went off.
    pub fired: Vec<String>,
    /// Objects of the outbox that were damaged, and put aside.
    pub damaged: Vec<String>,
    /// When something is due next.
    pub next: Option<Timestamp>,
}

/// A message that a channel took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Delivered {
    /// The channel.
    pub channel: String,
    /// The notice.
    pub notice: String,
    /// Attempts it took.
    pub attempts: u32,
    /// Later notices that went with it.
    pub merged: usize,
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// The channel.
    pub channel: String,
    /// The notice.
    pub notice: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next; as soon as another process lets go of the channel without it.
    pub until: Option<Timestamp>,
    /// Why it waits.
    pub problem: Option<String>,
}

/// A message that will not arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GivenUp {
    /// The channel.
    pub channel: String,
    /// The notice.
    pub notice: String,
    /// Why.
    pub problem: String,
}

/// An incident after a call, and what became of the messages about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Told {
    /// The incident.
    pub incident: Incident,
    /// What was delivered at once.
    pub report: Report,
}

impl Report {
    /// Whether there is anything to tell of the round.
    #[must_use]
    pub fn did_something(&self) -> bool {
        !(self.delivered.is_empty()
            && self.given_up.is_empty()
            && self.fired.is_empty()
            && self.damaged.is_empty())
    }

    /// Whether something must be looked at by a person.
    #[must_use]
    pub fn is_in_trouble(&self) -> bool {
        !(self.given_up.is_empty() && self.damaged.is_empty())
    }

    pub(super) fn add(&mut self, other: Self) {
        self.delivered.extend(other.delivered);
        self.waiting.extend(other.waiting);
        self.given_up.extend(other.given_up);
        self.damaged.extend(other.damaged);
    }
}
