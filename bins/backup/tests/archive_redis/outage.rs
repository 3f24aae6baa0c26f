//! A store that is out: reading goes on, the alarm is raised, nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::rounds;
use crate::scene::{Scene, Writer};

impl Scene {
    /// The repository is gone, as a mount that broke off.
    fn take_away(&self) {
        fs::rename(self.repository(), self.root.path().join("away")).unwrap();
    }

    fn put_back(&self) {
        _ = fs::remove_dir_all(self.repository());
        fs::rename(self.root.path().join("away"), self.repository()).unwrap();
    }
}

async fn outage(kill: bool) {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    // So small that the alarm is due.
    let arguments = ["--spool-limit", "64MiB"];
    let mut archiver = scene.archive(&arguments);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);
    scene.wait("a segment", |status| status["segments"].as_u64() > Some(0));
    scene.take_away();
    let seconds = rounds(6, 300) as u64;
    std::thread::sleep(Duration::from_secs(seconds / 2));
    if kill {
        archiver.kill9();
        archiver = scene.archive(&arguments);
    }
    std::thread::sleep(Duration::from_secs(seconds / 2));
    assert!(archiver.is_running(), "an outage ends it");
    scene.wait("reading", |status| status["waiting"].as_u64() > Some(0) && !status["server"].is_null());
    let memory = archiver.memory();
    assert!(memory < 96 * 1024, "{memory} KiB");
    scene.put_back();
    let last = writer.stop();
    scene.wait("everything", |status| {
        status["waiting"] == 0 && status["durable"]["offset"].as_u64() >= status["last-write"].as_u64()
    });
    assert_eq!(archiver.stop(), Some(0));
    assert_eq!(scene.info("sync_full"), "1");
    scene.look().await.assert_whole(last);
    eprintln!("{seconds} s, killed {kill}: {last} writes, {memory} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_under_load_loses_nothing() {
    outage(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_killed_in_an_outage_reads_on() {
    outage(true).await;
}

/// A spool that fills raises the alarm at half of its limit, and detaches at its end instead of taking all of the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_fills_raises_the_alarm_and_detaches_when_full() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let archiver = scene.archive(&["--spool-limit", "2MiB"]);
    scene.wait_for_base();
    scene.take_away();
    let body = "x".repeat(10_000);
    for at in 0..400 {
        scene.redis.cli(&["set", &format!("k:{at}"), &body]).unwrap();
    }
    scene.wait("a full spool", |status| status["spool"] == "full" && status["server"].is_null());
    let bytes = scene.status().unwrap()["spool-bytes"].as_u64().unwrap();
    assert!(bytes < 8 << 20, "{bytes} bytes");
    scene.put_back();
    scene.wait("room", |status| status["spool"] == "room" && !status["server"].is_null());
    scene.wait("everything", |status| {
        status["waiting"] == 0 && status["durable"]["offset"].as_u64() >= status["last-write"].as_u64()
    });
    drop(archiver);
    let look = scene.look().await;
    let line = look.line.unwrap();
    assert_eq!((line.windows.len(), line.gaps.len()), (1, 0), "{line:?}");
    let mode = fs::metadata(scene.spool().join("lock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else reads the spool");
}
