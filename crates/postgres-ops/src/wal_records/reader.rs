//! Reads a log segment by segment.

use super::page::{Geometry, PageHeader};
use super::record::{Assembly, Kind};
use super::{Record, RecordSpan};
use crate::wal::{Lsn, Segment, SegmentHeader, Timeline, WalError};

/// What a record begins at a multiple of.
const ALIGNMENT: u64 = 8;

/// Reads the segments of one log in their order, and calls back with what is in them.
///
/// Reading may begin at any segment: the rest of a record whose beginning is not there is passed over.
#[derive(Clone, Debug, Default)]
pub struct RecordReader {
    log: Option<Log>,
    assembly: Option<Assembly>,
    /// Where the first record begins.
    first: Option<Lsn>,
    last: Option<RecordSpan>,
    end: Option<LogEnd>,
}

/// What is called for each record: where it stands, and what it says if it is one of those that say something.
type Visit<'a> = dyn FnMut(RecordSpan, Option<Record>) + 'a;

/// Where reading goes on within a segment.
enum Next {
    /// At this offset of the page.
    Here(usize),
    /// On a later page.
    Page,
    /// Nowhere: a switch left the rest empty.
    Segment,
}

/// How far a log was read.
#[derive(Clone, Debug)]
struct Log {
    geometry: Geometry,
    /// End of what was given.
    next: Lsn,
    /// The newest timeline seen on a page.
    timeline: Timeline,
    /// No record was begun yet.
    searching: bool,
}

/// Whether the log may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything in the segment is part of the log; the next may be given.
    More,
    /// The log ends in this segment.
    End(LogEnd),
}

/// Where a log ends, as the server would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The first position that holds no whole record.
    pub at: Lsn,
    /// What is there.
    pub flaw: Flaw,
}

