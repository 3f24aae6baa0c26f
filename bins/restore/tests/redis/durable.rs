//! When the old data makes way, the new is on the disk, and that it did is on the disk before anything forgets it.

use std::path::Path;

use crate::scene::Scene;
use crate::syncs::Trace;

fn ends(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|found| found == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_place_of_old_data_was_synced_before_and_so_is_the_swap() {
    let scene = Scene::new().await;
    let (data, configuration) = (scene.data(), scene.configuration());
    let directory = data.display().to_string();
    let shapes: [(&[&str], &str, &[&str]); 2] = [
        (
            &["--config-file", &configuration],
            "appendonlydir",
            &["appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof", "appendonly.aof.manifest"],
        ),
        (&["--data-directory", &directory, "--appendonly", "no"], "dump.rdb", &[]),
    ];
    for (options, unit, files) in shapes {
        std::fs::write(data.join("dump.rdb"), "old").unwrap();
        let program = scene.command(&[options, &["--before", "flushall", "--no-progress"]].concat());
        let trace = Trace::of(&program, &scene.world.folder.path().join("trace"));
        let staging = data.join(".backstay-restore");
        let new = staging.join("new");
        let marks = trace.renamed(|_, to| ends(to, "ready.json"));
        let [mark] = marks[..] else { panic!("{marks:?}") };
        for file in files {
            trace.assert_durable(&new.join(unit).join(file), mark.begin);
        }
        trace.assert_synced(&new.join(unit), 0, mark.begin);
        trace.assert_synced(&new, 0, mark.begin);
        trace.assert_durable(&staging.join("ready.tmp"), mark.begin);
        let swaps = trace.renamed(|from, to| from == new.join(unit) && to == data.join(unit));
        let [swap] = swaps[..] else { panic!("{swaps:?}") };
        trace.assert_synced(&staging, mark.end, swap.begin);
        let forgotten = trace.removed(|path| ends(path, "ready.json"));
        let [forgotten] = forgotten[..] else { panic!("{forgotten:?}") };
        trace.assert_synced(&data, swap.end, forgotten.begin);
        // The old one is where it is kept before anything forgets where it was.
        let kept = trace.renamed(|from, to| from == new.join(unit) && to != data.join(unit));
        let [kept] = kept[..] else { panic!("{kept:?}") };
        trace.assert_synced(kept.paths[1].parent().unwrap(), kept.end, forgotten.begin);
    }
}
