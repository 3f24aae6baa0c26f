//! A password that is changed while the archiver runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::scene::{Scene, Writer};

/// A change has two sides, and nobody makes them at once.
struct Password<'a> {
    scene: &'a Scene,
    file: &'a Path,
}

impl Password<'_> {
    fn on_the_server(&self, password: &str) {
        let rules = ["acl", "setuser", "archiver", "on", "resetpass"];
        self.scene
            .redis
            .cli(&[&rules[..], &[&format!(">{password}"), "~*", "&*", "+@all"]].concat())
            .unwrap();
    }

    fn in_the_file(&self, password: &str) {
        std::fs::write(self.file, password).unwrap();
        std::fs::set_permissions(self.file, PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn break_off(&self) {
        self.scene.redis.cli(&["client", "kill", "type", "replica"]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_read_again_when_it_is_refused() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let file = scene.root.path().join("password");
    let password = Password { scene: &scene, file: &file };
    password.on_the_server("first");
    password.in_the_file("first");
    let option = format!("redis.password={{ file = \"{}\" }}", file.display());
    let archiver = scene.archive(&[
        "--log-level=info",
        "--username",
        "archiver",
        "--option",
        &option,
        "--base-every",
        "3s",
    ]);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);

    // First where it is kept, then on the server, then the connection breaks off.
    password.in_the_file("second");
    password.on_the_server("second");
    let before = scene.status().unwrap()["continued"].as_u64().unwrap();
    password.break_off();
    scene.wait("another connection", |status| status["continued"].as_u64() > Some(before));
    scene.assert_logged("INFO", "the password was changed; trying the new one");

    // First on the server: it is refused until the file is changed too.
    password.on_the_server("third");
    password.break_off();
    scene.wait("a complaint", |status| {
        status["server-problem"].as_str().is_some_and(|problem| problem.contains("does not let archiver in"))
    });
    std::fs::remove_file(&file).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    password.in_the_file("third");
    scene.wait("no complaint", |status| status["server-problem"].is_null() && !status["server"].is_null());
    scene.assert_logged("WARN", "the password cannot be read again");

    // The connection goes on, but the next base needs one of its own.
    password.in_the_file("fourth");
    password.on_the_server("fourth");
    let bases = scene.status().unwrap()["bases"].as_u64();
    scene.wait("another base", |status| status["bases"].as_u64() > bases);

    let acknowledged = writer.finish();
    scene.wait_until_stored();
    assert_eq!(archiver.stop(), Some(0));
    scene.look().await.assert_has(&acknowledged);
}
