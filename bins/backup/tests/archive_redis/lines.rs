//! Where the archive goes on when another one archived meanwhile, and what it says of a server that began anew.

use backstay_testkit::{RedisOptions, TestRedis};

use crate::scene::Scene;

/// What this spool knows is old, and the server does not have it any more; the repository has more than both.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_was_left_behind_goes_on_where_another_archiver_came_to() {
    let scene = Scene::start(&[("repl-backlog-size", "16kb")]).await;
    scene.catch_up(&[]);
    scene.redis.cli(&["set", "n:1", "1"]).unwrap();
    scene.catch_up(&[]);
    let other = scene.archive_at(&scene.root.path().join("other-spool"));
    while scene.info("connected_slaves") != "1" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let body = "x".repeat(10_000);
    for at in 0..30 {
        scene.redis.cli(&["set", &format!("k:{at}"), &body]).unwrap();
    }
    assert_eq!(other.stop(), Some(0), "{}", scene.log());
    scene.redis.cli(&["set", "n:2", "2"]).unwrap();
    let report = scene.catch_up(&[]);
    assert_eq!((&report["full-syncs"], &report["losses"]), (&0.into(), &serde_json::json!([])), "{report}");
    scene.look().await.assert_whole(2);
}

/// A replica that came lately keeps nothing of what was written before; its primary does.
#[tokio::test(flavor = "multi_thread")]
async fn the_primary_goes_on_where_its_replica_has_nothing_any_more() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    scene.catch_up(&[]);
    scene.redis.cli(&["set", "n:1", "1"]).unwrap();
    scene.catch_up(&[]);
    scene.redis.cli(&["set", "n:2", "2"]).unwrap();
    let password = scene.redis.password().unwrap();
    let primary = format!("127.0.0.1 {}", scene.redis.port());
    let options = RedisOptions::default().setting("repl-diskless-sync-delay", "0").password_of(password);
    let replica = TestRedis::start(options.setting("replicaof", &primary)).await.unwrap();
    let is_in_sync = |replica: &TestRedis| {
        replica.cli(&["info", "replication"]).unwrap().contains("master_link_status:up")
            && scene.redis.cli(&["info", "replication"]).unwrap().contains("state=online")
    };
    let deadline = std::time::Instant::now() + crate::scene::PATIENCE;
    while !is_in_sync(&replica) {
        assert!(std::time::Instant::now() < deadline, "the replica is never in sync");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let syncs = scene.info("sync_full");
    let report = scene.catch_up(&[]);
    assert_eq!((&report["full-syncs"], &report["losses"]), (&0.into(), &serde_json::json!([])), "{report}");
    assert_eq!(scene.info("sync_full"), syncs, "a snapshot was taken for nothing");
    let asked = replica.cli(&["info", "stats"]).unwrap();
    assert!(asked.contains("sync_full:0"), "a snapshot was taken for nothing: {asked}");
    scene.look().await.assert_whole(2);
}

/// A server that came up without its data draws another id and counts from the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_began_anew_leaves_a_gap_that_names_both_histories() {
    let mut scene = Scene::start(&[]).await;
    scene.catch_up(&[]);
    scene.redis.cli(&["set", "n:1", "1"]).unwrap();
    scene.catch_up(&[]);
    let old = scene.info("master_replid");
    scene.redis.kill9();
    _ = std::fs::remove_file(scene.redis.data_directory().join("dump.rdb"));
    scene.redis.restart().unwrap();
    let report = scene.catch_up(&[]);
    assert_eq!(report["losses"].as_array().unwrap().len(), 1, "{report}");
    scene.redis.cli(&["set", "n:2", "2"]).unwrap();
    scene.catch_up(&[]);
    let new = scene.info("master_replid");
    assert_ne!(old, new);
    let list = scene.list();
    let gaps = list["streams"][0]["gaps"].as_array().unwrap();
    let [gap] = &gaps[..] else { panic!("{list}") };
    let ids = (&gap["from"]["replication-id"], &gap["to"]["replication-id"], &gap["healed"]);
    assert_eq!(ids, (&old.into(), &new.into(), &true.into()), "{gap}");
}
