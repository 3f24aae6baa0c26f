//! The framing behind the table of contents: which bytes are headers, lengths and payload.
//!
//! `pg_dump` 15 writes one length for every row, so this loop runs once a row. It copies nothing and hands the
//! payload on in the slices it came in.

use super::wire::decode_int;
use super::{ArchiveError, CopyRows, DumpId};

const DATA_BLOCK: u8 = 1;
const OBJECTS_BLOCK: u8 = 3;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// The rows of one table.
    Table,
    /// Large objects, each with its number.
    LargeObjects,
}

impl BlockKind {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Table => DATA_BLOCK,
            Self::LargeObjects => OBJECTS_BLOCK,
        }
    }
}

/// A place between two parts of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Position in the archive.
    pub(super) offset: u64,
    /// Position in the piece being read.
    pub(super) in_piece: usize,
}

/// Receives the parts of blocks.
pub(super) trait BlockSink {
    /// A block began at the archive offset `start`; its payload follows `place`.
    fn block_start(
        &mut self,
        kind: BlockKind,
        id: DumpId,
        start: u64,
        place: Place,
    ) -> Result<(), ArchiveError>;
    /// A large object begins.
    fn object_start(&mut self, oid: u32);
    /// The next bytes of the table or large object.
    fn payload(&mut self, bytes: &[u8]);
    /// The large object has ended.
    fn object_end(&mut self);
    /// Where the rows of the block are only counted; then whole runs of payload go there instead.
    fn counting(&mut self) -> Option<&mut CopyRows> {
        None
    }
    /// The block has ended.
    fn block_end(&mut self, place: Place) -> Result<(), ArchiveError>;
}

/// Where the framing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between blocks.
    Kind,
    /// Behind the kind of a block that began at the offset.
    Id(BlockKind, u64),
    /// Before the number of a large object or the 0 behind the last.
    Object,
    /// Before the length of the next piece of payload or the 0 behind the last.
    Length(BlockKind),
    /// Within a piece of payload, so many bytes before its end.
    Payload(BlockKind, u64),
}

/// An integer whose bytes come in several pieces.
#[derive(Debug, Default)]
struct PartialInt {
    bytes: [u8; 9],
    length: usize,
}

/// Takes the bytes behind the table of contents in pieces.
#[derive(Debug)]
pub(super) struct Framing {
    int_size: usize,
    offset: u64,
    state: State,
    partial: PartialInt,
}

impl Framing {
    /// Starts between two blocks, at that offset of the archive.
    pub(super) fn new(int_size: usize, offset: u64) -> Self {
        Self { int_size, offset, state: State::Kind, partial: PartialInt::default() }
    }

    /// Position in the archive of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Checks that the bytes may end here.
    pub(super) fn finish(&self) -> Result<(), ArchiveError> {
        let within = match self.state {
            State::Kind => return Ok(()),
            State::Id(..) => "the head of a data block",
            State::Object => "the large objects",
            State::Length(BlockKind::Table) | State::Payload(BlockKind::Table, _) => "the rows of a table",
            State::Length(_) | State::Payload(..) => "a large object",
        };
        Err(ArchiveError::Truncated { length: self.offset, within })
    }

    pub(super) fn push<S: BlockSink>(&mut self, piece: &[u8], sink: &mut S) -> Result<(), ArchiveError> {
        let base = self.offset;
        let mut at = 0;
        while at < piece.len() {
            at += self.step(&piece[at..], at, sink)?;
            self.offset = base + at as u64;
        }
        Ok(())
    }

    /// Takes some bytes off `rest` and returns how many; `at` is its place in the piece.
    fn step<S: BlockSink>(&mut self, rest: &[u8], at: usize, sink: &mut S) -> Result<usize, ArchiveError> {
        match self.state {
            State::Kind => self.kind(rest[0]),
            State::Payload(kind, left) => {
                let length = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                sink.payload(&rest[..length]);
                let left = left - length as u64;
                self.state = if left == 0 { State::Length(kind) } else { State::Payload(kind, left) };
                Ok(length)
            }
            State::Length(_) if self.int_size == 4 && self.partial.length == 0 => {
                let taken = match sink.counting() {
                    Some(rows) => count_chunks(rest, rows),
                    None => whole_chunks(rest, sink),
                };
                match taken {
                    0 => self.int(rest, at, sink),
                    length => Ok(length),
                }
            }
            State::Id(..) | State::Object | State::Length(_) => self.int(rest, at, sink),
        }
    }

