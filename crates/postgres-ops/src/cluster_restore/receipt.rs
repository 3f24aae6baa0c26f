//! What a restore reached, beside what was planned.

use std::path::PathBuf;

use backstay_backup_core::id::SetId;
use backstay_backup_core::proof::{self, RestoreTest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::apply::FilesReceipt;
use super::server::RecoveryEnd;
use crate::dump::Phase;
use crate::recovery::{Loss, RecoveryPlan, StopPoint, Stretch};
use crate::wal::{Lsn, SystemId, Timeline};

/// What became of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Files and settings are in place; nothing was started, so nothing is proven yet.
    Prepared,
    /// Recovery ended where it was told to, to the byte.
    Exact,
    /// Recovery ended elsewhere. What is missing is named.
    Different,
    /// A standby: open for reading, following without an end.
    Following,
    /// It waits at its target, open for reading. Where exactly, its log says.
    Waiting,
}

/// Receipt of a restore.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClusterReceipt {
    /// What became of it.
    pub outcome: Outcome,
    /// The data directory.
    pub target: PathBuf,
    /// The cluster.
    pub system: SystemId,
    /// The base backup.
    pub set: SetId,
    /// What was armed.
    pub stop: StopPoint,
    /// The timeline that recovery followed.
    pub timeline: Timeline,
    /// Where recovery was to end.
    pub planned: Lsn,
    /// On which timeline; two where one was left for the other just there.
    pub planned_timelines: Vec<Timeline>,
    /// The last commit that was to be there, where it is known.
    pub planned_time: Option<Timestamp>,
    /// Where it ended.
    pub reached: Option<RecoveryEnd>,
    /// The last commit that is there, where it is known.
    pub reached_time: Option<Timestamp>,
    /// What is in the archive behind the end that was reached, or, before a start, behind the planned one.
    pub missing: Loss,
    /// Bytes of log between what was planned and what was reached, when recovery ended too early.
    pub short_by: u64,
    /// Bytes of files that were written.
    pub written_bytes: u64,
    /// Bytes of files that were right already.
    pub reused_bytes: u64,
    /// Files and directories that were removed.
    pub removed: u64,
    /// What is good to know.
    pub notes: Vec<String>,
    /// Where the time went.
    pub phases: Vec<Phase>,
    /// Begin of the restore to a cluster as it was wanted, in seconds.
    pub rto_seconds: f64,
    /// When it was finished.
    pub finished: Timestamp,
}

impl ClusterReceipt {
    /// Whether the plan was kept, as far as anybody can say now.
    #[must_use]
    pub fn is_as_planned(&self) -> bool {
        self.outcome != Outcome::Different
    }

    /// What a proof of the set says about it; only for a restore that was started.
    #[must_use]
    pub fn proof(&self) -> RestoreTest {
        let mut test = RestoreTest::default();
        let millis = |seconds: f64| (seconds * 1000.0).round() as u64;
        test.rto_millis = millis(self.rto_seconds);
        test.phases = self
            .phases
            .iter()
            .map(|phase| proof::Phase { name: phase.name.clone(), millis: millis(phase.seconds) })
            .collect();
        // The end of the recovery.
        test.facts_compared = 1;
        test.differences = self.difference().into_iter().collect();
        test
    }

    /// How the outcome differs from the plan, in words.
    #[must_use]
    pub fn difference(&self) -> Option<String> {
        let reached = self.reached.as_ref().filter(|_| self.outcome == Outcome::Different)?;
        let (planned, timeline) = (self.planned, self.timeline.number());
        Some(format!(
            "recovery was to end at {planned} on timeline {timeline} and ended at {} on timeline {}",
            reached.lsn,
            reached.timeline.number()
        ))
    }
}

impl ClusterReceipt {
    /// Of a restore whose files are in place.
    pub(super) fn prepared(plan: &RecoveryPlan, target: PathBuf, files: &FilesReceipt) -> Self {
        Self {
            outcome: Outcome::Prepared,
            target,
            system: plan.system,
            set: plan.set.clone(),
            stop: plan.stop,
            timeline: plan.timeline,
            planned: plan.expected_end,
            planned_timelines: timelines_at(plan, plan.expected_end),
            planned_time: plan.reached,
            reached: None,
            reached_time: None,
            missing: plan.loss.clone(),
            short_by: 0,
            written_bytes: files.written_bytes,
            reused_bytes: files.reused_bytes,
            removed: files.removed,
            notes: files.notes.clone(),
            phases: files.phases.clone(),
            rto_seconds: 0.0,
            finished: Timestamp::UNIX_EPOCH,
        }
    }

    /// Compares where recovery ended with the plan.
    pub(super) fn judge(&mut self, end: RecoveryEnd) {
        let is_there = match self.stop {
            // A server may have to replay a little more until it is consistent.
            StopPoint::Immediate => end.lsn >= self.planned,
            StopPoint::Record { .. } => end.lsn == self.planned,
        };
        let is_exact = is_there && self.planned_timelines.contains(&end.timeline);
        self.outcome = if is_exact { Outcome::Exact } else { Outcome::Different };
        self.reached_time = self.planned_time.filter(|_| is_exact);
        self.short_by = self.planned.since(end.lsn);
        self.reached = Some(end);
    }
}

/// Timelines that a position of the path is on; at the very position where one was left, the next one too.
fn timelines_at(plan: &RecoveryPlan, at: Lsn) -> Vec<Timeline> {
    let is_on = |stretch: &&Stretch| stretch.from <= at && stretch.until.is_none_or(|until| at <= until);
    plan.path.iter().filter(is_on).map(|stretch| stretch.timeline).collect()
}
