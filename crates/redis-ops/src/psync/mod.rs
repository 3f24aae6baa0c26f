//! Attaches to a server as a replica: first, if need be, a snapshot, then every byte of the replication stream.
//!
//! ```text
//! connect ─▶ AUTH, PING, REPLCONF capa eof psync2, REPLCONF version, PSYNC
//!   +FULLRESYNC id offset ─▶ FullSync: the RDB … its end ─▶ into_stream ─▶ Replication
//!   +CONTINUE [id]        ─▶ Replication, from where one was
//! ```
//!
//! What is guaranteed: the RDB ends where its end mark or its length says, also when the mark lies across two reads, and
//! bytes behind it belong to the stream. Acknowledgements name only what the owner called durable
//! ([`Acknowledger::durable`]); they are sent every second, whenever that moves on, and at once when the server asks.
//! A server that falls silent is given up. Only the capabilities `eof` and `psync2` are announced, so that newer servers
//! keep to this flow.
//!
//! What is left to others: whether an RDB is good ([`crate::rdb`]), where the bytes go, and to read without pause: a
//! server drops a replica that does not.

mod handshake;
mod options;
mod rdb_end;
mod replication;
mod snapshot;
mod wire;

pub use handshake::{Answer, connect};
pub(crate) use handshake::{greeted, introduced, refusal};
pub use options::{Position, PsyncOptions, RULES};
pub use replication::{Acknowledger, Chunk, Replication};
pub use snapshot::FullSync;
