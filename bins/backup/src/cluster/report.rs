//! What `backup-cluster` prints.

use std::fmt;

use backstay_cli::{Exit, human};
use backstay_postgres_ops::Phase;
use backstay_postgres_ops::physical::{ClusterBackupPlan, ClusterBackupReport, CorruptPage};
use serde::Serialize;

/// Most damaged pages that are printed; the manifest names more.
const PRINTED: usize = 10;

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Plan(pub(super) ClusterBackupPlan);

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.0;
        let standby = if plan.from_standby { ", a standby" } else { "" };
        write!(
            f,
            "would back up cluster {} of {} (PostgreSQL {}{standby}): {} files, {} in {}",
            plan.system_identifier,
            plan.server,
            plan.server_version,
            plan.files,
            human::Bytes(plan.bytes),
            plan.data_directory
        )?;
        for (oid, name, location, bytes) in &plan.tablespaces {
            write!(f, "\n  tablespace {name} ({oid}), {} of it in {location}", human::Bytes(*bytes))?;
        }
        if plan.unlogged_files > 0 {
            write!(f, "\n  without {} files of unlogged tables", plan.unlogged_files)?;
        }
        for warning in &plan.warnings {
            write!(f, "\n! {warning}")?;
        }
        Ok(())
    }
}

/// What a run prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct BackedUp {
    set: String,
    stanza: String,
    system_identifier: String,
    timeline: u32,
    start_lsn: String,
    stop_lsn: String,
    recovery_point: String,
    from_standby: bool,
    files: u64,
    cluster_bytes: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    corrupt_page_count: u64,
    corrupt_pages: Vec<CorruptPage>,
    stored_in: Vec<String>,
    pub(super) missing_in: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
    phases: Vec<Phase>,
    seconds: f64,
}

impl BackedUp {
    pub(super) fn new(report: &ClusterBackupReport) -> Self {
        let (manifest, facts) = (&report.receipt.manifest, &report.facts);
        Self {
            set: manifest.set.to_string(),
            stanza: manifest.stanza.to_string(),
            system_identifier: facts.system.to_string(),
            timeline: facts.timeline.number(),
            start_lsn: facts.start_lsn.to_string(),
            stop_lsn: facts.stop_lsn.to_string(),
            recovery_point: manifest.recovery_point.to_string(),
            from_standby: facts.from_standby,
            files: facts.files,
            cluster_bytes: facts.bytes,
            plain_bytes: manifest.plain_size(),
            stored_bytes: manifest.stored_size(),
            corrupt_page_count: facts.corrupt_page_count,
            corrupt_pages: facts.corrupt_pages.clone(),
            stored_in: report.receipt.stored_in.clone(),
            missing_in: report.receipt.missing_in.clone(),
            warnings: report.warnings.clone(),
            phases: report.phases.clone(),
            seconds: report.elapsed.as_secs_f64(),
        }
    }

    /// Damaged pages are graver than a repository that is missing.
    pub(super) fn exit(&self, allow_corrupt: bool) -> Exit {
        match (self.corrupt_page_count, self.missing_in.is_empty()) {
            (1.., _) if !allow_corrupt => Exit::Data,
            (_, false) => Exit::Missed,
            (_, true) => Exit::Done,
        }
    }
}

impl fmt::Display for BackedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "set {} of cluster {}: {} files, {} stored as {} in {:.1} s ({}); WAL from {} to {} is archived",
            self.set,
            self.system_identifier,
            self.files,
            human::Bytes(self.cluster_bytes),
            human::Bytes(self.stored_bytes),
            self.seconds,
            self.stored_in.join(", "),
            self.start_lsn,
            self.stop_lsn
        )?;
        for (repository, reason) in &self.missing_in {
            write!(f, "\n  not in {repository}: {reason}")?;
        }
        if self.corrupt_page_count > 0 {
            write!(f, "\n! {} damaged pages:", self.corrupt_page_count)?;
        }
        for page in self.corrupt_pages.iter().take(PRINTED) {
            write!(f, "\n!   {} block {}", page.file, page.block)?;
        }
        for warning in &self.warnings {
            write!(f, "\n! {warning}")?;
        }
        Ok(())
    }
}
