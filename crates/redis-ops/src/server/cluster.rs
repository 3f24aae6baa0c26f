//! What `CLUSTER NODES` says, and the shards of a cluster.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::source::Address;

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// Slots that follow one another, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotRange(pub u16, pub u16);

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

/// A node as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterNode {
    /// Its name: 40 hexadecimal digits.
    pub id: String,
    /// Where it listens; the host is empty when the node that was asked does not know it.
    pub address: Address,
    /// Whether it is the node that was asked.
    pub is_myself: bool,
    /// Whether it takes writes.
    pub is_primary: bool,
    /// Whether it is unreachable, for all or for the node that was asked.
    pub is_down: bool,
    /// Name of its primary.
    pub primary: Option<String>,
    /// Its slots.
    pub slots: Vec<SlotRange>,
}

/// Reads the answer to `CLUSTER NODES`; lines that are none are left out.
#[must_use]
pub fn parse_nodes(text: &str) -> Vec<ClusterNode> {
    text.lines().filter_map(node).collect()
}

/// `id host:port@bus[,name] flags primary ping pong epoch link slot…`
fn node(line: &str) -> Option<ClusterNode> {
    let mut words = line.split_ascii_whitespace();
    let (id, address, flags, primary) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let link = words.nth(3)?;
    let flag = |name: &str| flags.split(',').any(|flag| flag == name);
    let (place, _) = address.split_once('@').unwrap_or((address, ""));
    let (host, port) = place.rsplit_once(':')?;
    Some(ClusterNode {
        id: id.to_owned(),
        address: Address::new(host, port.parse().ok()?),
        is_myself: flag("myself"),
        is_primary: flag("master"),
        is_down: flag("fail") || flag("fail?") || flag("noaddr") || (link != "connected" && !flag("myself")),
        primary: (primary != "-").then(|| primary.to_owned()),
        slots: words.filter_map(slots).collect(),
    })
}

/// `5`, `0-5460`; slots that move (`[93->-…]`) stay with their owner.
fn slots(word: &str) -> Option<SlotRange> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(SlotRange(first.parse().ok()?, last.parse().ok()?)).filter(|range| range.0 <= range.1)
}

/// The primaries with slots, ordered by them, each with its replicas; what is wrong in words when a slot has no living
/// primary.
///
/// # Errors
/// Slots that nobody serves: a backup would miss their keys.
pub fn shards_of(nodes: &[ClusterNode]) -> Result<Vec<(&ClusterNode, Vec<&ClusterNode>)>, String> {
    let mut served = vec![false; SLOTS];
    let mut down = Vec::new();
    let mut shards = Vec::new();
    for node in nodes.iter().filter(|node| node.is_primary && !node.slots.is_empty()) {
        for range in &node.slots {
            for slot in range.0..=range.1 {
                if let Some(mark) = served.get_mut(usize::from(slot)) {
                    *mark = true;
                }
            }
        }
        if node.is_down {
            let ranges: Vec<String> = node.slots.iter().map(ToString::to_string).collect();
            down.push(format!("{} (slots {})", node.address, ranges.join(", ")));
        }
        let replicas =
            nodes.iter().filter(|other| other.primary.as_ref() == Some(&node.id) && !other.is_primary);
        shards.push((node, replicas.collect()));
    }
    if !down.is_empty() {
        return Err(format!("primaries of the cluster are down: {}", down.join(", ")));
    }
    let missing = served.iter().filter(|served| !**served).count();
    if missing > 0 {
        return Err(format!("{missing} of {SLOTS} slots of the cluster have no primary"));
    }
    shards.sort_by_key(|(node, _)| node.slots.first().copied());
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004,h4 slave e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 0 1 4 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922 [93->-292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f]
292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 127.0.0.1:30003@31003 master - 0 1426238318243 3 connected 10923-16382 16383
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca :30001@31001 myself,master - 0 0 1 connected 0-5460
824fe116063bc5fcf9f4ffd895bc17aee7731ac3 127.0.0.1:30006@31006 slave,fail 292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 0 1 6 disconnected
";

    #[test]
    fn shards_come_by_slots_with_their_replicas() {
        let nodes = parse_nodes(NODES);
        let shards = shards_of(&nodes).unwrap();
        let ports: Vec<_> =
            shards.iter().map(|(node, replicas)| (node.address.port, replicas.len())).collect();
        assert_eq!(ports, [(30001, 1), (30002, 0), (30003, 1)]);
        assert_eq!(shards[2].0.slots, [SlotRange(10923, 16382), SlotRange(16383, 16383)]);
        assert!(shards[2].1[0].is_down && !shards[0].1[0].is_down);
        assert_eq!(shards[0].0.address.host, "");
    }

    #[test]
    fn a_cluster_with_a_hole_is_refused_with_its_place() {
        let without = NODES.lines().filter(|line| !line.contains(":30003")).collect::<Vec<_>>().join("\n");
        assert_eq!(
            shards_of(&parse_nodes(&without)).unwrap_err(),
            "5461 of 16384 slots of the cluster have no primary"
        );
        let down = NODES.replace("30003@31003 master", "30003@31003 master,fail");
        let problem = shards_of(&parse_nodes(&down)).unwrap_err();
        assert_eq!(problem, "primaries of the cluster are down: 127.0.0.1:30003 (slots 10923-16382, 16383)");
    }

    #[test]
    fn nonsense_is_no_node() {
        assert!(
            parse_nodes("x\n\na b c d e f g h\nid 1.2.3.4:x@1 master - 0 0 1 connected 9-1 70000").is_empty()
        );
    }
}
