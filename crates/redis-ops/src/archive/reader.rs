//! Reads archived bytes again: exactly those between two offsets of a line, proven, in order.
//!
//! ```text
//! survey ─▶ line ─▶ path: segments in order, merged ones first ─▶ two fetched at a time ─▶ bytes
//!                      ▲                                              │ a segment is damaged in every repository
//!                      └────────── the rest, by other segments ◀──────┘
//! ```
//!
//! Memory: the segments in flight, [`AHEAD`] times stored form and content, each of [`MAX_SEGMENT`](super::MAX_SEGMENT) at most.

use std::collections::BTreeSet;
use std::sync::Arc;

use backstay_backup_core::encryption::Identities;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

use super::line::Line;
use super::name::{Position, SegmentName, Span};
use super::survey::{SegmentObject, StreamSurvey};
use super::{ArchiveError, StreamArchive};
use crate::Offset;

/// Segments fetched at the same time.
const AHEAD: usize = 2;

/// Where the bytes between two offsets of a line lie.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamPath {
    /// The line.
    pub line: Line,
    /// The bytes.
    pub span: Span,
    /// The segments, in order, with what is taken of each.
    pub pieces: Vec<(SegmentObject, Span)>,
}

impl StreamSurvey {
    /// The segments that have the bytes between two offsets of a line. Pure.
    ///
    /// # Errors
    /// [`ArchiveError::Gap`] when some of them are nowhere.
    pub fn path(&self, line: &Line, from: Offset, to: Offset) -> Result<StreamPath, ArchiveError> {
        self.path_without(line, Span { start: from, end: to }, &BTreeSet::new())
    }

    fn path_without(
        &self,
        line: &Line,
        span: Span,
        avoid: &BTreeSet<SegmentName>,
    ) -> Result<StreamPath, ArchiveError> {
        let mut pieces = Vec::new();
        for (id, part) in line.pieces() {
            let wanted = part.and(&span);
            let found = self.pieces(*id, wanted, |name| avoid.contains(name));
            let gap = |at| ArchiveError::Gap { from: Position::new(*id, at), to: line.position(span.end) };
            pieces.extend(found.map_err(gap)?);
        }
        Ok(StreamPath { line: line.clone(), span, pieces })
    }
}

/// Hands out the bytes of a path.
pub struct StreamReader {
    archive: StreamArchive,
    survey: Arc<StreamSurvey>,
    identities: Identities,
    line: Line,
    /// The bytes to come.
    rest: Span,
    avoid: BTreeSet<SegmentName>,
    fetched: Fetches,
}

type Fetches = BoxStream<'static, (SegmentObject, Span, Result<Bytes, ArchiveError>)>;

impl std::fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader").field("rest", &self.rest).finish_non_exhaustive()
    }
}

impl StreamArchive {
    /// Opens the bytes of a path for reading.
    #[must_use]
    pub fn open(&self, survey: Arc<StreamSurvey>, path: StreamPath, identities: &Identities) -> StreamReader {
        let fetched = fetch(self, path.pieces, identities);
        StreamReader {
            archive: self.clone(),
            survey,
            identities: identities.clone(),
            line: path.line,
            rest: path.span,
            avoid: BTreeSet::new(),
            fetched,
        }
    }

    /// The last offset, from `from` on, that had been received by a time of the server's clock, and when it had been. As fine
    /// as segments were cut, a second by default.
    ///
    /// Reads the heads of some segments: the binary logarithm of their number.
    ///
    /// # Errors
    /// [`ArchiveError::TooEarly`] when nothing had been; a head that cannot be read.
    pub async fn offset_at(
        &self,
        survey: &StreamSurvey,
        line: &Line,
        from: Offset,
        time: Timestamp,
    ) -> Result<(Offset, Timestamp), ArchiveError> {
        let end = line.coverage(&survey.histories).reach(from);
        let path = survey.path(line, from, end)?;
        let (mut low, mut high) = (0, path.pieces.len());
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let (object, span) = &path.pieces[middle];
            let head = self.head(object).await?;
            let last = head.by_server(head.last_received);
            if last <= time {
                found = Some((span.end, last));
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // The first one that ended later may be a long one.
        if let Some((object, span)) = path.pieces.get(low)
            && let Some(within) = self.offset_within(object, *span, time).await?
        {
            found = Some(within);
        }
        let too_early = || ArchiveError::TooEarly { stream: self.stream().clone(), time };
        found.ok_or_else(too_early)
    }

    async fn offset_within(
        &self,
        object: &SegmentObject,
        span: Span,
        time: Timestamp,
    ) -> Result<Option<(Offset, Timestamp)>, ArchiveError> {
        let Some(times) = self.times(object).await? else { return Ok(None) };
        let head = self.head(object).await?;
        let entries = times.entries().iter().map(|(offset, at)| (*offset, head.by_server(*at)));
        Ok(entries.rev().find(|(offset, at)| *at <= time && span.start < *offset && *offset <= span.end))
    }
}

impl StreamReader {
    /// The next bytes, as many as lie in one segment; `None` behind the last one.
    ///
    /// # Errors
    /// Any [`ArchiveError`]; what was handed out before is proven.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing; the next one goes on.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        loop {
            let Some((object, span, content)) = self.fetched.next().await else { return Ok(None) };
            match content {
                Ok(content) => {
                    self.rest.start = span.end;
                    return Ok(Some(content));
                }
                Err(error) => self.go_round(&object.name, error)?,
            }
        }
    }

    /// The offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.rest.start
    }

    /// Takes other segments from here on that have the same bytes; the error when there are none.
    fn go_round(&mut self, name: &SegmentName, error: ArchiveError) -> Result<(), ArchiveError> {
        self.avoid.insert(*name);
        let Ok(path) = self.survey.path_without(&self.line, self.rest, &self.avoid) else {
            return Err(error);
        };
        tracing::warn!(%name, %error, "the same bytes are read from other segments");
        self.fetched = fetch(&self.archive, path.pieces, &self.identities);
        Ok(())
    }
}

fn fetch(archive: &StreamArchive, pieces: Vec<(SegmentObject, Span)>, identities: &Identities) -> Fetches {
    let (archive, identities) = (archive.clone(), identities.clone());
    let fetches = pieces.into_iter().map(move |(object, span)| {
        let (archive, identities) = (archive.clone(), identities.clone());
        async move {
            let read = archive.segment(&object, &identities).await;
            let start = object.name.span.start;
            let part = span.start.since(start) as usize..span.end.since(start) as usize;
            let content = read.map(|(_, content)| content.slice(part));
            (object, span, content)
        }
    });
    stream::iter(fetches).buffered(AHEAD).boxed()
}
