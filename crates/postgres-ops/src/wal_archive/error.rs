use std::io::{self, ErrorKind};

use backstay_backup_core::error::Classified;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::ManifestError;
use backstay_backup_core::sealed::SealError;
use backstay_backup_core::{Class, Error as CoreError};

use crate::wal::{SystemId, WalError, WalFile};

/// Why a file of the log could not be archived or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalArchiveError {
    /// The file is not what its name says, or of another cluster.
    #[error("{file} is not what its name says")]
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
    /// The stanza belongs to another cluster.
    #[error("stanza {stanza} belongs to the cluster with system identifier {registered}, not to {found}")]
    OtherCluster {
        /// The stanza.
        stanza: Stanza,
        /// Whose it is.
        registered: SystemId,
        /// Who came.
        found: SystemId,
    },
    /// No repository has anything of this cluster, so none can say that something of it is absent.
    #[error("stanza {stanza} has nothing of the cluster with system identifier {system}")]
    Unknown {
        /// The stanza.
        stanza: Stanza,
        /// The cluster.
        system: SystemId,
    },
    /// Repositories name different clusters for one stanza.
    #[error("repositories disagree about whose stanza {stanza} is: {first} or {second}")]
    Disputed {
        /// The stanza.
        stanza: Stanza,
        /// One of the two.
        first: SystemId,
        /// The other.
        second: SystemId,
    },
    /// The registration of a cluster is unreadable or too new.
    #[error("registration {number} of repository {repository} cannot be used")]
    Registration {
        /// Its number.
        number: u32,
        /// Name of the repository.
        repository: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// What was fetched cannot be written where it is wanted.
    #[error("cannot write {file}")]
    Target {
        /// Its name.
        file: WalFile,
        /// What the file system says.
        source: io::Error,
    },
    /// A repository failed, or too few took the file.
    #[error(transparent)]
    Repository(#[from] CoreError),
}

impl Classified for WalArchiveError {
    fn class(&self) -> Class {
        match self {
            Self::Content { source: WalError::OtherCluster { .. }, .. }
            | Self::Conflict { .. }
            | Self::OtherCluster { .. }
            | Self::Disputed { .. } => Class::Conflict,
            Self::Damaged { source: SealError::Key, .. }
            | Self::Unknown { .. }
            | Self::Registration { source: ManifestError::TooNew { .. }, .. } => Class::Usage,
            Self::Content { .. } | Self::Damaged { .. } | Self::Hole { .. } | Self::Registration { .. } => {
                Class::Data
            }
            Self::Target { source, .. } => match source.kind() {
                ErrorKind::PermissionDenied | ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem => {
                    Class::Usage
                }
                _ => Class::Temporary,
            },
            Self::Contradiction { .. } => Class::Temporary,
            Self::Repository(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Content { source: WalError::OtherCluster { .. }, .. } => {
                Some("give every cluster a stanza of its own".to_owned())
            }
            Self::OtherCluster { .. } => Some(
                "if this cluster takes the place of the other one (initdb, pg_upgrade), say so once with `archive-wal \
                 --register`; otherwise give it a stanza of its own"
                    .to_owned(),
            ),
            Self::Disputed { .. } => Some(
                "look at the clusters folder of the stanza in each repository; `archive-wal --register` in the data \
                 directory of the right one settles it"
                    .to_owned(),
            ),
            Self::Unknown { .. } => {
                Some("check --stanza and the repositories' places; nothing was ever archived there".to_owned())
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
            Self::Content { .. }
            | Self::Damaged { .. }
            | Self::Contradiction { .. }
            | Self::Target { .. }
            | Self::Registration { .. } => None,
        }
    }
}
