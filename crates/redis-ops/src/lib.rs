//! Redis and Valkey for Backstay: snapshots and everything below them, over the replication protocol.
//!
//! ```text
//! source ─▶ server (administration) ─▶ which server to attach to
//!        ─▶ psync (as a replica)    ─▶ an RDB, then the stream of commands as opaque bytes
//!                                       │                  │
//!                                       rdb (scanner)      resp (scanner)
//! ```
//!
//! [`psync::connect`] attaches to one server the way a replica does: no `BGSAVE` whose failure would block writes, no
//! access to the server's disk. [`rdb::RdbScanner`] and [`resp::CommandScanner`] look at the bytes that pass by, in any
//! pieces, and change none of them. Offsets are counted as the server counts them, see [`Offset`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod archive;
mod error;
pub mod follow;
mod position;
pub mod psync;
pub mod rdb;
pub mod resp;
pub mod restore;
pub mod server;
pub mod snapshot;
mod source;
mod transport;

pub use error::Error;
pub use position::{Offset, ParseIdError, ReplicationId};
pub use source::{Address, Endpoint, Login, Sentinel, Source, Tls};
