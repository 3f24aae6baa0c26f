use std::fmt;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;
use backstay_backup_core::id::SetId;
use jiff::Timestamp;
use serde::Serialize;

use super::RecoveryTarget;
use crate::wal::{Lsn, Segment, SystemId, Timeline, Xid};

/// A point that recovery can reach, or that something is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Point {
    /// Its position.
    pub lsn: Lsn,
    /// Its time, where that is known.
    pub at: Option<Timestamp>,
}

/// Why a target cannot be reached, and what can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case", tag = "refused")]
#[non_exhaustive]
pub enum Refusal {
    /// There is nothing to begin with.
    #[error("there is no base backup of cluster {system}")]
    NoBase {
        /// The cluster.
        system: SystemId,
    },
    /// There are base backups, none of them on the way to this timeline.
    #[error("no base backup is on the way to timeline {timeline}: there are some on {}", list(.bases))]
    OtherTimeline {
        /// The timeline asked for.
        timeline: Timeline,
        /// Timelines that base backups are on.
        bases: Vec<Timeline>,
    },
    /// Nobody knows how a timeline came about.
    #[error("the history of timeline {timeline} cannot be had: {why}")]
    NoHistory {
        /// The timeline.
        timeline: Timeline,
        /// Why.
        why: String,
    },
    /// The log that a base backup needs to become consistent is not there.
    #[error(
        "no base backup on the way to timeline {timeline} can be made consistent: set {set} needs {missing}"
    )]
    Inconsistent {
        /// The timeline asked for.
        timeline: Timeline,
        /// The newest such set.
        set: SetId,
        /// The first segment that it needs and that is missing.
        missing: Segment,
    },
    /// The target lies before the first base backup is consistent.
    #[error("{target} cannot be reached: the first point that can is {earliest}, with set {set}")]
    BeforeConsistency {
        /// What was asked for.
        target: RecoveryTarget,
        /// The first point that can be reached.
        earliest: Point,
        /// With which set.
        set: SetId,
    },
    /// The target lies after everything that is archived.
    #[error("{target} cannot be reached: the archive ends at {last}")]
    AfterEnd {
        /// What was asked for.
        target: RecoveryTarget,
        /// The last point that can be reached.
        last: Point,
    },
    /// The target lies behind segments that are missing.
    #[error("{target} cannot be reached: {missing} is missing; before it recovery reaches {before}{}", again(.after))]
    InGap {
        /// What was asked for.
        target: RecoveryTarget,
        /// The first segment that is missing.
        missing: Segment,
        /// The first one after the gap.
        resumes: Segment,
        /// The last point before it.
        before: Point,
        /// The first point after it, with a newer base backup.
        after: Option<Point>,
    },
    /// A segment is there and what is in it breaks off.
    #[error(
        "{target} cannot be reached: the log breaks off at {at}, although more of it is archived: {what}"
    )]
    Damaged {
        /// What was asked for.
        target: RecoveryTarget,
        /// The first position without a record.
        at: Lsn,
        /// What is there.
        what: String,
    },
    /// No such transaction or restore point is in what can be recovered.
    #[error(
        "{target} is not in the archive, which was read from {from} to {to}{}{}", whole(.part_of), hole(.unread)
    )]
    NotFound {
        /// What was asked for.
        target: RecoveryTarget,
        /// Where the search began.
        from: Lsn,
        /// Where it ended.
        to: Lsn,
        /// The transaction that the one asked for is a part of.
        part_of: Option<Xid>,
        /// The first segment that is missing in between: it may be there.
        unread: Option<Segment>,
    },
    /// Several restore points have the name.
    #[error("{target} exists {} times: at {}", .candidates.len(), list(.candidates))]
    Ambiguous {
        /// What was asked for.
        target: RecoveryTarget,
        /// Where.
        candidates: Vec<Point>,
    },
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{at} ({})", self.lsn),
            None => self.lsn.fmt(f),
        }
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn again(point: &Option<Point>) -> String {
    point.map(|point| format!(", after it again from {point} on")).unwrap_or_default()
}

fn whole(part_of: &Option<Xid>) -> String {
    part_of.map(|xid| format!("; it is a part of transaction {xid}")).unwrap_or_default()
}

fn hole(missing: &Option<Segment>) -> String {
    missing.map(|segment| format!("; {segment} is missing, so it may be there")).unwrap_or_default()
}

impl Refusal {
    /// Points that can be reached instead, nearest first.
    #[must_use]
    pub fn nearest(&self) -> Vec<Point> {
        match self {
            Self::BeforeConsistency { earliest, .. } => vec![*earliest],
            Self::AfterEnd { last, .. } => vec![*last],
            Self::InGap { before, after, .. } => [*before].into_iter().chain(*after).collect(),
            Self::Damaged { at, .. } => vec![Point { lsn: *at, at: None }],
            Self::Ambiguous { candidates, .. } => candidates.clone(),
            _ => vec![],
        }
    }
}

impl Classified for Refusal {
    fn class(&self) -> Class {
        match self {
            Self::Inconsistent { .. } | Self::InGap { .. } | Self::Damaged { .. } => Class::Data,
            // What could not be read is not absent.
            Self::NotFound { unread: Some(_), part_of: None, .. } => Class::Data,
            _ => Class::Absent,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::OtherTimeline { .. } => Some("name a timeline that a base backup is on".to_owned()),
            Self::AfterEnd { .. } => {
                Some("ask for the latest point, or wait until more is archived".to_owned())
            }
            Self::Ambiguous { .. } => Some("give the position of the one that is meant".to_owned()),
            Self::NotFound { part_of: Some(xid), .. } => Some(format!("ask for transaction {xid}")),
            Self::InGap { .. } | Self::NotFound { unread: Some(_), .. } => Some(
                "look for the missing segments in pg_wal of the old primary, or take another point"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
