//! `restore-cluster` as an operator runs it.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../crates/postgres-ops/tests/restored/mod.rs"]
mod restored;
mod support;

use backstay_testkit::PostgresOptions;
use cluster::Cluster;
use restored::{Restored, archive_all, copy_command};
use support::{Bench, Ended};

struct Scene {
    cluster: Cluster,
    bench: Bench,
}

impl Scene {
    async fn new() -> Self {
        Self::of("CREATE TABLE done (n int)").await
    }

    /// With this done first.
    async fn of(first: &str) -> Self {
        let cluster = Cluster::start(PostgresOptions::default()).await;
        cluster.psql(first);
        cluster.psql("CREATE TABLE IF NOT EXISTS done (n int)");
        cluster.psql("INSERT INTO done VALUES (1)");
        cluster.back_up(&cluster.options()).await.unwrap();
        cluster.psql("INSERT INTO done VALUES (2); SELECT pg_create_restore_point('two')");
        cluster.psql("INSERT INTO done VALUES (3)");
        archive_all(&cluster).await;
        let mut bench = Bench::new();
        bench.set("BACKSTAY_POSTGRES_BIN_DIR", cluster.postgres.install().bin().display().to_string());
        Self { cluster, bench }
    }

    fn args<'a>(&'a self, place: &'a Restored<'_>, more: &[&str]) -> Vec<String> {
        let repository = self.cluster.root.path().join("repository");
        let command = copy_command(&self.cluster);
        let own = ["--repository", repository.to_str().unwrap(), "--data-directory"];
        let own = own.into_iter().chain([place.target.to_str().unwrap(), "--restore-command", &*command]);
        own.chain(more.iter().copied()).map(str::to_owned).collect()
    }

    fn run(&self, place: &Restored<'_>, more: &[&str]) -> Ended {
        self.bench.run("restore-cluster", &self.args(place, more))
    }

    fn start(&self, place: &Restored<'_>, more: &[&str]) -> Ended {
        let port = place.port.port().to_string();
        let start = ["--start", "--port", &*port, "--start-setting", "unix_socket_directories=", "--json"];
        self.run(place, &[&start, more].concat())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_planned_restored_started_and_proven() {
    let scene = Scene::new().await;
    let place = Restored::beside(&scene.cluster.postgres, "operators");
    let plan = scene.run(&place, &["--dry-run", "--target-name", "two"]).expect(0);
    for words in ["restore point \"two\"", "with 1 commits", "WAL, all of it in the archive", "unknown time"]
    {
        assert!(plan.stdout.contains(words), "{words}: {}", plan.stdout);
    }
    assert!(!place.target.exists());

    let ended = scene.start(&place, &["--target-name", "two"]).expect(0);
    let receipt: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(receipt["outcome"], "exact", "{receipt:#}");
    assert_eq!(receipt["missing"]["transactions"], 1, "{receipt:#}");
    assert_eq!(receipt["reached"]["new-timeline"], 2, "{receipt:#}");
    assert_eq!(place.psql("postgres", "SELECT max(n) FROM done"), "2");
    assert!(std::fs::read_to_string(receipt["kept"].as_str().unwrap()).unwrap().contains("\"exact\""));

    let running = scene.run(&place, &["--delta"]).expect(4);
    assert!(running.stderr.contains("its server runs as process"), "{}", running.stderr);
    // The measured restore is what the next plan reckons with.
    let next = Restored::beside(&scene.cluster.postgres, "next");
    let plan = scene.run(&next, &["--dry-run"]).expect(0);
    assert!(plan.stdout.contains("from the newest measured restore"), "{}", plan.stdout);
    place.stop("fast");
    scene.run(&place, &[]).expect(4);
    scene.start(&place, &["--delta"]).expect(0);
    assert_eq!(place.psql("postgres", "SELECT max(n) FROM done"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_somebody_else_starts_is_compared_afterwards() {
    let scene = Scene::new().await;
    let place = Restored::beside(&scene.cluster.postgres, "started-by-hand");
    let prepared = scene.run(&place, &["--target-name", "two"]).expect(0);
    assert!(prepared.stdout.contains("is ready to be started"), "{}", prepared.stdout);
    let early = scene.run(&place, &["--check-receipt"]).expect(3);
    assert!(early.stderr.contains("began no timeline"), "{}", early.stderr);

    let settings = format!("-c port={} -c unix_socket_directories=", place.port.port());
    let target = place.target.to_str().unwrap();
    let log = place.target.join("log.txt");
    let start = ["start", "-s", "-w", "-D", target, "-o", &settings, "-l", log.to_str().unwrap()];
    place.tool("pg_ctl", &start).unwrap();
    support::until(|| scene.run(&place, &["--check-receipt"]).code == 0);
    let checked = scene.run(&place, &["--check-receipt"]).expect(0);
    assert!(checked.stdout.contains("was recovered exactly as planned"), "{}", checked.stdout);
    assert_eq!(place.psql("postgres", "SELECT max(n) FROM done"), "2");
    place.stop("immediate");

    // Somebody who changed the settings gets another end, and is told.
    std::fs::remove_dir_all(&place.target).unwrap();
    scene.run(&place, &["--target-name", "two"]).expect(0);
    let auto = place.target.join("postgresql.auto.conf");
    let changed = std::fs::read_to_string(&auto).unwrap() + "recovery_target_lsn = ''\n";
    std::fs::write(&auto, changed).unwrap();
    place.tool("pg_ctl", &start).unwrap();
    support::until(|| scene.run(&place, &["--check-receipt"]).stdout.contains("is NOT what was planned"));
    scene.run(&place, &["--check-receipt"]).expect(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_before_anything_is_touched() {
    let scene = Scene::new().await;
    let place = Restored::beside(&scene.cluster.postgres, "never");
    for (code, words, args) in [
        (1, "cannot be reached", &["--target-time", "2000-01-01T00:00:00Z"][..]),
        (2, "without a zone", &["--target-time", "2026-01-01 00:00:00"]),
        (2, "--exclusive goes with", &["--exclusive"]),
        (2, "cannot be used with", &["--target-immediate", "--target-name", "two"]),
        (2, "the set has no tablespace", &["--tablespace", "fast=/srv/fast"]),
        (1, "no set 1999", &["--set", "1999"]),
        (2, "the receipt", &["--check-receipt"]),
    ] {
        let ended = scene.run(&place, args).expect(code);
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    assert!(!place.target.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_pauses_at_its_target_is_open_for_reading_until_somebody_promotes_it() {
    let scene = Scene::of("ALTER SYSTEM SET log_min_messages = fatal").await;
    let place = Restored::beside(&scene.cluster.postgres, "pausing");
    let ended = scene.start(&place, &["--target-name", "two", "--target-action", "pause"]).expect(0);
    let receipt: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(receipt["outcome"], "waiting", "{receipt:#}");
    let state =
        "SELECT pg_is_in_recovery() || ' ' || pg_get_wal_replay_pause_state() || ' ' || max(n) FROM done";
    assert_eq!(place.psql("postgres", state), "true paused 2");
    scene.run(&place, &["--check-receipt"]).expect(3);
    place.psql("postgres", "SELECT pg_wal_replay_resume()");
    support::until(|| place.psql("postgres", "SELECT pg_is_in_recovery()") == "f");
    let checked = scene.run(&place, &["--check-receipt"]).expect(0);
    assert!(checked.stdout.contains("was recovered exactly as planned"), "{}", checked.stdout);
    place.psql("postgres", "INSERT INTO done VALUES (4)");
}
