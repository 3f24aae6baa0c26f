use std::io;
use std::path::PathBuf;

use backstay_backup_core::error::Classified;
use backstay_backup_core::{Class, Error as CoreError};

use crate::archive::{ArchiveError, StreamId};

/// Why an archiver stopped, or did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The server cannot be followed.
    #[error(transparent)]
    Server(#[from] crate::Error),
    /// One shard is followed, and it is not clear which.
    #[error("{}", no_shard(wanted.as_deref(), shards))]
    NoShard {
        /// What was asked for.
        wanted: Option<String>,
        /// What there is.
        shards: Vec<String>,
    },
    /// The spool cannot be used.
    #[error("cannot {op} in the spool {}", path.display())]
    Spool {
        /// What was tried.
        op: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process works in the spool.
    #[error("the spool {} is in use by another process", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The spool has no room; not an end, it detaches until there is.
    #[error("detached")]
    Full {
        /// Why.
        source: io::Error,
    },
    /// A task of the archiver ended before the others.
    #[error("the archiver is ending")]
    Ended,
    /// The end came before everything was in the repositories. It is in the spool.
    #[error("stopped with {waiting} segments of stream {stream} still in the spool {}", path.display())]
    Unfinished {
        /// How many.
        waiting: u64,
        /// The stream.
        stream: StreamId,
        /// The folder.
        path: PathBuf,
        /// What kept it from being stored, when that is known.
        problem: Option<String>,
    },
    /// The archive cannot be written or read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A repository failed.
    #[error(transparent)]
    Repository(#[from] CoreError),
}

impl FollowError {
    /// What it means to whoever started the operation.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Server(error) => error.class(),
            Self::NoShard { .. } => Class::Usage,
            Self::Spool { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::ReadOnlyFilesystem => Class::Usage,
                _ => Class::Temporary,
            },
            Self::Busy { .. } => Class::Conflict,
            Self::Unfinished { .. } | Self::Full { .. } | Self::Ended => Class::Temporary,
            Self::Archive(error) => error.class(),
            Self::Repository(error) => error.class(),
        }
    }
}

impl Classified for FollowError {
    fn class(&self) -> Class {
        self.class()
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Server(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            Self::Busy { .. } => {
                Some("one archiver works already; give another stream its own --spool".to_owned())
            }
            Self::Unfinished { .. } => {
                Some("start it again on this machine: it stores what is left in the spool first".to_owned())
            }
            Self::Spool { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room there, or name another folder with --spool".to_owned())
            }
            Self::Spool { .. } => Some("name a folder that can be written with --spool".to_owned()),
            Self::NoShard { .. } => Some("run one archiver for each shard, with --shard".to_owned()),
            Self::Full { .. } | Self::Ended => None,
        }
    }
}

fn no_shard(wanted: Option<&str>, shards: &[String]) -> String {
    let there = shards.join(", ");
    match wanted {
        Some(wanted) => format!("there is no shard {wanted}; there are {there}"),
        None => format!("the cluster has {} shards, and an archiver follows one: {there}", shards.len()),
    }
}
