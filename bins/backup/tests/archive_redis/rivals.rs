//! Another archiver that takes over, and a server that lets nobody in for a while.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::scene::{Archiver, PATIENCE, Scene};

fn signal(archiver: &Archiver, name: &str) {
    let sent = Command::new("kill").args([name, &archiver.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

impl Scene {
    /// Who is written in the lease of the stream.
    fn holder(&self) -> Option<u64> {
        let lease = self.repository().join("main/leases/archive-redis-main.json");
        let text = std::fs::read_to_string(lease).ok()?;
        text.rsplit_once("process ")?.1.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
    }

    fn wait_for_holder(&self, archiver: &Archiver) {
        let deadline = Instant::now() + PATIENCE;
        while self.holder() != Some(archiver.id().into()) {
            assert!(Instant::now() < deadline, "it does not take the lease: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it, but not while the others would wait for it.
    fn put_to_sleep(&self, archiver: &Archiver) {
        loop {
            signal(archiver, "-STOP");
            let lock = std::fs::File::open(self.repository().join(".lock")).unwrap();
            if lock.try_lock().is_ok() {
                return;
            }
            signal(archiver, "-CONT");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Segments and bases in the repository.
    fn objects(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|it| if it.path().is_dir() { count(&it.path()) } else { 1 }).sum()
        }
        count(&self.repository().join("main/stream")) + count(&self.repository().join("main/sets"))
    }

    /// How often the server turned somebody away, by its own count.
    fn refused(&self, password: &str) -> u64 {
        let mut ask = Command::new("redis-cli");
        let ask = ask.args(["-p", &self.redis.port().to_string(), "info", "errorstats"]);
        let told = ask.env("REDISCLI_AUTH", password).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let count = told.lines().find_map(|line| line.strip_prefix("errorstat_WRONGPASS:count="));
        count.map_or(0, |count| count.trim().parse().unwrap())
    }
}

/// It slept for so long that it was taken for dead, and wakes up with segments that it would have stored.
#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_whose_stream_another_one_took_over_ends_and_stores_nothing_more() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let first = scene.archive(&[]);
    scene.wait_for_base();
    scene.redis.cli(&["set", "n:1", "1"]).unwrap();
    scene.wait_until_stored();
    scene.put_to_sleep(&first);
    scene.redis.cli(&["set", "n:2", "2"]).unwrap();
    let before = scene.objects();
    let second = scene.archive_at(&scene.root.path().join("other-spool"));
    scene.wait_for_holder(&second);
    while scene.objects() == before {
        std::thread::sleep(Duration::from_millis(50));
    }
    // The sleeper finds both of these in one segment, which nobody has.
    scene.redis.cli(&["set", "n:3", "3"]).unwrap();
    assert_eq!(second.stop(), Some(0), "{}", scene.log());
    let third = scene.archive_at(&scene.root.path().join("third-spool"));
    scene.wait_for_holder(&third);
    let objects = scene.objects();
    signal(&first, "-CONT");
    assert_eq!(first.wait(), Some(4), "{}", scene.log());
    assert_eq!(scene.objects(), objects, "it stored what was not its own any more");
    assert_eq!(third.stop(), Some(0), "{}", scene.log());
    scene.look().await.assert_whole(3);
}

/// A password that is put right is noticed by itself, and soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_asked_again_and_followed_once_it_does_not() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let mut archiver = scene.archive(&[]);
    scene.wait_for_base();
    let password = scene.redis.password().unwrap();
    let other = |words: &[&str]| {
        let port = scene.redis.port().to_string();
        let said =
            Command::new("redis-cli").args(["-p", &port]).args(words).env("REDISCLI_AUTH", "other").output();
        assert!(said.unwrap().status.success());
    };
    scene.redis.cli(&["config", "set", "requirepass", "other"]).unwrap();
    other(&["client", "kill", "type", "replica"]);
    let deadline = Instant::now() + PATIENCE;
    while scene.refused("other") < 6 {
        assert!(Instant::now() < deadline, "it is not asked again: {}", scene.refused("other"));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(archiver.is_running(), "{}", scene.log());
    scene.wait("why", |status| status["server-problem"].as_str().is_some_and(|it| it.contains("WRONGPASS")));
    other(&["set", "n:1", "1"]);
    other(&["config", "set", "requirepass", password]);
    let begun = Instant::now();
    scene
        .wait("a connection", |status| status["continued"].as_u64() > Some(0) && !status["server"].is_null());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?} after it was put right", begun.elapsed());
    scene.wait_until_stored();
    assert_eq!(archiver.stop(), Some(0));
    assert_eq!(scene.info("sync_full"), "1");
    scene.look().await.assert_whole(1);
}
