//! What the archive holds of each cluster, from when to when it can be recovered, and how much would be lost now.

use std::collections::BTreeSet;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::error::describe;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::replicas::Repositories;
use jiff::Timestamp;
use serde::Serialize;

use super::choose::end_point;
use super::inquiry::TAIL;
use super::{
    BaseBackup, PhysicalSets, PlanError, Point, ReachEnd, Span, TimelinePath, Unusable, read_tail, windows,
};
use crate::wal::{Lsn, SegmentSize, SystemId, Timeline};
use crate::wal_archive::{
    HistoryState, RepositoryWal, Run, Runs, WalArchive, WalArchiveError, WalSurvey, survey_stanza,
};

/// What can be recovered of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The cluster.
    pub system: SystemId,
    /// Bytes of its segments.
    pub segment_size: u64,
    /// Its timelines, by number.
    pub timelines: Vec<TimelineStatus>,
    /// From where to where recovery is possible.
    pub windows: Vec<WindowStatus>,
    /// Base backups that lack the log to become consistent.
    pub unusable: Vec<Unusable>,
    /// Each repository.
    pub repositories: Vec<RepositoryWal>,
    /// The last commit that can be recovered; `None` when that is not known, never when it is merely old.
    pub last_recoverable: Option<Timestamp>,
    /// Seconds since then by the host's clock: what would be lost now.
    pub rpo_seconds: Option<i64>,
    /// Why that is not known.
    pub rpo_unknown: Option<String>,
}

/// What is archived of one timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct TimelineStatus {
    /// Its number.
    pub timeline: Timeline,
    /// The timeline that it left; `None` for the first, and where that is not known.
    pub parent: Option<Timeline>,
    /// Where it left it.
    pub branch: Option<Lsn>,
    /// Why its past is not known.
    pub problem: Option<String>,
    /// How many segments.
    pub segments: u64,
    /// Segments without a gap between them.
    pub runs: Runs,
    /// What is missing between the runs.
    pub gaps: Vec<Run>,
    /// Segments that a promotion cut off. Recovery never reads them.
    pub partials: Runs,
}

/// From where to where recovery is possible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct WindowStatus {
    /// The timeline that is followed.
    pub timeline: Timeline,
    /// The first point, at the end of the oldest of the base backups.
    pub from: Point,
    /// The last point. Its time is that of the last commit, where it could be found.
    pub to: Point,
    /// Base backups to begin with, oldest first.
    pub sets: Vec<SetId>,
    /// What comes after it.
    pub end: ReachEnd,
    /// Why the end could not be read, or what is wrong with it.
    pub problem: Option<String>,
}

/// Looks at all clusters of a stanza. Costs a listing of the log, and for each window a read of its last segment.
///
/// # Errors
/// As [`survey_stanza`]. What cannot be read of a single segment stands in the status.
///
/// # Cancel safety
/// Only reads.
pub async fn cluster_statuses(
    repositories: &Repositories,
    stanza: &Stanza,
    catalog: &Catalog,
    identities: &Identities,
    now: Timestamp,
) -> Result<Vec<ClusterStatus>, WalArchiveError> {
    let sets = PhysicalSets::of(catalog);
    let mut statuses = Vec::new();
    for survey in surveys_of(repositories, stanza, &sets, identities).await? {
        let archive = WalArchive::new(repositories.clone(), stanza.clone(), survey.system);
        statuses.push(status(&archive, identities, &sets.good, &survey, now).await);
    }
    Ok(statuses)
}

/// Surveys of all clusters of which there is WAL or a base backup.
pub(super) async fn surveys_of(
    repositories: &Repositories,
    stanza: &Stanza,
    sets: &PhysicalSets,
    identities: &Identities,
) -> Result<Vec<WalSurvey>, WalArchiveError> {
    let mut surveys = survey_stanza(repositories, stanza, identities).await?;
    let surveyed: BTreeSet<_> = surveys.iter().map(|survey| survey.system).collect();
    let systems: BTreeSet<_> = sets.known().map(|set| set.system).collect();
    let without = systems.difference(&surveyed);
    surveys.extend(without.map(|system| WalSurvey::empty(*system, SegmentSize::DEFAULT)));
    Ok(surveys)
}

