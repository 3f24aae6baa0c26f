//! What a snapshot would do.

use serde::Serialize;

use crate::error::Error;
use crate::server::{Role, Shard, SlotRange, Topology, TopologyKind, find_shards};
use crate::source::Source;

use super::options::{SnapshotOptions, Via};

/// What `--dry-run` prints.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct SnapshotPlan {
    /// What kind of Redis it is.
    pub topology: TopologyKind,
    /// How the data would be got.
    pub via: Via,
    /// Its parts.
    pub shards: Vec<ShardPlan>,
    /// Whether the set would be encrypted.
    pub encrypted: bool,
    /// What is odd.
    pub warnings: Vec<String>,
}

/// One part.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ShardPlan {
    /// Its name.
    pub name: String,
    /// The server that would be read.
    pub server: String,
    /// What that is, where it says.
    pub role: Option<Role>,
    /// Product and version.
    pub version: String,
    /// Keys now.
    pub keys: Option<u64>,
    /// Bytes of memory in use now.
    pub used_memory: Option<u64>,
    /// Its slots.
    pub slots: Vec<SlotRange>,
}

/// Looks at the servers and says what would be done.
///
/// # Errors
/// As [`find_shards`].
pub async fn plan_snapshot(source: &Source, options: &SnapshotOptions) -> Result<SnapshotPlan, Error> {
    let topology = find_shards(source, options.attach).await?;
    Ok(SnapshotPlan {
        topology: topology.kind,
        via: options.via,
        shards: topology.shards.iter().map(shard).collect(),
        encrypted: !options.recipients.texts().is_empty(),
        warnings: warnings(&topology, options),
    })
}

fn shard(shard: &Shard) -> ShardPlan {
    let facts = shard.facts.as_ref();
    ShardPlan {
        name: shard.name.clone(),
        server: shard.endpoint.to_string(),
        role: facts.map(|facts| facts.role),
        version: facts.map(|facts| format!("{} {}", facts.product, facts.version)).unwrap_or_default(),
        keys: facts.map(|facts| facts.keys),
        used_memory: facts.map(|facts| facts.used_memory),
        slots: shard.slots.clone(),
    }
}

pub(super) fn warnings(topology: &Topology, options: &SnapshotOptions) -> Vec<String> {
    let mut warnings: Vec<String> =
        topology.shards.iter().flat_map(|shard| shard.warnings.iter().cloned()).collect();
    if options.via == Via::Bgsave {
        warnings.push(
            "a background save that fails makes a server with save points refuse writes \
             (stop-writes-on-bgsave-error)"
                .to_owned(),
        );
    }
    warnings
}
