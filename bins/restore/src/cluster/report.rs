//! What `restore-cluster` prints.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use backstay_cli::human::{Bytes, Elapsed};
use backstay_postgres_ops::cluster_restore::{ClusterPlan, ClusterReceipt, FilesPlan, Outcome, RestoreMode};
use backstay_postgres_ops::recovery::{Loss, RecoveryPlan, StopPoint};
use jiff::Timestamp;
use serde::Serialize;

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Plan<'a> {
    #[serde(flatten)]
    pub(super) plan: &'a ClusterPlan,
    pub(super) restore_command: String,
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (recovery, files) = (&self.plan.recovery, &self.plan.files);
        writeln!(f, "would recover cluster {} to {}", recovery.system, recovery.target)?;
        write_end(f, recovery)?;
        write_log(f, recovery)?;
        write_files(f, files)?;
        match self.plan.expected_seconds {
            Some(seconds) => {
                writeln!(f, "  takes about {}, from the newest measured restore", Elapsed(span(seconds)))?;
            }
            None => writeln!(f, "  takes an unknown time: no restore of this cluster was measured yet")?,
        }
        for passed_over in &self.plan.passed_over {
            writeln!(f, "! {passed_over}")?;
        }
        write!(f, "  restore_command = {}", self.restore_command)
    }
}

fn write_end(f: &mut fmt::Formatter<'_>, recovery: &RecoveryPlan) -> fmt::Result {
    let how = match recovery.stop {
        StopPoint::Immediate => "as soon as it is consistent".to_owned(),
        StopPoint::Record { lsn, inclusive: true } => format!("after the record at {lsn}"),
        StopPoint::Record { lsn, inclusive: false } => format!("before the record at {lsn}"),
    };
    let last = recovery.reached.map_or_else(String::new, |at| format!(", last commit {at}"));
    writeln!(
        f,
        "  ends at {} on timeline {} ({how}{last})",
        recovery.expected_end,
        recovery.timeline.number()
    )?;
    writeln!(f, "  {}", Lost(&recovery.loss, "will not be there"))
}

fn write_log(f: &mut fmt::Formatter<'_>, recovery: &RecoveryPlan) -> fmt::Result {
    writeln!(f, "  base backup {}, consistent at {}", recovery.set, recovery.consistent)?;
    let runs: Vec<_> = recovery
        .segments
        .iter()
        .map(|run| {
            if run.count == 1 {
                run.first.to_string()
            } else {
                format!("{} and {} more", run.first, run.count - 1)
            }
        })
        .collect();
    writeln!(f, "  WAL, all of it in the archive: {}", runs.join(", "))?;
    let path: Vec<_> = recovery.path.iter().map(|stretch| stretch.timeline.number().to_string()).collect();
    writeln!(f, "  timelines: {}", path.join(" → "))
}

fn write_files(f: &mut fmt::Formatter<'_>, files: &FilesPlan) -> fmt::Result {
    let into = files.target.display();
    let (count, bytes) = (files.files, Bytes(files.bytes));
    match files.mode {
        RestoreMode::Continue => writeln!(f, "  completes the restore in {into}: {count} files, {bytes}")?,
        RestoreMode::Delta => {
            writeln!(f, "  compares {into} and replaces what differs: {count} files, {bytes}")?;
        }
        _ => writeln!(f, "  {count} files, {bytes}, into {into}; {} to read", Bytes(files.stored_bytes))?,
    }
    if files.removals > 0 {
        writeln!(
            f,
            "  removes {} that the set does not have, {}",
            files.removals,
            Bytes(files.removed_bytes)
        )?;
    }
    for tablespace in &files.tablespaces {
        let (name, directory) = (&tablespace.name, tablespace.directory.display());
        writeln!(f, "  tablespace {name} into {directory} (was in {})", tablespace.original)?;
    }
    Ok(())
}

/// What a restore says at its end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Receipt<'a> {
    #[serde(flatten)]
    pub(super) receipt: &'a ClusterReceipt,
    pub(super) kept: PathBuf,
    #[serde(rename = "unkept")]
    pub(super) notes: Vec<String>,
}

impl fmt::Display for Receipt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receipt = self.receipt;
        write_outcome(f, receipt)?;
        writeln!(
            f,
            "  base backup {}: {} written, {} were right already, {} removed",
            receipt.set,
            Bytes(receipt.written_bytes),
            Bytes(receipt.reused_bytes),
            receipt.removed
        )?;
        for note in receipt.notes.iter().chain(&self.notes) {
            writeln!(f, "! {note}")?;
        }
        if receipt.rto_seconds > 0.0 {
            write!(f, "  RTO {:.1} s:", receipt.rto_seconds)?;
            for phase in &receipt.phases {
                write!(f, " {} {:.1}", phase.name, phase.seconds)?;
            }
            writeln!(f)?;
        }
        write!(f, "  receipt: {}", self.kept.display())
    }
}

fn write_outcome(f: &mut fmt::Formatter<'_>, receipt: &ClusterReceipt) -> fmt::Result {
    let target = receipt.target.display();
    let planned = Position { lsn: receipt.planned.to_string(), at: receipt.planned_time };
    match receipt.outcome {
        Outcome::Exact => {
            writeln!(f, "{target} was recovered exactly as planned, to {planned}")?;
            write_new_timeline(f, receipt)?;
            writeln!(f, "  {}", Lost(&receipt.missing, "is in the archive behind that and not here"))
        }
        Outcome::Different => {
            writeln!(f, "{target} is NOT what was planned: {}", receipt.difference().unwrap_or_default())?;
            write_new_timeline(f, receipt)?;
            writeln!(f, "  {} of log short", Bytes(receipt.short_by))?;
            writeln!(f, "  {}", Lost(&receipt.missing, "is in the archive and not here"))
        }
        Outcome::Following => writeln!(f, "{target} is a standby, open for reading"),
        Outcome::Waiting => {
            writeln!(
                f,
                "{target} waits at its target, planned at {planned}; `SELECT pg_wal_replay_resume()` promotes it"
            )
        }
        _ => {
            writeln!(f, "{target} is ready to be started; it will recover to {planned}")?;
            writeln!(f, "  {}", Lost(&receipt.missing, "will not be there"))?;
            writeln!(
                f,
                "  start the server, then compare: restore-cluster --check-receipt --data-directory {target}"
            )
        }
    }
}

fn write_new_timeline(f: &mut fmt::Formatter<'_>, receipt: &ClusterReceipt) -> fmt::Result {
    let Some(reached) = &receipt.reached else { return Ok(()) };
    writeln!(f, "  now on timeline {}: {}", reached.new_timeline.number(), reached.reason)
}

struct Position {
    lsn: String,
    at: Option<Timestamp>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} (last commit {at})", self.lsn),
            None => f.write_str(&self.lsn),
        }
    }
}

/// What is behind a point.
struct Lost<'a>(&'a Loss, &'a str);

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(loss, verb) = self;
        if loss.bytes == 0 && !loss.more_behind_gap {
            return f.write_str("nothing that is archived is left out");
        }
        let commits =
            loss.transactions.map_or_else(|| "an unknown number of".to_owned(), |it| it.to_string());
        write!(f, "{} of log with {commits} commits", Bytes(loss.bytes))?;
        if let Some(until) = loss.until {
            write!(f, ", the last at {until},")?;
        }
        write!(f, " {verb}")?;
        if loss.more_behind_gap {
            f.write_str("; there is more behind a gap")?;
        }
        Ok(())
    }
}

fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