/// What stands where a record would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// Zeros: nothing was written there yet.
    #[error("nothing is written there")]
    Nothing,
    /// A page that is none, or of another place or time.
    #[error("the page cannot be read: {0}")]
    Page(&'static str),
    /// A record that is none.
    #[error("the record cannot be read: {0}")]
    Record(&'static str),
}

impl RecordReader {
    /// Begins with the first record that begins in the first segment given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The last whole record so far, of any kind.
    #[must_use]
    pub const fn last(&self) -> Option<RecordSpan> {
        self.last
    }

    /// Where the log ends, once that is known.
    #[must_use]
    pub const fn end(&self) -> Option<LogEnd> {
        self.end
    }

    /// Reads the next segment and calls back for each record that says something. A segment that is shorter than its
    /// header announces is read as far as it goes. After the end of the log nothing more is read.
    ///
    /// # Errors
    /// [`WalError`] when the bytes are no segment, or not the one that follows; nothing is read then.
    pub fn read(&mut self, segment: &[u8], visit: &mut dyn FnMut(Record)) -> Result<Progress, WalError> {
        self.read_all(segment, &mut |_, record| record.into_iter().for_each(&mut *visit))
    }

    /// As [`RecordReader::read`], and calls back for every other record too.
    ///
    /// # Errors
    /// As [`RecordReader::read`].
    pub fn read_all(&mut self, segment: &[u8], visit: &mut Visit<'_>) -> Result<Progress, WalError> {
        if let Some(end) = self.end {
            return Ok(Progress::End(end));
        }
        let (header, geometry) = Geometry::of(segment)?;
        let mut log = self.enter(header, geometry)?;
        let length = segment.len().min(usize::try_from(geometry.size.bytes()).unwrap_or(usize::MAX));
        let result = self.pages(&mut log, header.start, &segment[..length], visit);
        log.next = Lsn::new(header.start.bytes().saturating_add(geometry.size.bytes()));
        self.log = Some(log);
        let flaw = match result {
            Ok(()) if (length as u64) < geometry.size.bytes() => Flaw::Page("it is cut off"),
            Ok(()) => return Ok(Progress::More),
            Err(flaw) => flaw,
        };
        let at = self.last.map(|last| last.end).or(self.first).unwrap_or(header.start);
        let end = LogEnd { at, flaw };
        self.end = Some(end);
        Ok(Progress::End(end))
    }

    /// Whether the segment is the next.
    fn enter(&self, header: SegmentHeader, geometry: Geometry) -> Result<Log, WalError> {
        let Some(log) = &self.log else {
            return Ok(Log { geometry, next: header.start, timeline: header.timeline, searching: true });
        };
        if geometry.system != log.geometry.system {
            return Err(WalError::OtherCluster { found: geometry.system, expected: log.geometry.system });
        }
        if header.start != log.next || geometry.size != log.geometry.size {
            let name = Segment::containing(log.timeline, log.next, log.geometry.size);
            return Err(WalError::OtherSegment { name, at: header.start, timeline: header.timeline });
        }
        // A major upgrade keeps neither log nor system identifier.
        if geometry != log.geometry {
            return Err(WalError::NotWal { what: "it is of another version than the segment before" });
        }
        Ok(log.clone())
    }

    fn pages(
        &mut self,
        log: &mut Log,
        start: Lsn,
        segment: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Flaw> {
        let mut at = start;
        for page in segment.chunks(log.geometry.page) {
            let header = log.geometry.page(page, at)?;
            if header.timeline < log.timeline {
                return Err(Flaw::Page("it is of an older timeline than a page before it"));
            }
            log.timeline = header.timeline;
            if page.len() < log.geometry.page {
                return Err(Flaw::Page("it is cut off"));
            }
            if let Next::Segment = self.page(log, at, &header, page, visit)? {
                return Ok(());
            }
            at = Lsn::new(at.bytes() + page.len() as u64);
        }
        Ok(())
    }

    /// Reads one page.
    fn page(
        &mut self,
        log: &mut Log,
        at: Lsn,
        header: &PageHeader,
        page: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<Next, Flaw> {
        let mut offset = match self.continued(log, at, header, page, visit)? {
            Next::Here(offset) => offset,
            elsewhere => return Ok(elsewhere),
        };
        while offset < page.len() {
            log.searching = false;
            let rest = &page[offset..];
            let total = rest.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            let start = Lsn::new(at.bytes() + offset as u64);
            self.first.get_or_insert(start);
            let mut assembly = Assembly::begin(start, header.timeline, total)?;
            let piece = rest.len().min(total as usize);
            let taken = assembly.take(&rest[..piece], self.last.map(|last| last.start));
            let missing = assembly.missing();
            self.assembly = Some(assembly);
            taken?;
            if missing > 0 {
                return Ok(Next::Page);
            }
            let end = aligned(start.bytes() + piece as u64);
            if self.finish(log, end, visit)?.is_switch() {
                return Ok(Next::Segment);
            }
            offset = usize::try_from(end - at.bytes()).unwrap_or(usize::MAX);
        }
        Ok(Next::Page)
    }

    /// Takes the rest of a record that began on a page before. Returns where the next record begins.
    fn continued(
        &mut self,
        log: &Log,
        at: Lsn,
        header: &PageHeader,
        page: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<Next, Flaw> {
        let room = page.len() - header.length;
        let remaining = header.remaining as usize;
        let Some(assembly) = &mut self.assembly else {
            return match (header.continued, log.searching) {
                (false, _) => Ok(Next::Here(header.length)),
                (true, false) => Err(Flaw::Page("it continues a record that was not begun")),
                (true, true) if remaining >= room => Ok(Next::Page),
                // Both are multiples of 8 when rounded up, so this stays within the page.
                (true, true) => Ok(Next::Here(header.length + remaining.next_multiple_of(8))),
            };
        };
        if header.overwritten {
            // A crash cut the record off for good, and the server went on here.
            self.assembly = None;
            return Ok(Next::Here(header.length));
        }
        if !header.continued || u64::from(header.remaining) != assembly.missing() {
            return Err(Flaw::Page("it does not continue the record before it"));
        }
        let piece = remaining.min(room);
        assembly.take(&page[header.length..header.length + piece], self.last.map(|last| last.start))?;
        if assembly.missing() > 0 {
            return Ok(Next::Page);
        }
        let end = aligned(at.bytes() + (header.length + piece) as u64);
        if self.finish(log, end, visit)?.is_switch() {
            return Ok(Next::Segment);
        }
        Ok(Next::Here(usize::try_from(end - at.bytes()).unwrap_or(usize::MAX)))
    }

    /// Checks the record that is complete, and tells about it.
    fn finish(&mut self, log: &Log, end: u64, visit: &mut Visit<'_>) -> Result<Kind, Flaw> {
        let assembly = self.assembly.take().ok_or(Flaw::Record("it was not begun"))?;
        let (start, timeline) = (assembly.start, assembly.timeline);
        let (kind, event) = assembly.finish(log.geometry.major)?;
        let size = log.geometry.size.bytes();
        let end = if kind.is_switch() { end.next_multiple_of(size) } else { end };
        let span = RecordSpan { start, end: Lsn::new(end) };
        self.last = Some(span);
        visit(span, event.map(|event| Record { span, timeline, event }));
        Ok(kind)
    }
}

fn aligned(position: u64) -> u64 {
    position.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests;
