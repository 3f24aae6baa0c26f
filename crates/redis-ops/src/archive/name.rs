//! What the pieces of a stream are called, and where they lie.

use std::fmt;
use std::str::FromStr;

use backstay_backup_core::id::{IdError, Stanza};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::repository::layout;
use serde::{Deserialize, Serialize};

use crate::{Offset, ReplicationId};

/// Digits of an offset in a name, so that names sort as numbers do.
const DIGITS: usize = 20;

/// One stream of a stanza: that of a whole server, or of one shard of a cluster. The operator's word; `main` by default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId(Stanza);

impl StreamId {
    /// Parses a name; it has the form of a stanza.
    ///
    /// # Errors
    /// Anything but 1 to 64 letters, digits, `_`, `-` and `.` that begin with a letter or digit.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        Stanza::parse(text).map(Self).map_err(|error| IdError { kind: "stream", ..error })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Default for StreamId {
    fn default() -> Self {
        Self(Stanza::parse("main").expect("it is a valid name"))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StreamId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for StreamId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<StreamId> for String {
    fn from(id: StreamId) -> Self {
        id.as_str().to_owned()
    }
}

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Position {
    /// The history it is told in.
    pub replication_id: ReplicationId,
    /// How many bytes of it lie before.
    pub offset: Offset,
}

impl Position {
    /// A place.
    #[must_use]
    pub const fn new(replication_id: ReplicationId, offset: Offset) -> Self {
        Self { replication_id, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.replication_id, self.offset)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("{text:?} is no position: expected a replication id, a colon and an offset");
        let (id, offset) = text.split_once(':').ok_or_else(expected)?;
        Ok(Self {
            replication_id: id.parse().map_err(|_| expected())?,
            offset: offset.parse().map_err(|_| expected())?,
        })
    }
}

/// The bytes between two offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Where it begins.
    pub start: Offset,
    /// Where it ends, exclusive.
    pub end: Offset,
}

impl Span {
    /// A span.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start: Offset(start), end: Offset(end) }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.since(self.start)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// What both have.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.start, self.end)
    }
}

/// How an object of a stream came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Stored as soon as it was received.
    Fresh,
    /// Stored again later, many fresh ones in one.
    Merged,
}

impl Level {
    const fn folder(self) -> &'static str {
        match self {
            Self::Fresh => "segments",
            Self::Merged => "merged",
        }
    }
}

/// One object of a stream: which bytes of which history are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The history.
    pub replication_id: ReplicationId,
    /// The bytes.
    pub span: Span,
    /// How it came to be.
    pub level: Level,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Fresh => "segment",
            Level::Merged => "merged segment",
        };
        write!(f, "{level} {} of {}", self.span, self.replication_id)
    }
}

/// What lies below the streams of a stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Segment(SegmentName),
    /// The times of a merged segment.
    Times(SegmentName),
    History(ReplicationId),
}

/// Everything of one stream.
pub(super) fn below(stanza: &Stanza, stream: &StreamId) -> Prefix {
    layout::streams(stanza).folder(stream.as_str()).expect("a stream is a valid part of a key")
}

/// All segments of one level.
pub(super) fn below_level(stanza: &Stanza, stream: &StreamId, level: Level) -> Prefix {
    below(stanza, stream).folder(level.folder()).expect("it is a valid part of a key")
}

/// Key of a segment.
pub(super) fn segment_key(stanza: &Stanza, stream: &StreamId, name: &SegmentName) -> Key {
    let SegmentName { replication_id, span, .. } = name;
    let (start, end) = (span.start.0, span.end.0);
    let file = format!("{replication_id}/{start:0DIGITS$}-{end:0DIGITS$}");
    below_level(stanza, stream, name.level).key(&file).expect("digits are valid in a key")
}

/// Key of the times of a merged segment.
pub(super) fn times_key(stanza: &Stanza, stream: &StreamId, name: &SegmentName) -> Key {
    let key = segment_key(stanza, stream, name);
    Key::parse(format!("{key}.times")).expect("it is a valid key")
}

/// Key of what is known of a history.
pub(super) fn history_key(stanza: &Stanza, stream: &StreamId, id: ReplicationId) -> Key {
    below(stanza, stream).key(&format!("histories/{id}.json")).expect("digits are valid in a key")
}

