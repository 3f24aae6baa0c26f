//! What every segment says of itself, in a note that anyone may read.
//!
//! With it nobody needs an earlier segment to know where commands begin, which database is selected there, and whether a
//! transaction is open: a restore may begin to read at any segment, and an archiver that lost its spool may go on.

use backstay_backup_core::manifest::FORMAT_MAJOR;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name::{SegmentName, Span};
use crate::resp::StreamState;
use crate::{Offset, ReplicationId};

/// A place between two commands, and what holds there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Boundary {
    /// Where.
    pub offset: Offset,
    /// Database and transaction.
    #[serde(flatten)]
    pub state: StreamState,
}

impl Boundary {
    /// A place.
    #[must_use]
    pub const fn at(offset: Offset, state: StreamState) -> Self {
        Self { offset, state }
    }
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct SegmentHead {
    /// Major version of the format.
    pub format: u32,
    /// The history.
    pub replication_id: ReplicationId,
    /// The bytes in it.
    #[serde(flatten)]
    pub span: Span,
    /// When its first byte was received, by the archiver's clock.
    pub first_received: Timestamp,
    /// When its last byte was.
    pub last_received: Timestamp,
    /// How much later the server's clock was than the archiver's, in milliseconds; absent when the server may not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_millis: Option<i64>,
    /// Commands that end in it.
    pub commands: u64,
    /// The first place between two commands in it, its start and its end included; absent when all of it lies within one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Boundary>,
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Boundary>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Why a note is no head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// It is no such thing.
    #[error("its note cannot be read: {problem}")]
    Unreadable {
        /// What is wrong.
        problem: String,
    },
    /// It was written by a newer program.
    #[error("it has format {found}, this program reads up to {FORMAT_MAJOR}")]
    TooNew {
        /// The version found.
        found: u32,
    },
    /// It lies where another belongs.
    #[error("it says that it is {found}")]
    Misplaced {
        /// What it says it is.
        found: String,
    },
}

impl SegmentHead {
    /// The head of a segment with nothing in it yet but its span.
    #[must_use]
    pub fn new(name: &SegmentName, first_received: Timestamp, last_received: Timestamp) -> Self {
        Self {
            format: FORMAT_MAJOR,
            replication_id: name.replication_id,
            span: name.span,
            first_received,
            last_received,
            clock_skew_millis: None,
            commands: 0,
            first: None,
            last: None,
            unknown: Map::new(),
        }
    }

    /// The note.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, times and hexadecimal digits are valid JSON")
    }

    /// Reads a note and checks that it belongs to the object of that name.
    ///
    /// # Errors
    /// Any [`HeadError`].
    pub fn decode(note: &[u8], name: &SegmentName) -> Result<Self, HeadError> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| HeadError::Unreadable { problem: error.to_string() };
        let FormatOnly { format } = serde_json::from_slice(note).map_err(unreadable)?;
        if format > FORMAT_MAJOR {
            return Err(HeadError::TooNew { found: format });
        }
        let head: Self = serde_json::from_slice(note).map_err(unreadable)?;
        if head.replication_id != name.replication_id || head.span != name.span {
            return Err(HeadError::Misplaced { found: format!("{} of {}", head.span, head.replication_id) });
        }
        let within = |boundary: &Option<Boundary>| {
            boundary.is_none_or(|it| head.span.start <= it.offset && it.offset <= head.span.end)
        };
        if !within(&head.first) || !within(&head.last) {
            return Err(HeadError::Unreadable { problem: "its boundaries lie outside of it".to_owned() });
        }
        Ok(head)
    }

    /// A time of the archiver's clock as the server's showed it, as far as that is known.
    #[must_use]
    pub fn by_server(&self, received: Timestamp) -> Timestamp {
        let skew = SignedDuration::from_millis(self.clock_skew_millis.unwrap_or(0));
        received.saturating_add(skew).unwrap_or(received)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::name::Level;
    use super::*;

    fn name() -> SegmentName {
        let replication_id = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        SegmentName { replication_id, span: Span::new(100, 200), level: Level::Fresh }
    }

    fn head() -> SegmentHead {
        let mut head = SegmentHead::new(&name(), Timestamp::UNIX_EPOCH, Timestamp::MAX);
        head.clock_skew_millis = Some(-1500);
        head.commands = 3;
        let boundary = Boundary::at(Offset(100), StreamState { database: Some(2), in_transaction: true });
        head.first = Some(boundary);
        head.last = Some(Boundary { offset: Offset(200), ..boundary });
        head
    }

    #[test]
    fn a_head_comes_back_as_it_was_written() {
        let note = head().encode();
        assert!(note.len() < backstay_backup_core::sealed::MAX_NOTE, "{}", note.len());
        assert_eq!(SegmentHead::decode(&note, &name()).unwrap(), head());
    }

    #[test]
    fn the_head_of_another_segment_is_refused() {
        let mut other = name();
        other.span.end = Offset(201);
        let error = SegmentHead::decode(&head().encode(), &other).unwrap_err();
        assert!(matches!(error, HeadError::Misplaced { .. }), "{error}");
        let mut lying = head();
        lying.last = Some(Boundary::at(Offset(201), StreamState::default()));
        assert!(SegmentHead::decode(&lying.encode(), &name()).is_err());
        let mut newer = head();
        newer.format = 2;
        assert_eq!(SegmentHead::decode(&newer.encode(), &name()), Err(HeadError::TooNew { found: 2 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(note: Vec<u8>) {
            _ = SegmentHead::decode(&note, &name());
        }
    }
}
