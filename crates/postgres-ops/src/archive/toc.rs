//! The table of contents, read while it arrives.
//!
//! [`TocParser`] takes the archive in pieces, keeps only the bytes of the entry that is still incomplete, and says
//! when the last entry has come. Lengths in the archive never decide how much memory is taken: only bytes that have
//! arrived are kept, and no more of them than the limit.

use std::collections::HashMap;

use super::ArchiveError;
use super::entry::{DumpId, TocEntry};
use super::header::Header;
use super::wire::{Cursor, Stop};

/// An entry has at least this many bytes; a count of entries that cannot fit is refused at once.
const SMALLEST_ENTRY: u64 = 32;

/// Header and table of contents of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveToc {
    header: Header,
    entries: Vec<TocEntry>,
    places: HashMap<DumpId, usize>,
    length: u64,
}

impl ArchiveToc {
    /// How much table of contents a reader accepts unless told otherwise: 256 MiB.
    pub const DEFAULT_LIMIT: u64 = 256 * 1024 * 1024;

    /// Reads the table of contents at the start of `archive`, which may go on behind it.
    ///
    /// # Errors
    /// [`ArchiveError::Truncated`] if it is not there whole; the errors of [`TocParser::push`].
    pub fn parse(archive: &[u8]) -> Result<Self, ArchiveError> {
        let mut parser = TocParser::new(Self::DEFAULT_LIMIT);
        parser.push(archive)?;
        parser.finish()
    }

    /// What stands before the entries.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The entries, in the order in which they are restored.
    pub fn entries(&self) -> &[TocEntry] {
        &self.entries
    }

    /// The entry with that number.
    pub fn find(&self, id: DumpId) -> Option<&TocEntry> {
        self.places.get(&id).map(|&place| &self.entries[place])
    }

    /// Bytes of header and entries: the offset at which the data blocks begin.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// Whether the table of contents is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TocProgress {
    /// All bytes so far belong to it, and there must be more.
    NeedMore,
    /// It is complete.
    Complete {
        /// How many bytes of the last piece belong to it.
        consumed: usize,
    },
}

/// Reads the start of an archive that comes in pieces.
#[derive(Debug)]
pub struct TocParser {
    limit: u64,
    /// Bytes that came but could not be parsed yet.
    carry: Vec<u8>,
    /// How many bytes were parsed before `carry`.
    parsed: u64,
    stage: Stage,
    header: Option<Header>,
    /// Entries that are still to begin.
    left: u32,
    /// The entry whose dependencies are being read.
    open: Option<TocEntry>,
    entries: Vec<TocEntry>,
    places: HashMap<DumpId, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Count,
    Fields,
    Dependencies,
    Complete,
    Failed,
}

impl TocParser {
    /// Starts at the first byte of an archive. Memory is bounded by a multiple of `limit` bytes: the
    /// smallest possible entry takes about ten times its length, an ordinary one less.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            carry: Vec::new(),
            parsed: 0,
            stage: Stage::Header,
            header: None,
            left: 0,
            open: None,
            entries: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Takes the next piece; pieces behind the end of the table of contents are not for this parser.
    ///
    /// # Errors
    /// [`ArchiveError::NotAnArchive`], [`ArchiveError::UnsupportedVersion`], [`ArchiveError::TocTooLarge`] or
    /// [`ArchiveError::Corrupt`]; after any of them [`ArchiveError::AlreadyFailed`].
    pub fn push(&mut self, piece: &[u8]) -> Result<TocProgress, ArchiveError> {
        if self.stage == Stage::Failed {
            return Err(ArchiveError::AlreadyFailed);
        }
        let carried = self.carry.len();
        let consumed = if carried == 0 {
            let consumed = self.advance(piece)?;
            if self.stage != Stage::Complete {
                self.carry.extend_from_slice(&piece[consumed..]);
            }
            consumed
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(piece);
            let consumed = self.advance(&carry)?;
            carry.drain(..consumed);
            self.carry = carry;
            consumed
        };
        if self.stage == Stage::Complete {
            self.carry = Vec::new();
            // Without the last byte taken the table was incomplete before this piece, so some of it was used.
            return Ok(TocProgress::Complete { consumed: consumed.saturating_sub(carried) });
        }
        Ok(TocProgress::NeedMore)
    }

