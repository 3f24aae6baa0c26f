//! Killed at every call that changes files, the directory has the old data or the new, and the same command completes.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::scene::{Scene, loadable};
use crate::steps;

fn reset(data: &Path, old: &Path) {
    std::fs::remove_dir_all(data).unwrap();
    assert!(Command::new("cp").arg("-a").arg(old).arg(data).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_the_data_is_the_old_or_the_new_and_the_same_command_completes() {
    let scene = Scene::new().await;
    let data = scene.data();
    // A file of another life that an unlucky change of settings would bring back.
    std::fs::write(data.join("appendonly.aof"), "older").unwrap();
    let aside = scene.world.folder.path().join("old");
    assert!(Command::new("cp").arg("-a").arg(&data).arg(&aside).status().unwrap().success());
    let old: Vec<_> = loadable(&data);
    let active = |found: &[(String, Vec<u8>)]| {
        found.iter().filter(|(name, _)| name.starts_with("appendonlydir/")).cloned().collect::<Vec<_>>()
    };
    let configuration = scene.configuration();
    let args = ["--config-file", &configuration, "--before", "flushall", "--no-progress"];
    let ended = scene.run(&args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let new = loadable(&data);
    assert_ne!(active(&new), active(&old));
    let soak = std::env::var("BACKSTAY_SOAK").is_ok_and(|value| value == "1");
    let calls = if soak { steps::FILES_OF_THREADS } else { "?rename,?renameat,renameat2,exit_group" };
    let mut states = [0, 0];
    let swept = steps::kill_at_every_call(
        calls,
        &scene.world.folder.path().join("trace"),
        |_| {
            reset(&data, &aside);
            (scene.command(&args), Stdio::null())
        },
        |run, code| {
            let found = active(&loadable(&data));
            let is_new = found == active(&new);
            assert!(is_new || found == active(&old), "run {run} left something else");
            states[usize::from(is_new)] += 1;
            assert!(code.is_none_or(|code| code == 0), "run {run} ended with {code:?}");
            let ended = scene.run(&args);
            assert_eq!(ended.code, 0, "run {run}: {}", ended.stderr);
            assert_eq!(loadable(&data), new, "run {run} was not completed");
            assert!(!data.join(".backstay-restore").exists(), "run {run} left its folder");
        },
    );
    assert!(states.iter().all(|count| *count > 0), "{states:?}");
    println!("{} kills at {} steps: {states:?} left the old data, the new data", swept.kills, swept.steps);
}
