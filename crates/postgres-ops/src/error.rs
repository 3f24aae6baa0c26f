//! Errors of PostgreSQL operations.

use backstay_backup_core::error::Classified;
use backstay_backup_core::secret::SecretError;
use backstay_backup_core::{Class, Error as CoreError};

/// Why a PostgreSQL operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection text cannot be used.
    #[error("invalid connection setting: {problem}")]
    Connection {
        /// What is wrong, without the password.
        problem: String,
    },
    /// The server cannot be reached or does not accept connections now.
    #[error("cannot connect to {server}")]
    Unreachable {
        /// Host, port and database.
        server: String,
        /// The driver's words.
        source: sqlx::Error,
    },
    /// The server refused the role or its password.
    #[error("{server} refused role {role}")]
    Refused {
        /// Host, port and database.
        server: String,
        /// The role.
        role: String,
        /// The driver's words.
        source: sqlx::Error,
    },
    /// There is no such database.
    #[error("database {database} does not exist on {server}")]
    NoDatabase {
        /// Host and port.
        server: String,
        /// The database.
        database: String,
    },
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
    /// A client program is older than the server.
    #[error("{program} {found} is older than the server, which is {server}")]
    ToolTooOld {
        /// Its name.
        program: &'static str,
        /// Newest major version found.
        found: u32,
        /// Major version of the server.
        server: u32,
    },
    /// The server is older than this library understands.
    #[error("PostgreSQL {found} is not supported, 14 is the oldest")]
    ServerTooOld {
        /// Its major version.
        found: u32,
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
            Self::Connection { .. }
            | Self::Refused { .. }
            | Self::NoDatabase { .. }
            | Self::NothingFits { .. }
            | Self::NoTool { .. }
            | Self::ToolTooOld { .. }
            | Self::ServerTooOld { .. }
            | Self::Unsuitable { .. } => Class::Usage,
            // The same command will not succeed later either.
            Self::Query { source, .. } if is_denied(source) => Class::Usage,
            Self::Unreachable { .. } | Self::Query { .. } | Self::Spawn { .. } => Class::Temporary,
            Self::Tool { class, .. } => *class,
            Self::Archive { .. } | Self::NotEqual { .. } => Class::Data,
            Self::Target { .. } => Class::Conflict,
            Self::Secret(error) => error.class(),
            Self::Repository(error) => error.class(),
        }
    }
}

/// Whether the server said that the role may not do this (`insufficient_privilege`).
fn is_denied(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("42501")
}

impl Classified for Error {
    fn class(&self) -> Class {
        self.class()
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Connection { .. } => "give --database-url postgresql://user@host:port/database",
            Self::Unreachable { .. } => {
                "check host and port, and whether the server accepts connections from here"
            }
            Self::Refused { .. } => "check the role and its password; ~/.pgpass is a safe place for it",
            Self::NoDatabase { .. } => "check the name; `psql --list` shows the databases there are",
            Self::NothingFits { .. } => {
                "check the name, upper and lower case too; * and ? stand for anything"
            }
            Self::NoTool { program, needed, .. } | Self::ToolTooOld { program, server: needed, .. } => {
                return Some(format!(
                    "install the PostgreSQL {needed} client, or name the folder of {program} with --bin-dir"
                ));
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
            Self::ServerTooOld { .. } | Self::Query { .. } | Self::Tool { .. } | Self::Spawn { .. } => {
                return None;
            }
            Self::Secret(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}
