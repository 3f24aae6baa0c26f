//! One command of the stream, as far as it was kept.

use serde::{Deserialize, Serialize};

use crate::position::Offset;

/// How much of each command is kept while it passes by. Memory is at most `arguments × (bytes + 24)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Arguments kept, the name included; at least 2 are.
    pub arguments: usize,
    /// Bytes kept of each; at least 32 are.
    pub bytes: usize,
}

impl Default for Capture {
    /// Enough for names, databases and expiries: 8 arguments of 64 bytes.
    fn default() -> Self {
        Self { arguments: 8, bytes: 64 }
    }
}

/// What one must know to read on from somewhere in the middle of a stream, between two commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StreamState {
    /// Database that the next write goes to; unknown before the first `SELECT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<u32>,
    /// Whether a `MULTI` is open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_transaction: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Where its content begins in the stream.
    pub(super) start: Offset,
    pub(super) len: u64,
    /// Its place in the buffer of kept bytes.
    pub(super) kept: std::ops::Range<usize>,
}

/// An argument of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument<'a> {
    /// Its content, or the beginning of it, see [`Argument::is_whole`].
    pub bytes: &'a [u8],
    /// Length of its content.
    pub len: u64,
    /// Where its content begins in the stream.
    pub start: Offset,
}

impl Argument<'_> {
    /// Whether all of it was kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.len
    }
}

/// A whole command that has just passed by.
#[derive(Debug)]
pub struct Command<'a> {
    /// Where it begins.
    pub start: Offset,
    /// Where it ends, and the next one begins.
    pub end: Offset,
    /// Arguments it has, the name included; 0 for an empty line.
    pub count: u64,
    /// What holds before it.
    pub before: StreamState,
    /// What holds behind it.
    pub after: StreamState,
    pub(super) arguments: &'a [Kept],
    pub(super) bytes: &'a [u8],
}

impl<'a> Command<'a> {
    /// Its name as it was sent, empty for an empty line.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.argument(0).map_or(&[], |argument| argument.bytes)
    }

    /// Whether that is its name, in upper or lower case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// An argument, the name being number 0; `None` beyond those that exist or were kept.
    #[must_use]
    pub fn argument(&self, number: usize) -> Option<Argument<'a>> {
        let kept = self.arguments.get(number)?;
        Some(Argument { bytes: &self.bytes[kept.kept.clone()], len: kept.len, start: kept.start })
    }

    /// All arguments that were kept, the name first.
    pub fn arguments(&self) -> impl Iterator<Item = Argument<'a>> + '_ {
        (0..self.arguments.len()).filter_map(|number| self.argument(number))
    }

    /// Whether every byte of every argument was kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.arguments.len() as u64 == self.count && self.arguments().all(|argument| argument.is_whole())
    }

    /// Whether the stream may be cut behind it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !self.after.in_transaction
    }

    /// Whether it changes nothing and only keeps the connection going: an empty line, `PING`, `REPLCONF`.
    #[must_use]
    pub fn is_filler(&self) -> bool {
        self.count == 0 || self.is("PING") || self.is("REPLCONF")
    }

    /// Whether it asks for an acknowledgement at once.
    #[must_use]
    pub fn asks_for_acknowledgement(&self) -> bool {
        let question = self.argument(1).map_or(&[][..], |argument| argument.bytes);
        self.is("REPLCONF") && question.eq_ignore_ascii_case(b"GETACK")
    }
}
