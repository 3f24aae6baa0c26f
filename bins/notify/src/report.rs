//! What the commands print.

use std::fmt;

use backstay_cli::{Context, Exit, Failure};
use backstay_notify::incident::Incident;
use backstay_notify::render::{clean_line, clean_text, stamp};
use backstay_notify::{JOURNAL, Report, Told};
use serde::Serialize;

/// What became of a notice.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Sent {
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<Incident>,
    #[serde(flatten)]
    report: Report,
}

impl Sent {
    pub(crate) fn about(told: &Told) -> Self {
        Self { incident: Some(told.incident.clone()), report: told.report.clone() }
    }

    pub(crate) fn alone(report: Report) -> Self {
        Self { incident: None, report }
    }

    /// Prints it. Nothing is lost when something waits, so that is no failure.
    pub(crate) fn print(&self, ctx: &Context) -> Result<Exit, Failure> {
        let exit = if self.report.is_in_trouble() { Exit::Data } else { Exit::Done };
        ctx.finish(self, exit)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(incident) = &self.incident {
            let title = clean_line(&incident.title);
            write!(f, "{} [{}] {title}: {}", incident.id, incident.severity, incident.status)?;
        }
        let before = if self.incident.is_some() { "\n" } else { "" };
        let report = Round(&self.report).to_string();
        if report.is_empty() { Ok(()) } else { write!(f, "{before}{report}") }
    }
}

/// What a round did, in lines.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Round<'a>(pub(crate) &'a Report);

impl fmt::Display for Round<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let mut lines = Vec::new();
        lines.extend(report.fired.iter().map(|timer| format!("due: {timer}")));
        for delivered in report.delivered.iter().filter(|delivered| delivered.channel != JOURNAL) {
            let late = match delivered.merged {
                0 => String::new(),
                merged => format!(", with {merged} later ones"),
            };
            lines.push(format!("told {}: {}{late}", delivered.channel, delivered.notice));
        }
        for waiting in &report.waiting {
            let until = waiting.until.map_or_else(String::new, |until| format!(", next attempt {until:.0}"));
            let problem =
                waiting.problem.as_deref().map_or_else(String::new, |problem| format!(" ({problem})"));
            lines.push(format!("waits for {}: {}{until}{problem}", waiting.channel, waiting.notice));
        }
        for lost in &report.given_up {
            lines.push(format!("! {} will not take {}: {}", lost.channel, lost.notice, lost.problem));
        }
        lines.extend(report.damaged.iter().map(|damaged| format!("! damaged: {damaged}")));
        f.write_str(&lines.join("\n"))
    }
}

/// The incidents.
#[derive(Debug, Serialize)]
pub(crate) struct Incidents {
    pub(crate) incidents: Vec<Incident>,
    #[serde(skip)]
    pub(crate) all: bool,
}

impl fmt::Display for Incidents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.incidents.is_empty() {
            return f.write_str(if self.all { "no incident is known" } else { "no incident is open" });
        }
        let line = |incident: &Incident| {
            let who = match (&incident.acknowledged, incident.resolved) {
                (_, Some(_)) => String::new(),
                (Some(who), None) => format!(", acknowledged by {}", clean_line(&who.by)),
                (None, None) => ", not acknowledged".to_owned(),
            };
            format!(
                "{}  {}  {:<13}  {}{who}",
                incident.id,
                incident.severity,
                incident.status.to_string(),
                clean_line(&incident.title)
            )
        };
        f.write_str(&self.incidents.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// One incident, as the draft of what is written about it afterwards.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) incident: Incident,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let incident = &self.incident;
        writeln!(f, "# {} {}\n", incident.severity, clean_line(&incident.title))?;
        writeln!(f, "- Incident: {}", incident.id)?;
        writeln!(f, "- Status: {}", incident.status)?;
        if !incident.impact.is_empty() {
            writeln!(f, "- Impact: {}", clean_line(&incident.impact))?;
        }
        if let Some(commander) = &incident.commander {
            writeln!(f, "- Commander: {}", clean_line(commander))?;
        }
        if !incident.tiers.is_empty() {
            writeln!(f, "- Tiers: {}", clean_line(&incident.tiers.join(", ")))?;
        }
        writeln!(f, "- Began: {}", stamp(incident.since))?;
        match &incident.acknowledged {
            Some(who) => writeln!(f, "- Acknowledged: {} by {}", stamp(who.at), clean_line(&who.by))?,
            None => writeln!(f, "- Acknowledged: no")?,
        }
        if let Some(due) = incident.update_due {
            writeln!(f, "- Next update by: {}", stamp(due))?;
        }
        if let (Some(resolved), Some(downtime)) = (incident.resolved, incident.downtime()) {
            writeln!(f, "- Over: {}, after {downtime:#}", stamp(resolved))?;
        }
        for receipt in &incident.receipts {
            let what = clean_line(&receipt.what);
            writeln!(f, "- Restore of {what}: {} s measured", receipt.rto_millis.div_ceil(1000))?;
        }
        write!(f, "\n## Timeline\n")?;
        for entry in &incident.timeline {
            let (text, by) = (clean_text(&entry.text), clean_line(&entry.by));
            write!(f, "\n- {} **{}** {text} ({by})", stamp(entry.at), entry.status)?;
        }
        Ok(())
    }
}
