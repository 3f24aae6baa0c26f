use std::io;
use std::path::{Path, PathBuf};

use backstay_backup_core::error::Classified;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::{Class, Error as CoreError};

use crate::error::Error;
use crate::recovery::PlanError;
use crate::wal_archive::WalArchiveError;

/// Why a cluster was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterRestoreError {
    /// The target directory is in the way.
    #[error("{} {problem}", path.display())]
    Target {
        /// The directory, or what in it.
        path: PathBuf,
        /// Why it cannot be used.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The set, or what was asked for, cannot be used for this.
    #[error("{problem}")]
    Unsuitable {
        /// Why.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The index of a set contradicts itself or the manifest.
    #[error("the index of set {set} cannot be used: {problem}")]
    Index {
        /// The set.
        set: SetId,
        /// What is wrong.
        problem: String,
    },
    /// Stored content is not what the index says.
    #[error("{object} of set {set} is not what its index says: {problem}")]
    Content {
        /// The set.
        set: SetId,
        /// The pack.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// The operating system refused something.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was being done.
        op: &'static str,
        /// With what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The restored server ended, or never got ready.
    #[error("the restored server {problem}; its last words:\n  {}", words.replace('\n', "\n  "))]
    Server {
        /// What happened.
        problem: String,
        /// The end of its log.
        words: String,
    },
    /// There is nothing to restore.
    #[error("no good backup of a cluster in stanza {stanza}")]
    NoSet {
        /// The stanza.
        stanza: Stanza,
    },
    /// The target cannot be reached, or the log cannot be read.
    #[error(transparent)]
    Recovery(#[from] PlanError),
    /// The archive of the log failed.
    #[error(transparent)]
    Archive(#[from] WalArchiveError),
    /// PostgreSQL's programs or a query failed.
    #[error(transparent)]
    Postgres(#[from] Error),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] CoreError),
}

impl ClusterRestoreError {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source }
    }
}

impl Classified for ClusterRestoreError {
    fn class(&self) -> Class {
        match self {
            Self::Target { .. } => Class::Conflict,
            Self::Unsuitable { .. } => Class::Usage,
            Self::Index { .. } | Self::Content { .. } | Self::Server { .. } => Class::Data,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Class::Usage,
            Self::Io { .. } => Class::Temporary,
            Self::NoSet { .. } => Class::Absent,
            Self::Recovery(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Postgres(error) => error.class(),
            Self::Repository(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Target { remedy, .. } | Self::Unsuitable { remedy, .. } => remedy,
            Self::Index { .. } | Self::Content { .. } => {
                "restore another set; `verify-backups --full` shows which copies and sets are whole"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it as the account of the server, or as root"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room, and run the same command again: it continues where it stopped"
            }
            Self::Io { .. } => return None,
            Self::Server { .. } => {
                "do not use it as it is; the log says what it missed, and the runbook recover-to-a-moment what to do"
            }
            Self::NoSet { .. } => "`list-backups` shows all sets and what is wrong with them",
            Self::Recovery(error) => return error.hint(),
            Self::Archive(error) => return error.hint(),
            Self::Postgres(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}
