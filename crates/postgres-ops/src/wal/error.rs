use super::{Lsn, Segment, SystemId, Timeline};

/// Why something is not the WAL that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// Not a name that PostgreSQL gives to a file of its log.
    #[error("{name:?} is not the name of a WAL file")]
    Name {
        /// The name.
        name: String,
    },
    /// Not a position in the log.
    #[error("{text:?} is not a WAL position such as 16/B374D848")]
    Position {
        /// The text.
        text: String,
    },
    /// Not the number of a transaction.
    #[error("{text:?} is not a transaction such as 734")]
    Transaction {
        /// The text.
        text: String,
    },
    /// A size that no cluster can have.
    #[error("{bytes} bytes is not a WAL segment size: powers of two from 1 MiB to 1 GiB are")]
    Size {
        /// The size.
        bytes: u64,
    },
    /// The first page is not that of a segment of a supported version.
    #[error("no WAL segment: {what}")]
    NotWal {
        /// What was found.
        what: &'static str,
    },
    /// Written by another cluster.
    #[error("WAL of another cluster: system identifier {found}, expected {expected}")]
    OtherCluster {
        /// In the header.
        found: SystemId,
        /// Of the stanza.
        expected: SystemId,
    },
    /// The header speaks of another place in the log than the name.
    #[error("the file of segment {name} begins at {at} of timeline {timeline}")]
    OtherSegment {
        /// As named.
        name: Segment,
        /// Position in the header.
        at: Lsn,
        /// Timeline in the header.
        timeline: Timeline,
    },
    /// As long as no segment of this cluster is.
    #[error("segment {name} has {found} bytes instead of {expected}")]
    Length {
        /// The segment.
        name: Segment,
        /// Bytes there are.
        found: u64,
        /// Bytes that its header announces.
        expected: u64,
    },
    /// A history file that cannot be what PostgreSQL wrote.
    #[error("line {line} of the history of timeline {timeline}: {what}")]
    History {
        /// Whose history it is.
        timeline: Timeline,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}
