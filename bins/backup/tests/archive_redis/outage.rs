//! A store that is out: reading goes on, the alarm is raised, nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use backstay_testkit::s3::{Effect, FaultRule, Faults};
use serde_json::Value;

use crate::rounds;
use crate::scene::{Scene, Writer};

/// The most memory that an archiver may ever have used, in KiB, whatever waits.
const MEMORY: u64 = 96 * 1024;

impl Scene {
    /// The repository is gone, as a mount that broke off; or it refuses everything.
    pub fn take_away(&self) {
        if let Some(bucket) = &self.bucket {
            return bucket.faults().set(Faults::default().rule(FaultRule::any(Effect::ServiceUnavailable)));
        }
        fs::rename(self.repository(), self.root.path().join("away")).unwrap();
    }

    pub fn put_back(&self) {
        if let Some(bucket) = &self.bucket {
            return bucket.faults().clear();
        }
        _ = fs::remove_dir_all(self.repository());
        fs::rename(self.root.path().join("away"), self.repository()).unwrap();
    }

    /// Waits until everything is stored that the server has written by now.
    pub fn wait_until_stored(&self) {
        let end: u64 = self.info("master_repl_offset").parse().unwrap();
        self.wait("everything", |status| {
            status["received"]["offset"].as_u64() >= Some(end) && is_stored(status)
        });
        self.wait("no complaint", |status| !status["server"].is_null() && status["store-problem"].is_null());
    }
}

pub fn is_stored(status: &Value) -> bool {
    status["waiting"] == 0 && status["durable"]["offset"].as_u64() >= status["last-write"].as_u64()
}

async fn outage(kill: bool, bucket: bool) {
    let mut scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    if bucket {
        scene = scene.in_a_bucket().await;
    }
    // What refuses is tried again for a while before anybody is told.
    let seconds = rounds(if bucket { 14 } else { 6 }, 300) as u64;
    let mut archiver = scene.archive(&[]);
    scene.wait_for_base();
    let writer = Writer::start(&scene.redis, 0);
    scene.wait_for_segment();
    assert_eq!(scene.told().0, Some(0), "all is well");
    scene.take_away();
    std::thread::sleep(Duration::from_secs(if kill { 2 } else { seconds }));
    if kill {
        archiver.kill9();
        archiver = scene.archive(&[]);
        std::thread::sleep(Duration::from_secs(seconds - 2));
    }
    assert!(archiver.is_running(), "an outage ends it");
    scene.wait("reading", |status| status["waiting"].as_u64() > Some(0) && !status["server"].is_null());
    let words = match (kill, bucket) {
        (true, _) => "no repository can be opened",
        (false, true) => "nothing was stored for a while",
        (false, false) => "nothing can be stored",
    };
    scene.assert_logged("ERROR", words);
    let (exit, told) = scene.told();
    assert_eq!(exit, Some(1), "{told}");
    assert!(told["running"] == true && told["store-problem"].is_string(), "{told}");
    let spool = told["spool-bytes"].clone();
    scene.put_back();
    let acknowledged = writer.finish();
    scene.wait_until_stored();
    assert_eq!(scene.told().0, Some(0), "all is well again");
    let memory = archiver.memory();
    assert!(memory < MEMORY, "{memory} KiB");
    assert_eq!(archiver.stop(), Some(0));
    assert_eq!(scene.info("sync_full"), "1");
    scene.look().await.assert_has(&acknowledged);
    let writes = acknowledged.last();
    eprintln!(
        "{seconds} s, killed {kill}, bucket {bucket}: {writes} writes, {spool} bytes waited, {memory} KiB at most"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_under_load_loses_nothing() {
    outage(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_killed_in_an_outage_reads_on() {
    outage(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bucket_that_refuses_everything_under_load_loses_nothing() {
    outage(false, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_archiver_killed_while_its_bucket_refuses_reads_on() {
    outage(true, true).await;
}

/// A spool that fills raises the alarm at half of its limit, and detaches at its end instead of taking all of the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_fills_raises_the_alarm_and_detaches_when_full() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let archiver = scene.archive(&["--spool-limit", "2MiB"]);
    scene.wait_for_base();
    scene.take_away();
    let body = "x".repeat(10_000);
    let mut keys = 0..400;
    for at in keys.by_ref().take(130) {
        scene.redis.cli(&["set", &format!("k:{at}"), &body]).unwrap();
    }
    scene.wait("an alarm", |status| status["spool"] == "alarm" && !status["server"].is_null());
    scene.assert_logged("ERROR", "the spool is filling");
    for at in keys {
        scene.redis.cli(&["set", &format!("k:{at}"), &body]).unwrap();
    }
    scene.wait("a full spool", |status| status["spool"] == "full" && status["server"].is_null());
    scene.assert_logged("ERROR", "the spool is full: detached");
    let (exit, told) = scene.told();
    assert_eq!(exit, Some(1), "{told}");
    let attached = scene.status().unwrap()["continued"].clone();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(scene.status().unwrap()["continued"], attached, "it attaches where there is no room");
    let bytes = told["spool-bytes"].as_u64().unwrap();
    assert!(bytes < 8 << 20, "{bytes} bytes");
    scene.put_back();
    scene.wait("room", |status| status["spool"] == "room" && !status["server"].is_null());
    scene.wait_until_stored();
    assert_eq!(scene.told().0, Some(0), "all is well again");
    assert_eq!(archiver.stop(), Some(0));
    assert_eq!(scene.info("sync_full"), "1");
    let look = scene.look().await;
    let line = look.line.unwrap();
    assert_eq!((line.windows.len(), line.gaps.len()), (1, 0), "{line:?}");
    let mode = fs::metadata(scene.spool().join("lock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else reads the spool");
}