async fn status(
    archive: &WalArchive,
    identities: &Identities,
    sets: &[BaseBackup],
    survey: &WalSurvey,
    now: Timestamp,
) -> ClusterStatus {
    let found = windows(sets, survey);
    let mut ends = Vec::new();
    for span in found.spans(survey) {
        ends.push(window(archive, identities, survey, span).await);
    }
    let last_recoverable = ends.iter().filter_map(|window| window.to.at).max();
    let unknown = || {
        let problem = ends.iter().find_map(|window| window.problem.clone());
        let none = if ends.is_empty() { "no base backup can be recovered" } else { "no commit near the end" };
        problem.unwrap_or_else(|| none.to_owned())
    };
    ClusterStatus {
        system: survey.system,
        segment_size: survey.size.bytes(),
        timelines: survey.timelines.keys().map(|timeline| timeline_status(*timeline, survey)).collect(),
        unusable: found.unusable,
        repositories: survey.repositories.clone(),
        last_recoverable,
        rpo_seconds: last_recoverable.map(|at| now.duration_since(at).as_secs()),
        rpo_unknown: if last_recoverable.is_none() { Some(unknown()) } else { None },
        windows: ends,
    }
}

async fn window(
    archive: &WalArchive,
    identities: &Identities,
    survey: &WalSurvey,
    span: Span,
) -> WindowStatus {
    let mut to = Point { lsn: span.to, at: None };
    let problem = match read_tail(archive, identities, survey, &span.range()).await {
        Ok(tail) => {
            to = end_point(&tail, span.to);
            // Where everything since the base backups was read and no commit found, their own state is the newest.
            let read = span.to.since(span.from) / survey.size.bytes() < TAIL;
            to.at = to.at.or(if read { Some(span.from_time) } else { None });
            tail.damage.map(|damage| format!("the log breaks off at {}: {}", damage.at, damage.flaw))
        }
        Err(PlanError::Archive(error)) => Some(describe(&error)),
        Err(error) => Some(error.to_string()),
    };
    let from = Point { lsn: span.from, at: Some(span.from_time) };
    WindowStatus { timeline: span.timeline, from, to, sets: span.sets, end: span.end, problem }
}

fn timeline_status(timeline: Timeline, survey: &WalSurvey) -> TimelineStatus {
    let wal = &survey.timelines[&timeline];
    let (branch, problem) = match &wal.history {
        HistoryState::Known(history) => (history.branches().last().cloned(), None),
        HistoryState::Missing => (None, Some("its history is not archived".to_owned())),
        HistoryState::Unreadable(why) => (None, Some(format!("its history cannot be read: {why}"))),
    };
    TimelineStatus {
        timeline,
        parent: branch.as_ref().map(|branch| branch.timeline),
        branch: branch.map(|branch| branch.end),
        problem,
        segments: wal.segments.count(),
        gaps: gaps(timeline, survey),
        runs: wal.segments.clone(),
        partials: wal.partials.clone(),
    }
}

/// What is missing between the runs of a timeline, and at its beginning, where it begins with a copy of the segment that it
/// left its parent in.
fn gaps(timeline: Timeline, survey: &WalSurvey) -> Vec<Run> {
    let segments = &survey.timelines[&timeline].segments;
    let mut gaps: Vec<_> = segments.gaps().collect();
    let branch = survey.history(timeline).and_then(|history| history.branches().last().cloned());
    if let (Some(branch), Some(first)) = (branch, segments.ranges().next()) {
        let history = survey.history(timeline);
        let begin = branch.end.bytes() / survey.size.bytes();
        if let (Some(history), true) = (history, begin < first.0) {
            gaps.splice(0..0, TimelinePath::new(history, survey.size).runs(begin, first.0 - 1));
        }
    }
    gaps
}
