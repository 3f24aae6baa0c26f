//! A whole cluster, backed up as one set, restored shard by shard into its nodes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backstay_backup_core::progress::Progress;
use backstay_redis_ops::snapshot::{SnapshotOptions, backup_redis};
use backstay_redis_ops::{Address, Source};
use backstay_testkit::{PortLease, RedisOptions, TestRedis};
use tokio_util::sync::CancellationToken;

use crate::scene::Ended;
use crate::world::World;

const RANGES: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
const SHARDS: [&str; 3] = ["shard-00000", "shard-05461", "shard-10923"];
const KEYS: usize = 60;

/// A server, and the port of its bus.
type Node = (TestRedis, PortLease);

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first node keeps append-only files, the others snapshots.
fn node(first: &str, last: &str) -> Node {
    let bus = PortLease::reserve().unwrap();
    let options = RedisOptions::default()
        .password(false)
        .setting("cluster-enabled", "yes")
        .setting("cluster-node-timeout", "1000")
        .setting("cluster-port", &bus.port().to_string())
        .setting("repl-diskless-sync-delay", "0")
        .setting("appendonly", if first == "0" { "yes" } else { "no" });
    let node = TestRedis::start_blocking(&options).unwrap();
    node.cli(&["CLUSTER", "ADDSLOTSRANGE", first, last]).unwrap();
    (node, bus)
}

fn cluster() -> Vec<Node> {
    let nodes: Vec<Node> = RANGES.iter().map(|(first, last)| node(first, last)).collect();
    for (other, bus) in &nodes[1..] {
        let (port, bus) = (other.port().to_string(), bus.port().to_string());
        nodes[0].0.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).unwrap();
    }
    ready(&nodes);
    nodes
}

fn ready(nodes: &[Node]) {
    for (node, _) in nodes {
        let ask = |words: &[&str]| node.cli(words).unwrap_or_default();
        until("the cluster", || ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        until("its nodes", || ask(&["CLUSTER", "NODES"]).matches(" connected").count() == nodes.len());
    }
}

fn restore(world: &World, node: &TestRedis, args: &[&str]) -> Ended {
    let folder = world.folder.path();
    std::fs::write(folder.join("backstay.toml"), "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_restore-redis"))
        .args(["--repository", "./repository", "--no-progress", "--config-file"])
        .arg(node.configuration())
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("BACKSTAY_CONFIG", "backstay.toml")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_restored_shard_by_shard_and_no_shard_into_a_node_of_other_slots() {
    let world = World::new().await;
    let mut nodes = cluster();
    for number in 0..KEYS {
        nodes[0].0.cli(&["-c", "SET", &format!("key:{number}"), &number.to_string()]).unwrap();
    }
    let sizes: Vec<_> = nodes.iter().map(|(node, _)| node.cli(&["DBSIZE"]).unwrap()).collect();
    let source = Source::new(vec![Address::new("127.0.0.1", nodes[1].0.port())]);
    let options = SnapshotOptions::new(world.stanza.clone());
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let report = backup_redis(&source, &world.repositories, &options, &progress, &cancel).await.unwrap();
    let set = report.receipt.manifest.set.to_string();
    // The accident, and a cluster that is stopped.
    for (node, _) in &mut nodes {
        node.cli(&["FLUSHALL"]).unwrap();
        node.stop().unwrap();
    }

    let refused = restore(&world, &nodes[0].0, &["--set", &set]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for words in ["has no snapshot of main", "shard by shard", "shard-05461 (slots 5461-10922)"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let refused = restore(&world, &nodes[0].0, &["--set", &set, "--stream", SHARDS[1]]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("serves slots 0-5460, and shard-05461 has slots 5461-10922"),
        "{}",
        refused.stderr
    );

    for ((node, _), shard) in nodes.iter_mut().zip(SHARDS) {
        let ended = restore(&world, node, &["--set", &set, "--stream", shard]);
        assert_eq!(ended.code, 0, "{shard}: {}", ended.stderr);
        node.restart().unwrap();
    }
    ready(&nodes);
    for ((node, _), size) in nodes.iter().zip(&sizes) {
        assert_eq!(&node.cli(&["DBSIZE"]).unwrap(), size);
    }
    for number in 0..KEYS {
        let found = nodes[2].0.cli(&["-c", "GET", &format!("key:{number}")]).unwrap();
        assert_eq!(found, number.to_string());
    }
}
