use backstay_backup_core::id::SetId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Point, RecoveryTarget, Stretch};
use crate::wal::{Lsn, SystemId, Timeline};
use crate::wal_archive::Run;

/// What recovery needs, and where it will end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RecoveryPlan {
    /// The cluster.
    pub system: SystemId,
    /// The base backup.
    pub set: SetId,
    /// What was asked for.
    pub target: RecoveryTarget,
    /// `recovery_target_timeline`.
    pub timeline: Timeline,
    /// What is armed. PostgreSQL either ends there or fails.
    pub stop: StopPoint,
    /// Through which timelines, oldest first.
    pub path: Vec<Stretch>,
    /// Segments that recovery reads, all of them in the archive, oldest first.
    pub segments: Vec<Run>,
    /// Timelines whose history files it reads, all of them in the archive.
    pub histories: Vec<Timeline>,
    /// Where the base backup is consistent.
    pub consistent: Lsn,
    /// The end of the last record that will be replayed.
    pub expected_end: Lsn,
    /// Time of the last commit that will be there, where it is known.
    pub reached: Option<Timestamp>,
    /// What will not be there.
    pub loss: Loss,
}

/// What is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum StopPoint {
    /// `recovery_target = 'immediate'`.
    Immediate,
    /// `recovery_target_lsn` and `recovery_target_inclusive`. A record begins at exactly this position.
    Record {
        /// Where the record begins.
        lsn: Lsn,
        /// Whether it is replayed.
        inclusive: bool,
    },
}

/// What is in the archive behind the end of a recovery, on the same timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Loss {
    /// Bytes of log.
    pub bytes: u64,
    /// Commits, when they are few enough to be counted.
    pub transactions: Option<u64>,
    /// The last commit there is, where it is known.
    pub until: Option<Timestamp>,
    /// From the last commit that will be there to the last one there is, in milliseconds, where both are known.
    pub millis: Option<i64>,
    /// Whether there is still more behind a gap, of which nothing is known.
    pub more_behind_gap: bool,
}

impl RecoveryPlan {
    /// The point that recovery will reach.
    #[must_use]
    pub fn point(&self) -> Point {
        Point { lsn: self.expected_end, at: self.reached }
    }

    /// How many segments will be read.
    #[must_use]
    pub fn segment_count(&self) -> u64 {
        self.segments.iter().map(|run| run.count).sum()
    }
}

/// The time between two commits in milliseconds; never negative, since concurrent ones may not ascend.
pub(super) fn span_millis(reached: Option<Timestamp>, until: Option<Timestamp>) -> Option<i64> {
    let span: SignedDuration = until?.duration_since(reached?);
    i64::try_from(span.as_millis()).ok().map(|millis| millis.max(0))
}