    /// Hands out what was read.
    ///
    /// # Errors
    /// [`ArchiveError::Truncated`] if the last entry has not come.
    pub fn finish(self) -> Result<ArchiveToc, ArchiveError> {
        let length = self.parsed + self.carry.len() as u64;
        match (self.stage, self.header) {
            (Stage::Complete, Some(header)) => {
                Ok(ArchiveToc { header, entries: self.entries, places: self.places, length: self.parsed })
            }
            (Stage::Failed, _) => Err(ArchiveError::AlreadyFailed),
            (_, None) => Err(ArchiveError::Truncated { length, within: "the header" }),
            (_, Some(_)) => Err(ArchiveError::Truncated { length, within: "the table of contents" }),
        }
    }

    /// Parses as much as it can and returns how many bytes that took.
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, ArchiveError> {
        let mut used = 0;
        let outcome = loop {
            if self.stage == Stage::Complete {
                break Ok(());
            }
            let int_size = self.header.as_ref().map_or(0, |header| header.int_size);
            let mut cursor = Cursor::new(&bytes[used..], self.parsed, int_size);
            match self.step(&mut cursor) {
                Ok(next) => {
                    self.stage = next;
                    used += cursor.consumed();
                    self.parsed += cursor.consumed() as u64;
                }
                Err(Stop::NeedMore) => break Ok(()),
                Err(Stop::Fatal(error)) => break Err(error),
            }
        };
        outcome
            .and_then(|()| self.check_limit(bytes.len() - used))
            .inspect_err(|_| self.stage = Stage::Failed)?;
        Ok(used)
    }

    fn check_limit(&self, unparsed: usize) -> Result<(), ArchiveError> {
        let unparsed = if self.stage == Stage::Complete { 0 } else { unparsed as u64 };
        if self.parsed + unparsed > self.limit {
            return Err(ArchiveError::TocTooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// Reads one header, count, entry or dependency; changes nothing when bytes are missing.
    fn step(&mut self, cursor: &mut Cursor<'_>) -> Result<Stage, Stop> {
        let Some(header) = &self.header else {
            self.header = Some(Header::parse(cursor)?);
            return Ok(Stage::Count);
        };
        match (self.stage, &mut self.open) {
            (Stage::Count, _) => {
                self.left = count(cursor, self.limit)?;
                Ok(self.before_entry())
            }
            (Stage::Fields, _) => {
                let entry = TocEntry::parse_fields(cursor, header)?;
                if self.places.contains_key(&entry.dump_id) {
                    return Err(cursor.corrupt("two entries with one number"));
                }
                self.open = Some(entry);
                self.left -= 1;
                Ok(Stage::Dependencies)
            }
            (Stage::Dependencies, Some(entry)) => {
                if let Some(id) = TocEntry::parse_dependency(cursor)? {
                    entry.dependencies.push(id);
                    return Ok(Stage::Dependencies);
                }
                entry.parse_position(cursor, header)?;
                self.close_entry();
                Ok(self.before_entry())
            }
            _ => Err(ArchiveError::AlreadyFailed.into()),
        }
    }

    fn close_entry(&mut self) {
        if let Some(entry) = self.open.take() {
            self.places.insert(entry.dump_id, self.entries.len());
            self.entries.push(entry);
        }
    }

    fn before_entry(&self) -> Stage {
        if self.left == 0 { Stage::Complete } else { Stage::Fields }
    }
}

fn count(cursor: &mut Cursor<'_>, limit: u64) -> Result<u32, Stop> {
    let count = u32::try_from(cursor.int()?).map_err(|_| cursor.corrupt("a negative number of entries"))?;
    if u64::from(count) * SMALLEST_ENTRY > limit {
        return Err(ArchiveError::TocTooLarge { limit }.into());
    }
    Ok(count)
}
