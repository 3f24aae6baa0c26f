//! What a physical set says about its content: enough to plan a recovery without opening a data object.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ClusterPath;
use crate::wal::{Lsn, SystemId, Timeline};

/// Facts of a physical set; the `facts` of its manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClusterFacts {
    /// `server_version_num` of the source.
    pub server_version_num: u32,
    /// `pg_control_version` of the source; a restored cluster needs server programs of the same.
    pub control_version: u32,
    /// Catalog version of the source, likewise.
    pub catalog_version: u32,
    /// Identity of the cluster.
    pub system: SystemId,
    /// Timeline on which the backup ended, and on which recovery begins.
    pub timeline: Timeline,
    /// Where recovery begins reading: the redo position of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// Where the restored files become consistent; no target before it can be reached.
    pub stop_lsn: Lsn,
    /// When the backup began, by the server's clock.
    pub start_time: Timestamp,
    /// When the backup ended, by the server's clock; a target time before it cannot be reached with this set.
    pub stop_time: Timestamp,
    /// WAL without which the set is worthless, in order; several when a standby changed its timeline meanwhile.
    pub wal: Vec<WalRange>,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// Bytes of a page.
    pub block_size: u32,
    /// Whether pages carry checksums.
    pub page_checksums: bool,
    /// Whether it was taken from a standby.
    pub from_standby: bool,
    /// Tablespaces besides the two that lie in the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// `backup_label`, byte for byte; also stored as a file.
    pub backup_label: String,
    /// Files stored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pages whose checksum was wrong and stayed wrong when read again, at most 1,000 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrupt_pages: Vec<CorruptPage>,
    /// How many such pages there are.
    #[serde(default)]
    pub corrupt_page_count: u64,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A stretch of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WalRange {
    /// Timeline.
    pub timeline: Timeline,
    /// First byte.
    pub start: Lsn,
    /// Byte after the last.
    pub end: Lsn,
}

/// A tablespace of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tablespace {
    /// Its oid; the files lie below `pg_tblspc/<oid>`.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Where it was on the source; never where it is restored, unless asked for.
    pub location: String,
    /// Its bytes.
    pub bytes: u64,
}

/// A page whose checksum is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CorruptPage {
    /// Its file.
    pub file: ClusterPath,
    /// Its number in the relation's fork, counted through all its files.
    pub block: u64,
}
