//! What a logical backup set says about its content, so that a restore can be compared with equality.
//!
//! Row counts and digests are not queried: they are taken from the COPY text while it streams into the repository,
//! so they describe exactly the bytes that were stored, at the snapshot of the dump, for the price of a newline
//! search. Positions of sequences are read from the dump for the same reason (sequences do not obey snapshots).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Facts of a logical set; the `facts` of its manifest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogicalFacts {
    /// `server_version_num` of the source.
    pub server_version_num: u32,
    /// Version of the client that wrote the dump.
    pub client_major: u32,
    /// The database itself.
    pub database: DatabaseFacts,
    /// Whether schemas or tables were left out on request.
    #[serde(default)]
    pub partial: bool,
    /// Every table that has rows of its own in the dump.
    pub tables: Vec<TableFacts>,
    /// Large objects.
    pub large_objects: LargeObjectTotals,
    /// Positions of sequences.
    pub sequences: Vec<SequenceFacts>,
    /// Definitions by kind (`INDEX`, `VIEW` …).
    pub definitions: BTreeMap<String, DefinitionFacts>,
    /// Whether the stored roles carry their password hashes.
    #[serde(default)]
    pub role_passwords: bool,
    /// The streams of the dump and where each table lies in them.
    pub archives: Vec<StoredArchive>,
}

/// Properties of a database that a dump of its content does not recreate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct DatabaseFacts {
    /// Name.
    pub name: String,
    /// Owning role.
    pub owner: String,
    /// Encoding, as in `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `c` libc, `i` ICU, `b` builtin.
    pub locale_provider: String,
    /// Locale of the ICU or builtin provider.
    pub locale: Option<String>,
    /// Version of the collation library when the database was made.
    pub collation_version: Option<String>,
    /// Connection limit, -1 for none.
    pub connection_limit: i32,
    /// Comment.
    pub comment: Option<String>,
    /// Settings by role (`""` for all): `name=value`.
    pub settings: Vec<DatabaseSetting>,
    /// Privileges as PostgreSQL prints them.
    pub privileges: Vec<String>,
    /// Installed extensions: name to version.
    pub extensions: BTreeMap<String, String>,
    /// Size on the server in bytes.
    pub size: u64,
}

/// One `ALTER DATABASE … SET`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatabaseSetting {
    /// Role it is for, empty for every role.
    pub role: String,
    /// Name of the setting.
    pub name: String,
    /// Its value, as stored in the catalog.
    pub value: String,
}

/// One table's rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TableFacts {
    /// Schema.
    pub schema: String,
    /// Table.
    pub name: String,
    /// Exact number of rows.
    pub rows: u64,
    /// Length of the COPY text in bytes.
    pub bytes: u64,
    /// Digest of the rows in any order, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Columns that COPY wrote, in the text of the dump's own statement.
    #[serde(default)]
    pub columns: String,
    /// Whether this is a partitioned table whose partitions are loaded through it, because rows may belong to other
    /// partitions after a restore (hash partitions by an enumeration). Rows are then those of all partitions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partitioned: bool,
}

/// All large objects together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LargeObjectTotals {
    /// How many.
    pub count: u64,
    /// Their length in bytes.
    pub bytes: u64,
}

/// Position of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SequenceFacts {
    /// Schema.
    pub schema: String,
    /// Sequence.
    pub name: String,
    /// Last value.
    pub last_value: i64,
    /// Whether that value was given out.
    pub is_called: bool,
}

/// All definitions of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DefinitionFacts {
    /// How many.
    pub count: u64,
    /// Digest over names, owners and definitions, in any order.
    pub digest: String,
}

/// One stream of `pg_dump`, stored in one or more objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoredArchive {
    /// `main`, or `data-1` … for streams that hold only rows.
    pub name: String,
    /// Names of its objects; joined in this order they are the archive.
    pub objects: Vec<String>,
    /// Length of header and table of contents in bytes.
    pub toc_length: u64,
    /// Data blocks in stored order.
    pub blocks: Vec<StoredBlock>,
}

/// Where the data of one entry lies in its archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoredBlock {
    /// Number of the entry in the archive's table of contents.
    pub id: u32,
    /// Offset of the first byte.
    pub start: u64,
    /// Offset behind the last byte.
    pub end: u64,
}
