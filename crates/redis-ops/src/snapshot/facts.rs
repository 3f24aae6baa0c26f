//! What the manifest says of a Redis.

use serde::{Deserialize, Serialize};

use crate::position::{Offset, ReplicationId};
use crate::rdb::RdbFacts;
use crate::server::{SlotRange, TopologyKind};

use super::options::Via;

/// Facts of a set of kind `redis-snapshot`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RedisFacts {
    /// What kind of Redis it is.
    pub topology: TopologyKind,
    /// How the data was got.
    pub via: Via,
    /// Its parts, by their slots.
    pub shards: Vec<ShardFacts>,
    /// Object with settings, modules and topology, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
}

/// One part of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ShardFacts {
    /// `main`, or `shard-` and its first slot.
    pub name: String,
    /// Object with its RDB.
    pub object: String,
    /// Object with its users, as an ACL file; only in encrypted sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<String>,
    /// The server it was read from.
    pub server: String,
    /// `redis`, `valkey`, or what else the server calls itself; empty when it does not say.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its primary, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The stream that the snapshot belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_id: Option<ReplicationId>,
    /// The moment of the stream that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Its slots; none outside a cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotRange>,
    /// Modules that the server had loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// What the RDB holds.
    pub rdb: RdbFacts,
}

impl RedisFacts {
    /// Keys of all parts.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rdb.keys()).sum()
    }
}
