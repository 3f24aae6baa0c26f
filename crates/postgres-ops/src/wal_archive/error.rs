use backstay_backup_core::error::Classified;
use backstay_backup_core::sealed::SealError;
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
    /// What a repository has under this name is not what was stored.
    #[error("{file} in repository {repository} cannot be used")]
    Damaged {
        /// The name.
        file: WalFile,
        /// Name of the repository.
        repository: String,
        /// What is wrong with it.
        source: SealError,
    },
    /// A file is missing and something after it is there, so it is not the end of the log.
    #[error("{file} is in no repository, but {later} is: the log has a hole")]
    Hole {
        /// What was asked for.
        file: WalFile,
        /// The next that is there.
        later: WalFile,
    },
    /// A store lists a file and says that it is not there to be read.
    #[error("a repository lists {file} and does not hand it out")]
    Contradiction {
        /// The file.
        file: WalFile,
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
            Self::Damaged { source: SealError::Key, .. } => Class::Usage,
            Self::Content { .. } | Self::Damaged { .. } | Self::Hole { .. } => Class::Data,
            Self::Contradiction { .. } => Class::Temporary,
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
            Self::Damaged { source: SealError::Key, .. } => {
                Some("give the private key of a recipient with --identity".to_owned())
            }
            Self::Hole { .. } => Some(
                "recover to a target before the hole, or look for the file in pg_wal of the old primary".to_owned(),
            ),
            Self::Content { .. } | Self::Damaged { .. } | Self::Contradiction { .. } => None,
        }
    }
}
