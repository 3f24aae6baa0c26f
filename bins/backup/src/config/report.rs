//! What `backup-config` prints.

use std::fmt;
use std::time::Duration;

use backstay_cli::{Exit, human};
use backstay_file_ops::config_set::{ConfigPlan, ConfigReport, Problem};
use jiff::Timestamp;
use serde::Serialize;

use crate::file_sets::{exit, print_missing, print_problems};

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Plan(pub(super) ConfigPlan);

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.0;
        let how = if plan.encrypted { "encrypted" } else { "without encryption" };
        write!(
            f,
            "would back up {} files with {}, {} folders and {} links, {how}",
            plan.files,
            human::Bytes(plan.bytes),
            plan.folders,
            plan.links
        )?;
        print_problems(f, &plan.problems)?;
        collisions(f, plan.case_collisions)?;
        for finding in &plan.findings {
            write!(f, "\n! a secret: {finding}")?;
        }
        Ok(())
    }
}

fn collisions(f: &mut fmt::Formatter<'_>, number: u64) -> fmt::Result {
    if number == 0 {
        return Ok(());
    }
    write!(
        f,
        "\n- {number} names differ from others in upper and lower case only; a restore wants --allow-case-collisions for them"
    )
}

/// What a run prints that stored a set.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct BackedUp {
    set: String,
    stanza: String,
    name: String,
    recovery_point: String,
    unchanged: bool,
    complete: bool,
    encrypted: bool,
    files: u64,
    folders: u64,
    links: u64,
    bytes: u64,
    stored_bytes: u64,
    case_collisions: u64,
    privileged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<u64>,
    problems: Vec<Problem>,
    stored_in: Vec<String>,
    pub(super) missing_in: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
    seconds: f64,
}

impl BackedUp {
    pub(super) fn new(report: &ConfigReport) -> Self {
        let (manifest, facts) = (&report.receipt.manifest, &report.facts);
        Self {
            set: manifest.set.to_string(),
            stanza: manifest.stanza.to_string(),
            name: manifest.source.database.clone(),
            recovery_point: manifest.recovery_point.to_string(),
            unchanged: false,
            complete: manifest.complete,
            encrypted: manifest.objects.iter().all(|object| !object.recipients.is_empty()),
            files: facts.files,
            folders: facts.folders,
            links: facts.links,
            bytes: facts.bytes,
            stored_bytes: manifest.stored_size(),
            case_collisions: facts.case_collisions,
            privileged: facts.privileged,
            secrets: (facts.secrets > 0).then_some(facts.secrets),
            problems: report.problems.clone(),
            stored_in: report.receipt.stored_in.clone(),
            missing_in: report.receipt.missing_in.clone(),
            warnings: Vec::new(),
            seconds: report.elapsed.as_secs_f64(),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        exit(self.complete, !self.missing_in.is_empty())
    }
}

impl fmt::Display for BackedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.complete { "" } else { "incomplete " };
        write!(
            f,
            "{state}set {} of {}: {} files with {}, {} folders, {} links, stored as {} in {:.1} s ({}{})",
            self.set,
            self.name,
            self.files,
            human::Bytes(self.bytes),
            self.folders,
            self.links,
            human::Bytes(self.stored_bytes),
            self.seconds,
            self.stored_in.join(", "),
            if self.encrypted { "" } else { "; not encrypted" }
        )?;
        print_missing(f, &self.missing_in)?;
        if let Some(secrets) = self.secrets {
            let (are, they) = if secrets == 1 { ("is", "its version") } else { ("are", "their versions") };
            write!(f, "\n  {secrets} of its secrets {are} kept elsewhere; {they} in use {are} noted")?;
        }
        print_problems(f, &self.problems)?;
        collisions(f, self.case_collisions)?;
        if !self.privileged {
            f.write_str("\n- not root: attributes of files that only root sees are not in the set")?;
        }
        for warning in &self.warnings {
            write!(f, "\n! {warning}")?;
        }
        Ok(())
    }
}

/// What a run prints that had nothing to do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Unchanged {
    set: String,
    unchanged: bool,
    recovery_point: String,
    looked_at: u64,
    missing_in: Vec<(String, String)>,
    seconds: f64,
}

impl Unchanged {
    pub(super) fn new(
        set: String,
        recovery_point: Timestamp,
        looked_at: u64,
        elapsed: Duration,
        missing_in: Vec<(String, String)>,
    ) -> Self {
        let (recovery_point, seconds) = (recovery_point.to_string(), elapsed.as_secs_f64());
        Self { set, unchanged: true, recovery_point, looked_at, missing_in, seconds }
    }
}

impl fmt::Display for Unchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unchanged since set {} of {}: nothing was stored ({} looked at in {:.1} s)",
            self.set, self.recovery_point, self.looked_at, self.seconds
        )?;
        for (repository, reason) in &self.missing_in {
            write!(f, "\n  not looked at in {repository}: {reason}")?;
        }
        Ok(())
    }
}
