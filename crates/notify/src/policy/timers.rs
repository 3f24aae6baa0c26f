//! Reminders and escalation: which are due for an incident, by its events and the time alone.
//!
//! A timer has a name that is the same on every host and in every run, and what went off is an event of the incident, so
//! nothing goes off twice, and nothing is forgotten by a restart. Whoever looks late fires the newest reminder
//! only, and says how many were missed; of the escalation every step that is due is fired at once. Spans are counted by the
//! clock of this host.

use jiff::{SignedDuration, Timestamp};

use super::Rule;
use crate::incident::Incident;

/// The first step of an escalation whose response time is "at once".
const AT_ONCE: SignedDuration = SignedDuration::from_secs(300);

/// Something that goes off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Nobody acknowledged: this step, counted from 1, of so many.
    Escalation {
        /// The step.
        step: usize,
        /// All steps.
        of: usize,
    },
    /// Nobody said anything: how often that was due by now since the last word.
    Reminder {
        /// How many updates are overdue.
        overdue: i64,
    },
}

/// A timer, when it was due, and whom it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its name: the same on every host.
    pub name: String,
    /// When it was due.
    pub at: Timestamp,
    /// What it is.
    pub timer: Timer,
    /// Channels of the table, configured or not.
    pub channels: Vec<String>,
}

fn later(at: Timestamp, by: SignedDuration, times: i64) -> Timestamp {
    let by = by.checked_mul(i32::try_from(times).unwrap_or(i32::MAX)).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// When an escalation step is due.
fn step_at(incident: &Incident, rule: &Rule, step: usize) -> Timestamp {
    let wait = if rule.response_time.is_zero() { AT_ONCE } else { rule.response_time };
    later(incident.opened_here, wait, i64::try_from(step).unwrap_or(i64::MAX))
}

/// Everything that is due and did not go off, the escalation first.
#[must_use]
pub fn due(incident: &Incident, rule: &Rule, now: Timestamp) -> Vec<Due> {
    let mut all = Vec::new();
    if !incident.is_open() {
        return all;
    }
    if incident.acknowledged.is_none() {
        let of = rule.escalation.len();
        for (index, channels) in rule.escalation.iter().enumerate() {
            let (step, at) = (index + 1, step_at(incident, rule, index + 1));
            let name = format!("escalation-{step}");
            if at <= now && !incident.fired.contains(&name) {
                all.push(Due { name, at, timer: Timer::Escalation { step, of }, channels: channels.clone() });
            }
        }
    }
    if let Some(every) = rule.update_every.filter(|every| every.is_positive()) {
        let silence = now.duration_since(incident.updated_here);
        let overdue = silence.as_secs() / every.as_secs().max(1);
        let name = reminder(incident.updated_here, overdue);
        if overdue >= 1 && !incident.fired.contains(&name) {
            let at = later(incident.updated_here, every, overdue);
            let timer = Timer::Reminder { overdue };
            all.push(Due { name, at, timer, channels: rule.reminders.clone() });
        }
    }
    all
}

fn reminder(since: Timestamp, overdue: i64) -> String {
    format!("reminder-{}-{overdue}", since.as_second())
}

/// When the next timer of an incident goes off that is not due yet.
#[must_use]
pub fn next_due(incident: &Incident, rule: &Rule, now: Timestamp) -> Option<Timestamp> {
    if !incident.is_open() {
        return None;
    }
    let steps = (1..=rule.escalation.len()).filter(|_| incident.acknowledged.is_none());
    let escalation = steps.map(|step| step_at(incident, rule, step)).find(|at| *at > now);
    let reminder = rule.update_every.filter(|every| every.is_positive()).map(|every| {
        let silence = now.duration_since(incident.updated_here).max(SignedDuration::ZERO);
        later(incident.updated_here, every, silence.as_secs() / every.as_secs().max(1) + 1)
    });
    escalation.into_iter().chain(reminder).min()
}
