//! Errors of PostgreSQL operations.

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
    },
    /// The set cannot be used for this.
    #[error("set {set} {problem}")]
    Unsuitable {
        /// The set.
        set: String,
        /// Why.
        problem: String,
    },
    /// What was restored is not what was backed up.
    #[error("the restored database differs from the backup: {comparison}")]
    NotEqual {
        /// What was compared and what differs.
        comparison: Box<crate::compare::Comparison>,
    },
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
            | Self::NoTool { .. }
            | Self::ToolTooOld { .. }
            | Self::ServerTooOld { .. }
            | Self::Unsuitable { .. } => Class::Usage,
            Self::Unreachable { .. } | Self::Query { .. } | Self::Spawn { .. } => Class::Temporary,
            Self::Tool { class, .. } => *class,
            Self::Archive { .. } | Self::NotEqual { .. } => Class::Data,
            Self::Target { .. } => Class::Conflict,
            Self::Repository(error) => error.class(),
        }
    }
}
