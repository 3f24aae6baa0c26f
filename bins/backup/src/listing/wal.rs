//! What `list-backups` says of WAL: ranges, gaps, from when to when recovery is possible, and what would be lost now.

use std::fmt;

use backstay_cli::human::{Ago, Bytes};
use backstay_postgres_ops::recovery::{ClusterStatus, Point, ReachEnd, TimelineStatus, WindowStatus};
use backstay_postgres_ops::wal_archive::{RepositoryWal, Run};
use jiff::{SignedDuration, Timestamp};

/// Gaps and runs that are printed; `--json` has all of them.
const SHOWN: usize = 20;

/// A cluster as text.
pub(super) struct Cluster<'a>(pub(super) &'a ClusterStatus);

impl fmt::Display for Cluster<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = self.0;
        write!(f, "WAL of cluster {}, segments of {}", cluster.system, Bytes(cluster.segment_size))?;
        cluster.timelines.iter().try_for_each(|timeline| write_timeline(f, timeline))?;
        cluster.windows.iter().try_for_each(|window| write_window(f, window))?;
        for unusable in &cluster.unusable {
            write!(f, "\n! set {} cannot be made consistent: {} is missing", unusable.set, unusable.missing)?;
        }
        cluster.repositories.iter().try_for_each(|repository| write_repository(f, repository))?;
        match (cluster.last_recoverable, cluster.rpo_seconds) {
            (Some(at), Some(seconds)) => {
                let ago = Ago(SignedDuration::from_secs(seconds));
                write!(f, "\n  RPO now: the last commit that can be recovered is from {}, {ago}", second(at))
            }
            _ => {
                let why = cluster.rpo_unknown.as_deref().unwrap_or("nothing is known");
                write!(f, "\n! RPO now: unknown, {why}")
            }
        }
    }
}

fn write_timeline(f: &mut fmt::Formatter<'_>, timeline: &TimelineStatus) -> fmt::Result {
    write!(f, "\n  timeline {}", timeline.timeline.number())?;
    if let (Some(parent), Some(branch)) = (timeline.parent, timeline.branch) {
        write!(f, " (left {} at {branch})", parent.number())?;
    }
    match (timeline.runs.iter().next(), timeline.runs.iter().next_back()) {
        (Some(first), Some(last)) => {
            write!(f, ": {} to {}, {} segments", first.first, last.last, timeline.segments)?;
        }
        _ => write!(f, ": no segments")?,
    }
    if let Some(problem) = &timeline.problem {
        write!(f, "\n! timeline {}: {problem}", timeline.timeline.number())?;
    }
    for gap in timeline.gaps.iter().take(SHOWN) {
        write!(f, "\n! gap: {}", Gap(gap))?;
    }
    let more = timeline.gaps.len().saturating_sub(SHOWN);
    if more > 0 { write!(f, "\n! and {more} more gaps") } else { Ok(()) }
}

fn write_window(f: &mut fmt::Formatter<'_>, window: &WindowStatus) -> fmt::Result {
    let sets = window.sets.len();
    let word = if sets == 1 { "base backup" } else { "base backups" };
    let (from, to) = (Place(&window.from), Place(&window.to));
    let timeline = window.timeline.number();
    write!(f, "\n  recoverable from {from} to {to} on timeline {timeline}, with {sets} {word}")?;
    if let ReachEnd::Gap { missing, resumes } = window.end {
        write!(f, "\n! then {missing} is missing; the log goes on with {resumes}")?;
    }
    window.problem.iter().try_for_each(|problem| write!(f, "\n! the end of this cannot be told: {problem}"))
}

fn write_repository(f: &mut fmt::Formatter<'_>, repository: &RepositoryWal) -> fmt::Result {
    let name = &repository.repository;
    if let Some(problem) = &repository.problem {
        write!(f, "\n! WAL in repository {name} could not be listed: {problem}")?;
    }
    let runs: Vec<_> = repository.missing.iter().flat_map(|runs| runs.iter()).collect();
    if !runs.is_empty() {
        let count: u64 = runs.iter().map(|run| run.count).sum();
        let named: Vec<_> = runs.iter().take(3).map(|run| Gap(run).to_string()).collect();
        let more = if runs.len() > 3 { " …" } else { "" };
        write!(
            f,
            "\n! repository {name} lacks {count} segments that others have: {}{more}",
            named.join(", ")
        )?;
    }
    let foreign = repository.foreign;
    if foreign > 0 {
        write!(f, "\n! repository {name} has {foreign} objects that are no WAL")
    } else {
        Ok(())
    }
}

/// Segments that follow one another.
struct Gap<'a>(&'a Run);

impl fmt::Display for Gap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.count {
            1 => self.0.first.fmt(f),
            count => write!(f, "{} to {} ({count} segments)", self.0.first, self.0.last),
        }
    }
}

/// A point, by its time where that is known.
struct Place<'a>(&'a Point);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.at {
            Some(at) => write!(f, "{} ({})", second(at), self.0.lsn),
            None => write!(f, "{}", self.0.lsn),
        }
    }
}

fn second(at: Timestamp) -> impl fmt::Display {
    at.strftime("%Y-%m-%d %H:%M:%SZ")
}
