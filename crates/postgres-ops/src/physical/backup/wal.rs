//! The WAL that a backup needs, and waiting for it.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::time::Instant;

use super::error::BackupError;
use super::session::Stopped;
use super::source::archiver_trouble;
use crate::error::Error;
use crate::physical::WalRange;
use crate::server::Server;
use crate::wal::{Lsn, Segment, SegmentSize, Timeline, TimelineHistory, WalFile};
use crate::wal_archive::WalArchive;

/// How long after one another the archive is asked, at first and at last. Usually the segment is about to come.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The stretches of WAL from `start` to the end of the backup, each on its timeline. Pure.
///
/// `history` is that of the timeline on which the backup ended, when it is another than that of its beginning.
pub(super) fn ranges(stopped: &Stopped, history: Option<&TimelineHistory>) -> Vec<WalRange> {
    let (start, begun) = (stopped.start, stopped.label.timeline);
    let mut ranges = Vec::new();
    let mut from = start;
    let branches = history.map(TimelineHistory::branches).unwrap_or_default();
    for branch in branches.iter().filter(|branch| branch.timeline >= begun && branch.end > start) {
        ranges.push(WalRange { timeline: branch.timeline, start: from, end: branch.end });
        from = branch.end;
    }
    ranges.push(WalRange { timeline: stopped.timeline, start: from, end: stopped.stop.max(from) });
    ranges
}

/// The same stretches with the first byte of whatever follows them. Pure.
///
/// A server that recovers to the earliest consistent point stops when it reads the record behind it, and takes a log
/// without one for cut off. Inside a segment that record is never missing; at the end of one it is in the next.
pub(super) fn with_the_byte_behind(ranges: &[WalRange], size: SegmentSize) -> Vec<WalRange> {
    let mut ranges = ranges.to_vec();
    if let Some(last) = ranges.last_mut()
        && last.end.bytes().is_multiple_of(size.bytes())
    {
        last.end = Lsn::new(last.end.bytes() + 1);
    }
    ranges
}

/// The segments that hold these stretches, in order. Pure.
///
/// Where one timeline leaves another in the middle of a segment, the segment is needed on the later one only: it begins
/// as a copy.
pub(super) fn segments(ranges: &[WalRange], size: SegmentSize) -> Vec<Segment> {
    let mut all: Vec<Segment> = Vec::new();
    for range in ranges {
        let last = Lsn::new(range.end.bytes().saturating_sub(1)).max(range.start);
        let mut next = Some(Segment::containing(range.timeline, range.start, size));
        while let Some(segment) = next.filter(|segment| segment.start(size) <= last) {
            if all.last().is_some_and(|before| before.start(size) == segment.start(size)) {
                all.pop();
            }
            all.push(segment);
            next = segment.next(size);
        }
    }
    all
}

/// Reads the history of a timeline from the server's `pg_wal`. Blocks.
pub(super) fn read_history(
    data_directory: &Path,
    timeline: Timeline,
) -> Result<TimelineHistory, BackupError> {
    let path = data_directory.join("pg_wal").join(WalFile::History(timeline).to_string());
    let text = std::fs::read_to_string(&path).map_err(|source| BackupError::Read { path, source })?;
    TimelineHistory::parse(timeline, &text)
        .map_err(|_| BackupError::Answer { what: "timeline history", text })
}

/// Archives the history of the timeline that a backup is of, where the archive lacks it: the server archives it once,
/// at the promotion, and a stanza that was begun later never gets it. Returns what deserves a word when that fails.
pub(super) async fn keep_history(
    archive: &WalArchive,
    data_directory: &Path,
    timeline: Timeline,
) -> Option<String> {
    let file = WalFile::History(timeline);
    if timeline == Timeline::FIRST || archive.is_stored(file).await.is_ok_and(|stored| stored) {
        return None;
    }
    let content = match tokio::fs::read(data_directory.join("pg_wal").join(file.to_string())).await {
        Ok(content) => content,
        Err(error) => return Some(format!("{file} is not in the archive and cannot be read: {error}")),
    };
    match archive.push(file, content.into()).await {
        Ok(_) => None,
        Err(error) => Some(format!("{file} is not in the archive and cannot be archived: {error}")),
    }
}

