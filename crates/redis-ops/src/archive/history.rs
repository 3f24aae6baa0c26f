//! Where a history of writes comes from.
//!
//! A server that becomes a primary draws a new replication id and goes on counting. If the archiver could continue, the
//! bytes up to that offset are those of the former id, which the record names as `parent`: both are one line. If it could
//! not, nothing is known of what lies between, and the record says where the archive broke off, so that the gap has a name.

use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::{FORMAT_MAJOR, ManifestError, seal, unseal};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name::{Position, StreamId};
use crate::ReplicationId;

/// Longest record in bytes that is read.
pub(super) const MAX_RECORD: u64 = 1 << 16;

/// What is known of the beginning of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct HistoryRecord {
    /// Major version of the format.
    pub format: u32,
    /// The stanza.
    pub stanza: Stanza,
    /// The stream.
    pub stream: StreamId,
    /// The history.
    pub replication_id: ReplicationId,
    /// Where it goes on from: up to here its bytes are those of that history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Position>,
    /// Where the archive broke off before this one began, when it does not go on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broke_off: Option<Position>,
    /// When the archiver met it, by its clock.
    pub recorded: Timestamp,
    /// Name and version of the writing program.
    pub tool: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl HistoryRecord {
    /// The record of a history without a past.
    #[must_use]
    pub fn new(
        stanza: &Stanza,
        stream: &StreamId,
        id: ReplicationId,
        recorded: Timestamp,
        tool: &str,
    ) -> Self {
        Self {
            format: FORMAT_MAJOR,
            stanza: stanza.clone(),
            stream: stream.clone(),
            replication_id: id,
            parent: None,
            broke_off: None,
            recorded,
            tool: tool.to_owned(),
            unknown: Map::new(),
        }
    }

    /// Sets where it goes on from.
    #[must_use]
    pub fn parent(mut self, parent: Option<Position>) -> Self {
        self.parent = parent;
        self
    }

    /// Sets where the archive broke off before.
    #[must_use]
    pub fn broke_off(mut self, at: Option<Position>) -> Self {
        self.broke_off = at;
        self
    }

    /// The bytes that are stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        seal(self).expect("names, numbers and times are valid JSON")
    }

    /// Reads stored bytes and checks that they belong where they lie.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn decode(
        bytes: &[u8],
        stanza: &Stanza,
        stream: &StreamId,
        id: ReplicationId,
    ) -> Result<Self, ManifestError> {
        let record: Self = unseal(bytes)?;
        if record.stanza == *stanza && record.stream == *stream && record.replication_id == id {
            return Ok(record);
        }
        let problem = format!(
            "it is that of history {} in stream {} of {}",
            record.replication_id, record.stream, record.stanza
        );
        Err(ManifestError::Damaged { problem })
    }
}
