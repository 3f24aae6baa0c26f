use backstay_backup_core::error::Classified;
use backstay_backup_core::{Class, Error as CoreError};

use crate::wal::{WalError, WalFile};

/// Why a file of the log could not be archived or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalArchiveError {
    /// The file is not what its name says, or of another cluster.
    #[error("{file} is not archived")]
    Content {
        /// Its name.
        file: WalFile,
        /// What is wrong with it.
        source: WalError,
    },
    /// A repository has something else under this name.
    #[error("repository {repository} has another {file}")]
    Conflict {
        /// The name.
        file: WalFile,
        /// Name of the repository.
        repository: String,
        /// What is there, in words.
        found: String,
    },
    /// A repository failed, or too few took the file.
    #[error(transparent)]
    Repository(#[from] CoreError),
}

impl Classified for WalArchiveError {
    fn class(&self) -> Class {
        match self {
            Self::Content { source: WalError::OtherCluster { .. }, .. } | Self::Conflict { .. } => {
                Class::Conflict
            }
            Self::Content { .. } => Class::Data,
            Self::Repository(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Content { source: WalError::OtherCluster { .. }, .. } => {
                Some("give every cluster a stanza of its own".to_owned())
            }
            Self::Conflict { .. } => Some(
                "two servers write to this stanza, or one was restored and archives into its own past: stop one, or \
                 give it a stanza of its own"
                    .to_owned(),
            ),
            Self::Repository(error) => error.hint(),
            Self::Content { .. } => None,
        }
    }
}
