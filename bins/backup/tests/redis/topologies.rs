//! Replicas, a cluster, Sentinels.

use std::os::unix::fs::symlink;

use backstay_testkit::{Account, PortLease, RedisOptions, ScratchDir, TestRedis};
use serde_json::Value;

use crate::scene::{LOCAL, PROGRAM, back_up, bench, fill, in_sync, quick, start};
use crate::support::{Bench, files, until};

#[test]
fn a_replica_that_is_in_sync_is_read_and_one_that_is_not_is_refused() {
    let open = quick().password(false);
    let (mut primary, replica) = (start(&open), start(&open));
    fill(&primary);
    in_sync(&primary, &replica);
    let bench = bench(&primary);
    let at = |server: &TestRedis| Value::from(format!("127.0.0.1:{}", server.port()));
    let report = back_up(&bench, &[]);
    assert_eq!((&report["facts"]["shards"][0]["server"], &report["keys"]), (&at(&replica), &40.into()));
    let report = back_up(&bench, &["--attach", "primary"]);
    assert_eq!(report["facts"]["shards"][0]["server"], at(&primary));
    // Frozen, not gone: the primary does not know yet.
    let mut replica = replica;
    replica.kill9();
    let report = back_up(&bench, &[]);
    assert_eq!(report["facts"]["shards"][0]["server"], at(&primary), "{report}");
    replica.restart().unwrap();
    in_sync(&primary, &replica);
    primary.kill9();
    until(|| replica.cli(&["INFO", "replication"]).unwrap().contains("master_link_status:down"));
    let address = format!("127.0.0.1:{}", replica.port());
    let mut alone = Bench::new();
    alone.set("BACKSTAY_REDIS_ADDRESSES", &address);
    let refused = alone.run(PROGRAM, &LOCAL).expect(5).stderr;
    assert!(refused.contains("is a replica that is not in sync with its primary"), "{refused}");
    assert!(!alone.path("local").exists(), "nothing was written");
}

/// Servers of a cluster, with the ports of their bus.
fn cluster() -> Vec<(TestRedis, PortLease)> {
    let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    let mut nodes = Vec::new();
    for (first, last) in ranges {
        let bus = PortLease::reserve().unwrap();
        let options = quick()
            .password(false)
            .setting("cluster-enabled", "yes")
            .setting("cluster-node-timeout", "1000")
            .setting("cluster-port", &bus.port().to_string());
        let node = start(&options);
        node.cli(&["CLUSTER", "ADDSLOTSRANGE", first, last]).unwrap();
        nodes.push((node, bus));
    }
    for (node, bus) in &nodes[1..] {
        let (port, bus) = (node.port().to_string(), bus.port().to_string());
        nodes[0].0.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).unwrap();
    }
    for (node, _) in &nodes {
        until(|| node.cli(&["CLUSTER", "INFO"]).unwrap().contains("cluster_state:ok"));
        until(|| node.cli(&["CLUSTER", "NODES"]).unwrap().matches(" connected").count() == 3);
    }
    nodes
}

#[test]
fn a_cluster_is_one_set_and_none_when_a_shard_is_down() {
    let mut nodes = cluster();
    for number in 0..30 {
        nodes[0].0.cli(&["-c", "SET", &format!("key{number}"), "value"]).unwrap();
    }
    let bench = bench(&nodes[1].0);
    let report = back_up(&bench, &["--jobs", "2"]);
    let shards = report["facts"]["shards"].as_array().unwrap();
    let names: Vec<_> = shards.iter().map(|shard| shard["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shard-00000", "shard-05461", "shard-10923"]);
    assert_eq!((&report["keys"], &shards[1]["slots"]), (&30.into(), &serde_json::json!([[5461, 10922]])));
    let stored =
        files(&bench.path("local")).iter().filter(|path| path.to_str().unwrap().contains(".rdb")).count();
    assert_eq!(stored, 3);
    nodes[2].0.kill9();
    until(|| nodes[1].0.cli(&["CLUSTER", "NODES"]).unwrap().contains("fail"));
    let refused = bench.run(PROGRAM, &LOCAL).expect(5).stderr;
    assert!(
        refused.contains("primaries of the cluster are down") && refused.contains("slots 10923-16383"),
        "{refused}"
    );
}

#[test]
fn sentinels_name_the_primary() {
    let open = quick().password(false);
    let (primary, replica) = (start(&open), start(&open));
    fill(&primary);
    in_sync(&primary, &replica);
    // The server is a Sentinel when it is called by that name.
    let account = Account::for_servers().unwrap();
    let programs = ScratchDir::create("sentinel", account.as_ref()).unwrap();
    let program = programs.path().join("redis-sentinel");
    symlink("/usr/bin/redis-server", &program).unwrap();
    let watched = format!("monitor shop 127.0.0.1 {} 1", primary.port());
    let sentinel =
        start(&RedisOptions::default().password(false).program(&program).setting("sentinel", &watched));
    let address = format!("127.0.0.1:{}", sentinel.port());
    let bench = Bench::new();
    let words = ["--address", &address, "--sentinel", "shop"];
    let report = back_up(&bench, &words);
    assert_eq!((&report["keys"], &report["facts"]["topology"]), (&40.into(), &"sentinel".into()));
    assert_eq!(report["facts"]["shards"][0]["server"], format!("127.0.0.1:{}", replica.port()));
    let wrong =
        bench.run(PROGRAM, &[&LOCAL[..], &["--address", &address, "--sentinel", "blog"]].concat()).expect(2);
    assert!(wrong.stderr.contains("watches no primary called blog"), "{}", wrong.stderr);
    let bare = bench.run(PROGRAM, &[&LOCAL[..], &["--address", &address]].concat()).expect(2).stderr;
    assert!(bare.contains("is a Sentinel and holds no data"), "{bare}");
}
