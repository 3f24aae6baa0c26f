//! A disk that is really full, at the beginning or at any page on the way.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::{Scene, loadable};
use crate::world::facts;

/// A disk in memory, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let options = format!("size={size},mode=755");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(disk.0.path()).output().unwrap();
        assert!(mount.status.success(), "a full disk takes the right to mount one: {mount:?}");
        disk
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// The old data on a disk that has room.
    fn reset(&self, old: &Path) {
        for entry in std::fs::read_dir(self.0.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
        assert!(Command::new("cp").arg("-a").arg(old).arg(self.data()).status().unwrap().success());
    }

    /// A command that takes all of the disk but so many pages.
    fn fill(&self, pages: usize) -> String {
        let filler = self.0.path().join("filler").display().to_string();
        format!("dd if=/dev/zero of={filler} bs=64k 2>/dev/null; truncate -s -{} {filler}", pages * 4096)
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn of<'a>(name: &str, found: &'a [(String, Vec<u8>)]) -> Vec<&'a (String, Vec<u8>)> {
    found.iter().filter(|(path, _)| path.starts_with(name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_refused_before_the_server_is_stopped() {
    let (scene, disk) = (Scene::new().await, SmallDisk::mount("4m"));
    disk.reset(&scene.data());
    let (data, stopped) = (disk.data().display().to_string(), disk.0.path().join("stopped"));
    let stop = format!("touch {}", stopped.display());
    let args =
        ["--data-directory", &data, "--appendonly", "yes", "--before", "flushall", "--stop-command", &stop];
    let ended = scene.run(&args);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    assert!(ended.stderr.contains("bytes free, and the restore needs"), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: make room"), "{}", ended.stderr);
    assert!(!stopped.exists(), "the server was stopped for nothing");
    assert_eq!(loadable(&disk.data()), loadable(&scene.data()));
}

/// Between the plan and the swap somebody else takes the room, all of it or all but some pages of 4 KiB. A restore ends with 5 and the old
/// data is what the server would load, or with 0 and it is the new; the same command completes as soon as there is room.
async fn full_at_every_page(appendonly: &str, active: &str) {
    let (scene, disk) = (Scene::with_values(1000).await, SmallDisk::mount("32m"));
    let data = disk.data().display().to_string();
    let args = ["--data-directory", &data, "--appendonly", appendonly, "--before", "flushall"];
    let original = scene.data();
    std::fs::write(original.join("dump.rdb"), "of another life").unwrap();
    disk.reset(&original);
    let old = loadable(&disk.data());
    assert_eq!(scene.run(&args).code, 0);
    let new = loadable(&disk.data());
    // A server writes the time into each snapshot.
    let is_new = |found: &[(String, Vec<u8>)]| match active {
        "dump.rdb" => of(active, found) != of(active, &old) && facts(&of(active, found)[0].1).keys() == 101,
        _ => of(active, found) == of(active, &new),
    };
    assert!(is_new(&new));
    let (mut refused, mut pages) = (0, 0);
    loop {
        disk.reset(&original);
        let fill = disk.fill(pages);
        let ended = scene.run(&[&args[..], &["--stop-command", &fill]].concat());
        let found = loadable(&disk.data());
        let is_old = of(active, &found) == of(active, &old);
        assert!(is_old || is_new(&found), "{pages} pages: {}", ended.stderr);
        disk.make_room();
        if ended.code == 0 {
            assert!(!is_old);
            break;
        }
        assert_eq!(ended.code, 5, "{pages} pages: {}", ended.stderr);
        let words = ended.stderr.to_lowercase();
        assert!(
            words.contains("no space left") || words.contains("no storage space"),
            "{pages} pages: {words}"
        );
        let again = scene.run(&args);
        assert_eq!(again.code, 0, "{pages} pages: {}", again.stderr);
        assert!(is_new(&loadable(&disk.data())), "{pages} pages");
        assert!(!disk.data().join(".backstay-restore").exists());
        assert!(keeps(&disk.data(), &old), "{pages} pages: the old data is gone");
        refused += 1;
        pages += if std::env::var_os("BACKSTAY_SOAK").is_some() { 1 } else { 3 };
        assert!(pages < 300, "{}", ended.stderr);
    }
    println!(
        "appendonly {appendonly}: {refused} restores onto a full disk, the first one fits with {pages} pages"
    );
}

/// Whether some folder of old data has all of it.
fn keeps(data: &Path, old: &[(String, Vec<u8>)]) -> bool {
    let folders = std::fs::read_dir(data).unwrap().flatten();
    let mut kept = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("before-restore"));
    kept.any(|entry| loadable(&entry.path()) == old)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_any_page_costs_nothing() {
    full_at_every_page("yes", "appendonlydir").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_a_server_that_replays_costs_nothing() {
    full_at_every_page("no", "dump.rdb").await;
}
