//! Errors of PostgreSQL operations.

mod connect;

use std::borrow::Cow;

use backstay_backup_core::error::Classified;
use backstay_backup_core::secret::SecretError;
use backstay_backup_core::{Class, Error as CoreError};

use crate::ident::MAX_NAME;
pub use connect::ConnectError;

/// Why a PostgreSQL operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A selection names something that is not there.
    #[error("no {what} of database {database} fits {pattern:?}")]
    NothingFits {
        /// `table` or `schema`.
        what: &'static str,
        /// The database.
        database: String,
        /// What was asked for.
        pattern: String,
    },
    /// A query failed.
    #[error("cannot {op} in database {database}")]
    Query {
        /// What was being done.
        op: &'static str,
        /// Where.
        database: String,
        /// The driver's words.
        source: sqlx::Error,
    },
    /// A client program is missing.
    #[error("{program} {needed} or newer was not found")]
    NoTool {
        /// Its name.
        program: &'static str,
        /// Major version that is needed at least.
        needed: u32,
        /// Where it was looked for and which versions were there.
        searched: String,
    },
    /// A program is older than what it has to work with.
    #[error("{program} {found} is older than {than}, which is {needed}")]
    ToolTooOld {
        /// Its name.
        program: &'static str,
        /// Newest major version found.
        found: u32,
        /// What it has to work with, in words.
        than: &'static str,
        /// Major version that is needed at least.
        needed: u32,
    },
    /// PostgreSQL would silently take another name.
    #[error("{what} name {name} has {} bytes, PostgreSQL takes {MAX_NAME}", name.len())]
    NameTooLong {
        /// `database` or `role`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A client program ended badly.
    #[error("{program} ended with {status}: {words}")]
    Tool {
        /// Its name.
        program: &'static str,
        /// Exit status or signal.
        status: String,
        /// The end of what it said.
        words: String,
        /// Class of what it said, see [`Error::class`].
        class: Class,
    },
    /// A client program could not be run or talked to.
    #[error("cannot run {program}")]
    Spawn {
        /// Its name.
        program: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The dump is not what pg_dump writes.
    #[error("the dump cannot be read")]
    Archive {
        /// What is wrong.
        source: crate::archive::ArchiveError,
    },
    /// The target of a restore is in the way.
    #[error("database {database} {problem}")]
    Target {
        /// The target.
        database: String,
        /// Why it cannot be used.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The set cannot be used for this.
    #[error("set {set} {problem}")]
    Unsuitable {
        /// The set.
        set: String,
        /// Why.
        problem: String,
        /// What to do about it, where that is known.
        remedy: Option<&'static str>,
    },
    /// What was restored is not what was backed up.
    #[error("the restored database differs from the backup: {comparison}")]
    NotEqual {
        /// What was compared and what differs.
        comparison: Box<crate::compare::Comparison>,
    },
    /// A cluster was not backed up.
    #[error(transparent)]
    ClusterBackup(#[from] crate::physical::BackupError),
    /// A secret of the connection cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] CoreError),
}

impl Error {
    /// What it means to whoever started the operation.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Connect(error) => error.class(),
            Self::NothingFits { .. }
            | Self::NameTooLong { .. }
            | Self::NoTool { .. }
            | Self::ToolTooOld { .. }
            | Self::Unsuitable { .. } => Class::Usage,
            // The same command will not succeed later either.
            Self::Query { source, .. } if is_denied(source) => Class::Usage,
            Self::Query { .. } | Self::Spawn { .. } => Class::Temporary,
            Self::Tool { class, .. } => *class,
            Self::Archive { .. } | Self::NotEqual { .. } => Class::Data,
            Self::Target { .. } => Class::Conflict,
            Self::ClusterBackup(error) => error.class(),
            Self::Secret(error) => error.class(),
            Self::Repository(error) => error.class(),
        }
    }
}

/// `insufficient_privilege`.
const DENIED: &str = "42501";
/// `disk_full`.
const DISK_FULL: &str = "53100";
/// The same in the words of the operating system.
const NO_SPACE: &str = "No space left on device";
const NO_ROOM: &str = "make room on the server's disk; a restore beside a database needs room for both";

/// What the server said, as a code.
fn sql_state(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|error| error.code())
}

fn is_denied(error: &sqlx::Error) -> bool {
    sql_state(error).as_deref() == Some(DENIED)
}

impl Classified for Error {
    fn class(&self) -> Class {
        self.class()
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NothingFits { .. } => {
                "check the name, upper and lower case too; * and ? stand for anything"
            }
            Self::NoTool { program, needed, .. } | Self::ToolTooOld { program, needed, .. } => {
                let package = if *program == "initdb" { "server" } else { "client" };
                return Some(format!(
                    "install the PostgreSQL {needed} {package}, or name the folder of {program} with --bin-dir"
                ));
            }
            Self::NameTooLong { .. } => {
                "give a shorter name; a letter that is not plain English counts as two to four bytes"
            }
            Self::Tool { class: Class::Usage, words, .. } if words.contains("permission denied") => {
                "give the role what it lacks (to back up: GRANT pg_read_all_data), or use another one"
            }
            Self::Target { remedy, .. } => remedy,
            Self::Unsuitable { remedy, .. } => return remedy.map(str::to_owned),
            Self::NotEqual { .. } => {
                "do not use the restored database; restore another set and verify this one"
            }
            Self::Archive { .. } => "`verify-backups --full` shows which copies and sets are whole",
            Self::Query { source, .. } if is_denied(source) => {
                "give the role what it lacks, or use another one"
            }
            Self::Query { source, .. } if sql_state(source).as_deref() == Some(DISK_FULL) => NO_ROOM,
            Self::Tool { words, .. } if words.contains(NO_SPACE) => NO_ROOM,
            Self::Spawn { program: "the test server", source } if source.to_string().contains(NO_SPACE) => {
                "make room there, or name another folder with --scratch"
            }
            Self::Query { .. } | Self::Tool { .. } | Self::Spawn { .. } => return None,
            Self::Connect(error) => return error.hint(),
            Self::ClusterBackup(error) => return error.hint(),
            Self::Secret(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}
