//! What can happen to an incident.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::id::IncidentId;
use crate::severity::{Severity, Status};

/// Version of the format of events.
pub(crate) const FORMAT: u32 = 1;

/// One thing that happened to an incident. Never changed once it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Event {
    /// Major version of the format.
    pub format: u32,
    /// Chance; tells two events of the same moment apart.
    pub id: String,
    /// The incident.
    pub incident: IncidentId,
    /// One more than the largest number its writer knew: orders events across hosts whose clocks differ.
    pub number: u64,
    /// When, by the writer's clock.
    pub at: Timestamp,
    /// Who: a person, or a program and its host.
    pub by: String,
    /// What.
    pub change: Change,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Event {
    /// An event of that moment; its id is chance.
    #[must_use]
    pub fn new(incident: IncidentId, number: u64, at: Timestamp, by: &str, change: Change) -> Self {
        let id = format!("{:016x}", rand::random::<u64>());
        Self { format: FORMAT, id, incident, number, at, by: by.to_owned(), change, unknown: Map::new() }
    }
}

/// What an event does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Change {
    /// It began.
    #[serde(rename_all = "kebab-case")]
    Opened {
        /// What it is, in a line.
        title: String,
        /// More words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
        /// How bad.
        severity: Severity,
        /// Who or what suffers.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        impact: String,
        /// Who leads.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commander: Option<String>,
        /// Recovery tiers that are affected.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tiers: Vec<String>,
        /// What it is about, for programs: the same key does not open a second incident while one is open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// When the failure began, where that is earlier than the event.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// There is news.
    #[serde(rename_all = "kebab-case")]
    Updated {
        /// The news.
        text: String,
        /// How far it has come now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<Status>,
        /// How bad it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        severity: Option<Severity>,
        /// Who or what suffers now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        impact: Option<String>,
        /// Who leads now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commander: Option<String>,
    },
    /// Somebody is on it.
    Acknowledged,
    /// It is over.
    #[serde(rename_all = "kebab-case")]
    Resolved {
        /// Last words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
        /// What restores measured.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        receipts: Vec<Receipt>,
    },
    /// A reminder or escalation went off.
    Fired {
        /// Which one.
        timer: String,
    },
    /// Something that a later version writes.
    #[serde(other)]
    Unknown,
}

impl Change {
    /// Its name in keys.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Updated { .. } => "updated",
            Self::Acknowledged => "acknowledged",
            Self::Resolved { .. } => "resolved",
            Self::Fired { .. } => "fired",
            Self::Unknown => "unknown",
        }
    }
}

/// What one restore measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Receipt {
    /// What was restored.
    pub what: String,
    /// Clock time from the first request to the usable target, in milliseconds.
    pub rto_millis: u64,
}

impl Receipt {
    /// Such a receipt.
    #[must_use]
    pub fn new(what: &str, rto_millis: u64) -> Self {
        Self { what: what.to_owned(), rto_millis }
    }
}

/// What was promised, against what was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Objective {
    /// Its name, such as `RTO`.
    pub name: String,
    /// The promise in seconds.
    pub target: u64,
    /// What was measured, in seconds.
    pub reached: u64,
}

impl Objective {
    /// Whether the promise was broken.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.reached > self.target
    }
}
