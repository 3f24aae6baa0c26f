use backstay_backup_core::error::Classified;
use backstay_backup_core::lease::LeaseError;
use backstay_backup_core::manifest::ManifestError;
use backstay_backup_core::sealed::SealError;
use backstay_backup_core::{Class, Error as CoreError};
use jiff::Timestamp;

use super::head::HeadError;
use super::name::{Position, SegmentName, StreamId};
use crate::ReplicationId;

/// Why something of an archived stream could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// What a repository has is not what was stored.
    #[error("{name} in repository {repository} cannot be used")]
    Damaged {
        /// Which.
        name: SegmentName,
        /// Name of the repository.
        repository: String,
        /// What is wrong with it.
        source: SealError,
    },
    /// What a repository has does not say of itself what it should.
    #[error("{name} in repository {repository} cannot be used")]
    Head {
        /// Which.
        name: SegmentName,
        /// Name of the repository.
        repository: String,
        /// What is wrong with it.
        source: HeadError,
    },
    /// A repository has other bytes for a place of the stream.
    #[error("repository {repository} has another {name}")]
    Conflict {
        /// Which.
        name: SegmentName,
        /// Name of the repository.
        repository: String,
        /// What is there, in words.
        found: String,
    },
    /// What is known of a history cannot be read.
    #[error("the record of history {id} in repository {repository} cannot be used")]
    Record {
        /// The history.
        id: ReplicationId,
        /// Name of the repository.
        repository: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Bytes are in no repository.
    #[error("the stream has a gap: nothing is archived from {from} on, before {to}")]
    Gap {
        /// The last place that is there.
        from: Position,
        /// The place that was to be reached.
        to: Position,
    },
    /// A place is not one of this line.
    #[error("{position} is no place of the line of history {line}")]
    Elsewhere {
        /// The place.
        position: Position,
        /// The line.
        line: ReplicationId,
    },
    /// Nothing had been received by then.
    #[error("nothing of stream {stream} was received by {time}")]
    TooEarly {
        /// The stream.
        stream: StreamId,
        /// The time asked for.
        time: Timestamp,
    },
    /// Nothing is archived under this name.
    #[error("stream {stream} does not exist in any repository")]
    NoStream {
        /// The stream.
        stream: StreamId,
    },
    /// A repository failed, or too few took the data.
    #[error(transparent)]
    Repository(#[from] CoreError),
}

impl ArchiveError {
    /// What it means to whoever started the operation.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Damaged { source: SealError::Key, .. }
            | Self::Head { source: HeadError::TooNew { .. }, .. }
            | Self::Record { source: ManifestError::TooNew { .. }, .. }
            | Self::Elsewhere { .. } => Class::Usage,
            Self::Damaged { .. } | Self::Head { .. } | Self::Record { .. } | Self::Gap { .. } => Class::Data,
            Self::Conflict { .. } => Class::Conflict,
            Self::TooEarly { .. } | Self::NoStream { .. } => Class::Absent,
            Self::Repository(error) => error.class(),
        }
    }

    /// Whether somebody else archives this stream now.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Repository(CoreError::Lease(LeaseError::Lost { .. })))
    }
}

impl Classified for ArchiveError {
    fn class(&self) -> Class {
        self.class()
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Damaged { source: SealError::Key, .. } => {
                "give the private key of a recipient with --identity-file"
            }
            Self::Gap { .. } | Self::Elsewhere { .. } => {
                "`list-backups` shows the windows within which recovery is possible"
            }
            Self::Conflict { .. } => {
                "two archivers write to one stream, of different servers: give each its own --stream"
            }
            Self::NoStream { .. } => {
                "check --stanza, --stream and the repository; `list-backups` shows what there is"
            }
            Self::Repository(error) => return error.hint(),
            Self::Damaged { .. } | Self::Head { .. } | Self::Record { .. } | Self::TooEarly { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}