    fn kind(&mut self, code: u8) -> Result<usize, ArchiveError> {
        let kind = match code {
            DATA_BLOCK => BlockKind::Table,
            OBJECTS_BLOCK => BlockKind::LargeObjects,
            _ => return Err(self.corrupt("something that is not a data block")),
        };
        self.state = State::Id(kind, self.offset);
        Ok(1)
    }

    /// Takes what `rest` has of an integer and acts on it once it is whole.
    fn int<S: BlockSink>(&mut self, rest: &[u8], at: usize, sink: &mut S) -> Result<usize, ArchiveError> {
        let wanted = 1 + self.int_size - self.partial.length;
        let taken = wanted.min(rest.len());
        let end = self.partial.length + taken;
        self.partial.bytes[self.partial.length..end].copy_from_slice(&rest[..taken]);
        self.partial.length = end;
        if taken == wanted {
            let value = decode_int(&self.partial.bytes[..end])
                .ok_or_else(|| self.corrupt("an integer out of range"))?;
            self.partial.length = 0;
            let place = Place { offset: self.offset + taken as u64, in_piece: at + taken };
            self.state = self.after_int(value, place, sink)?;
        }
        Ok(taken)
    }

    fn after_int<S: BlockSink>(&self, value: i32, place: Place, sink: &mut S) -> Result<State, ArchiveError> {
        match self.state {
            State::Id(kind, start) => {
                let id =
                    DumpId::from_int(value).ok_or_else(|| self.corrupt("an entry number out of range"))?;
                sink.block_start(kind, id, start, place)?;
                Ok(match kind {
                    BlockKind::Table => State::Length(kind),
                    BlockKind::LargeObjects => State::Object,
                })
            }
            State::Object if value == 0 => {
                sink.block_end(place)?;
                Ok(State::Kind)
            }
            State::Object => {
                // Object numbers are unsigned but written as signed integers.
                sink.object_start(value.cast_unsigned());
                Ok(State::Length(BlockKind::LargeObjects))
            }
            State::Length(BlockKind::Table) if value == 0 => {
                sink.block_end(place)?;
                Ok(State::Kind)
            }
            State::Length(BlockKind::LargeObjects) if value == 0 => {
                sink.object_end();
                Ok(State::Object)
            }
            State::Length(kind) => match u64::try_from(value) {
                Ok(length) => Ok(State::Payload(kind, length)),
                Err(_) => Err(self.corrupt("a negative length of data")),
            },
            state @ (State::Kind | State::Payload(..)) => Ok(state),
        }
    }

    fn corrupt(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Corrupt { offset: self.offset, what }
    }
}

/// Hands on every length with its payload that lies whole in `piece`; returns the bytes of them.
fn whole_chunks<S: BlockSink>(piece: &[u8], sink: &mut S) -> usize {
    let mut rest = piece;
    while let Some((_, payload, behind)) = split_chunk(rest) {
        sink.payload(payload);
        rest = behind;
    }
    piece.len() - rest.len()
}

/// The same for rows that are only counted: line feeds are looked for once in the whole run, lengths included, and
/// those that are part of a length are taken off. With a length for every short row that takes a third of the time.
fn count_chunks(piece: &[u8], rows: &mut CopyRows) -> usize {
    let mut rest = piece;
    let mut tail = rows.tail();
    let (mut bytes, mut in_lengths) = (0, 0);
    while let Some((magnitude, payload, behind)) = split_chunk(rest) {
        in_lengths += magnitude.iter().filter(|&&byte| byte == b'\n').count();
        bytes += payload.len();
        tail.push(payload);
        rest = behind;
    }
    let run = &piece[..piece.len() - rest.len()];
    let lines = memchr::memchr_iter(b'\n', run).count() - in_lengths;
    rows.add_counted(lines as u64, bytes as u64, tail);
    run.len()
}

/// Magnitude of a length, its payload, and what follows; nothing if that is not whole, odd or an end, which the slow
/// path looks at.
#[inline]
fn split_chunk(rest: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (sign, rest) = rest.split_first()?;
    let (magnitude, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*magnitude) as usize;
    if *sign != 0 || length == 0 || length > i32::MAX as usize {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((magnitude, payload, rest))
}
