use std::io;

/// Why bytes could not be read as a `pg_dump` archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The first bytes are not those of a `pg_dump` archive.
    #[error("not a pg_dump archive: it does not begin with PGDMP")]
    NotAnArchive,
    /// An archive of `pg_dump`, but of its tar or directory format, which hold their data elsewhere.
    #[error("not a custom-format archive: its header says {found}")]
    NotCustomFormat {
        /// The format that the header names.
        found: super::Format,
    },
    /// Written by a version of `pg_dump` that is too old or too new for this reader.
    #[error("archive format version {found} is not supported, only 1.12 to 1.16")]
    UnsupportedVersion {
        /// The version in the header.
        found: super::FormatVersion,
    },
    /// The table of contents exceeds the limit of the reader.
    #[error("table of contents is larger than the limit of {limit} bytes")]
    TocTooLarge {
        /// The limit that was set.
        limit: u64,
    },
    /// The bytes contradict the format.
    #[error("archive is corrupt at byte {offset}: {what}")]
    Corrupt {
        /// Position in the archive, or in the stream when only a part was given.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The bytes end in the middle of something; a `pg_dump` that died leaves this.
    #[error("archive is truncated: it ends after {length} bytes, within {within}")]
    Truncated {
        /// How many bytes there were.
        length: u64,
        /// What was being read.
        within: &'static str,
    },
    /// The bytes end between two blocks, but data that was announced or asked for has not come.
    #[error("archive is incomplete: data of {missing} entries is absent, first of entry {first}")]
    MissingData {
        /// The first entry, in the order of the table of contents, without its block.
        first: super::DumpId,
        /// How many entries lack their block.
        missing: usize,
    },
    /// The source of a copy failed.
    #[error("cannot read the archive")]
    Read {
        /// What the reader said.
        source: io::Error,
    },
    /// The destination of a copy failed; a `pg_restore` that has ended closes its input.
    #[error("cannot write the archive")]
    Write {
        /// What the writer said.
        source: io::Error,
    },
    /// More bytes were handed to a reader that had reported an error already.
    #[error("archive reader was used again after it had failed")]
    AlreadyFailed,
}

impl ArchiveError {
    /// Whether the bytes were right as far as they went and there were too few of them.
    pub fn is_truncation(&self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::MissingData { .. })
    }
}
