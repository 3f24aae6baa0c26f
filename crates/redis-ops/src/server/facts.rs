//! What `INFO` says.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::position::{Offset, ReplicationId};
use crate::source::Address;

use super::backlog::Backlog;

/// The fields of `INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    /// Reads the lines of an answer; what is no field is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let fields =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// A field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A field that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// A field that is 1.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }
}

/// Whether a server takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It does.
    Primary,
    /// It follows another one.
    Replica,
}

/// A replica as its primary sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReplicaLine {
    /// Where it says it listens.
    pub address: Address,
    /// Whether it follows the stream.
    pub online: bool,
    /// How far it is.
    pub offset: Offset,
    /// Seconds since it was last heard of.
    pub lag: u64,
}

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ServerFacts {
    /// `redis`, `valkey`, or what else it calls itself.
    pub product: String,
    /// Version of the product.
    pub version: String,
    /// Identity of this run of the server.
    pub run_id: String,
    /// Whether it takes writes.
    pub role: Role,
    /// Whether it belongs to a cluster.
    pub cluster: bool,
    /// Whether it is a Sentinel, which holds no data.
    pub sentinel: bool,
    /// The stream that it writes or follows.
    pub replication_id: Option<ReplicationId>,
    /// How far that is.
    pub offset: Offset,
    /// From where it can go on with it.
    pub backlog: Backlog,
    /// Its primary, when it is a replica.
    pub primary: Option<Address>,
    /// Whether the link to the primary is up and no full synchronisation runs.
    pub in_sync: bool,
    /// Seconds for which the link has been down.
    pub down_for: Option<u64>,
    /// Its replicas.
    pub replicas: Vec<ReplicaLine>,
    /// Bytes of memory in use.
    pub used_memory: u64,
    /// Keys of all databases.
    pub keys: u64,
}

impl ServerFacts {
    /// Out of a whole `INFO`.
    #[must_use]
    pub fn of(info: &Info) -> Self {
        let text = |name: &str| info.get(name).unwrap_or_default().to_owned();
        let unsigned = |name: &str| info.number(name).and_then(|number| u64::try_from(number).ok());
        // Valkey calls itself so, and keeps `redis_version` for compatibility.
        let product = info.get("server_name").unwrap_or("redis").to_owned();
        let version = info.get("valkey_version").or_else(|| info.get("redis_version")).unwrap_or_default();
        let role = if info.get("role") == Some("slave") { Role::Replica } else { Role::Primary };
        let link_up = info.get("master_link_status") == Some("up") && !info.is_on("master_sync_in_progress");
        let host = info.get("master_host").filter(|_| role == Role::Replica);
        let port = unsigned("master_port").and_then(|port| u16::try_from(port).ok());
        Self {
            product,
            version: version.to_owned(),
            run_id: text("run_id"),
            role,
            cluster: info.is_on("cluster_enabled"),
            sentinel: info.get("redis_mode") == Some("sentinel"),
            replication_id: info.get("master_replid").and_then(|id| ReplicationId::parse(id).ok()),
            offset: Offset(unsigned("master_repl_offset").unwrap_or_default()),
            backlog: Backlog::of(info),
            primary: host.and_then(|host| Some(Address::new(host, port?))),
            in_sync: role == Role::Primary || link_up,
            down_for: unsigned("master_link_down_since_seconds"),
            replicas: replicas(info),
            used_memory: unsigned("used_memory").unwrap_or_default(),
            keys: all_keys(info),
        }
    }
}

/// Databases may have gaps between them.
fn all_keys(info: &Info) -> u64 {
    let databases = info.0.iter().filter(|(name, _)| {
        name.strip_prefix("db")
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    });
    databases.filter_map(|(_, line)| keys(line)).sum()
}

/// `keys=5,expires=0,…`
fn keys(line: &str) -> Option<u64> {
    line.split(',').find_map(|pair| pair.strip_prefix("keys="))?.parse().ok()
}

/// `slave0:ip=127.0.0.1,port=6380,state=online,offset=14,lag=1`
fn replicas(info: &Info) -> Vec<ReplicaLine> {
    let lines = (0..).map_while(|number| info.get(&format!("slave{number}")));
    lines.filter_map(replica).collect()
}

fn replica(line: &str) -> Option<ReplicaLine> {
    let fields: BTreeMap<&str, &str> = line.split(',').filter_map(|pair| pair.split_once('=')).collect();
    Some(ReplicaLine {
        address: Address::new(fields.get("ip")?, fields.get("port")?.parse().ok()?),
        online: *fields.get("state")? == "online",
        offset: Offset(fields.get("offset")?.parse().ok()?),
        lag: fields.get("lag").and_then(|lag| lag.parse().ok()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n# Replication\r\nrole:master\r\n\
        connected_slaves:2\r\nslave0:ip=10.0.0.2,port=6380,state=online,offset=140,lag=1\r\n\
        slave1:ip=10.0.0.3,port=6380,state=wait_bgsave,offset=0,lag=0\r\n\
        master_replid:0123456789abcdef0123456789abcdef01234567\r\nmaster_repl_offset:154\r\n\
        # Keyspace\r\ndb0:keys=5,expires=1,avg_ttl=0\r\ndb9:keys=7,expires=0,avg_ttl=0\r\n";

    #[test]
    fn a_primary_names_its_replicas() {
        let facts = ServerFacts::of(&Info::parse(PRIMARY));
        assert_eq!((facts.product.as_str(), facts.version.as_str(), facts.keys), ("redis", "7.0.15", 12));
        assert_eq!((facts.role, facts.in_sync, facts.offset), (Role::Primary, true, Offset(154)));
        assert_eq!(facts.replicas.len(), 2);
        assert_eq!(facts.replicas[0].address, Address::new("10.0.0.2", 6380));
        assert!(facts.replicas[0].online && !facts.replicas[1].online);
    }

    #[test]
    fn a_replica_is_in_sync_only_with_its_link_up() {
        let text = "server_name:valkey\nvalkey_version:9.1.2\nredis_version:7.2.4\nrole:slave\nmaster_host:h\n\
            master_port:6379\nmaster_link_status:up\nmaster_sync_in_progress:0\n";
        let facts = ServerFacts::of(&Info::parse(text));
        assert_eq!((facts.product.as_str(), facts.version.as_str()), ("valkey", "9.1.2"));
        assert_eq!((facts.role, facts.in_sync), (Role::Replica, true));
        assert_eq!(facts.primary, Some(Address::new("h", 6379)));
        for broken in ["master_link_status:down", "master_sync_in_progress:1"] {
            assert!(!ServerFacts::of(&Info::parse(&format!("{text}{broken}\n"))).in_sync, "{broken}");
        }
    }

    #[test]
    fn nonsense_is_no_server_and_no_panic() {
        let facts =
            ServerFacts::of(&Info::parse("x\n:::\nslave0:ip=,port=x\ndb0:keys=x\nmaster_repl_offset:-4"));
        assert_eq!((facts.keys, facts.offset, facts.replicas.len()), (0, Offset(0), 0));
    }
}
