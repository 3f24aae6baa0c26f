//! `restore-cluster` killed by `kill -9` at any moment, and started again, while the source is written to.
//!
//! 8 kills, or 110 with `BACKSTAY_SOAK` in the environment, of runs that were alive when they were killed.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../crates/postgres-ops/tests/restored/mod.rs"]
mod restored;
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use backstay_testkit::PostgresOptions;
use cluster::{Cluster, verify};
use restored::{Restored, archive_all, copy_command};
use support::{Bench, Ended, Moments, until};

const SEED: u64 = 7;
const MARKER: &str = "backstay-restore.unfinished";

fn is_long() -> bool {
    std::env::var_os("BACKSTAY_SOAK").is_some()
}

/// Everything below a folder: content of files, targets of links.
type Content = BTreeMap<PathBuf, Vec<u8>>;

fn content(folder: &Path) -> Content {
    let mut found = Content::new();
    for entry in folder.read_dir().unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_symlink() {
            found.insert(path.clone(), path.read_link().unwrap().into_os_string().into_encoded_bytes());
        } else if kind.is_dir() {
            found.extend(content(&path));
            found.insert(path, Vec::new());
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// A restore that is repeated into one place.
struct Scene<'a> {
    cluster: &'a Cluster,
    place: Restored<'a>,
    bench: Bench,
    args: Vec<String>,
}

impl<'a> Scene<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let place = Restored::beside(&cluster.postgres, "killed");
        let repository = cluster.root.path().join("repository").display().to_string();
        let (target, command) = (place.target.display().to_string(), copy_command(cluster));
        let mut args = vec!["--repository".to_owned(), repository, "--data-directory".to_owned(), target];
        args.extend(["--target-name", "here", "--restore-command", &command].map(str::to_owned));
        // Slow enough for many kills to come while files are written.
        let rate = if is_long() { "1MiB" } else { "4MiB" };
        args.extend(["--option".to_owned(), format!("limits.bytes-per-second={rate}")]);
        Self { cluster, place, bench: Bench::new(), args }
    }

    fn spaces(&self) -> PathBuf {
        let mut beside = self.place.target.clone().into_os_string();
        beside.push(".tablespaces");
        beside.into()
    }

    fn content(&self) -> Content {
        let mut all = content(&self.place.target);
        all.extend(content(&self.spaces()));
        all
    }

    fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.place.target);
        let _ = std::fs::remove_dir_all(self.spaces());
    }

    fn args(&self, delta: bool) -> Vec<&str> {
        self.args.iter().map(String::as_str).chain(delta.then_some("--delta")).collect()
    }

    fn run(&self, delta: bool) -> Ended {
        self.bench.run("restore-cluster", &self.args(delta))
    }

    /// As an old data directory is: blocks that differ, a file too many, one too few, one that is too long.
    fn spoil(&self) {
        let _ = std::fs::remove_file(self.place.target.join("backup_label"));
        std::fs::write(self.place.target.join("base/1/999999"), "left over").unwrap();
        let mut files: Vec<_> =
            self.content().into_iter().filter(|(_, bytes)| bytes.len() >= 1 << 20).collect();
        files.truncate(3);
        for (path, bytes) in files {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.write_all_at(b"something else", bytes.len() as u64 / 2).unwrap();
            file.write_all_at(b"more", bytes.len() as u64).unwrap();
        }
    }

    /// Starts a restore and kills it. Whether it was alive.
    fn kill(&self, delta: bool, moments: &mut Moments) -> bool {
        let mut run = self.bench.command("restore-cluster", &self.args(delta));
        let begun = Instant::now();
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ended = moments.kill(&mut child, begun);
        // An earlier one may have been complete when it was killed: it is in the way, as any cluster.
        let known = ended.is_none_or(|status| [Some(0), Some(4)].contains(&status.code()));
        assert!(known, "{ended:?}");
        ended.is_none()
    }

    /// What can be started is whole: what a start needs was durable before.
    fn expect_whole_or_unable_to_start(&self, context: &str) {
        if self.place.target.join("global/pg_control").exists() {
            let marked = self.place.target.join(MARKER).exists();
            assert!(self.place.target.join("recovery.signal").exists(), "{context}, marked {marked}");
            verify(self.cluster.postgres.install(), &self.place.target).unwrap();
        }
    }

    /// The same command once more, and its result is that of a run that nobody killed.
    fn complete(&self, delta: bool, expected: &Content, context: &str) {
        let ended = self.run(delta);
        let in_the_way = ended.code == 4 && !delta && ended.stderr.contains("holds a cluster");
        assert!(ended.code == 0 || in_the_way, "{context}: {ended:?}");
        let found = self.content();
        let differs = |path: &&PathBuf| found.get(*path) != expected.get(*path);
        let different: Vec<_> = found.keys().chain(expected.keys()).filter(differs).collect();
        assert!(different.is_empty(), "{context}: {different:?}");
    }
}

