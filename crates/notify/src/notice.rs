//! What people are told: one notice, whatever channels it goes through.
//!
//! A notice holds facts, not text for a channel: templates and channels make the text. It is made once, at the moment
//! something happens, without secrets ([`crate::redact`]), and never changes afterwards.

use std::collections::BTreeMap;
use std::fmt;

use backstay_backup_core::manifest::Sha256Hex;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::incident::{Acknowledgement, Incident, Objective};
use crate::severity::{Severity, Status};

/// Longest id of a notice, in bytes: it travels in headers and keys.
pub const MAX_ID: usize = 120;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// An incident began.
    Opened,
    /// There is news of an incident.
    Update,
    /// Somebody is on it.
    Acknowledged,
    /// An incident is over.
    Resolved,
    /// An update of an incident is overdue.
    Reminder,
    /// Nobody acknowledged an incident in time.
    Escalation,
    /// A task failed.
    TaskFailed,
    /// A task succeeded, for the first time or again.
    TaskSucceeded,
    /// A drill was held.
    DrillReport,
    /// A recovery objective was missed.
    ObjectiveMissed,
    /// Notifications themselves are in trouble.
    Alarm,
    /// Words of the operator.
    Report,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Opened,
        Self::Update,
        Self::Acknowledged,
        Self::Resolved,
        Self::Reminder,
        Self::Escalation,
        Self::TaskFailed,
        Self::TaskSucceeded,
        Self::DrillReport,
        Self::ObjectiveMissed,
        Self::Alarm,
        Self::Report,
    ];

    /// Its name, which is also that of its template.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Update => "update",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Reminder => "reminder",
            Self::Escalation => "escalation",
            Self::TaskFailed => "task-failed",
            Self::TaskSucceeded => "task-succeeded",
            Self::DrillReport => "drill-report",
            Self::ObjectiveMissed => "objective-missed",
            Self::Alarm => "alarm",
            Self::Report => "report",
        }
    }

    /// Whether several late ones may become one message.
    #[must_use]
    pub fn is_mergeable(self) -> bool {
        matches!(self, Self::Update | Self::Report | Self::TaskFailed)
    }

    /// Whether it says nothing once something newer of the same thread is there.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Reminder | Self::Escalation)
    }

    /// Whether it begins something that a pager must show.
    #[must_use]
    pub fn is_alert(self) -> bool {
        matches!(
            self,
            Self::Opened | Self::Escalation | Self::TaskFailed | Self::ObjectiveMissed | Self::Alarm
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One notice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Notice {
    /// Its name: the same for the same thing, so that nothing is told twice.
    pub id: String,
    /// What it belongs to: notices of one thread keep their order.
    pub thread: String,
    /// What it is about.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Status of the incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// When it was written.
    pub created: Timestamp,
    /// What it is, in a line.
    pub title: String,
    /// The words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Who or what suffers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub impact: String,
    /// Who leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commander: Option<String>,
    /// Recovery tiers that are affected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<String>,
    /// When the failure began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When the next word is promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_due: Option<Timestamp>,
    /// Who is on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Who>,
    /// From begin to end, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime: Option<i64>,
    /// Promises, and what was reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objectives: Vec<Objective>,
    /// Where it comes from: host, system, program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Further facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// A name as headers and keys can carry it. What is left out of it, or cut off, stays in it as a digest: two names never
/// become one, and the same name stays the same.
fn name(text: &str) -> String {
    let mut name: String = text.chars().filter(|c| c.is_ascii_graphic()).collect();
    if name == text && name.len() <= MAX_ID {
        return name;
    }
    let digest = hex::encode(&Sha256Hex::of(text.as_bytes()).0[..8]);
    name.truncate(MAX_ID - digest.len() - 1);
    format!("{name}~{digest}")
}

/// Who is on it, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Who.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
}

impl From<&Acknowledgement> for Who {
    fn from(acknowledgement: &Acknowledgement) -> Self {
        Self { by: acknowledgement.by.clone(), at: acknowledgement.at }
    }
}

impl Notice {
    /// A notice with nothing but its title.
    #[must_use]
    pub fn new(
        id: &str,
        thread: &str,
        kind: Kind,
        severity: Severity,
        created: Timestamp,
        title: &str,
    ) -> Self {
        Self {
            id: name(id),
            thread: name(thread),
            kind,
            severity,
            status: None,
            created,
            title: title.to_owned(),
            text: String::new(),
            impact: String::new(),
            commander: None,
            tiers: Vec::new(),
            since: None,
            update_due: None,
            acknowledged: None,
            downtime: None,
            objectives: Vec::new(),
            source: String::new(),
            facts: BTreeMap::new(),
        }
    }

    /// A notice about an incident as it stands, with the last words of its timeline.
    #[must_use]
    pub fn about(incident: &Incident, id: &str, kind: Kind, created: Timestamp) -> Self {
        let mut notice =
            Self::new(id, incident.id.as_str(), kind, incident.severity, created, &incident.title);
        notice.status = Some(incident.status);
        notice.text = incident.timeline.last().map(|entry| entry.text.clone()).unwrap_or_default();
        notice.impact.clone_from(&incident.impact);
        notice.commander.clone_from(&incident.commander);
        notice.tiers.clone_from(&incident.tiers);
        notice.since = Some(incident.since);
        notice.acknowledged = incident.acknowledged.as_ref().map(Who::from);
        notice.downtime = incident.downtime().map(|downtime| downtime.as_secs());
        notice
    }

    /// Adds words.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Adds where it comes from.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Whether a promise was broken.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.objectives.iter().any(Objective::is_missed)
    }

    /// Every text in it, through the same filter.
    #[must_use]
    pub fn map_texts(mut self, change: impl Fn(&str) -> String) -> Self {
        for text in [&mut self.title, &mut self.text, &mut self.impact, &mut self.source] {
            *text = change(text);
        }
        let names = self.objectives.iter_mut().map(|objective| &mut objective.name);
        for text in self.commander.iter_mut().chain(&mut self.tiers).chain(names) {
            *text = change(text);
        }
        self.facts = self.facts.iter().map(|(name, value)| (change(name), change(value))).collect();
        if let Some(who) = &mut self.acknowledged {
            who.by = change(&who.by);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(text: &str) -> String {
        Notice::new(text, text, Kind::Report, Severity::P3, Timestamp::UNIX_EPOCH, "x").id
    }

    #[test]
    fn names_that_are_cut_or_cleaned_stay_apart() {
        let long = "x".repeat(300);
        for (a, b) in [("Zürich", "Zrich"), ("a b", "ab"), (&*format!("{long}1"), &*format!("{long}2"))] {
            assert_ne!(named(a), named(b));
            assert_eq!(named(a), named(a));
        }
        assert_eq!(named("sent~nightly-1"), "sent~nightly-1");
    }

    proptest! {
        #[test]
        fn names_fit_into_headers(text in "(?s).{0,200}") {
            let name = named(&text);
            prop_assert!(name.len() <= MAX_ID && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        }
    }
}