/// Reads a key below the streams of a stanza; `None` for what is none of ours.
pub(super) fn parse(stanza: &Stanza, key: &Key) -> Option<(StreamId, Entry)> {
    let rest = key.as_str().strip_prefix(layout::streams(stanza).as_str())?;
    let (stream, rest) = rest.split_once('/')?;
    let stream = StreamId::parse(stream).ok()?;
    let (folder, rest) = rest.split_once('/')?;
    let level = match folder {
        "histories" => {
            let id = rest.strip_suffix(".json").and_then(|id| ReplicationId::parse(id).ok())?;
            return Some((stream, Entry::History(id)));
        }
        "segments" => Level::Fresh,
        "merged" => Level::Merged,
        _ => return None,
    };
    let (id, file) = rest.split_once('/')?;
    let replication_id = ReplicationId::parse(id).ok()?;
    let (span, is_times) = match file.strip_suffix(".times") {
        Some(span) if level == Level::Merged => (span, true),
        Some(_) => return None,
        None => (file, false),
    };
    let (start, end) = span.split_once('-')?;
    let span = Span { start: offset(start)?, end: offset(end)? };
    let name = SegmentName { replication_id, span, level };
    let entry = if is_times { Entry::Times(name) } else { Entry::Segment(name) };
    (!span.is_empty()).then_some((stream, entry))
}

fn offset(digits: &str) -> Option<Offset> {
    let canonical = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    if canonical { digits.parse().ok().map(Offset) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn named(level: Level) -> (Stanza, StreamId, SegmentName) {
        let name = SegmentName { replication_id: ID.parse().unwrap(), span: Span::new(7, 1234), level };
        (Stanza::parse("shop").unwrap(), StreamId::default(), name)
    }

    #[test]
    fn keys_lie_where_the_format_says_and_are_read_again() {
        for (level, folder) in [(Level::Fresh, "segments"), (Level::Merged, "merged")] {
            let (stanza, stream, name) = named(level);
            let key = segment_key(&stanza, &stream, &name);
            let file = "00000000000000000007-00000000000000001234";
            assert_eq!(key.as_str(), format!("shop/stream/main/{folder}/{ID}/{file}"));
            assert_eq!(parse(&stanza, &key), Some((stream, Entry::Segment(name))));
        }
        let (stanza, stream, name) = named(Level::Merged);
        let key = times_key(&stanza, &stream, &name);
        assert_eq!(parse(&stanza, &key), Some((stream.clone(), Entry::Times(name))));
        let key = history_key(&stanza, &stream, name.replication_id);
        assert_eq!(key.as_str(), format!("shop/stream/main/histories/{ID}.json"));
        assert_eq!(parse(&stanza, &key), Some((stream, Entry::History(name.replication_id))));
    }

    #[test]
    fn what_is_none_of_ours_is_not_taken_for_it() {
        let stanza = Stanza::parse("shop").unwrap();
        let (good, other) = ("00000000000000000007-00000000000000001234", "x");
        for key in [
            format!("shop/stream/main/segments/{ID}/{other}"),
            format!("shop/stream/main/segments/{ID}/{good}.times"),
            format!("shop/stream/main/segments/{ID}/00000000000000001234-00000000000000001234"),
            format!("shop/stream/main/segments/{ID}/7-1234"),
            format!("shop/stream/main/segments/{ID}/+0000000000000000007-00000000000000001234"),
            format!("shop/stream/main/segments/{ID}/99999999999999999999-99999999999999999999"),
            format!("shop/stream/main/segments/{other}/{good}"),
            format!("shop/stream/main/{other}/{ID}/{good}"),
            format!("shop/stream/main/histories/{other}.json"),
            format!("other/stream/main/segments/{ID}/{good}"),
        ] {
            assert_eq!(parse(&stanza, &Key::parse(key.clone()).unwrap()), None, "{key}");
        }
    }

    #[test]
    fn positions_parse_as_they_print() {
        let position = Position::new(ID.parse().unwrap(), Offset(17));
        assert_eq!(position.to_string(), format!("{ID}:17"));
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "17", ID, &format!("{ID}:"), &format!("{ID}:-1"), "x:17"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