/// A cluster with a tablespace, and a restore point behind its base backup; somebody goes on writing.
async fn written_to() -> (Cluster, std::process::Child) {
    let mut cluster = Cluster::start(PostgresOptions::default()).await;
    let space = cluster.postgres.scratch().subdirectory("space", cluster.postgres.account()).unwrap();
    cluster.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    cluster.psql("CREATE TABLE t AS SELECT g AS n, md5(g::text) AS word FROM generate_series(1, 100000) g");
    cluster.psql("CREATE TABLE s TABLESPACE space AS SELECT n FROM t");
    cluster.back_up(&cluster.options()).await.unwrap();
    cluster.psql("DELETE FROM t WHERE n > 90000; SELECT pg_create_restore_point('here')");
    archive_all(&cluster).await;
    // A plan counts what lies behind its target: with a log that grows it would take longer each time.
    cluster.stop_archiver();
    let mut load = cluster.postgres.client("psql").unwrap();
    let sql = "DO $$ BEGIN LOOP UPDATE t SET word = md5(word) WHERE n IN (SELECT (random() * 90000)::int FROM \
               generate_series(1, 20)); COMMIT; PERFORM pg_sleep(0.02); END LOOP; END $$";
    load.args(["-X", "-q", "-d", "postgres", "-c", sql]).stdin(Stdio::null());
    let load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    (cluster, load)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_killed_cannot_start_and_is_completed_by_the_same_command() {
    let kills = if is_long() { 110 } else { 8 };
    let (cluster, mut load) = written_to().await;
    let scene = Scene::new(&cluster);
    let begun = Instant::now();
    scene.run(false).expect(0);
    let mut moments = Moments::new(SEED, begun.elapsed());
    verify(cluster.postgres.install(), &scene.place.target).unwrap();
    let expected = scene.content();
    let (mut unfinished, mut rounds) = (0, 0);
    while moments.kills() < kills || unfinished < kills / 10 + 1 {
        rounds += 1;
        assert!(rounds < 4 * kills + 100, "{moments}; {unfinished} unfinished");
        let context = format!("round {rounds} of seed {SEED}");
        let delta = rounds % 3 == 0;
        if delta {
            scene.spoil();
        } else {
            scene.clear();
        }
        // Some are killed once more while they complete what was there.
        for _ in 0..=rounds % 2 {
            let alive = scene.kill(delta, &mut moments);
            unfinished += u32::from(alive && scene.place.target.join(MARKER).exists());
            // Until its marker is written, an old directory is as it was.
            if !delta {
                scene.expect_whole_or_unable_to_start(&context);
            }
        }
        scene.complete(delta, &expected, &context);
    }
    eprintln!("{moments}; {unfinished} left an unfinished restore; {rounds} were completed and compared");
    let loaded = "SELECT count(*) FROM t WHERE word <> md5(n::text)";
    assert_ne!(cluster.psql(loaded), "0", "the source was written to");
    load.kill().unwrap();
    load.wait().unwrap();
    expect_started(&scene.place);
}

/// Starts what was restored, and waits until it is recovered.
fn expect_started(place: &Restored<'_>) {
    let (target, log) = (place.target.to_str().unwrap(), place.target.join("log.txt"));
    let settings = format!("-c port={} -c unix_socket_directories=", place.port.port());
    let start =
        ["start", "-s", "-w", "-t", "600", "-D", target, "-o", &settings, "-l", log.to_str().unwrap()];
    place.tool("pg_ctl", &start).unwrap();
    until(|| place.psql("postgres", "SELECT pg_is_in_recovery()") == "f");
    let counts = "SELECT (SELECT count(*) FROM t) || ' ' || (SELECT count(*) FROM s)";
    assert_eq!(place.psql("postgres", counts), "90000 100000");
}

/// The same, and nobody writes any more.
async fn at_rest() -> Cluster {
    let (cluster, mut load) = written_to().await;
    load.kill().unwrap();
    load.wait().unwrap();
    cluster
}

/// Runs the restore under `strace`, with this of its options; the exit code, and the calls that it noted.
fn traced(scene: &Scene<'_>, option: &str) -> (Option<i32>, String) {
    let program = scene.bench.command("restore-cluster", &scene.args(false));
    let mut command = scene.bench.command("strace", &["-f", "-qq", "-e", option, "-o", "log"]);
    let output = command.arg("--").arg(program.get_program()).args(program.get_args()).output().unwrap();
    (output.status.code(), std::fs::read_to_string(scene.bench.path("log")).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_wrote_is_made_durable_by_the_one_that_completes_it() {
    let cluster = at_rest().await;
    let scene = Scene::new(&cluster);
    // All is written then, and perhaps only to memory.
    let (code, log) = traced(&scene, "inject=syncfs:signal=KILL:when=1");
    assert_eq!((code, log.matches("syncfs(").count()), (None, 1), "{log}");
    assert!(scene.place.target.join(MARKER).exists());
    assert!(!scene.place.target.join("global/pg_control").exists());
    let (code, log) = traced(&scene, "trace=syncfs");
    assert_eq!(code, Some(0));
    assert!(log.contains("syncfs("), "it kept what was right, and never synced it: {log}");
    verify(cluster.postgres.install(), &scene.place.target).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_failed_to_write_is_not_completed() {
    let cluster = at_rest().await;
    let scene = Scene::new(&cluster);
    let (code, _) = traced(&scene, "inject=syncfs:error=EIO:when=1");
    assert_eq!(code, Some(5));
    // All pages are in memory and right, and nobody knows what the disk has.
    for delta in [false, true] {
        let ended = scene.run(delta).expect(4);
        assert!(ended.stderr.contains("is not empty and no data directory"), "{}", ended.stderr);
    }
    scene.clear();
    scene.run(false).expect(0);
}
