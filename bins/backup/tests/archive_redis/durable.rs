//! What the spool calls complete is on the disk, with its name, before anybody hears of it.

use std::path::Path;

use crate::scene::Scene;
use crate::syncs::Trace;

fn is(path: &Path, kind: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()?.split_once('.')).is_some_and(|(_, found)| found == kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_and_snapshots_are_synced_with_their_names_before_they_count() {
    let scene = Scene::start(&[]).await;
    let log = scene.root.path().join("trace");
    let catch_up = || Trace::of(&scene.program(scene.redis.port(), &["--until-caught-up"]), &log);
    scene.redis.cli(&["set", "n:1", "1"]).unwrap();
    let trace = catch_up();
    let snapshots = trace.renamed(|_, to| is(to, "rdb"));
    let [snapshot] = snapshots[..] else { panic!("{snapshots:?}") };
    trace.assert_durable(&snapshot.paths[0], snapshot.begin);
    let removed = trace.removed(|path| path == snapshot.paths[1]);
    let [removed] = removed[..] else { panic!("{removed:?}") };
    trace.assert_synced(&scene.spool(), snapshot.end, removed.begin);
    for number in 2..5 {
        scene.redis.cli(&["set", &format!("n:{number}"), "1"]).unwrap();
    }
    let trace = catch_up();
    let segments = trace.renamed(|_, to| is(to, "seg"));
    assert!(!segments.is_empty());
    for segment in segments {
        trace.assert_durable(&segment.paths[0], segment.begin);
        let stored = trace.renamed(|from, _| from == segment.paths[1]);
        let [stored] = stored[..] else { panic!("{stored:?}") };
        trace.assert_synced(&scene.spool(), segment.end, stored.begin);
    }
    scene.look().await.assert_whole(4);
}
