//! Errors of backups and restores of code.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backstay_backup_core::error::Classified;
use backstay_backup_core::process::ProcessError;
use backstay_backup_core::{Class, Error as CoreError};

use crate::error::Error;
use crate::path::printable_path;

/// Words that speak of the machine.
const MACHINE: [&str; 9] = [
    "no space left",
    "disk quota",
    "cannot allocate",
    "out of memory",
    "resource temporarily",
    "too many open files",
    "unable to create thread",
    "read-only file system",
    "usage: git",
];

/// Why code was not backed up or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// A folder that is none of the forms that are captured exactly.
    #[error("{} cannot be taken: {problem}", printable_path(path))]
    NotTaken {
        /// The folder.
        path: PathBuf,
        /// Why.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Git cannot read what it should have.
    #[error("the git repository {} is damaged: {problem}", printable_path(path))]
    Damaged {
        /// The repository.
        path: PathBuf,
        /// In git's words.
        problem: String,
    },
    /// A stored set does not give the repository that it was made of.
    #[error("set {set} does not give what was backed up: {problem}")]
    Differs {
        /// The set.
        set: String,
        /// What differs.
        problem: String,
    },
    /// The set does not hold what was asked for.
    #[error("set {set} has no {wanted}")]
    Absent {
        /// The set.
        set: String,
        /// What was asked for.
        wanted: String,
    },
    /// Git did not end.
    #[error("git {what} did not end within {} s", limit.as_secs())]
    TimedOut {
        /// Its command.
        what: String,
        /// What it was given.
        limit: Duration,
    },
    /// Git failed, and not for the sake of its data.
    #[error("git {what} failed: {problem}")]
    Git {
        /// Its command.
        what: String,
        /// In its own words.
        problem: String,
    },
    /// As with configuration.
    #[error(transparent)]
    Files(#[from] Error),
}

impl CodeError {
    pub(super) fn io(op: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Files(Error::io(op, path, source))
    }

    pub(super) fn internal(what: impl std::fmt::Display) -> Self {
        Self::Files(Error::Repository(CoreError::Internal { what: what.to_string() }))
    }

    pub(super) fn cancelled() -> Self {
        Self::Files(Error::Cancelled)
    }

    /// Git that complained while it read a repository: damage, or a failure of the machine.
    pub(super) fn of_repository(path: &Path, what: &str, words: &str) -> Self {
        let problem = if words.is_empty() { format!("git {what} failed") } else { words.to_owned() };
        let lower = problem.to_lowercase();
        if lower.contains("permission denied") {
            let remedy = "run as an account that may read all of it";
            return Self::NotTaken { path: path.to_owned(), problem, remedy };
        }
        if is_of_machine(&lower) {
            return Self::Git { what: what.to_owned(), problem };
        }
        Self::Damaged { path: path.to_owned(), problem }
    }

    /// Git that complained about a pack: that is damage, unless the machine failed.
    pub(super) fn of_pack(path: &Path, error: Self) -> Self {
        match error {
            Self::Git { problem, .. } if !is_of_machine(&problem.to_lowercase()) => {
                Self::Damaged { path: path.to_owned(), problem }
            }
            Self::Damaged { problem, .. } => Self::Damaged { path: path.to_owned(), problem },
            error => error,
        }
    }
}

/// Whether it is no fault of the data that git failed.
fn is_of_machine(lower: &str) -> bool {
    MACHINE.iter().any(|word| lower.contains(word))
}

impl From<CoreError> for CodeError {
    fn from(error: CoreError) -> Self {
        Self::Files(error.into())
    }
}

impl From<ProcessError> for CodeError {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::Cancelled { .. } => Self::cancelled(),
            error => Self::Files(error.into()),
        }
    }
}

impl Classified for CodeError {
    fn class(&self) -> Class {
        match self {
            Self::NotTaken { .. } => Class::Usage,
            Self::Damaged { .. } | Self::Differs { .. } => Class::Data,
            Self::Absent { .. } => Class::Absent,
            Self::TimedOut { .. } | Self::Git { .. } => Class::Temporary,
            Self::Files(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotTaken { remedy, .. } => remedy,
            Self::Damaged { .. } => {
                "git fsck --full names what is broken; nothing was stored, and the sets that exist are as they were"
            }
            Self::Differs { .. } => "do not use this set; take another one with --set or --at",
            Self::Absent { .. } => "without --apply the set is described; list-backups names the others",
            Self::TimedOut { .. } => "if the repository needs that long: --timeout",
            Self::Git { .. } => return None,
            Self::Files(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}
