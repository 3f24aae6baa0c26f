//! A spool on a disk that is really full.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::outage::is_stored;
use crate::scene::{Archiver, PATIENCE, Scene};

/// A disk in memory, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).output().unwrap();
        assert!(mount.status.success(), "a full disk takes the right to mount one: {mount:?}");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Scene {
    /// Sets so many keys of 100 kB, all at once.
    fn fill(&self, keys: usize) {
        let script = "for at = 1, ARGV[1] do redis.call('SET', 'key:' .. at, string.rep('x', 100000)) end";
        self.redis.cli(&["eval", script, "0", &keys.to_string()]).unwrap();
    }

    /// Starts archivers as a service manager does, until one has stored everything. Also how many ended before.
    fn start_until_stored(&self) -> (Archiver, usize) {
        let end: u64 = self.info("master_repl_offset").parse().unwrap();
        let is_stored =
            |status: Value| status["received"]["offset"].as_u64() >= Some(end) && is_stored(&status);
        for ended in 0..20 {
            let (mut archiver, begun) = (self.archive(&[]), Instant::now());
            while archiver.is_running() {
                if self.status().is_some_and(is_stored) {
                    return (archiver, ended);
                }
                assert!(begun.elapsed() < PATIENCE, "{:?} {}", self.status(), self.log());
                std::thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(archiver.wait(), Some(5));
        }
        panic!("none stores everything: {}", self.log());
    }

    async fn assert_one_window(&self) {
        assert_eq!(self.info("sync_full"), "1", "no second snapshot");
        let line = self.look_at_line().await.unwrap();
        assert_eq!((line.windows.len(), line.gaps.len()), (1, 0), "{line:?}");
        let end: u64 = self.info("master_repl_offset").parse().unwrap();
        assert!(line.windows[0].to.offset.0 + 200 >= end, "{line:?} of {end}");
    }
}

/// What came faster than the disk could be looked at: it ends with 5, and what was stored makes room for the next run.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_once_ends_it_and_it_goes_on_where_it_was() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let _disk = SmallDisk::mount(scene.spool(), "8m");
    let archiver = scene.archive(&[]);
    scene.wait_for_base();
    scene.fill(300);
    assert_eq!(archiver.wait(), Some(5));
    let log = scene.log();
    for words in ["error: cannot write in the spool", "No space left on device", "hint: make room there"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let (archiver, ended) = scene.start_until_stored();
    assert_eq!(archiver.stop(), Some(0));
    scene.assert_one_window().await;
    eprintln!("{} runs ended at a full disk, nothing was lost", ended + 1);
}

/// A disk that fills while the store is out: the alarm at half of it, detached before its end, and everything is stored later.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_in_an_outage_is_seen_before_it_is_full() {
    let scene = Scene::start(&[("repl-backlog-size", "64mb")]).await;
    let _disk = SmallDisk::mount(scene.spool(), "8m");
    let mut archiver = scene.archive(&[]);
    scene.wait_for_base();
    scene.take_away();
    for state in ["alarm", "full"] {
        for _ in 0..50 {
            if scene.status().is_some_and(|status| status["spool"] == state) {
                break;
            }
            scene.fill(3);
            std::thread::sleep(Duration::from_millis(500));
        }
        scene.wait(state, |status| status["spool"] == state);
    }
    scene.wait("detached", |status| status["server"].is_null());
    scene.assert_logged("ERROR", "the spool is filling");
    scene.assert_logged("ERROR", "the spool is full: detached");
    assert!(archiver.is_running(), "{}", scene.log());
    assert_eq!(scene.told().0, Some(1));
    scene.put_back();
    scene.wait("room", |status| status["spool"] == "room" && !status["server"].is_null());
    scene.wait_until_stored();
    assert_eq!(archiver.stop(), Some(0));
    scene.assert_one_window().await;
}
