//! What the programs say of and do with archived WAL, on a real server that archives and is backed up whole.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_postgres_ops::wal::{SystemId, WalFile};
use backstay_postgres_ops::wal_archive::WalArchive;
use backstay_testkit::{PostgresOptions, TestPostgres};
use serde_json::Value;
use support::{Bench, Ended, files, flip_a_bit, until};

const LOCAL: [&str; 2] = ["--repository", "./local"];

/// A server, and a thread that archives its WAL until it is told to stop.
struct Scene {
    server: TestPostgres,
    bench: Bench,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scene {
    fn new() -> Self {
        let spool = "mkdir -p ../spool && cp %p ../spool/.%f && mv ../spool/.%f ../spool/%f";
        let options = PostgresOptions::default()
            .initdb_arg("--wal-segsize=1")
            .setting("archive_mode", "on")
            .setting("archive_command", spool)
            .setting("track_commit_timestamp", "on")
            .setting("autovacuum", "off");
        let server = TestPostgres::start_blocking(&options).unwrap();
        server.psql("postgres", "CREATE TABLE t (n int)").unwrap();
        let mut bench = Bench::new();
        bench.reach(&server, "postgres");
        let system = server.psql("postgres", "SELECT system_identifier FROM pg_control_system()").unwrap();
        let spool = server.data_directory().parent().unwrap().join("spool");
        let (place, stop) = (bench.path("local"), Arc::new(AtomicBool::new(false)));
        let (stopped, system) = (stop.clone(), SystemId::new(system.parse().unwrap()));
        let thread = std::thread::spawn(move || archive_until(&spool, &place, system, &stopped));
        Self { server, bench, stop, thread: Some(thread) }
    }

    fn run(&self, program: &str, args: &[&str]) -> Ended {
        self.bench.run(program, &[&LOCAL, args].concat())
    }

    fn json(&self, program: &str, args: &[&str]) -> Value {
        self.bench.json(program, &[&LOCAL, args].concat()).1
    }

    fn back_up(&self) -> String {
        let report = self.json("backup-cluster", &[]);
        report["set"].as_str().unwrap_or_else(|| panic!("{report}")).to_owned()
    }

    /// Commits, and waits until the segment of it is archived. The time of the commit, by the server's clock.
    fn commit(&self, rows: u32) -> String {
        let insert = format!("INSERT INTO t SELECT generate_series(1, {rows})");
        self.server.psql("postgres", &insert).unwrap();
        let time = "SELECT to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
            FROM pg_last_committed_xact()";
        let time = self.server.psql("postgres", time).unwrap();
        let name = self.server.psql("postgres", "SELECT pg_walfile_name(pg_switch_wal())").unwrap();
        until(|| self.segments().iter().any(|path| path.ends_with(&name)));
        time
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut files = files(&self.bench.path("local/main/wal"));
        files.retain(|path| path.file_name().unwrap().len() == 24);
        files
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn archive_until(spool: &Path, place: &Path, system: SystemId, stopped: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(LocalStore::create(place.to_path_buf()).unwrap());
        let repository = Repository::open_or_create("local", store, &SystemClock).await.unwrap();
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
        let archive = WalArchive::new(repositories, Stanza::parse("main").unwrap(), system);
        while !stopped.load(Ordering::Relaxed) {
            let mut paths: Vec<_> = files(spool);
            paths.retain(|path| path.file_name().unwrap().to_str().unwrap().parse::<WalFile>().is_ok());
            for path in paths {
                let file = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                archive.push(file, std::fs::read(&path).unwrap().into()).await.unwrap();
                std::fs::remove_file(&path).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

fn at(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// The same moment, however many digits it is printed with.
fn same(left: &str, right: &str) -> bool {
    left.parse::<jiff::Timestamp>().unwrap() == right.parse::<jiff::Timestamp>().unwrap()
}

#[test]
fn ranges_windows_and_what_would_be_lost_are_told_from_what_is_archived() {
    let scene = Scene::new();
    let before = scene.commit(10);
    let wal = scene.json("list-backups", &[])["wal"].clone();
    assert_eq!((&wal[0]["last-recoverable"], &wal[0]["rpo-seconds"]), (&Value::Null, &Value::Null), "{wal}");
    assert_eq!(wal[0]["rpo-unknown"], "no base backup can be recovered");
    let text = scene.run("list-backups", &[]).expect(1).stdout;
    assert!(text.contains("\n! RPO now: unknown, no base backup can be recovered"), "{text}");

    let set = scene.back_up();
    let last = scene.commit(10);
    let wal = &scene.json("list-backups", &[])["wal"][0];
    let window = &wal["windows"][0];
    assert_eq!((&window["sets"], &window["timeline"]), (&serde_json::json!([set]), &1.into()));
    assert!(same(&at(&window["to"]["at"]), &last), "{window} ends with the last commit, {last}");
    assert!(same(&at(&wal["last-recoverable"]), &last) && !same(&before, &last));
    assert!(wal["rpo-seconds"].as_i64().is_some_and(|seconds| (0..120).contains(&seconds)), "{wal}");
    assert_eq!(wal["segment-size"], 1 << 20);
    let text = scene.run("list-backups", &[]).expect(0).stdout;
    for part in [
        ", segments of 1.0 MiB",
        "timeline 1: 00000001",
        "recoverable from ",
        "on timeline 1, with 1 base backup",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(
        text.contains("RPO now: the last commit that can be recovered is from ") && !text.contains("gap")
    );

    // A hole behind the base backup, and what comes after it is no longer recoverable.
    let segments = scene.segments();
    let hole = segments.last().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let later = scene.commit(10);
    std::fs::remove_file(segments.last().unwrap()).unwrap();
    let wal = &scene.json("list-backups", &[])["wal"][0];
    assert_eq!(wal["windows"][0]["end"]["missing"], hole.as_str(), "{wal}");
    assert_eq!(wal["timelines"][0]["gaps"][0]["first"], hole.as_str());
    assert!(!same(&at(&wal["last-recoverable"]), &later), "what is behind the hole is lost");
    let text = scene.run("list-backups", &[]).expect(0).stdout;
    assert!(text.contains(&format!("\n! gap: {hole}")), "{text}");
    assert!(text.contains(&format!("\n! then {hole} is missing; the log goes on with ")), "{text}");
    let verified = scene.run("verify-backups", &[]).expect(0).stdout;
    assert!(
        verified.contains(&format!("recovery with it ends before {hole}, which is missing")),
        "{verified}"
    );
}

#[test]
fn a_physical_set_is_verified_with_the_wal_that_it_needs() {
    let scene = Scene::new();
    let set = scene.back_up();
    scene.commit(10);
    for args in [&[][..], &["--full"][..]] {
        let text = scene.run("verify-backups", args).expect(0).stdout;
        assert!(text.contains(&set) && text.contains("segments of WAL are archived"), "{text}");
    }
    let verified = scene.json("verify-backups", &["--no-proof"])["wal"][0].clone();
    let needed = verified["segments"].as_u64().unwrap();
    let first = needed_from(&scene, &set);
    let path = scene.segments().into_iter().find(|path| path.ends_with(&first)).unwrap();
    assert!(needed >= 1);
    let aside = scene.bench.path("aside");
    std::fs::copy(&path, &aside).unwrap();

    flip_a_bit(&path);
    scene.run("verify-backups", &["--no-proof"]).expect(0);
    let full = scene.run("verify-backups", &["--full", "--no-proof"]).expect(3).stdout;
    assert!(full.contains(&format!("! {first}: ")), "{full}");

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"right name, wrong content").unwrap();
    let quick = scene.run("verify-backups", &["--no-proof"]).expect(3).stdout;
    assert!(quick.contains(&format!("! {first}: ")) || quick.contains("not archived"), "{quick}");

    std::fs::remove_file(&path).unwrap();
    let quick = scene.run("verify-backups", &[]).expect(3).stdout;
    assert!(quick.contains(&format!("! {first}: this WAL segment")), "{quick}");
    let listed = scene.run("list-backups", &[]).expect(1).stdout;
    assert!(listed.contains("BAD") && listed.contains("not archived"), "{listed}");
    std::fs::copy(&aside, &path).unwrap();
    scene.run("verify-backups", &[]).expect(0);
    scene.run("list-backups", &["--good"]).expect(0);
}

/// The first segment that a set needs.
fn needed_from(scene: &Scene, set: &str) -> String {
    let manifest = scene.bench.path(&format!("local/main/sets/{set}/manifest.json"));
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    let start = at(&manifest["manifest"]["facts"]["start-lsn"]);
    let name = format!("SELECT pg_walfile_name('{start}'::pg_lsn)");
    scene.server.psql("postgres", &name).unwrap()
}

#[test]
fn wal_goes_when_no_set_that_stays_needs_it() {
    let scene = Scene::new();
    scene.commit(10);
    let rules = ["--keep-last", "1", "--option", "retention.min-age=0s", "--grace", "0s"];
    let all = scene.segments();
    let without = scene.run("prune-backups", &rules).expect(0).stdout;
    assert!(without.contains(" stays: there is no base backup of this cluster"), "{without}");
    assert_eq!(scene.segments(), all, "without a base backup nobody knows what is needed");

    let first = scene.back_up();
    scene.commit(10);
    let second = scene.back_up();
    scene.commit(10);
    let (needed, all) = (needed_from(&scene, &second), scene.segments());
    let dry = scene.run("prune-backups", &[&rules[..], &["--dry-run"]].concat()).expect(0).stdout;
    assert!(
        dry.contains(&format!("  remove  {first}")) && dry.contains("objects of WAL from ./local"),
        "{dry}"
    );
    assert!(dry.contains(&format!(" on, where set {second} begins")), "{dry}");
    assert_eq!(scene.segments(), all);
    let young = scene.json("prune-backups", &["--keep-last", "1", "--dry-run"]);
    assert_eq!(
        young["wal"]["clusters"][0]["repositories"],
        serde_json::json!([]),
        "the grace period is a day"
    );

    let held = [&LOCAL[..], &["--hold", &first, "--reason", "audit"]].concat();
    scene.bench.run("prune-backups", &held).expect(0);
    let kept = scene.json("prune-backups", &[&rules[..], &["--dry-run"]].concat());
    assert_eq!(kept["wal"]["clusters"][0]["needed-by"], first.as_str(), "a set on hold needs its WAL");
    scene
        .bench
        .run("prune-backups", &[&LOCAL[..], &["--release", &first, "--reason", "over"]].concat())
        .expect(0);

    let pruned = scene.run("prune-backups", &rules).expect(0).stdout;
    assert!(
        pruned.contains(&format!("removed {first}")) && pruned.contains("objects of WAL removed"),
        "{pruned}"
    );
    let left: Vec<_> = scene.segments().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert!(left.len() < all.len() && left[0] == needed.as_str(), "{left:?} from {needed} on");
    let expected: Vec<_> = all.iter().filter(|path| *path.file_name().unwrap() >= *needed).collect();
    assert_eq!(left.len(), expected.len(), "nothing else went");
    scene.run("verify-backups", &["--full"]).expect(0);
    let again = scene.run("prune-backups", &rules).expect(0).stdout;
    assert!(!again.contains("objects of WAL removed"), "{again}");

    // A repository that is not there may hold a set that needs more.
    scene.bench.write(
        "backstay.toml",
        "[[repository]]\nname = \"a\"\npath = \"local\"\n[[repository]]\nname = \"b\"\npath = \"missing\"\n",
    );
    let rules = ["--keep-last", "1", "--grace", "0s", "--dry-run"];
    let unsure = scene.bench.run("prune-backups", &rules);
    assert!(unsure.stdout.contains(" stays: repository b, which may hold base backups"), "{unsure:?}");
}