/// Waits for segments to be in the archive.
pub(super) struct WalWait<'a> {
    pub(super) archive: &'a WalArchive,
    pub(super) connection: &'a mut PgConnection,
    pub(super) server: &'a Server,
    pub(super) standby: bool,
    pub(super) patience: Duration,
}

impl WalWait<'_> {
    /// Returns when the quorum has every segment.
    pub(super) async fn wait(mut self, needed: &[Segment]) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        let (mut missing, mut pause) = (needed.to_vec(), PAUSES.0);
        loop {
            missing = self.still_missing(missing).await?;
            let Some(first) = missing.first() else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(self.too_late(*first, missing.len(), needed.len()).await);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn still_missing(&self, segments: Vec<Segment>) -> Result<Vec<Segment>, Error> {
        let mut missing = Vec::new();
        for segment in segments {
            // Segments arrive in order, so one that is missing answers for those after it.
            let is_there = missing.is_empty()
                && self.archive.is_stored(WalFile::Segment(segment)).await.map_err(BackupError::from)?;
            if !is_there {
                missing.push(segment);
            }
        }
        Ok(missing)
    }

    async fn too_late(&mut self, first: Segment, missing: usize, needed: usize) -> Error {
        let trouble = if self.standby {
            None
        } else {
            archiver_trouble(self.connection, self.server).await.ok().flatten()
        };
        let remedy = match (&trouble, self.standby) {
            (_, true) => {
                "on a quiet primary a segment does not become full: SELECT pg_switch_wal() there; does the primary \
                 archive to this stanza?"
            }
            (Some(_), _) => "look for archive_command in the server's log",
            (None, _) => "does archive_command archive to this stanza and these repositories?",
        };
        BackupError::WalMissing {
            first: first.to_string(),
            missing,
            needed,
            seconds: self.patience.as_secs(),
            archiver: trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default(),
            remedy,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::physical::backup::label::BackupLabel;

    fn timeline(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    fn stopped(number: u32, start: u64, stop: u64) -> Stopped {
        let label = BackupLabel { text: String::new(), timeline: timeline(1) };
        Stopped {
            start: Lsn::new(start),
            started: Timestamp::UNIX_EPOCH,
            stop: Lsn::new(stop),
            timeline: timeline(number),
            time: Timestamp::UNIX_EPOCH,
            state_of: Timestamp::UNIX_EPOCH,
            label,
        }
    }

    fn names(ranges: &[WalRange]) -> Vec<String> {
        segments(ranges, SegmentSize::DEFAULT).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_backup_that_ends_with_a_segment_needs_the_next_one_too() {
        let needed = |stop| {
            let ranges = ranges(&stopped(1, 0x300_0028, stop), None);
            names(&with_the_byte_behind(&ranges, SegmentSize::DEFAULT))
        };
        assert_eq!(needed(0x3FF_FFF8), ["000000010000000000000003"]);
        assert_eq!(needed(0x400_0000), ["000000010000000000000003", "000000010000000000000004"]);
    }

    #[test]
    fn every_segment_from_start_to_stop_is_needed() {
        let ranges = ranges(&stopped(1, 0x200_0028, 0x400_0000), None);
        assert_eq!(ranges.len(), 1);
        assert_eq!(
            names(&ranges),
            ["000000010000000000000002", "000000010000000000000003"],
            "the end is exclusive"
        );
    }

    #[test]
    fn a_standby_may_follow_another_timeline_meanwhile() {
        let text = "1\t0/3800000\tx\n2\t0/5000000\ty\n";
        let history = TimelineHistory::parse(timeline(3), text).unwrap();
        let ranges = ranges(&stopped(3, 0x280_0000, 0x500_0100), Some(&history));
        let ends: Vec<_> =
            ranges.iter().map(|range| (range.timeline.number(), range.end.to_string())).collect();
        assert_eq!(
            ends,
            [(1, "0/3800000".to_owned()), (2, "0/5000000".to_owned()), (3, "0/5000100".to_owned())]
        );
        let expected = [
            "000000010000000000000002",
            "000000020000000000000003",
            "000000020000000000000004",
            "000000030000000000000005",
        ];
        assert_eq!(names(&ranges), expected);
    }
}
