//! Reads `pg_dump`'s custom archive format, the way it comes down a pipe.
//!
//! ```text
//! "PGDMP" version sizes format compression time database   header
//! count, then one entry per object                         table of contents
//! 0x01 id (length bytes)* 0                                 a table's COPY text
//! 0x03 id (oid (length bytes)* 0)* 0                        large objects
//! end of file                                               no end marker
//! ```
//!
//! The format has no end marker: an archive cut between two blocks looks whole. It is therefore accepted only when
//! every entry that announces data has had its block. Versions 1.12 to 1.16, the ones that clients of PostgreSQL
//! 14 to 18 write or read, are understood.
//!
//! Everything here is pure: bytes in, facts out. Memory is bounded by the table of contents, which has a limit.

mod blocks;
mod entry;
mod error;
mod facts;
mod filter;
mod header;
mod list;
mod objects;
mod payload;
mod positions;
mod query;
mod rows;
mod scanner;
mod text;
mod toc;
mod wire;

#[cfg(test)]
mod tests;

pub use blocks::BlockKind;
pub use entry::{DataPosition, DumpId, Section, TocEntry};
pub use error::ArchiveError;
pub use facts::{ArchiveFacts, BlockFacts, Boundary, LargeObjectFacts};
pub use filter::{BlockFilter, CopiedBlock, FilterReport, copy_blocks};
pub use header::{ArchiveTime, Compression, Format, FormatVersion, Header};
pub use objects::LargeObjectDigester;
pub(crate) use payload::TablePayload;
pub use positions::set_block_positions;
pub(crate) use query::copy_table;
pub use rows::{ContentDigest, CopyRows, RowFacts};
pub use scanner::{ArchiveScanner, ScanOptions};
pub use text::ArchiveText;
pub use toc::{ArchiveToc, TocParser, TocProgress};
