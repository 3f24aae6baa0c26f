//! The state that events add up to.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::event::{Change, Event, Receipt};
use super::id::IncidentId;
use crate::severity::{Severity, Status};

/// An incident as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Incident {
    /// Its name.
    pub id: IncidentId,
    /// What it is about, for programs.
    pub key: Option<String>,
    /// What it is, in a line.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// How far it has come.
    pub status: Status,
    /// How bad it has been: whoever heard of it then hears of its end.
    #[serde(skip)]
    pub severities: BTreeSet<Severity>,
    /// Who or what suffers.
    pub impact: String,
    /// Who leads.
    pub commander: Option<String>,
    /// Recovery tiers that are affected.
    pub tiers: Vec<String>,
    /// When the failure began: when it was opened, or earlier where somebody knew better.
    pub since: Timestamp,
    /// When it was opened.
    pub opened: Timestamp,
    /// The last word to people; reminders count from here.
    pub last_update: Timestamp,
    /// When the next word is due, by the policy of its severity; only a [`Notifier`](crate::Notifier) knows that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_due: Option<Timestamp>,
    /// When it was opened, by the clock of this host: earlier where that was set back, or is behind another host's.
    #[serde(skip)]
    pub opened_here: Timestamp,
    /// The last word to people, by the clock of this host.
    #[serde(skip)]
    pub updated_here: Timestamp,
    /// Who is on it.
    pub acknowledged: Option<Acknowledgement>,
    /// When it was over.
    pub resolved: Option<Timestamp>,
    /// What restores measured.
    pub receipts: Vec<Receipt>,
    /// What was said, in order.
    pub timeline: Vec<Entry>,
    /// Timers that went off.
    #[serde(skip)]
    pub fired: BTreeSet<String>,
    /// Largest number of its events.
    #[serde(skip)]
    pub number: u64,
}

/// Somebody is on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Acknowledgement {
    /// Who.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Status from then on.
    pub status: Status,
    /// The words.
    pub text: String,
}

impl Incident {
    /// Adds up the events of one incident, in any order; repeated ones count once. `None` without its beginning.
    #[must_use]
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Self> {
        let mut events: Vec<&Event> = events.into_iter().collect();
        // The beginning comes first, whatever clocks and numbers say.
        let order = |event: &Event| {
            let is_later = !matches!(event.change, Change::Opened { .. });
            (is_later, event.number, event.at, event.id.clone())
        };
        events.sort_by_key(|event| order(event));
        events.dedup_by(|a, b| a.id == b.id);
        let mut rest = events.into_iter();
        let mut incident = Self::begin(rest.next()?)?;
        for event in rest {
            incident.apply(event);
        }
        Some(incident)
    }

    fn begin(event: &Event) -> Option<Self> {
        let Change::Opened { title, text, severity, impact, commander, tiers, key, since } = &event.change
        else {
            return None;
        };
        let entry = Entry {
            at: event.at,
            by: event.by.clone(),
            status: Status::Investigating,
            text: if text.is_empty() { title.clone() } else { text.clone() },
        };
        Some(Self {
            id: event.incident.clone(),
            key: key.clone(),
            title: title.clone(),
            severity: *severity,
            severities: BTreeSet::from([*severity]),
            status: Status::Investigating,
            impact: impact.clone(),
            commander: commander.clone(),
            tiers: tiers.clone(),
            since: since.map_or(event.at, |since| since.min(event.at)),
            opened: event.at,
            last_update: event.at,
            update_due: None,
            opened_here: event.at,
            updated_here: event.at,
            acknowledged: None,
            resolved: None,
            receipts: Vec::new(),
            timeline: vec![entry],
            fired: BTreeSet::new(),
            number: event.number,
        })
    }

    fn apply(&mut self, event: &Event) {
        self.number = self.number.max(event.number);
        match &event.change {
            // Two hosts opened the same thing: the first one counts.
            Change::Opened { .. } | Change::Unknown => {}
            Change::Fired { timer } => {
                self.fired.insert(timer.clone());
            }
            // Nothing changes an incident that is over, whichever host did not know it yet.
            _ if self.resolved.is_some() => {}
            Change::Acknowledged => {
                if self.acknowledged.is_none() {
                    self.acknowledged = Some(Acknowledgement { by: event.by.clone(), at: event.at });
                    self.say(event, format!("acknowledged by {}", event.by));
                }
            }
            Change::Updated { text, status, severity, impact, commander } => {
                // A status of "resolved" needs the event that says so.
                let status = status.filter(|status| *status != Status::Resolved);
                self.status = status.unwrap_or(self.status);
                self.severity = severity.unwrap_or(self.severity);
                self.severities.insert(self.severity);
                self.impact = impact.clone().unwrap_or_else(|| self.impact.clone());
                self.commander = commander.clone().or_else(|| self.commander.clone());
                self.last_update = self.last_update.max(event.at);
                self.updated_here = self.last_update;
                self.say(event, text.clone());
            }
            Change::Resolved { text, receipts } => {
                self.status = Status::Resolved;
                self.resolved = Some(event.at.max(self.since));
                self.receipts.clone_from(receipts);
                self.last_update = self.last_update.max(event.at);
                self.updated_here = self.last_update;
                self.say(event, if text.is_empty() { "resolved".to_owned() } else { text.clone() });
            }
        }
    }

    fn say(&mut self, event: &Event, text: String) {
        self.timeline.push(Entry { at: event.at, by: event.by.clone(), status: self.status, text });
    }

    /// Whether it is not over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.resolved.is_none()
    }

    /// From the beginning of the failure to its end; computed, never told.
    #[must_use]
    pub fn downtime(&self) -> Option<SignedDuration> {
        let resolved = self.resolved?;
        Some(resolved.duration_since(self.since).max(SignedDuration::ZERO))
    }
}
