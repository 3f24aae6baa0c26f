//! Kills: of the server, of the archiver, of both at the same moment.

use std::time::Duration;

use crate::rounds;
use crate::scene::{Scene, Writer, micros};

/// The server persists nothing here, so that whatever comes back comes from the archive.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_had_acknowledged_is_archived() {
    for round in 0..rounds(3, 20) {
        let mut scene = Scene::start(&[]).await;
        let archiver = scene.archive(&[]);
        scene.wait_for_base();
        let writer = Writer::start(&scene.redis, 0);
        std::thread::sleep(Duration::from_millis(300 + 171 * (round as u64 % 7)));
        scene.redis.kill9();
        let last = writer.stop();
        scene.wait("the end of the stream", |status| status["server"].is_null());
        assert_eq!(archiver.stop(), Some(0), "everything is stored");
        assert!(last > 100, "only {last} writes");
        scene.look().await.assert_whole(last);
    }
}

/// What both had is lost at most for the time of a segment and a little: measured from the last write that is archived once the
/// spool that stays is stored, to the kill.
#[tokio::test(flavor = "multi_thread")]
async fn server_and_archiver_killed_together_lose_less_than_a_segment() {
    let mut worst = (0, 0);
    for round in 0..rounds(2, 20) {
        let mut scene = Scene::start(&[]).await;
        let archiver = scene.archive(&[]);
        scene.wait_for_base();
        let writer = Writer::start(&scene.redis, 0);
        std::thread::sleep(Duration::from_millis(1500 + 137 * (round as u64 % 7)));
        let killed = micros();
        scene.redis.kill9();
        archiver.kill9();
        let last = writer.stop();
        let lost = |writes: &std::collections::BTreeMap<u64, u64>| {
            killed.saturating_sub(writes.values().max().copied().unwrap_or_default()) / 1000
        };
        // As if the machine were gone with its spool: what the repository has alone.
        let without_spool = lost(&scene.look().await.writes);
        // The next archiver stores what the spool has; there is no server any more.
        let next = scene.archive(&[]);
        scene.wait("what was in the spool", |status| {
            let stored = status["durable"]["offset"].as_u64() >= status["last-write"].as_u64();
            status["lease"] == true && status["waiting"] == 0 && stored
        });
        drop(next);
        let look = scene.look().await;
        let with_spool = lost(&look.writes);
        look.assert_whole(look.writes.keys().max().copied().unwrap());
        worst = (worst.0.max(without_spool), worst.1.max(with_spool));
        eprintln!(
            "round {round}: {last} writes acknowledged, lost {without_spool} ms without the spool, {with_spool} with it"
        );
        assert!(with_spool <= 1_000 + 100, "{with_spool} ms");
    }
    eprintln!("worst: {} ms without the spool, {} ms with it", worst.0, worst.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_killed_again_and_again_leaves_no_gap_and_needs_no_second_snapshot() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let first = scene.archive(&[]);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);
    first.kill9();
    let kills = rounds(12, 100);
    for round in 0..kills {
        let archiver = scene.archive(&["--merge-size", "64KiB"]);
        std::thread::sleep(Duration::from_millis(50 + 97 * (round as u64 % 13)));
        archiver.kill9();
    }
    let last = writer.stop();
    let report = scene.catch_up(&[]);
    assert_eq!(report["full-syncs"], 0, "{report}");
    assert_eq!(scene.info("sync_full"), "1");
    let look = scene.look().await;
    look.assert_whole(last);
    eprintln!("{kills} kills, {last} writes, {} segments", look.survey.all_segments().count());
}
