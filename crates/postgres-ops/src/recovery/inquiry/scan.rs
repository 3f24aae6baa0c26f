//! Fetches the segments of a path one after another, the next ones ahead, and reads them off the async threads.

use backstay_backup_core::Error as CoreError;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{AHEAD, Log, PlanError};
use crate::recovery::TimelinePath;
use crate::wal::{Lsn, WalFile};
use crate::wal_archive::{Fetched, WalArchiveError};
use crate::wal_records::{LogEnd, Progress, Record, RecordReader, RecordSpan};

/// What one segment holds.
pub(super) struct Step {
    /// Its records that say something, with what was begun in the segment before.
    pub(super) events: Vec<Record>,
    /// The first record of any kind that begins at the position asked for, or later.
    pub(super) at: Option<RecordSpan>,
    /// Where the log ends, if it does.
    pub(super) end: Option<LogEnd>,
}

/// Reads from one segment to another.
pub(super) struct Scan<'a> {
    segments: BoxStream<'a, Result<(WalFile, Bytes), WalArchiveError>>,
    reader: RecordReader,
}

impl<'a> Scan<'a> {
    pub(super) fn new(log: Log<'a>, path: &TimelinePath, first: u64, last: u64) -> Self {
        let ahead = usize::try_from(AHEAD / log.survey.size.bytes()).unwrap_or(1).clamp(1, 4);
        let files: Vec<_> = path.runs(first, last);
        let size = log.survey.size;
        let numbers = files.into_iter().flat_map(move |run| {
            let start = run.first.number(size);
            (start..start + run.count).map(move |number| {
                WalFile::Segment(crate::wal::Segment::numbered(run.first.timeline(), number, size))
            })
        });
        let fetch = move |file| async move {
            match log.archive.fetch(file, log.identities).await? {
                Fetched::Content(content) => Ok((file, content)),
                // It was listed a moment ago.
                Fetched::Absent => Err(WalArchiveError::Contradiction { file }),
            }
        };
        let segments = stream::iter(numbers).map(fetch).buffered(ahead).boxed();
        Self { segments, reader: RecordReader::new() }
    }

    /// The last whole record so far.
    pub(super) fn last(&self) -> Option<RecordSpan> {
        self.reader.last()
    }

    /// Reads the next segment; `None` after the last, and after the end of the log. `at` asks for the record there.
    pub(super) async fn next(&mut self, at: Option<Lsn>) -> Result<Option<Step>, PlanError> {
        if self.reader.end().is_some() {
            return Ok(None);
        }
        let Some((file, content)) = self.segments.try_next().await? else { return Ok(None) };
        let mut reader = std::mem::take(&mut self.reader);
        let reading = tokio::task::spawn_blocking(move || {
            let (mut events, mut found) = (Vec::new(), None);
            let result = reader.read_all(&content, &mut |span, record| {
                if found.is_none() && at.is_some_and(|at| span.start >= at) {
                    found = Some(span);
                }
                events.extend(record);
            });
            (reader, events, found, result)
        });
        let joined = reading.await.map_err(|error| CoreError::Internal { what: error.to_string() });
        let (reader, events, at, result) = joined.map_err(WalArchiveError::from)?;
        self.reader = reader;
        let end = match result.map_err(|source| WalArchiveError::Content { file, source })? {
            Progress::More => None,
            Progress::End(end) => Some(end),
        };
        Ok(Some(Step { events, at, end }))
    }
}
