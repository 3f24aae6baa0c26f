//! PostgreSQL for Backstay: what its dumps contain, and the names that reach its tools.
//!
//! The archive half reads `pg_dump`'s custom format while it streams by: [`ArchiveScanner`] takes the bytes in
//! any pieces and answers with the table of contents, exact row counts, content digests and the offsets of every
//! data block. [`BlockFilter`] turns a stored archive back into one that holds just the wanted tables. Nothing in
//! it opens a file, a socket or a process.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod archive;
mod ident;

pub use archive::{
    ArchiveError, ArchiveFacts, ArchiveScanner, ArchiveText, ArchiveTime, ArchiveToc, BlockFacts,
    BlockFilter, BlockKind, Boundary, Compression, ContentDigest, CopiedBlock, CopyRows, DataPosition,
    DumpId, FilterReport, Format, FormatVersion, Header, LargeObjectDigester, LargeObjectFacts, RowFacts,
    ScanOptions, Section, TocEntry, TocParser, TocProgress, copy_blocks, set_block_positions,
};
pub use ident::{dump_schema_pattern, dump_table_pattern, quote_ident, quote_literal, quote_qualified};
