//! Errors of Redis operations.

use std::io;
use std::time::Duration;

use backstay_backup_core::error::Classified;
use backstay_backup_core::secret::SecretError;
use backstay_backup_core::{Class, Error as CoreError};

use crate::rdb::RdbError;
use crate::resp::RespError;
use crate::source::Address;

/// Why a Redis operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers there.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: Address,
        /// The reason.
        source: io::Error,
    },
    /// The encrypted connection cannot be made.
    #[error("cannot make an encrypted connection to {address}: {problem}")]
    Tls {
        /// Where.
        address: Address,
        /// What is wrong.
        problem: String,
    },
    /// The server does not take the login.
    #[error("{address} does not let {user} in: {words}")]
    Login {
        /// Where.
        address: Address,
        /// Who.
        user: String,
        /// The server's own words.
        words: String,
    },
    /// The user may not do that.
    #[error("{address} does not allow {user} to {command}: {words}")]
    Denied {
        /// Where.
        address: Address,
        /// Who.
        user: String,
        /// The command.
        command: &'static str,
        /// The server's own words.
        words: String,
        /// Rules of the access list that would do.
        rules: &'static str,
    },
    /// Whatever listens there does not speak the protocol.
    #[error("{address} is not a Redis: it answers {found:?}")]
    NotRedis {
        /// Where.
        address: Address,
        /// The beginning of what it said.
        found: String,
    },
    /// The server exists but cannot serve this now.
    #[error("{address} is not ready: {words}")]
    NotReady {
        /// Where.
        address: Address,
        /// The server's own words.
        words: String,
    },
    /// The server has no such command, or refuses it for another reason.
    #[error("{address} refuses {command}: {words}")]
    Refused {
        /// Where.
        address: Address,
        /// The command.
        command: &'static str,
        /// The server's own words.
        words: String,
    },
    /// The connection ended, or failed.
    #[error("the connection to {address} was lost while {doing}")]
    Lost {
        /// Where.
        address: Address,
        /// What was being done.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// Nothing came for too long.
    #[error("{address} said nothing for {} s while {doing}", after.as_secs())]
    Silent {
        /// Where.
        address: Address,
        /// What was being done.
        doing: &'static str,
        /// How long one waited.
        after: Duration,
    },
    /// An answer that the protocol does not have.
    #[error("{address} answers what cannot be understood while {doing}: {found:?}")]
    Protocol {
        /// Where.
        address: Address,
        /// What was being done.
        doing: &'static str,
        /// The beginning of what it said.
        found: String,
    },
    /// The replication stream is not made of commands.
    #[error("the replication stream of {address} cannot be read")]
    Stream {
        /// Where.
        address: Address,
        /// What is wrong.
        source: RespError,
    },
    /// The snapshot is damaged.
    #[error("the snapshot cannot be used")]
    Rdb {
        /// What is wrong.
        source: RdbError,
    },
    /// The servers are not in a state in which they can be backed up.
    #[error("{what}")]
    Topology {
        /// What is wrong, in whole words.
        what: String,
        /// Whether it may pass by itself.
        temporary: bool,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The server's own background save did not succeed.
    #[error("the background save of {address} failed: {problem}")]
    Save {
        /// Where.
        address: Address,
        /// What is known.
        problem: String,
    },
    /// A local file cannot be used.
    #[error("cannot {op} {path}")]
    File {
        /// What was being done.
        op: &'static str,
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A setting that cannot be used.
    #[error("{problem}")]
    Setting {
        /// What is wrong with it.
        problem: String,
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
            Self::Login { .. }
            | Self::Denied { .. }
            | Self::NotRedis { .. }
            | Self::Refused { .. }
            | Self::Tls { .. }
            | Self::Setting { .. }
            | Self::Topology { temporary: false, .. } => Class::Usage,
            Self::Connect { .. }
            | Self::NotReady { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Protocol { .. }
            | Self::Save { .. }
            | Self::File { .. }
            | Self::Topology { temporary: true, .. } => Class::Temporary,
            Self::Stream { .. } | Self::Rdb { .. } => Class::Data,
            Self::Secret(error) => error.class(),
            Self::Repository(error) => error.class(),
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        self.class()
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Connect { .. } => "check address and port, and that the server runs and listens there",
            Self::Tls { .. } => {
                "check the port, the trusted certificates (tls-ca) and the name in the server's certificate"
            }
            Self::Login { .. } => {
                "check user and password; in the configuration: redis.user and redis.password"
            }
            Self::Denied { user, rules, .. } => {
                return Some(format!("give it what it lacks: ACL SETUSER {user} {rules}"));
            }
            Self::NotRedis { .. } => "check the port; a port that expects TLS needs --tls",
            Self::NotReady { .. } => {
                "run it again when the server has loaded its data and reached its primary"
            }
            Self::Refused { command: "PSYNC", .. } => {
                "a server that forbids replication can be backed up with --via bgsave, where its files can be read"
            }
            Self::Topology { remedy, .. } => remedy,
            Self::Save { .. } => "look at the server's log; mostly its disk is full or memory is short",
            Self::Rdb { .. } => {
                "run it again; if it happens again, compare with `redis-check-rdb` on the server"
            }
            Self::Refused { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Protocol { .. }
            | Self::Stream { .. }
            | Self::File { .. }
            | Self::Setting { .. } => return None,
            Self::Secret(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}
