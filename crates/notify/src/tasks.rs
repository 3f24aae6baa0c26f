//! What the task programs tell by themselves: failure, recovery after it, a first success, a missed objective.
//!
//! A task that fails opens an incident under its own key; while that is open, further failures only speak up when they
//! have something new to say, and the first success resolves it. So a task that fails every minute is told once, the
//! reminders and the escalation of its severity apply, and its end is told with the time it lasted.

use backstay_backup_core::config::NotifyOn;
use backstay_backup_core::manifest::Sha256Hex;
use jiff::Timestamp;

use crate::incident::Objective;
use crate::notice::{Kind, Notice};
use crate::notifier::{Notifier, NotifyError, Opening, Report, Resolution};
use crate::severity::Severity;

/// How a task ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The program.
    pub program: String,
    /// The protected system.
    pub stanza: String,
    /// What of it, where several tasks of one program look after it.
    pub about: Option<String>,
    /// The host.
    pub host: String,
    /// Whether everything was done; a missed objective is done.
    pub success: bool,
    /// Whether an objective was missed.
    pub missed: bool,
    /// What went wrong, or what was done, in words.
    pub words: String,
    /// Objectives and what was reached, where the task knows.
    pub objectives: Vec<Objective>,
    /// When it ended.
    pub at: Timestamp,
    /// Its exit code.
    pub code: u8,
}

impl Ended {
    /// A task of that name that ended so.
    #[must_use]
    pub fn new(program: &str, stanza: &str, host: &str, at: Timestamp, code: u8) -> Self {
        Self {
            program: program.to_owned(),
            stanza: stanza.to_owned(),
            about: None,
            host: host.to_owned(),
            success: matches!(code, 0 | 6),
            missed: code == 6,
            words: String::new(),
            objectives: Vec::new(),
            at,
            code,
        }
    }

    /// Adds words.
    #[must_use]
    pub fn words(mut self, words: impl Into<String>) -> Self {
        self.words = words.into();
        self
    }

    /// What its incidents are about.
    #[must_use]
    pub fn key(&self) -> String {
        let key = format!("task/{}/{}/{}", self.program, self.stanza, self.host);
        match &self.about {
            // Names of databases and folders may hold anything, and a key travels in headers.
            Some(about) => format!("{key}/{}", hex::encode(&Sha256Hex::of(about.as_bytes()).0[..4])),
            None => key,
        }
    }

    fn source(&self) -> String {
        let about = self.about.as_ref().map_or_else(String::new, |about| format!(", {about}"));
        format!("{} on {}, stanza {}{about}", self.program, self.host, self.stanza)
    }
}

/// Tells what the configuration wants to be told of a task that ended.
///
/// # Errors
/// The outbox would not take it. That never changes how the task ended.
///
/// # Cancel safety
/// A dropped call leaves each notice in the outbox or not.
pub async fn tell(notifier: &Notifier, on: &NotifyOn, ended: &Ended) -> Result<Report, NotifyError> {
    if on.is_silent() || (!on.programs.is_empty() && !on.programs.contains(&ended.program)) {
        return Ok(Report::default());
    }
    let severity = |name: &Option<String>| name.as_ref().and_then(|name| name.parse::<Severity>().ok());
    if !ended.success {
        let Some(severity) = severity(&on.failure) else { return Ok(Report::default()) };
        let title = format!("{} failed", ended.program);
        let mut opening = Opening::new(severity, &title, &ended.source());
        opening.text = format!("{} (exit code {})", ended.words, ended.code);
        opening.key = Some(ended.key());
        opening.kind = Kind::TaskFailed;
        let report = notifier.open_incident(&opening).await?.report;
        // Said before: then what others could not say.
        return if report == Report::default() { notifier.deliver_what_waits().await } else { Ok(report) };
    }
    let is_first = notifier.spool().is_first(&ended.key()).await?;
    let key = Some(notifier.key(&ended.key()));
    let open = notifier.incidents(false).await?.into_iter().find(|incident| incident.key == key);
    let recovered = match open {
        Some(incident) => {
            let mut end = Resolution::new(&format!("{} succeeded again", ended.program), &ended.source());
            end.kind = Kind::TaskSucceeded;
            Some(notifier.resolve_incident(incident.id.as_str(), &end).await?.report)
        }
        None => None,
    };
    if let (true, Some(severity)) = (ended.missed, severity(&on.objective_missed)) {
        let title = format!("{} missed its objective", ended.program);
        let mut notice = notice(ended, Kind::ObjectiveMissed, severity, &title);
        notice.objectives.clone_from(&ended.objectives);
        return notifier.send(notice, &[]).await;
    }
    match recovered {
        Some(report) => Ok(report),
        None if on.every_success || (on.first_success && is_first) => {
            let title = if is_first { "succeeded for the first time" } else { "succeeded" };
            let mut notice =
                notice(ended, Kind::TaskSucceeded, Severity::P3, &format!("{} {title}", ended.program));
            if is_first {
                notice.facts.insert("first".to_owned(), "yes".to_owned());
            }
            notifier.send(notice, &[]).await
        }
        // Nothing to tell: then what others could not.
        None => notifier.deliver_what_waits().await,
    }
}

fn notice(ended: &Ended, kind: Kind, severity: Severity, title: &str) -> Notice {
    let id = format!("{}~{}~{}", ended.key(), kind, ended.at.as_microsecond());
    Notice::new(&id, &ended.key(), kind, severity, ended.at, title)
        .text(ended.words.clone())
        .source(ended.source())
}
