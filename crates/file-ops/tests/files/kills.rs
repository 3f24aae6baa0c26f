//! An installation killed at any moment: each live file is the old one or the new one, whole.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backstay_file_ops::restore::{PlanOptions, apply, plan_restore, undo};
use tokio_util::sync::CancellationToken;

use crate::support::Scene;

const FILES: usize = 300;

/// Where the child finds its work; it is this test program itself, run for one test.
const CHILD: &str = "BACKSTAY_TEST_INSTALL";

fn old(number: usize) -> String {
    format!("old {number}\n").repeat(200)
}

fn new(number: usize) -> String {
    format!("new {number}\n").repeat(3000)
}

#[test]
fn child_that_installs() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = Path::new(&folder);
    // Stages by copying, because the repository is not what is tested here.
    let bytes = fs::read(folder.join("a.tar")).unwrap();
    let files = folder.join("staging/files");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(&files).unwrap();
    let cancel = CancellationToken::new();
    let unpacked =
        backstay_file_ops::unpack::unpack(bytes.as_slice(), &files, &Default::default(), &cancel).unwrap();
    let staged = backstay_file_ops::restore::Staged::unpacked(folder.join("staging"), "set", unpacked);
    let mut options = PlanOptions::default();
    options.root = folder.join("live");
    let plan = plan_restore(&staged, &options, &cancel).unwrap();
    fs::write(folder.join("begun"), "").unwrap();
    let run = format!("run-{}", std::process::id());
    apply(&plan, &staged, &run, &cancel).unwrap();
}

#[test]
fn a_killed_installation_leaves_every_file_old_or_new() {
    let rounds = if std::env::var_os("BACKSTAY_SOAK").is_some() { 300 } else { 25 };
    let scene = Scene::new();
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..FILES {
        fs::write(tree.join(format!("{number}")), new(number)).unwrap();
    }
    let mut options = scene.plain(std::slice::from_ref(&tree));
    options.codec = backstay_backup_core::manifest::Codec::None;
    scene.back_up(&options);
    fs::copy(scene.set_folder().join("files.tar"), scene.path("a.tar")).unwrap();
    let live = scene.path("live").join(tree.strip_prefix("/").unwrap());
    let (mut mixed, mut killed, mut watched) = (0, 0, 0);
    for round in 0..rounds {
        let _ = fs::remove_dir_all(scene.path("live"));
        let _ = fs::remove_dir_all(scene.path("staging"));
        let _ = fs::remove_file(scene.path("begun"));
        fs::create_dir_all(&live).unwrap();
        (0..FILES).for_each(|number| fs::write(live.join(format!("{number}")), old(number)).unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::child_that_installs"])
            .env(CHILD, scene.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !scene.path("begun").exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_micros(200 + 97_000 * round / rounds));
        } else {
            watched += 1;
            // All are renamed within milliseconds.
            let number = usize::try_from(round).unwrap() * 37 % FILES;
            wait_until_replaced(&live.join(format!("{number}")), &mut child);
        }
        child.kill().unwrap();
        killed += u64::from(!child.wait().unwrap().success());
        let mut installed = 0;
        for number in 0..FILES {
            let content = fs::read_to_string(live.join(format!("{number}"))).unwrap();
            assert!(content == old(number) || content == new(number), "{number} is torn");
            installed += usize::from(content == new(number));
        }
        mixed += u64::from(installed > 0 && installed < FILES);
        // What was begun can be taken back, and no temporary file stays.
        let runs: Vec<_> = fs::read_dir(scene.path("staging/undo"))
            .into_iter()
            .flatten()
            .map(|run| run.unwrap().path())
            .collect();
        let recorded = runs.iter().find(|run| run.join("run.json").exists());
        assert!(recorded.is_some() || installed == 0, "nobody could take it back");
        if let Some(run) = recorded {
            let undone = undo(run, false, &CancellationToken::new()).unwrap();
            assert!(undone.left.is_empty(), "{:?}", undone.left);
        }
        for number in 0..FILES {
            assert_eq!(fs::read_to_string(live.join(format!("{number}"))).unwrap(), old(number));
        }
        assert_eq!(fs::read_dir(&live).unwrap().count(), FILES, "temporary files are left");
    }
    println!("killed {killed} of {rounds} times, {mixed} of them half-way");
    assert!(killed > rounds / 4, "the kills came too late");
    assert!(mixed > watched / 4, "{mixed} of {watched} were killed half-way");
}

/// Returns as soon as another file has the name, or nobody is left who could give it.
fn wait_until_replaced(path: &Path, child: &mut Child) {
    let inode = || fs::metadata(path).unwrap().ino();
    let before = inode();
    while inode() == before && child.try_wait().unwrap().is_none() {}
}
