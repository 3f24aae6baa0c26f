//! Why there is no connection to a database.

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;

/// Why a server or database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The connection text cannot be used.
    #[error("invalid connection setting: {problem}")]
    Setting {
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
    /// The database lets nobody in, such as `template0`.
    #[error("database {database} on {server} does not accept connections")]
    Closed {
        /// Host and port.
        server: String,
        /// The database.
        database: String,
    },
    /// The server is older than this library understands.
    #[error("PostgreSQL {found} is not supported, 14 is the oldest")]
    TooOld {
        /// Its major version.
        found: u32,
    },
}

impl Classified for ConnectError {
    fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } => Class::Temporary,
            _ => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Setting { .. } => "give --database-url postgresql://user@host:port/database",
            Self::Unreachable { .. } => {
                "check host and port, and whether the server accepts connections from here"
            }
            Self::Refused { .. } => "check the role and its password; ~/.pgpass is a safe place for it",
            Self::NoDatabase { .. } => "check the name; `psql --list` shows the databases there are",
            Self::Closed { .. } => {
                "name another one, or let it accept them: ALTER DATABASE … ALLOW_CONNECTIONS true"
            }
            Self::TooOld { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
