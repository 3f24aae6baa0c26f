//! Where to attach.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::source::{Address, Endpoint, Source};

use super::cluster::{ClusterNode, SlotRange, parse_nodes, shards_of};
use super::connection::Server;
use super::facts::{ReplicaLine, Role, ServerFacts};
use super::sentinel;

/// Seconds for which a replica may have been silent and still counts as in sync.
const MAX_LAG: u64 = 10;

/// Which server of a shard is attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// A replica that is in sync; the primary when there is none.
    #[default]
    Replica,
    /// The primary.
    Primary,
    /// The server that was named, whatever it is; not for clusters and Sentinels.
    Named,
}

/// What kind of Redis it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyKind {
    /// One server, or a primary with replicas.
    Single,
    /// A primary that Sentinels watch.
    Sentinel,
    /// A cluster.
    Cluster,
    /// The server answers no questions.
    Unknown,
}

/// One part of the data, and where it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shard {
    /// `main`, or `shard-` and its first slot in a cluster.
    pub name: String,
    /// Its primary, where it is known.
    pub primary: Option<Address>,
    /// Where to attach.
    pub endpoint: Endpoint,
    /// What that server is, where it answers questions.
    pub facts: Option<ServerFacts>,
    /// Its slots; none outside a cluster.
    pub slots: Vec<SlotRange>,
    /// What is odd about the choice.
    pub warnings: Vec<String>,
}

/// All parts of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// What kind of Redis it is.
    pub kind: TopologyKind,
    /// Its parts; at least one.
    pub shards: Vec<Shard>,
}

impl Topology {
    /// The server that was named, of which nothing is known.
    #[must_use]
    pub fn unknown(endpoint: Endpoint, warning: String) -> Self {
        let shard = Shard {
            name: "main".to_owned(),
            primary: None,
            endpoint,
            facts: None,
            slots: Vec::new(),
            warnings: vec![warning],
        };
        Self { kind: TopologyKind::Unknown, shards: vec![shard] }
    }
}

/// Finds the parts of a Redis and where to attach to each.
///
/// # Errors
/// [`Error::Topology`] when a part of the data has no server that can be read: a replica that is itself not in sync, a
/// cluster with a shard down. Errors of connections.
pub async fn find_shards(source: &Source, attach: Attach) -> Result<Topology, Error> {
    if let Some(watched) = &source.sentinel {
        let address = sentinel::primary_of(source, watched).await?;
        let mut server = Server::connect(&source.endpoint(&address)).await?;
        let facts = server.facts().await?;
        if facts.role != Role::Primary {
            return Err(Error::Topology {
                what: format!("the Sentinels name {address} as the primary, and it is a replica"),
                temporary: true,
                remedy: "a failover is under way; run it again when it is over",
            });
        }
        let shard = of_primary(source, &address, facts, attach).await;
        return Ok(Topology { kind: TopologyKind::Sentinel, shards: vec![shard] });
    }
    let mut server = first_that_answers(source).await?;
    let address = server.endpoint().address.clone();
    let facts = match server.facts().await {
        Ok(facts) => facts,
        Err(Error::Denied { words, .. }) => {
            let warning = format!("{address} cannot be asked what it is ({words}); attached to it as it is");
            return Ok(Topology::unknown(source.endpoint(&address), warning));
        }
        Err(error) => return Err(error),
    };
    if facts.sentinel {
        return Err(Error::Topology {
            what: format!("{address} is a Sentinel and holds no data"),
            temporary: false,
            remedy: "name the primary that it watches: --sentinel, or redis.sentinel",
        });
    }
    if facts.cluster {
        return cluster(source, &mut server, attach).await;
    }
    let shard = single(source, &address, facts, attach).await?;
    Ok(Topology { kind: TopologyKind::Single, shards: vec![shard] })
}

async fn first_that_answers(source: &Source) -> Result<Server, Error> {
    let mut first = None;
    for address in &source.addresses {
        match Server::connect(&source.endpoint(address)).await {
            Ok(server) => return Ok(server),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| Error::Setting { problem: "no server has an address".to_owned() }))
}

async fn single(
    source: &Source,
    address: &Address,
    facts: ServerFacts,
    attach: Attach,
) -> Result<Shard, Error> {
    if facts.role == Role::Primary {
        return Ok(match attach {
            Attach::Replica => of_primary(source, address, facts, attach).await,
            Attach::Primary | Attach::Named => shard(source, address, Some(address), facts),
        });
    }
    let primary = facts.primary.clone();
    if attach == Attach::Primary {
        let Some(primary) = primary else { return Err(no_primary(address)) };
        let facts = Server::connect(&source.endpoint(&primary)).await?.facts().await?;
        if facts.role != Role::Primary {
            return Err(no_primary(address));
        }
        return Ok(shard(source, &primary, Some(&primary), facts));
    }
    if !facts.in_sync {
        let since = facts.down_for.map(|seconds| format!(", for {seconds} s")).unwrap_or_default();
        return Err(Error::Topology {
            what: format!("{address} is a replica that is not in sync with its primary{since}"),
            temporary: true,
            remedy: "repair the replication, or name the primary",
        });
    }
    Ok(shard(source, address, primary.as_ref(), facts))
}

