//! Kills: of the server, of the archiver, of both at the same moment.

use std::process::Command;
use std::time::Duration;

use crate::rounds;
use crate::scene::{Archiver, Scene, Writer};

/// Most milliseconds of acknowledged writes that a death of both may cost: a segment, and a little for storing it.
const BOUND: u64 = 1_000 + 100;

/// The server persists nothing here, so that whatever comes back comes from the archive.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_had_acknowledged_is_archived() {
    let (kills, mut all) = (rounds(3, 20), 0);
    for round in 0..kills {
        let mut scene = Scene::start(&[]).await;
        let archiver = scene.archive(&[]);
        scene.wait_for_base();
        let writer = Writer::start(&scene.redis, 0);
        std::thread::sleep(Duration::from_millis(300 + 171 * (round as u64 % 7)));
        scene.redis.kill9();
        let acknowledged = writer.finish();
        scene.wait("the end of the stream", |status| status["server"].is_null());
        assert_eq!(archiver.stop(), Some(0), "everything is stored");
        assert!(acknowledged.last() > 100, "only {} writes", acknowledged.last());
        scene.look().await.assert_has(&acknowledged);
        all += acknowledged.last();
    }
    eprintln!("{kills} kills of the server, {all} acknowledged writes, 0 lost");
}

/// One signal for both, so that neither sees the other die.
fn kill_both(scene: &mut Scene, archiver: Archiver) {
    let server = scene.redis.process().unwrap().pid();
    let ids = [server.to_string(), archiver.id().to_string()];
    assert!(Command::new("kill").arg("-KILL").args(ids).status().unwrap().success());
    archiver.kill9();
    scene.redis.kill9();
}

/// Acknowledged writes that are lost, by the time that they took: from what the repository has alone, as if the machine with
/// the spool were gone, and with what the next archiver finds in the spool.
#[tokio::test(flavor = "multi_thread")]
async fn server_and_archiver_killed_together_lose_less_than_a_segment() {
    let (kills, mut worst) = (rounds(2, 20), (0, 0));
    for round in 0..kills {
        let mut scene = Scene::start(&[]).await;
        let archiver = scene.archive(&[]);
        scene.wait_for_base();
        let writer = Writer::start(&scene.redis, 0);
        // From here on there is something behind the base, at whatever moment both die.
        scene.wait_for_segment();
        std::thread::sleep(Duration::from_millis(137 * (round as u64 % 9)));
        kill_both(&mut scene, archiver);
        let acknowledged = writer.finish();
        let alone = scene.look().await;
        alone.assert_whole(alone.writes.keys().max().copied().unwrap());
        let without_spool = acknowledged.lost_millis(&alone.writes);
        // The next archiver stores what the spool has; there is no server any more.
        let next = scene.archive(&[]);
        scene.wait("what was in the spool", |status| {
            let stored = status["durable"]["offset"].as_u64() >= status["last-write"].as_u64();
            status["lease"] == true && status["waiting"] == 0 && stored
        });
        assert_eq!(next.stop(), Some(0));
        let look = scene.look().await;
        look.assert_whole(look.writes.keys().max().copied().unwrap());
        let with_spool = acknowledged.lost_millis(&look.writes);
        worst = (worst.0.max(without_spool), worst.1.max(with_spool));
        let last = acknowledged.last();
        eprintln!(
            "round {round}: {last} writes, lost {without_spool} ms without the spool, {with_spool} with it"
        );
        assert!(without_spool <= BOUND && with_spool <= BOUND, "{without_spool} ms, {with_spool} ms");
    }
    eprintln!("{kills} kills of both, worst: {} ms without the spool, {} ms with it", worst.0, worst.1);
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
    let acknowledged = writer.finish();
    let report = scene.catch_up(&[]);
    assert_eq!(report["full-syncs"], 0, "{report}");
    assert_eq!(scene.info("sync_full"), "1");
    let look = scene.look().await;
    look.assert_has(&acknowledged);
    let segments = look.survey.all_segments().count();
    eprintln!("{} kills, {} writes, {segments} segments", kills + 1, acknowledged.last());
}
