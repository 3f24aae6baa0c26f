//! Says in words who would hear of something, when, and why.

use std::fmt;

use jiff::SignedDuration;
use serde::Serialize;

use super::Policy;
use crate::severity::Severity;

/// Who hears of something of one severity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Explained {
    /// The severity.
    pub severity: Severity,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
    /// Names of the table that no configured channel has.
    pub not_configured: Vec<String>,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Step {
    /// Seconds after the incident was opened.
    pub after: i64,
    /// Who is told.
    pub channels: Vec<String>,
    /// Why.
    pub why: String,
}

impl Policy {
    /// What would happen to an incident of that severity that nobody touches, for as long as its first reminder.
    #[must_use]
    pub fn explain(&self, severity: Severity) -> Explained {
        let rule = self.rule(severity);
        let mut steps = vec![Step {
            after: 0,
            channels: self.channels(severity),
            why: "it was opened, and every later word".to_owned(),
        }];
        let wait =
            if rule.response_time.is_zero() { SignedDuration::from_secs(300) } else { rule.response_time };
        for (index, channels) in rule.escalation.iter().enumerate() {
            let number = i64::try_from(index + 1).unwrap_or(i64::MAX);
            let why = format!("nobody acknowledged it: step {number} of {}", rule.escalation.len());
            steps.push(Step {
                after: wait.as_secs().saturating_mul(number),
                channels: self.reach(channels),
                why,
            });
        }
        if let Some(every) = rule.update_every {
            let why = format!("no update for {}: a reminder, and again every {0}", span(every));
            steps.push(Step { after: every.as_secs(), channels: self.reach(&rule.reminders), why });
        }
        steps.sort_by_key(|step| step.after);
        let missing = self.missing().into_iter().filter(|(of, _)| *of == severity);
        Explained { severity, steps, not_configured: missing.map(|(_, name)| name).collect() }
    }
}

/// A span in words: `15m`, `1h30m`, `45s`.
#[must_use]
pub(crate) fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String =
        parts.iter().filter(|(n, _)| *n > 0).take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.severity)?;
        for step in &self.steps {
            let when = if step.after == 0 {
                "at once".to_owned()
            } else {
                format!("after {}", span(SignedDuration::from_secs(step.after)))
            };
            let who = if step.channels.is_empty() { "nobody".to_owned() } else { step.channels.join(", ") };
            write!(f, "\n  {when:<12} {who:<40} {}", step.why)?;
        }
        if !self.not_configured.is_empty() {
            write!(f, "\n  not configured: {}", self.not_configured.join(", "))?;
        }
        Ok(())
    }
}
