use std::io;
use std::path::{Path, PathBuf};

use backstay_backup_core::error::Classified;
use backstay_backup_core::{Class, Error as CoreError};

use crate::archive::ArchiveError;

/// Why a Redis was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// What was asked for cannot be used for this.
    #[error("{problem}")]
    Unsuitable {
        /// Why.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// The target cannot be reached from what is stored.
    #[error("{problem}")]
    Unreachable {
        /// Why, with the gap or the bound by its offsets and times.
        problem: String,
        /// The nearest points that can be reached, in words.
        nearest: Vec<String>,
    },
    /// Nothing in the archive fits, or there is nothing at all.
    #[error("{problem}")]
    Absent {
        /// What was not found.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// The data directory is in the way, or in use.
    #[error("{} {problem}", path.display())]
    Target {
        /// The directory, or what in it.
        path: PathBuf,
        /// Why it cannot be used.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// Stored bytes are not what they should be.
    #[error("{what} cannot be restored: {problem}")]
    Content {
        /// The set, base or segment.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The server did not load what was restored, or not all of it.
    #[error("the restored server {problem}{}", last_words(words))]
    Server {
        /// What happened.
        problem: String,
        /// The end of its log.
        words: String,
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
    /// A running server could not be asked.
    #[error(transparent)]
    Redis(#[from] crate::Error),
    /// The archive of the stream cannot be read, or has a gap.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] CoreError),
}

fn last_words(words: &str) -> String {
    if words.is_empty() {
        return String::new();
    }
    format!("; its last words:\n  {}", words.replace('\n', "\n  "))
}

impl RestoreError {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source }
    }

    pub(crate) fn usage(problem: impl Into<String>, remedy: &str) -> Self {
        Self::Unsuitable { problem: problem.into(), remedy: remedy.to_owned() }
    }

    pub(crate) fn target(path: &Path, problem: impl Into<String>, remedy: &str) -> Self {
        Self::Target { path: path.to_owned(), problem: problem.into(), remedy: remedy.to_owned() }
    }

    pub(crate) fn content(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Content { what: what.into(), problem: problem.into() }
    }

    pub(crate) fn server(problem: impl Into<String>, words: impl Into<String>) -> Self {
        Self::Server { problem: problem.into(), words: words.into() }
    }

    /// Of a blocking thread that is gone.
    pub(crate) fn lost_thread(error: &tokio::task::JoinError) -> Self {
        Self::Repository(CoreError::Internal { what: format!("a thread of the restore was lost: {error}") })
    }
}

impl Classified for RestoreError {
    fn class(&self) -> Class {
        match self {
            Self::Unsuitable { .. } => Class::Usage,
            Self::Unreachable { .. } | Self::Absent { .. } => Class::Absent,
            Self::Target { .. } => Class::Conflict,
            Self::Content { .. } | Self::Server { .. } => Class::Data,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Class::Usage,
            Self::Io { .. } => Class::Temporary,
            Self::Redis(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Repository(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unsuitable { remedy, .. } | Self::Absent { remedy, .. } | Self::Target { remedy, .. } => {
                Some(remedy.clone())
            }
            Self::Unreachable { nearest, .. } if nearest.is_empty() => None,
            Self::Unreachable { nearest, .. } => {
                Some(format!("nearest that can be reached: {}", nearest.join("; ")))
            }
            Self::Content { .. } => Some(
                "restore another point; `verify-backups --full` shows which copies and sets are whole"
                    .to_owned(),
            ),
            Self::Server { .. } => {
                Some("the old data is kept; the runbook undo-a-flushall says what to do".to_owned())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as the account of the server, or as root".to_owned())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room, and run the same command again; the old data is untouched".to_owned())
            }
            Self::Io { .. } => None,
            Self::Redis(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Repository(error) => error.hint(),
        }
    }
}
