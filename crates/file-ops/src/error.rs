//! Errors of backups and restores of files.

use std::fmt;
use std::path::{Path, PathBuf};

use backstay_backup_core::error::Classified;
use backstay_backup_core::process::ProcessError;
use backstay_backup_core::secret::SecretError;
use backstay_backup_core::{Class, Error as CoreError};
use serde::Serialize;

use crate::path::printable_path;

/// Most findings that an error names.
const NAMED: usize = 20;

/// A secret that stands in the way of a set without encryption. Never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Finding {
    /// The file.
    pub path: String,
    /// Line in it, from 1; absent when its name says enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The rule that found it.
    pub rule: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, " ({})", self.rule)
    }
}

/// Why files were not backed up or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused something.
    #[error("cannot {op} {}", printable_path(path))]
    Io {
        /// What was being done.
        op: &'static str,
        /// To what.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A listed path or pattern is none.
    #[error("{pattern:?} cannot be used: {problem}")]
    Pattern {
        /// As written.
        pattern: String,
        /// Why.
        problem: String,
    },
    /// Nothing of what was listed is there.
    #[error("nothing to back up: {problem}")]
    Nothing {
        /// What was looked for.
        problem: String,
    },
    /// Nobody said who may read the set.
    #[error("without recipients everybody who reads the repository reads this set")]
    Plaintext,
    /// A set without encryption would have secrets in it.
    #[error("{} in what would be stored without encryption: {}", secrets(findings.len()), named(findings))]
    Secrets {
        /// Where, and by which rule.
        findings: Vec<Finding>,
    },
    /// An archive is not what it should be; nothing of it is used.
    #[error("the archive is refused: {name}: {problem}")]
    Refused {
        /// Name of the entry, printable.
        name: String,
        /// Why.
        problem: String,
    },
    /// A set does not hold what it is to be used for.
    #[error("set {set} {problem}")]
    Unsuitable {
        /// The set.
        set: String,
        /// Why.
        problem: String,
    },
    /// Something on the system is in the way.
    #[error("{path} is in the way: {problem}")]
    Conflict {
        /// What.
        path: String,
        /// Why.
        problem: String,
    },
    /// A folder of an earlier restore is not what it should be.
    #[error("{} cannot be used: {problem}", printable_path(path))]
    Staging {
        /// The folder.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Another program did not do its work.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The secret that belongs into a file cannot be had; nothing was installed.
    #[error("cannot fetch what belongs into {}", printable_path(path))]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Whether the version was asked for that the set names.
        is_recorded: bool,
        /// The reason.
        source: SecretError,
    },
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] CoreError),
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
}

fn secrets(number: usize) -> String {
    if number == 1 { "there is a secret".to_owned() } else { format!("there are {number} secrets") }
}

fn named(findings: &[Finding]) -> String {
    let mut names: Vec<_> = findings.iter().take(NAMED).map(Finding::to_string).collect();
    if findings.len() > NAMED {
        names.push(format!("and {} more", findings.len() - NAMED));
    }
    names.join(", ")
}

impl Error {
    pub(crate) fn io(op: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { op, path: path.to_owned(), source }
    }

    /// A thread that panicked.
    pub(crate) fn internal(error: &tokio::task::JoinError) -> Self {
        Self::Repository(CoreError::Internal { what: error.to_string() })
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        use std::io::ErrorKind::{NotFound, PermissionDenied};
        match self {
            Self::Io { source, .. } if matches!(source.kind(), PermissionDenied | NotFound) => Class::Usage,
            Self::Io { .. } | Self::Cancelled => Class::Temporary,
            Self::Pattern { .. }
            | Self::Nothing { .. }
            | Self::Plaintext
            | Self::Secrets { .. }
            | Self::Unsuitable { .. } => Class::Usage,
            Self::Refused { .. } => Class::Data,
            Self::Conflict { .. } | Self::Staging { .. } => Class::Conflict,
            Self::Process(error) => error.class(),
            Self::Secret(error) | Self::SecretFile { source: error, .. } => error.class(),
            Self::Repository(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Plaintext => {
                "set encryption.recipients (two public keys, age1…), or say --plaintext: then secrets are looked for first"
            }
            Self::Secrets { .. } => {
                "encrypt (encryption.recipients), leave the file out with --exclude, or, if it is no secret, --allow its path"
            }
            Self::Nothing { .. } => "name files and folders that are there",
            Self::Refused { problem, .. } if problem.contains("upper and lower case") => {
                "if this system tells them apart and they are wanted: --allow-case-collisions"
            }
            Self::Refused { problem, .. } if problem.contains("more room") => {
                "if that is right, make room, or raise --max-size"
            }
            Self::Refused { .. } => {
                "do not restore from this set; take another one, and find out who wrote this one"
            }
            Self::Staging { .. } => "name an empty or a new folder with --staging",
            Self::Process(error) => return error.hint(),
            Self::SecretFile { is_recorded: true, source: SecretError::Absent { .. }, .. } => {
                "nothing was installed; --secrets=current takes the version in use now, without --secrets the file stays as it is"
            }
            Self::Secret(error) | Self::SecretFile { source: error, .. } => return error.hint(),
            Self::Repository(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
