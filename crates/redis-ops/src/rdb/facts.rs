//! What is known of a snapshot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which servers write such files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Magic {
    /// `REDIS0010` and its like; Valkey writes it too, up to version 11.
    Redis,
    /// `VALKEY080` and its like.
    Valkey,
}

/// What the checksum at the end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksum {
    /// It is right.
    Right,
    /// The server was told not to compute one (`rdbchecksum no`); damage on its side would not be noticed.
    Absent,
}

/// Whether the keys could be counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contents {
    /// All of them were.
    Counted,
    /// The file holds something that is not known to this version; counts are of what came before it.
    Unknown {
        /// What it was.
        reason: String,
    },
}

/// Keys of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatabaseFacts {
    /// Keys, those that have expired and were not yet removed included.
    pub keys: u64,
    /// Keys that expire.
    pub expires: u64,
    /// Keys that had expired when the snapshot was written (`ctime` of the file); a load as primary drops them.
    #[serde(default)]
    pub expired: u64,
    /// Hashes with fields that expire by themselves.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub field_expires: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RdbFacts {
    /// Which servers write such files.
    pub magic: Magic,
    /// Version of the format.
    pub version: u32,
    /// Length in bytes.
    pub length: u64,
    /// What the checksum says.
    pub checksum: Checksum,
    /// Whether the keys could be counted.
    pub contents: Contents,
    /// Auxiliary fields such as `redis-ver`, `ctime`, `used-mem`, `repl-id`.
    pub aux: BTreeMap<String, String>,
    /// Keys of each database that has any.
    pub databases: BTreeMap<u32, DatabaseFacts>,
    /// Names of function libraries, sorted.
    pub functions: Vec<String>,
    /// Keys whose value belongs to a module, which must be loaded when the snapshot is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub module_keys: u64,
}

impl RdbFacts {
    /// Keys of all databases.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|database| database.keys).sum()
    }

    /// Keys of all databases that expire.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.databases.values().map(|database| database.expires).sum()
    }
}
