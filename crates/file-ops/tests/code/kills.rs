//! `kill -9` at any moment of a backup and of a restore: nothing half counts, and nothing goes on running.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::catalog::{Catalog, Filter};
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::process::{CommandRunner, SystemRunner};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_file_ops::code::{CodeOptions, RestoreOptions, StoredSet, backup_code, restore};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use crate::support::{Git, Scene};

/// Where the child finds its work; it is this test program itself, run for one test.
const BACKUP: &str = "BACKSTAY_TEST_BACK_UP";
const RESTORE: &str = "BACKSTAY_TEST_RESTORE";

#[test]
fn child_that_backs_up() {
    let Some(folder) = std::env::var_os(BACKUP) else { return };
    run(Path::new(&folder), true);
}

#[test]
fn child_that_restores() {
    let Some(folder) = std::env::var_os(RESTORE) else { return };
    run(Path::new(&folder), false);
}

fn run(folder: &Path, back_up: bool) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(Box::pin(async {
        let store = Arc::new(LocalStore::open(folder.join("repository")).unwrap());
        let repository = Repository::open("local", store).await.unwrap();
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
        let stanza = Stanza::parse("main").unwrap();
        let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let runner: Arc<dyn CommandRunner> = Arc::new(SystemRunner::new(&environment));
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        if back_up {
            let mut options = CodeOptions::new(stanza, "app", &folder.join("app"), &folder.join("scratch"));
            options.recipients = Recipients::none();
            options.plaintext = true;
            options.uncommitted = true;
            backup_code(&repositories, &options, &runner, &progress, &cancel).await.unwrap();
            return;
        }
        let catalog = Catalog::load(&repositories, &stanza).await.unwrap();
        let identities = Identities::none();
        let stored = StoredSet {
            repositories: &repositories,
            catalog: &catalog,
            set: catalog.newest_good(&Filter::default()).unwrap(),
            identities: &identities,
            runner: &runner,
            progress: &progress,
            cancel: &cancel,
        };
        let mut options = RestoreOptions::new(&folder.join("back"));
        options.uncommitted = true;
        restore(&stored, &options).await.unwrap();
    }));
}

/// Runs a child and kills it after a random share of the time that it takes; whether it was killed before its end. One that
/// ended before tells how long it takes now: other programs come and go.
fn kill(scene: &Scene, variable: &str, test: &str, whole: &mut Duration) -> bool {
    let begun = Instant::now();
    let after = whole.mul_f64(rand::rng().random_range(0.0..1.3));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(variable, scene.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while begun.elapsed() < after {
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            *whole = begun.elapsed();
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

fn rounds() -> u32 {
    if std::env::var_os("BACKSTAY_SOAK").is_some() { 200 } else { 15 }
}

fn prepare(scene: &Scene) -> Git {
    let git = scene.git("app");
    for number in 0..60_u32 {
        let content: Vec<u8> =
            (0..20_000_u32).flat_map(|n| (n ^ number).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        git.write(&format!("file{number}"), content);
    }
    git.run(&["add", "."]);
    git.run(&["commit", "-q", "-m", "much"]);
    git.lfs(&b"large".repeat(200_000));
    git.write("README", "changed\n");
    git.write("untracked/file", "u");
    git
}

/// Whether any process still works in a folder.
fn is_used(folder: &Path) -> bool {
    let text = folder.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .any(|line| line.contains("git") && line.contains(&text))
}

#[track_caller]
fn assert_quiet(folder: &Path) {
    let start = Instant::now();
    while is_used(folder) {
        assert!(start.elapsed() < Duration::from_secs(60), "git goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_killed_backup_leaves_whole_sets_only() {
    let scene = Scene::new();
    let git = prepare(&scene);
    time_of(&scene, BACKUP, "kills::child_that_backs_up");
    git.commit("second", "2");
    let mut whole = time_of(&scene, BACKUP, "kills::child_that_backs_up");
    let (mut killed, mut sets) = (0, scene.sets().len());
    for round in 0..rounds() {
        git.commit(&format!("round{round}"), [round as u8; 100_000]);
        killed += u32::from(kill(&scene, BACKUP, "kills::child_that_backs_up", &mut whole));
        assert_quiet(&scene.path("scratch"));
        let now = scene.sets().len();
        assert!(now - sets <= 1);
        let stored = now > sets;
        sets = now;
        if stored {
            assert_eq!(scene.restore("proof").refs(), git.refs(), "round {round}");
            fs::remove_dir_all(scene.path("proof")).unwrap();
        }
        assert!(scene.catalog().sets.iter().all(|set| set.is_good()));
    }
    println!("killed {killed} of {} backups, {sets} whole sets", rounds());
    // The next run removes what the killed ones left.
    git.commit("last", "last");
    let mut options = scene.plain(git.path());
    options.uncommitted = true;
    scene.back_up(&options);
    assert_eq!(scene.restore("back").refs(), git.refs());
    assert!(killed > rounds() / 4, "the kills came too late");
}

fn time_of(scene: &Scene, variable: &str, test: &str) -> Duration {
    let start = Instant::now();
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(variable, scene.path(""))
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    start.elapsed()
}

#[test]
fn a_killed_restore_leaves_nothing_or_all() {
    let scene = Scene::new();
    let git = prepare(&scene);
    let mut options = scene.plain(git.path());
    options.uncommitted = true;
    scene.back_up(&options);
    git.commit("more", "more");
    scene.back_up(&options);
    let mut whole = time_of(&scene, RESTORE, "kills::child_that_restores");
    let (expected, mut killed, mut done) = ((git.refs(), git.work()), 0, 0);
    for round in 0..rounds() {
        let _ = fs::remove_dir_all(scene.path("back"));
        killed += u32::from(kill(&scene, RESTORE, "kills::child_that_restores", &mut whole));
        assert_quiet(&scene.path("back"));
        if scene.path("back").exists() {
            let back = Git(scene.path("back"));
            assert_eq!((back.refs(), back.work()), expected, "round {round}");
            done += 1;
        }
    }
    println!("killed {killed} of {} restores, {done} were there, whole", rounds());
    let _ = fs::remove_dir_all(scene.path("back"));
    let mut to = RestoreOptions::new(&scene.path("back"));
    to.uncommitted = true;
    scene.try_restore(&to).unwrap();
    assert!(!scene.path(".back.backstay-restore").exists());
    assert!(killed > rounds() / 4, "the kills came too late");
}
