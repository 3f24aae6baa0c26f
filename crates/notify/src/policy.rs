//! Who hears of what, when: pure decisions over the configured table.
//!
//! ```text
//! severity → channels at once
//!          → response time: nobody acknowledged → first step of the escalation → … (each a response time later)
//!          → update every …: nobody said anything → a reminder, and another one
//! ```
//!
//! Without a table, P0 goes to the pager, the incident room and the executives; P1 to the incident room and the team;
//! P2 to operations; P3 becomes a ticket. The default names channels by their role (`pager`, `incident`, …); those that
//! are not configured are left out, and [`Policy::explain`] says so.

mod explain;
mod timers;

use std::collections::{BTreeMap, BTreeSet};

use backstay_backup_core::config::NotifyPolicy;
use jiff::SignedDuration;

pub(crate) use explain::span;
pub use explain::{Explained, Step};
pub use timers::{Due, Timer, due, next_due};

use crate::severity::Severity;

/// What one severity means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Who is told everything.
    pub channels: Vec<String>,
    /// Time for somebody to acknowledge; zero: at once, which the first step of the escalation takes as five minutes.
    pub response_time: SignedDuration,
    /// Longest silence while it is open.
    pub update_every: Option<SignedDuration>,
    /// Who is told, step by step, while nobody acknowledges.
    pub escalation: Vec<Vec<String>>,
    /// Who is reminded of an overdue update.
    pub reminders: Vec<String>,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: BTreeMap<Severity, Rule>,
    configured: BTreeSet<String>,
}

const MINUTE: i64 = 60;

impl Policy {
    /// The table of a configuration: what it leaves out is as usual. `channels` are the names of the configured ones.
    #[must_use]
    pub fn new(config: &NotifyPolicy, channels: impl IntoIterator<Item = String>) -> Self {
        let configured: BTreeSet<String> = channels.into_iter().collect();
        let rows = [
            (Severity::P0, &config.p0),
            (Severity::P1, &config.p1),
            (Severity::P2, &config.p2),
            (Severity::P3, &config.p3),
        ];
        let rules = rows
            .into_iter()
            .map(|(severity, row)| {
                let usual = usual(severity);
                let mut channels = row.channels.clone().unwrap_or(usual.channels);
                if let Some(executives) = &row.executives {
                    channels.retain(|name| name != EXECUTIVES);
                    channels.extend(executives.iter().cloned());
                }
                let span = |span: backstay_backup_core::config::TimeSpan| {
                    SignedDuration::from_secs(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
                };
                let rule = Rule {
                    response_time: row.response_time.map_or(usual.response_time, span),
                    update_every: row.update_every.map_or(usual.update_every, |every| {
                        Some(span(every)).filter(|every| !every.is_zero())
                    }),
                    escalation: row.escalation.clone().unwrap_or(usual.escalation),
                    reminders: row.reminders.clone().unwrap_or_else(|| {
                        if row.channels.is_some() {
                            channels.first().cloned().into_iter().collect()
                        } else {
                            usual.reminders
                        }
                    }),
                    channels,
                };
                (severity, rule)
            })
            .collect();
        Self { rules, configured }
    }

    /// The row of a severity.
    #[must_use]
    pub fn rule(&self, severity: Severity) -> &Rule {
        &self.rules[&severity]
    }

    /// Those of the names that are configured, each once. When that leaves none, everybody there is: a message without
    /// any reader is worse than one with too many.
    #[must_use]
    pub fn reach(&self, names: &[String]) -> Vec<String> {
        let mut reached: Vec<String> = Vec::new();
        for name in names {
            if self.configured.contains(name) && !reached.contains(name) {
                reached.push(name.clone());
            }
        }
        if reached.is_empty() { self.configured.iter().cloned().collect() } else { reached }
    }

    /// Who is told of something of that severity at once.
    #[must_use]
    pub fn channels(&self, severity: Severity) -> Vec<String> {
        self.reach(&self.rule(severity).channels)
    }

    /// Names in the table that no channel has.
    #[must_use]
    pub fn missing(&self) -> Vec<(Severity, String)> {
        let mut missing = BTreeSet::new();
        for (severity, rule) in &self.rules {
            let names = rule.channels.iter().chain(rule.escalation.iter().flatten()).chain(&rule.reminders);
            for name in names.filter(|name| !self.configured.contains(*name)) {
                missing.insert((*severity, name.clone()));
            }
        }
        missing.into_iter().collect()
    }
}

const EXECUTIVES: &str = "executives";

/// The row that a severity has without configuration.
fn usual(severity: Severity) -> Rule {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let minutes = |minutes: i64| SignedDuration::from_secs(minutes * MINUTE);
    match severity {
        Severity::P0 => Rule {
            channels: names(&["pager", "incident", EXECUTIVES]),
            response_time: SignedDuration::ZERO,
            update_every: Some(minutes(15)),
            escalation: vec![names(&["pager", "incident"]), names(&["pager", "team", EXECUTIVES])],
            reminders: names(&["incident"]),
        },
        Severity::P1 => Rule {
            channels: names(&["incident", "team"]),
            response_time: minutes(15),
            update_every: Some(minutes(30)),
            escalation: vec![names(&["pager", "incident"])],
            reminders: names(&["incident"]),
        },
        Severity::P2 => Rule {
            channels: names(&["operations"]),
            response_time: minutes(60),
            update_every: None,
            escalation: vec![names(&["operations", "team"])],
            reminders: names(&["operations"]),
        },
        Severity::P3 => Rule {
            channels: names(&["ticket"]),
            response_time: minutes(240),
            update_every: None,
            escalation: Vec::new(),
            reminders: names(&["ticket"]),
        },
    }
}
