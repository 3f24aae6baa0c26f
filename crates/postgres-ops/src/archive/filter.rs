//! Copies an archive with the data of just some entries, to feed `pg_restore`.
//!
//! `pg_restore` that reads a pipe goes through the blocks in order and skips what it does not want, so a stream of
//! the archive's start and the wanted blocks restores those tables. The same entries must be in its `-L` list: for
//! any other it would look for a block that never comes. It must be a pipe: on a file it would trust positions that
//! the table of contents may state; [`super::set_block_positions`] corrects those.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};

use super::blocks::{BlockKind, BlockSink, Framing, Place};
use super::wire::encode_int;
use super::{ArchiveError, DumpId, Header};

/// How much is read at once.
const BUFFER: usize = 256 * 1024;

/// One block that was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CopiedBlock {
    /// Entry that it belongs to.
    pub dump_id: DumpId,
    /// Where it begins in the output, counted from the first copied block.
    pub start: u64,
    /// Its length, framing included.
    pub length: u64,
}

/// What a copy wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterReport {
    /// The copied blocks, in order.
    pub blocks: Vec<CopiedBlock>,
    /// Bytes written, not counting the start of the archive.
    pub bytes: u64,
}

/// Lets the wanted blocks of an archive through.
#[derive(Debug)]
pub struct BlockFilter {
    framing: Framing,
    selection: Selection,
    failed: bool,
}

impl BlockFilter {
    /// Starts at the beginning of any block of an archive with that header.
    pub fn new(header: &Header, wanted: impl IntoIterator<Item = DumpId>) -> Self {
        Self {
            framing: Framing::new(header.int_size, 0),
            selection: Selection {
                int_size: header.int_size,
                wanted: wanted.into_iter().collect(),
                keep_from: None,
                cuts: Vec::new(),
                copied: 0,
                report: FilterReport::default(),
            },
            failed: false,
        }
    }

    /// Whether all wanted blocks have gone through; what follows need not be pushed.
    pub fn is_done(&self) -> bool {
        self.selection.wanted.is_empty() && self.selection.keep_from.is_none()
    }

    /// Takes the next piece and writes what is wanted of it.
    ///
    /// # Errors
    /// [`ArchiveError::Corrupt`], [`ArchiveError::Write`]; afterwards [`ArchiveError::AlreadyFailed`].
    pub fn push(&mut self, piece: &[u8], out: &mut impl Write) -> Result<(), ArchiveError> {
        if self.failed {
            return Err(ArchiveError::AlreadyFailed);
        }
        if self.is_done() {
            return Ok(());
        }
        let framed = self.framing.push(piece, &mut self.selection);
        let written = self.selection.write(piece, out);
        // Behind the last wanted block nothing is looked at, not even the rest of this piece.
        let outcome = if self.is_done() { written } else { framed.and(written) };
        outcome.inspect_err(|_| self.failed = true)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// [`ArchiveError::Truncated`] if it ended within a block, [`ArchiveError::MissingData`] if wanted blocks did
    /// not come.
    pub fn finish(self) -> Result<FilterReport, ArchiveError> {
        if self.failed {
            return Err(ArchiveError::AlreadyFailed);
        }
        if self.is_done() {
            return Ok(self.selection.report);
        }
        self.framing.finish()?;
        match self.selection.wanted.iter().min() {
            Some(&first) => Err(ArchiveError::MissingData { first, missing: self.selection.wanted.len() }),
            None => Ok(self.selection.report),
        }
    }
}

/// Writes `prefix`, the start of an archive, and the `wanted` blocks that `archive` has.
///
/// `archive` begins with a block, of whichever entry, and may leave out blocks that are not wanted. Reading ends with
/// the last wanted block.
///
/// # Errors
/// [`ArchiveError::Read`] and [`ArchiveError::Write`] of the two ends; the errors of [`BlockFilter`].
pub fn copy_blocks(
    prefix: &[u8],
    mut filter: BlockFilter,
    archive: &mut impl Read,
    out: &mut impl Write,
) -> Result<FilterReport, ArchiveError> {
    let write_error = |source| ArchiveError::Write { source };
    out.write_all(prefix).map_err(write_error)?;
    let mut buffer = vec![0; BUFFER];
    while !filter.is_done() {
        match archive.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => filter.push(&buffer[..length], out)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(ArchiveError::Read { source }),
        }
    }
    out.flush().map_err(write_error)?;
    filter.finish()
}

/// Decides which bytes of the piece at hand are kept.
#[derive(Debug)]
struct Selection {
    int_size: usize,
    /// Wanted and not yet begun.
    wanted: HashSet<DumpId>,
    /// Where in the piece the bytes to keep begin, while within a wanted block.
    keep_from: Option<usize>,
    cuts: Vec<Cut>,
    /// Length of the wanted blocks that have ended.
    copied: u64,
    report: FilterReport,
}

/// Something to write for the piece at hand.
#[derive(Debug)]
enum Cut {
    /// The head of a block, made anew: it may have come in several pieces.
    Head(Vec<u8>),
    /// These bytes of the piece.
    Bytes(usize, usize),
}

impl Selection {
    fn write(&mut self, piece: &[u8], out: &mut impl Write) -> Result<(), ArchiveError> {
        if let Some(from) = &mut self.keep_from {
            self.cuts.push(Cut::Bytes(*from, piece.len()));
            *from = 0;
        }
        for cut in self.cuts.drain(..) {
            let bytes = match &cut {
                Cut::Head(bytes) => bytes,
                Cut::Bytes(from, to) => &piece[*from..*to],
            };
            out.write_all(bytes).map_err(|source| ArchiveError::Write { source })?;
            self.report.bytes += bytes.len() as u64;
        }
        Ok(())
    }
}

impl BlockSink for Selection {
    fn block_start(
        &mut self,
        kind: BlockKind,
        id: DumpId,
        start: u64,
        place: Place,
    ) -> Result<(), ArchiveError> {
        if self.wanted.remove(&id) {
            let mut head = vec![kind.code()];
            encode_int(id.to_int(), self.int_size, &mut head);
            self.cuts.push(Cut::Head(head));
            self.keep_from = Some(place.in_piece);
            self.report.blocks.push(CopiedBlock { dump_id: id, start, length: 0 });
        }
        Ok(())
    }

    fn object_start(&mut self, _oid: u32) {}

    fn payload(&mut self, _bytes: &[u8]) {}

    fn object_end(&mut self) {}

    fn block_end(&mut self, place: Place) -> Result<(), ArchiveError> {
        let Some(from) = self.keep_from.take() else { return Ok(()) };
        self.cuts.push(Cut::Bytes(from, place.in_piece));
        if let Some(block) = self.report.blocks.last_mut() {
            block.length = place.offset - block.start;
            block.start = self.copied;
            self.copied += block.length;
        }
        Ok(())
    }
}
