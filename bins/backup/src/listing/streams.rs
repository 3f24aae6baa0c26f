//! What `list-backups` says of archived streams: windows, gaps, and what would be lost now.

use std::fmt;

use backstay_cli::human::{Ago, Bytes};
use backstay_redis_ops::archive::{Gap, RepositoryStream, StreamStatus, WindowStatus};
use jiff::{SignedDuration, Timestamp};

/// Gaps that are printed; `--json` has all of them.
const SHOWN: usize = 20;

/// A stream as text.
pub(super) struct Stream<'a>(pub(super) &'a StreamStatus);

impl fmt::Display for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.0;
        write!(f, "stream {}", stream.stream)?;
        stream.windows.iter().try_for_each(|window| write_window(f, window))?;
        for gap in stream.gaps.iter().take(SHOWN) {
            write_gap(f, gap)?;
        }
        let more = stream.gaps.len().saturating_sub(SHOWN);
        if more > 0 {
            write!(f, "\n! and {more} more gaps")?;
        }
        if stream.unreachable_bytes > 0 {
            write!(f, "\n  {} lie before any base and cannot be recovered", Bytes(stream.unreachable_bytes))?;
        }
        stream.repositories.iter().try_for_each(|repository| write_repository(f, repository))?;
        stream.problems.iter().try_for_each(|problem| write!(f, "\n! {problem}"))?;
        match (stream.last_recoverable, stream.rpo_seconds) {
            (Some(at), Some(seconds)) => {
                let ago = Ago(SignedDuration::from_secs(seconds));
                write!(
                    f,
                    "\n  RPO now: the last write that can be recovered was received at {}, {ago}",
                    second(at)
                )
            }
            _ => {
                let why = stream.rpo_unknown.as_deref().unwrap_or("nothing is known");
                write!(f, "\n! RPO now: unknown, {why}")
            }
        }
    }
}

fn write_window(f: &mut fmt::Formatter<'_>, window: &WindowStatus) -> fmt::Result {
    let word = if window.bases == 1 { "base" } else { "bases" };
    let (from, to) = (window.from.offset, window.to.offset);
    write!(f, "\n  recoverable from {} (offset {from}) to ", second(window.from_time))?;
    match window.to_time {
        Some(at) => write!(f, "{} (offset {to})", second(at))?,
        None => write!(f, "offset {to}")?,
    }
    write!(f, " of {}, with {} {word}", window.replication_id, window.bases)?;
    window.problem.iter().try_for_each(|problem| write!(f, "\n! the end of this cannot be told: {problem}"))
}

fn write_gap(f: &mut fmt::Formatter<'_>, gap: &Gap) -> fmt::Result {
    if gap.from.replication_id == gap.to.replication_id {
        let bytes = gap.to.offset.since(gap.from.offset);
        write!(f, "\n! gap: {bytes} bytes from {} to {}", gap.from, gap.to.offset)?;
    } else {
        write!(f, "\n! gap: from {} to {}", gap.from, gap.to)?;
    }
    if gap.healed {
        write!(f, ", recoverable again from there on")
    } else {
        write!(f, ", without a base behind it")
    }
}

fn write_repository(f: &mut fmt::Formatter<'_>, repository: &RepositoryStream) -> fmt::Result {
    let name = &repository.repository;
    if let Some(problem) = &repository.problem {
        write!(f, "\n! repository {name} could not be listed: {problem}")?;
    }
    if repository.missing > 0 {
        write!(f, "\n! repository {name} lacks {} that others have", Bytes(repository.missing))?;
    }
    if repository.foreign > 0 {
        write!(f, "\n! repository {name} has {} objects that are no part of a stream", repository.foreign)?;
    }
    Ok(())
}

fn second(at: Timestamp) -> impl fmt::Display {
    at.strftime("%Y-%m-%d %H:%M:%SZ")
}
