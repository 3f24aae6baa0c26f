//! The usual life: a planned stop, an idle server, a failover, a gap, what list-backups and prune-backups make of it.

use std::process::{Command, Stdio};
use std::time::Duration;

use backstay_testkit::{RedisOptions, TestRedis};
use serde_json::Value;

use crate::rounds;
use crate::scene::{Scene, Writer};

impl Scene {
    fn json(&self, program: &str, arguments: &[&str]) -> Value {
        let mut command = Command::new(program);
        command.arg("--repository").arg(self.repository()).arg("--json").args(arguments);
        let output = command.env("HOME", self.root.path()).stdin(Stdio::null()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    pub fn list(&self) -> Value {
        self.json(env!("CARGO_BIN_EXE_list-backups"), &[])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_stop_of_the_server_loses_nothing() {
    let (stops, mut all) = (rounds(1, 20), 0);
    for round in 0..stops {
        let mut scene = Scene::start(&[]).await;
        let archiver = scene.archive(&["--interval", "3000"]);
        scene.wait_for_base();
        let writer = Writer::start(&scene.redis, 0);
        std::thread::sleep(Duration::from_millis(700 + 211 * round as u64));
        // It waits for us: only what is stored is acknowledged.
        scene.redis.stop().unwrap();
        let acknowledged = writer.finish();
        scene.look().await.assert_has(&acknowledged);
        assert_eq!(archiver.stop(), Some(0));
        std::thread::sleep(Duration::from_secs(2));
        let list = scene.list();
        let stream = &list["streams"][0];
        assert_eq!(
            (&stream["stream"], stream["windows"].as_array().unwrap().len()),
            (&"main".into(), 1),
            "{list}"
        );
        assert!(stream["rpo-seconds"].as_i64().is_some_and(|rpo| (2..60).contains(&rpo)), "{stream}");
        all += acknowledged.last();
    }
    eprintln!("{stops} stops of the server, {all} writes, 0 lost");
}

/// What is written before somebody follows the server would be lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_is_followed_again_at_once() {
    let mut scene = Scene::start(&[]).await;
    let archiver = scene.archive(&["--attach", "named"]);
    scene.wait_for_base();
    scene.redis.stop().unwrap();
    // Pauses that grew all the time would end some five seconds after this.
    std::thread::sleep(Duration::from_secs(8));
    scene.redis.restart().unwrap();
    let begun = std::time::Instant::now();
    while scene.info("connected_slaves") != "1" {
        assert!(begun.elapsed() < Duration::from_secs(3), "nobody follows it yet: {}", scene.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let followed = begun.elapsed();
    scene.wait("no complaint", |status| status["server-problem"].is_null() && !status["server"].is_null());
    assert_eq!(archiver.stop(), Some(0));
    eprintln!("followed again {followed:?} after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_stop_of_the_archiver_loses_nothing() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let mut archiver = scene.archive(&[]);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);
    let stops = rounds(3, 20);
    for round in 0..stops {
        std::thread::sleep(Duration::from_millis(200 + 173 * (round as u64 % 7)));
        assert_eq!(archiver.stop(), Some(0), "{}", scene.log());
        archiver = scene.archive(&[]);
        scene.wait("a connection", |status| status["continued"].as_u64() > Some(0));
    }
    let acknowledged = writer.finish();
    scene.wait_until_stored();
    assert_eq!(archiver.stop(), Some(0));
    assert_eq!(scene.info("sync_full"), "1");
    scene.look().await.assert_has(&acknowledged);
    eprintln!("{stops} stops of the archiver, {} writes, 0 lost", acknowledged.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_costs_no_objects_and_one_archiver_is_enough() {
    let scene = Scene::start(&[("repl-ping-replica-period", "1")]).await;
    let archiver = scene.archive(&[]);
    scene.wait_for_base();
    scene.redis.cli(&["set", "n:1", "1"]).unwrap();
    scene.wait("a segment", |status| status["segments"].as_u64() > Some(0));
    let before = scene.status().unwrap();
    scene.wait("filler", |status| {
        status["received"]["offset"].as_u64() > before["received"]["offset"].as_u64().map(|at| at + 30)
    });
    let after = scene.status().unwrap();
    assert_eq!(after["segments"], before["segments"], "filler was stored");
    // Filler behind what is durable is acknowledged all the same.
    let replicas = scene.redis.cli(&["info", "replication"]).unwrap();
    let offset: u64 = scene.info("master_repl_offset").parse().unwrap();
    let told = replicas.split("offset=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    assert!(told.parse::<u64>().unwrap() + 60 >= offset, "{told} of {offset}");
    // The same spool, and the same stream from elsewhere.
    let second = scene.program(scene.redis.port(), &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(4), "{second:?}");
    let elsewhere = scene.root.path().join("other-spool");
    let third = scene.program_at(&elsewhere, scene.redis.port(), &["--until-caught-up"]).output().unwrap();
    assert_eq!(third.status.code(), Some(4), "{third:?}");
    assert!(String::from_utf8_lossy(&third.stderr).contains("archive-redis-main"), "{third:?}");
    drop(archiver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_goes_on_with_the_same_line() {
    let scene = Scene::start(&[]).await;
    let mut options = RedisOptions::default().setting("repl-diskless-sync-delay", "0").password(false);
    options = options.setting("replicaof", &format!("127.0.0.1 {}", scene.redis.port()));
    options = options.setting("masterauth", scene.redis.password().unwrap());
    options = options.setting("requirepass", scene.redis.password().unwrap());
    let replica = TestRedis::start(options).await.unwrap();
    let ask = |words: &[&str]| {
        let output = Command::new("redis-cli")
            .args(["-p", &replica.port().to_string()])
            .args(words)
            .env("REDISCLI_AUTH", scene.redis.password().unwrap())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let deadline = std::time::Instant::now() + crate::scene::PATIENCE;
    while !ask(&["info", "replication"]).contains("master_link_status:up") {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    let archiver = scene.archive_from(replica.port(), &["--attach", "named"]);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);
    std::thread::sleep(Duration::from_millis(1300));
    let last = writer.stop();
    let end: u64 = scene.info("master_repl_offset").parse().unwrap();
    scene.wait("the old primary's writes", |status| status["received"]["offset"].as_u64() >= Some(end));
    assert!(ask(&["replicaof", "no", "one"]).contains("OK"));
    for number in last + 1..last + 50 {
        assert!(ask(&["set", &format!("n:{number}"), "1"]).contains("OK"));
    }
    scene.wait("the new primary's writes", |status| {
        status["last-write"].as_u64() > Some(end)
            && status["durable"]["offset"].as_u64() >= status["last-write"].as_u64()
    });
    drop(archiver);
    let look = scene.look().await;
    look.assert_whole(last + 49);
    assert_eq!(look.survey.histories.len(), 2, "two replication ids, one line");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_named_by_offsets_and_healed_by_a_base_and_pruning_keeps_what_is_needed() {
    let scene = Scene::start(&[("repl-backlog-size", "16kb")]).await;
    scene.catch_up(&[]);
    scene.redis.cli(&["set", "n:1", "1"]).unwrap();
    let report = scene.catch_up(&[]);
    assert_eq!((&report["full-syncs"], &report["segments"]), (&0.into(), &1.into()), "{report}");
    // More than the server keeps, while nobody reads.
    let body = "x".repeat(10_000);
    for at in 0..30 {
        scene.redis.cli(&["set", &format!("k:{at}"), &body]).unwrap();
    }
    let report = scene.catch_up(&[]);
    assert_eq!(
        (&report["full-syncs"], report["losses"].as_array().unwrap().len()),
        (&1.into(), 1),
        "{report}"
    );
    scene.redis.cli(&["set", "n:2", "2"]).unwrap();
    let report = scene.catch_up(&[]);
    assert_eq!(report["full-syncs"], 0, "{report}");
    let list = scene.list();
    let stream = &list["streams"][0];
    let gap = &stream["gaps"][0];
    assert_eq!((stream["windows"].as_array().unwrap().len(), &gap["healed"]), (2, &true.into()), "{stream}");
    assert!(gap["to"]["offset"].as_u64() > gap["from"]["offset"].as_u64());
    // With the first base gone, nobody needs the segments before the gap.
    let prune = env!("CARGO_BIN_EXE_prune-backups");
    let rules = ["--keep-last", "1", "--option", "retention.min-age=0s", "--grace", "0s"];
    let plan = scene.json(prune, &[&rules[..], &["--dry-run"]].concat());
    let planned = &plan["streams"]["plans"][0]["repositories"][0];
    assert!(planned["unneeded"].as_u64() > Some(0), "{plan}");
    let done = scene.json(prune, &rules);
    assert_eq!(done["streams"]["segments"], planned["unneeded"], "{done}");
    let look = scene.look().await;
    let line = look.line.unwrap();
    assert_eq!((line.windows.len(), line.gaps.len()), (1, 0), "{line:?}");
    assert!(look.writes.contains_key(&2));
}
