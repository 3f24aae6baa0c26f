//! The header that every page of a segment begins with.

use super::Flaw;
use crate::wal::{HEADER_LENGTH, Lsn, SegmentHeader, SegmentSize, SystemId, Timeline, WalError};

/// Bytes of the header of a page that is not the first of its segment.
const SHORT_HEADER: usize = 24;
/// The page begins with the rest of a record.
const CONTINUED: u16 = 1;
/// The page has the header of a segment.
const LONG: u16 = 2;
/// The record before was never finished; the server began anew here after a crash.
const OVERWRITTEN: u16 = 8;
const ALL_FLAGS: u16 = 15;

/// What the pages of one log have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) major: u32,
    pub(super) magic: u16,
    pub(super) system: SystemId,
    pub(super) size: SegmentSize,
    /// Bytes of a page: 8192 unless the server was built otherwise.
    pub(super) page: usize,
}

/// The header of one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageHeader {
    pub(super) timeline: Timeline,
    /// Bytes of a record before this page that are still missing; 0 unless `continued`.
    pub(super) remaining: u32,
    pub(super) continued: bool,
    pub(super) overwritten: bool,
    /// Where its records begin.
    pub(super) length: usize,
}

impl Geometry {
    /// Reads it off the first bytes of a segment.
    pub(super) fn of(segment: &[u8]) -> Result<(SegmentHeader, Self), WalError> {
        let header = SegmentHeader::parse(segment)?;
        let page = segment.get(36..40).and_then(|bytes| bytes.first_chunk());
        let page = page.map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
        // From 1 kB to 64 kB, as `configure --with-wal-blocksize` allows.
        if !page.is_power_of_two() || !(1 << 10..=1 << 16).contains(&page) {
            return Err(WalError::NotWal { what: "its pages have a size that no server is built with" });
        }
        if header.start.bytes().checked_add(header.size.bytes()).is_none() {
            return Err(WalError::NotWal { what: "it ends after the last position that there is" });
        }
        let magic = u16::from_le_bytes([segment[0], segment[1]]);
        let (major, system, size) = (header.major, header.system, header.size);
        Ok((header, Self { major, magic, system, size, page }))
    }

    /// Reads the header of the page that begins at `at`.
    pub(super) fn page(&self, page: &[u8], at: Lsn) -> Result<PageHeader, Flaw> {
        let header = page.first_chunk::<SHORT_HEADER>().ok_or(Flaw::Page("it is cut off"))?;
        let (number, address) = (u32_at(header, 4), u64_at(header, 8));
        let info = u16::from_le_bytes([header[2], header[3]]);
        if u16::from_le_bytes([header[0], header[1]]) != self.magic {
            return Err(Flaw::Page("it does not begin like a page"));
        }
        if info & !ALL_FLAGS != 0 {
            return Err(Flaw::Page("its flags are unknown"));
        }
        if address != at.bytes() {
            return Err(Flaw::Page("it says that it is another one"));
        }
        let is_first = at.bytes().is_multiple_of(self.size.bytes());
        if is_first != (info & LONG != 0) {
            return Err(Flaw::Page("its header has the wrong length"));
        }
        Ok(PageHeader {
            timeline: Timeline::new(number).ok_or(Flaw::Page("it is of timeline 0"))?,
            remaining: u32_at(header, 16),
            continued: info & CONTINUED != 0,
            overwritten: info & OVERWRITTEN != 0,
            length: if is_first { HEADER_LENGTH } else { SHORT_HEADER },
        })
    }
}

fn u32_at(header: &[u8; SHORT_HEADER], at: usize) -> u32 {
    header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(header: &[u8; SHORT_HEADER], at: usize) -> u64 {
    header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