fn no_primary(address: &Address) -> Error {
    Error::Topology {
        what: format!("{address} is a replica, and its primary cannot be found"),
        temporary: true,
        remedy: "name the primary itself",
    }
}

fn shard(source: &Source, address: &Address, primary: Option<&Address>, facts: ServerFacts) -> Shard {
    Shard {
        name: "main".to_owned(),
        primary: primary.cloned(),
        endpoint: source.endpoint(address),
        facts: Some(facts),
        slots: Vec::new(),
        warnings: Vec::new(),
    }
}

/// The replica of a primary that is best to read from, if any is in sync; the one that is furthest comes first.
#[must_use]
pub fn choose_replica(replicas: &[ReplicaLine]) -> Vec<&ReplicaLine> {
    let mut good: Vec<_> = replicas
        .iter()
        .filter(|replica| replica.online && replica.lag <= MAX_LAG && replica.address.port != 0)
        .collect();
    good.sort_by_key(|replica| std::cmp::Reverse(replica.offset));
    good
}

/// The best replica of a primary that can be reached and says itself that it is in sync; else the primary.
async fn of_primary(source: &Source, address: &Address, facts: ServerFacts, attach: Attach) -> Shard {
    let mut warnings = Vec::new();
    if attach == Attach::Replica {
        for replica in choose_replica(&facts.replicas) {
            match in_sync(source, &replica.address).await {
                Ok(found) => {
                    let mut chosen = shard(source, &replica.address, Some(address), found);
                    chosen.warnings = warnings;
                    return chosen;
                }
                Err(problem) => warnings.push(format!("replica {} is not used: {problem}", replica.address)),
            }
        }
        if !facts.replicas.is_empty() && warnings.is_empty() {
            warnings.push(format!("no replica of {address} is in sync; the primary is read"));
        }
    }
    let mut chosen = shard(source, address, Some(address), facts);
    chosen.warnings = warnings;
    chosen
}

async fn in_sync(source: &Source, address: &Address) -> Result<ServerFacts, String> {
    let asked = async { Server::connect(&source.endpoint(address)).await?.facts().await };
    match asked.await {
        Ok(facts) if facts.role == Role::Replica && facts.in_sync => Ok(facts),
        Ok(_) => Err("it is not in sync".to_owned()),
        Err(error) => Err(backstay_backup_core::error::describe(&error)),
    }
}

async fn cluster(source: &Source, server: &mut Server, attach: Attach) -> Result<Topology, Error> {
    let seed = server.endpoint().address.clone();
    let nodes = parse_nodes(&server.text(&["CLUSTER", "NODES"], "CLUSTER NODES").await?);
    let found = shards_of(&nodes).map_err(|what| Error::Topology {
        what,
        temporary: true,
        remedy: "a backup of the rest would not be one of the cluster; repair it first (`redis-cli --cluster check`)",
    })?;
    let mut shards = Vec::new();
    for (primary, replicas) in found {
        let replicas = if attach == Attach::Primary { Vec::new() } else { replicas };
        shards.push(cluster_shard(source, &seed, primary, &replicas).await?);
    }
    Ok(Topology { kind: TopologyKind::Cluster, shards })
}

async fn cluster_shard(
    source: &Source,
    seed: &Address,
    primary: &ClusterNode,
    replicas: &[&ClusterNode],
) -> Result<Shard, Error> {
    let reachable = |node: &ClusterNode| match node.address.host.as_str() {
        // A node that was never met by another name knows none of itself.
        "" => Address::new(&seed.host, node.address.port),
        _ => node.address.clone(),
    };
    let address = reachable(primary);
    let mut warnings = Vec::new();
    let mut chosen = None;
    for replica in replicas.iter().filter(|replica| !replica.is_down) {
        let address = reachable(replica);
        match in_sync(source, &address).await {
            Ok(facts) => {
                chosen = Some((address, facts));
                break;
            }
            Err(problem) => warnings.push(format!("replica {address} is not used: {problem}")),
        }
    }
    let (at, facts) = match chosen {
        Some(chosen) => chosen,
        None => (address.clone(), Server::connect(&source.endpoint(&address)).await?.facts().await?),
    };
    let mut shard = shard(source, &at, Some(&address), facts);
    let first = primary.slots.first().map_or(0, |range| range.0);
    shard.name = format!("shard-{first:05}");
    shard.slots.clone_from(&primary.slots);
    shard.warnings = warnings;
    Ok(shard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Offset;

    fn line(port: u16, online: bool, offset: u64, lag: u64) -> ReplicaLine {
        ReplicaLine { address: Address::new("h", port), online, offset: Offset(offset), lag }
    }

    #[test]
    fn the_replica_that_is_furthest_and_alive_comes_first() {
        let replicas = [
            line(1, true, 10, 0),
            line(2, true, 30, 1),
            line(3, false, 99, 0),
            line(4, true, 99, 60),
            line(0, true, 99, 0),
        ];
        let ports: Vec<_> = choose_replica(&replicas).iter().map(|replica| replica.address.port).collect();
        assert_eq!(ports, [2, 1]);
    }
}
