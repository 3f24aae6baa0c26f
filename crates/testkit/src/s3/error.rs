//! Why a server cannot be started.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an [`S3Server`](super::S3Server) cannot start or stop cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The threads of the server cannot be started.
    #[error("cannot start the server's threads")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory of the store cannot be used.
    #[error("cannot use {path}")]
    Directory {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another server has the directory open.
    #[error("{path} is in use by another server")]
    InUse {
        /// Lock file.
        path: PathBuf,
    },
    /// A line of the journal is not what this version writes.
    #[error("line {line} of {path} is damaged")]
    Journal {
        /// Journal file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The journal speaks of an object whose bytes are gone or have another length.
    #[error("data file {path} is missing or is not {expected} bytes long")]
    MissingData {
        /// Data file.
        path: PathBuf,
        /// Length the journal states.
        expected: u64,
    },
    /// A bucket to create has a name S3 does not allow.
    #[error("`{name}` is not a bucket name")]
    BucketName {
        /// Name that was asked for.
        name: String,
    },
}
