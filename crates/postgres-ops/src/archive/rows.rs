//! Counts and digests the rows of COPY text, whatever pieces it comes in.
//!
//! COPY text has one line a row: line breaks inside values are escaped. A row's bytes are those before its line
//! feed. The digest of a table is the sum, modulo 2¹²⁸, of the XXH3-128 of its rows: the order of rows, which a
//! restore does not keep, has no influence. It proves equality against accidents, not against an adversary.
//!
//! Inside a dump the text ends with a line `\.` and two empty ones. They are taken as rows while they pass and
//! subtracted at the end, so that nothing needs to be looked for in the stream.

use std::cmp::Ordering;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use memchr::{memchr, memchr_iter};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::ArchiveError;

/// What `pg_dump` writes behind the last row.
const TERMINATOR: &[u8; 5] = b"\\.\n\n\n";

/// Digest of a set of rows or objects, the same in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentDigest(u128);

impl ContentDigest {
    pub(super) fn add(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }

    /// The digest of both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    fn subtract(&mut self, hash: u128) {
        self.0 = self.0.wrapping_sub(hash);
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ContentDigest {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Facts of one table's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RowFacts {
    /// How many rows.
    pub rows: u64,
    /// Bytes of COPY text, line feeds included, end marker not.
    pub bytes: u64,
    /// Digest of the rows, if it was asked for.
    pub digest: Option<ContentDigest>,
}

/// Takes COPY text in pieces and gives its [`RowFacts`].
///
/// Facts of a dumped table and of `COPY … TO STDOUT` on the restored one are equal if the rows are, provided that
/// columns, client encoding and the output settings (`DateStyle` ISO, `IntervalStyle` postgres,
/// `extra_float_digits` 3, as `pg_dump` sets them) are.
#[derive(Clone, Default)]
pub struct CopyRows {
    lines: u64,
    bytes: u64,
    tail: Tail,
    digest: Option<Box<LineDigest>>,
}

/// The last eight bytes of a stream, the latest lowest; with them the end marker is recognised.
#[derive(Clone, Copy, Default)]
pub(super) struct Tail(u64);

impl Tail {
    #[inline]
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.0 = match piece.last_chunk::<8>() {
            Some(end) => u64::from_be_bytes(*end),
            None => piece.iter().fold(self.0, |last, &byte| last << 8 | u64::from(byte)),
        };
    }

    /// Whether the last bytes are these, of which there may be eight.
    fn ends_with(self, end: &[u8]) -> bool {
        self.0.to_be_bytes().ends_with(end)
    }
}

#[derive(Clone, Default)]
struct LineDigest {
    sum: ContentDigest,
    /// Hash of a line whose end has not come; lines within one piece do not need it.
    open: Xxh3,
    is_open: bool,
}

impl CopyRows {
    /// Counts rows; costs about as much as reading the bytes once.
    pub fn counting() -> Self {
        Self::default()
    }

    /// Counts rows and digests them.
    pub fn digesting() -> Self {
        Self { digest: Some(Box::default()), ..Self::default() }
    }

    /// Takes the next piece, which may begin and end anywhere.
    #[inline]
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.tail.push(piece);
        self.lines += match &mut self.digest {
            None => memchr_iter(b'\n', piece).count() as u64,
            Some(digest) => digest.push(piece),
        };
    }

    /// Ends the text of `COPY … TO STDOUT`, which has no end marker.
    ///
    /// # Errors
    /// [`ArchiveError::Truncated`] if the last row has no line feed.
    pub fn finish(self) -> Result<RowFacts, ArchiveError> {
        if self.bytes > 0 && !self.tail.ends_with(b"\n") {
            return Err(ArchiveError::Truncated { length: self.bytes, within: "a row" });
        }
        Ok(self.facts())
    }

    /// Ends a table's text within a dump, which has an end marker.
    ///
    /// # Errors
    /// [`ArchiveError::Corrupt`] if the end marker is not there.
    pub fn finish_block(self) -> Result<RowFacts, ArchiveError> {
        let offset = self.bytes;
        self.without_terminator()
            .ok_or(ArchiveError::Corrupt { offset, what: "rows of a table without their end marker" })
    }

    /// Bytes pushed so far, an end marker included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_counting(&self) -> bool {
        self.digest.is_none()
    }

    pub(super) fn tail(&self) -> Tail {
        self.tail
    }

    /// Takes note of text that was counted elsewhere.
    pub(super) fn add_counted(&mut self, lines: u64, bytes: u64, tail: Tail) {
        self.lines += lines;
        self.bytes += bytes;
        self.tail = tail;
    }

    pub(super) fn without_terminator(mut self) -> Option<RowFacts> {
        let length = TERMINATOR.len() as u64;
        let is_terminated = match self.bytes.cmp(&length) {
            Ordering::Less => false,
            Ordering::Equal => self.tail.ends_with(TERMINATOR),
            Ordering::Greater => self.tail.ends_with(b"\n\\.\n\n\n"),
        };
        if !is_terminated {
            return None;
        }
        self.bytes -= length;
        self.lines -= 3;
        if let Some(digest) = &mut self.digest {
            digest.sum.subtract(xxh3_128(b"\\."));
            digest.sum.subtract(xxh3_128(b""));
            digest.sum.subtract(xxh3_128(b""));
        }
        Some(self.facts())
    }

    fn facts(self) -> RowFacts {
        RowFacts { rows: self.lines, bytes: self.bytes, digest: self.digest.map(|digest| digest.sum) }
    }
}

impl fmt::Debug for CopyRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyRows")
            .field("lines", &self.lines)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl LineDigest {
    /// Digests a piece and returns how many lines ended in it.
    fn push(&mut self, piece: &[u8]) -> u64 {
        let mut rest = piece;
        let mut lines = 0;
        if self.is_open {
            let Some(end) = memchr(b'\n', rest) else {
                self.open.update(rest);
                return 0;
            };
            self.open.update(&rest[..end]);
            self.close();
            lines += 1;
            rest = &rest[end + 1..];
        }
        let mut start = 0;
        for end in memchr_iter(b'\n', rest) {
            self.sum.add(xxh3_128(&rest[start..end]));
            start = end + 1;
            lines += 1;
        }
        if start < rest.len() {
            self.open.update(&rest[start..]);
            self.is_open = true;
        }
        lines
    }

    fn close(&mut self) {
        self.sum.add(self.open.digest128());
        self.open.reset();
        self.is_open = false;
    }
}
