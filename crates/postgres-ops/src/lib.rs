//! PostgreSQL for Backstay: logical backups that carry their own proof, and restores that use it.
//!
//! [`backup_database`] streams `pg_dump` into a set of a repository and notes every fact on the way;
//! [`restore_database`] brings it back beside whatever exists and compares fact by fact before it swaps.
//!
//! The archive half reads `pg_dump`'s custom format while it streams by: [`ArchiveScanner`] takes the bytes in
//! any pieces and answers with the table of contents, exact row counts, content digests and the offsets of every
//! data block. [`BlockFilter`] turns a stored archive back into one that holds just the wanted tables. Nothing in
//! that half opens a file, a socket or a process.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod archive;
mod client;
pub mod cluster_restore;
mod compare;
mod dump;
mod error;
mod evidence;
mod facts;
mod ident;
mod inspect;
mod login;
mod passfile;
pub mod physical;
pub mod recovery;
mod relation;
mod restore;
mod restore_test;
mod roles;
mod selection;
mod server;
mod service_file;
mod sessions;
mod sql_text;
mod throwaway;
mod tools;
pub mod wal;
pub mod wal_archive;
pub mod wal_records;

pub use archive::{
    ArchiveError, ArchiveFacts, ArchiveScanner, ArchiveText, ArchiveTime, ArchiveToc, BlockFacts,
    BlockFilter, BlockKind, Boundary, Compression, ContentDigest, CopiedBlock, CopyRows, DataPosition,
    DumpId, FilterReport, Format, FormatVersion, Header, LargeObjectDigester, LargeObjectFacts, RowFacts,
    ScanOptions, Section, TocEntry, TocParser, TocProgress, copy_blocks, set_block_positions,
};
pub use compare::{Comparison, Difference, Evidence, compare};
pub use dump::{
    BackupReport, DumpOptions, DumpPlan, Phase, StreamPlan, backup_database, plan_backup, plan_streams,
};
pub use error::{ConnectError, Error};
pub use facts::{
    DatabaseFacts, DatabaseSetting, DefinitionFacts, LargeObjectTotals, LogicalFacts, SequenceFacts,
    StoredArchive, StoredBlock, TableFacts,
};
pub use ident::{dump_schema_pattern, dump_table_pattern, quote_ident, quote_literal, quote_qualified};
pub use inspect::{ServerFacts, Snapshot, list_databases};
pub use login::{find_server, tool_search};
pub use passfile::{PassfileQuery, find_password};
pub use relation::{Relation, RelationKind};
pub use restore::{
    RestoreOptions, RestorePlan, RestoreReceipt, TargetPlan, TargetState, plan_restore, restore_database,
};
pub use restore_test::{CheckResult, RestoreTestReport, SqlCheck, test_restore};
pub use roles::RolesReport;
pub use selection::Selection;
pub use server::Server;
pub use service_file::{Service, ServiceFileError, find_service};
pub use sql_text::split_statements;
pub use throwaway::{Throwaway, ThrowawayOptions};
pub use tools::{OLDEST_SERVER, Tool, ToolSearch, find_tool};
