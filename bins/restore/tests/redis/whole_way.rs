//! The program as an operator runs it.

use std::path::PathBuf;

use crate::scene::Scene;
use crate::world::{connect, digest};

/// A server that a restore started; it ends with the test, at once: told kindly, it would want to save into a folder that is going.
struct Started(PathBuf);

impl Drop for Started {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(&self.0) {
            let _ = std::process::Command::new("kill").args(["-KILL", pid.trim()]).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushall_is_undone_and_the_server_asked() {
    let scene = Scene::new().await;
    let (configuration, url) = (scene.configuration(), scene.url());
    let common = ["--config-file", &configuration, "--before", "flushall"];
    let ended = scene.run(&[&common[..], &["--dry-run"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for words in [
        "would restore to just before the last FLUSHALL",
        "found at offset",
        "FLUSHALL",
        "keeps appendonlydir",
    ] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    let old = crate::scene::loadable(&scene.data());
    let pid = scene.data().join("started.pid");
    let start = format!(
        "redis-server {configuration} --daemonize yes --pidfile {} --logfile {}",
        pid.display(),
        "/dev/null"
    );
    let _started = Started(pid);
    let options = ["--start-command", &start, "--redis-url", &url];
    let (ended, receipt) = scene.json(&[&common[..], &options].concat());
    assert_eq!((ended.code, &receipt["outcome"]), (0, &"loaded".into()), "{receipt} {}", ended.stderr);
    assert_eq!(receipt["found"]["databases"]["0"]["keys"], 101, "{receipt}");
    assert_eq!(receipt["planned"], receipt["reached"]);
    assert!(receipt["missing"]["bytes"].as_u64().unwrap() > 0);
    let mut connection = connect(&scene.target).await;
    assert_eq!(digest(&mut connection).await, scene.before);
    let kept: PathBuf = receipt["old"].as_str().unwrap().into();
    assert_eq!(crate::scene::loadable(&kept), old);
    // The proof stands beside the set.
    let proofs = scene.world.store().join("main/proofs");
    assert!(proofs.is_dir(), "{}", proofs.display());
    // The server runs now: a second restore is refused, and changes nothing.
    let ended = scene.run(&common);
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("is in use by process"), "{}", ended.stderr);
    let data = scene.data().display().to_string();
    let ended = scene.run(&["--check-receipt", "--data-directory", &data, "--redis-url", &url]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("the server has 101 keys"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_came_up_with_something_else_ends_with_3() {
    let mut scene = Scene::new().await;
    let (data, url) = (scene.data().display().to_string(), scene.url());
    // The operator is wrong: this server loads append-only files.
    let ended = scene.run(&["--data-directory", &data, "--appendonly", "no", "--before", "flushall"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("ready to be started"), "{}", ended.stdout);
    scene.target.restart().unwrap();
    let ended = scene.run(&["--check-receipt", "--data-directory", &data, "--redis-url", &url]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stdout.contains("does NOT have"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("expected 101 keys") && ended.stdout.contains("appendonly"),
        "{}",
        ended.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_ends_in_one_clear_error_and_changes_nothing() {
    let scene = Scene::new().await;
    let (configuration, data) = (scene.configuration(), scene.data().display().to_string());
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--data-directory", &data], 2, "nobody says what the server loads"),
        (&["--appendonly", "yes"], 2, "no data directory is named"),
        (&["--config-file", "./none.conf"], 5, "cannot read ./none.conf"),
        (&["--config-file", &configuration, "--target-time", "yesterday"], 2, "is no time"),
        (&["--config-file", &configuration, "--target-offset", "x"], 2, "is no offset"),
        (&["--config-file", &configuration, "--target-offset", "999999999"], 1, "cannot be reached"),
        (&["--config-file", &configuration, "--target-time", "2020-01-01T00:00:00Z"], 1, "cannot be reached"),
        (&["--config-file", &configuration, "--before", "FLUSHDB"], 1, "was not found"),
        (&["--config-file", &configuration, "--set", "20200101"], 1, "20200101"),
        (
            &["--config-file", &configuration, "--server-program", "/bin/true"],
            2,
            "is no Redis or Valkey server",
        ),
        (&["--config-file", &configuration, "--owner", "nobody-at-all"], 2, "there is no account"),
        (&["--config-file", &configuration, "--stop-command", "false"], 2, "ended with exit code 1"),
        (&["--data-directory", &configuration, "--appendonly", "yes"], 4, "is no directory"),
    ];
    let before = crate::scene::loadable(&scene.data());
    for (args, code, words) in cases {
        let ended = scene.run(args);
        assert_eq!(ended.code, *code, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{args:?}: {}", ended.stderr);
        assert_eq!(crate::scene::loadable(&scene.data()), before, "{args:?}");
    }
}
