//! A shard of a cluster belongs into a node that serves its slots.
//!
//! Which slots those are a node keeps in `nodes.conf`, in its data directory. With keys of other slots it would start, mark
//! those slots as being moved, and serve none of the keys; a replica would throw them away for what its primary has.

use std::io::ErrorKind;
use std::path::Path;

use super::configuration::ServerConfiguration;
use super::error::RestoreError;
use crate::archive::StreamId;
use crate::server::{SlotRange, parse_nodes};

/// Refuses the directory of a node that does not serve the slots of a shard; says what is good to know about one that does
/// not know yet what it serves.
///
/// # Errors
/// The node serves other slots, or none because it is a replica.
pub(super) fn check(
    directory: &Path,
    configuration: &ServerConfiguration,
    shard: &StreamId,
    slots: &[SlotRange],
) -> Result<Option<String>, RestoreError> {
    let path = directory.join(&configuration.cluster_file);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(without_node(&path, shard, slots)),
        Err(error) => return Err(RestoreError::io("read", &path)(error)),
    };
    let nodes = parse_nodes(&text);
    let Some(own) = nodes.iter().find(|node| node.is_myself) else { return Ok(None) };
    if slots.is_empty() {
        let note = "the snapshot is not of a node of a cluster, and this is the directory of one: keys of slots that it \
                    does not serve will not be reached";
        return Ok(Some(note.to_owned()));
    }
    if !own.is_primary {
        let remedy = "restore into the primary of the shard; its replicas take everything from it";
        let problem = "is of a replica, which would throw the restored data away for that of its primary";
        return Err(RestoreError::target(&path, problem, remedy));
    }
    if sorted(&own.slots) == sorted(slots) {
        return Ok(None);
    }
    let problem = format!(
        "is of a node that serves {}, and {shard} has {}",
        slots_in_words(&own.slots),
        slots_in_words(slots)
    );
    let remedy = "name the shard of this node with --stream, or restore into the node that serves its slots; where slots \
                  have moved since, restore into a new cluster that is divided as the old one was";
    Err(RestoreError::target(&path, problem, remedy))
}

/// A node that has never been one.
fn without_node(path: &Path, shard: &StreamId, slots: &[SlotRange]) -> Option<String> {
    let ranges: Vec<String> = slots.iter().map(|range| format!("{} {}", range.0, range.1)).collect();
    (!slots.is_empty()).then(|| {
        format!(
            "{shard} is of a cluster, and there is no {}: give the new node its slots once it runs (redis-cli CLUSTER \
             ADDSLOTSRANGE {}), and let the nodes meet (CLUSTER MEET)",
            path.display(),
            ranges.join(" ")
        )
    })
}

/// `slots 0-5460, 9000`, `no slots`.
pub(super) fn slots_in_words(slots: &[SlotRange]) -> String {
    let ranges: Vec<String> = slots.iter().map(ToString::to_string).collect();
    if ranges.is_empty() { "no slots".to_owned() } else { format!("slots {}", ranges.join(", ")) }
}

fn sorted(slots: &[SlotRange]) -> Vec<SlotRange> {
    let mut slots = slots.to_vec();
    slots.sort();
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = "\
292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 127.0.0.1:30003@31003,,tls-port=0 master - 0 1426238318243 3 connected 10923-16383
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-5460
vars currentEpoch 3 lastVoteEpoch 0
";

    fn checked(nodes: Option<&str>, slots: &[SlotRange]) -> Result<Option<String>, RestoreError> {
        let folder = tempfile::tempdir().unwrap();
        if let Some(nodes) = nodes {
            std::fs::write(folder.path().join("nodes.conf"), nodes).unwrap();
        }
        let configuration = ServerConfiguration::usual(false, "test");
        check(folder.path(), &configuration, &StreamId::parse("shard-00000").unwrap(), slots)
    }

    #[test]
    fn only_the_node_that_serves_the_slots_takes_the_shard() {
        assert_eq!(checked(Some(PRIMARY), &[SlotRange(0, 5460)]).unwrap(), None);
        let refused = checked(Some(PRIMARY), &[SlotRange(5461, 10922)]).unwrap_err().to_string();
        assert!(
            refused.ends_with("is of a node that serves slots 0-5460, and shard-00000 has slots 5461-10922"),
            "{refused}"
        );
        let replica =
            PRIMARY.replace("myself,master -", "myself,slave 292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f");
        let refused = checked(Some(&replica), &[SlotRange(0, 5460)]).unwrap_err().to_string();
        assert!(refused.contains("is of a replica"), "{refused}");
    }

    #[test]
    fn what_does_not_know_its_slots_yet_is_told_how_to_get_them() {
        let note = checked(None, &[SlotRange(0, 10), SlotRange(12, 12)]).unwrap().unwrap();
        assert!(note.contains("ADDSLOTSRANGE 0 10 12 12"), "{note}");
        assert_eq!(checked(None, &[]).unwrap(), None);
        assert!(checked(Some(PRIMARY), &[]).unwrap().unwrap().contains("is not of a node"));
        assert_eq!(checked(Some("vars currentEpoch 0"), &[]).unwrap(), None);
    }
}
