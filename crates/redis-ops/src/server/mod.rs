//! Looks at servers and finds out what there is to back up, and where to attach.
//!
//! ```text
//! source ─▶ one server, a primary with replicas, or a Sentinel that names one   → one shard
//!        ─▶ any node of a cluster                                              → one shard for each primary with slots
//! shard  ─▶ a replica that is in sync, unless told otherwise; else the primary
//! ```
//!
//! An archiver that is attached to a primary shows up in Sentinel and counts for `min-replicas-to-write`; on a replica it
//! does neither, and the snapshot's fork happens there. So a replica is the default; which one is a pure decision
//! ([`choose_replica`]) about what `INFO` says.
//!
//! Everything here is administration through the `redis` crate, on connections of its own. A user that may only
//! replicate cannot ask any of it; then the server that was named is attached to as it is ([`Topology::unknown`]).

mod attach;
mod backlog;
mod cluster;
mod connection;
mod facts;
mod login;
mod sentinel;

pub use attach::{Attach, Shard, Topology, TopologyKind, choose_replica, find_shards};
pub use backlog::Backlog;
pub use cluster::{ClusterNode, SlotRange, parse_nodes, shards_of};
pub use connection::Server;
pub use facts::{Info, ReplicaLine, Role, ServerFacts};
pub use login::find_source;
