use std::io;
use std::path::PathBuf;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified as _;

use crate::physical::ClusterPathError;
use crate::physical::control::ControlError;
use crate::physical::scan::ScanError;

/// Why a cluster was not backed up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The server is not set up for physical backups.
    #[error("{problem}")]
    NotReady {
        /// What is missing.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// The data directory is not that of the server.
    #[error("{directory} is not the data directory of this server: {problem}")]
    WrongDirectory {
        /// Where was looked.
        directory: PathBuf,
        /// What is different.
        problem: String,
    },
    /// The role lacks a privilege.
    #[error("the role may not {what}")]
    Denied {
        /// What it was to do.
        what: &'static str,
        /// The statement that permits it.
        grant: String,
        /// The server's words.
        source: sqlx::Error,
    },
    /// The cluster cannot be listed.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path that no cluster has.
    #[error(transparent)]
    Path(#[from] ClusterPathError),
    /// `pg_control` makes no sense.
    #[error("{path} cannot be used")]
    Control {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: ControlError,
    },
    /// The session that keeps the server in backup mode ended, and the backup with it.
    #[error("the session of the backup ended")]
    Session {
        /// What the driver says.
        source: sqlx::Error,
    },
    /// The standby became a primary, so what was copied is of no use.
    #[error("the standby was promoted during the backup")]
    Promoted {
        /// The server's words.
        source: sqlx::Error,
    },
    /// The server said something that it never says.
    #[error("the server's {what} cannot be understood: {text:?}")]
    Answer {
        /// What it is about.
        what: &'static str,
        /// Its words.
        text: String,
    },
    /// WAL without which the backup is worthless did not reach the archive in time.
    #[error(
        "{missing} of {needed} WAL segments that the backup needs did not reach the archive within {seconds} s, the first is {first}{archiver}"
    )]
    WalMissing {
        /// The first that is missing.
        first: String,
        /// How many are missing.
        missing: usize,
        /// How many are needed.
        needed: usize,
        /// How long was waited.
        seconds: u64,
        /// What the server's archiver says, as a part of the sentence; empty when it says nothing.
        archiver: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The WAL archive failed.
    #[error(transparent)]
    Archive(#[from] crate::wal_archive::WalArchiveError),
    /// Whoever wanted the data is gone and says why.
    #[error("nobody takes the data any more")]
    Unwanted,
}

impl BackupError {
    /// The other end of an object is gone.
    pub(super) fn sending(_gone: io::Error) -> Self {
        Self::Unwanted
    }

    /// Reading into an object failed, at one of its ends.
    pub(super) fn reading(path: PathBuf, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Unwanted
        } else {
            Self::Read { path, source: error }
        }
    }

    /// What it means to whoever started the backup.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotReady { .. } | Self::WrongDirectory { .. } | Self::Denied { .. } => Class::Usage,
            Self::Read { source, .. } | Self::Scan(ScanError::Read { source, .. }) => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => Class::Usage,
                _ => Class::Temporary,
            },
            Self::Scan(_) | Self::Path(_) | Self::Control { .. } => Class::Data,
            Self::Session { .. } | Self::WalMissing { .. } | Self::Unwanted | Self::Promoted { .. } => {
                Class::Temporary
            }
            Self::Answer { .. } => Class::Internal,
            Self::Archive(error) => error.class(),
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let denied = |source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied;
        Some(match self {
            Self::NotReady { remedy, .. } => remedy.clone(),
            Self::Denied { grant, .. } => grant.clone(),
            Self::WrongDirectory { .. } => {
                "run it on the host of the server, and name the directory with --data-directory".to_owned()
            }
            Self::Read { source, .. } | Self::Scan(ScanError::Read { source, .. }) if denied(source) => {
                "run it as the account that the server runs as".to_owned()
            }
            Self::Read { .. } | Self::Scan(ScanError::Read { .. }) => {
                "run it on the host of the server; name the data directory with --data-directory".to_owned()
            }
            Self::Session { .. } => {
                "was the server stopped? a backup needs it running; run it again".to_owned()
            }
            Self::Promoted { .. } => "run it again".to_owned(),
            Self::WalMissing { remedy, .. } => (*remedy).to_owned(),
            Self::Archive(error) => return error.hint(),
            Self::Scan(_) | Self::Path(_) | Self::Control { .. } | Self::Answer { .. } | Self::Unwanted => {
                return None;
            }
        })
    }
}
