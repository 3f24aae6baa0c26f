//! `restore-cluster` killed by `kill -9` at any moment, and started again.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../crates/postgres-ops/tests/restored/mod.rs"]
mod restored;
mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use backstay_testkit::PostgresOptions;
use cluster::{Cluster, verify};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use restored::{Restored, archive_all, copy_command};
use support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_killed_cannot_start_and_is_completed_by_the_same_command() {
    let rounds = if std::env::var_os("BACKSTAY_SOAK").is_some() { 110 } else { 8 };
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.psql("CREATE TABLE t AS SELECT g AS n, md5(g::text) AS word FROM generate_series(1, 100000) g");
    cluster.back_up(&cluster.options()).await.unwrap();
    archive_all(&cluster).await;
    let bench = Bench::new();
    let place = Restored::beside(&cluster.postgres, "killed");
    let (repository, command) = (cluster.root.path().join("repository"), copy_command(&cluster));
    let target = place.target.to_str().unwrap().to_owned();
    let args = [
        "--repository",
        repository.to_str().unwrap(),
        "--data-directory",
        &target,
        "--restore-command",
        &command,
    ];

    let begin = Instant::now();
    bench.run("restore-cluster", &args).expect(0);
    let whole = begin.elapsed();
    let mut random = StdRng::seed_from_u64(7);
    let (mut unfinished, mut untouched) = (0, 0);
    for round in 0..rounds {
        let _ = std::fs::remove_dir_all(&place.target);
        // Up to three times, each of which may also be killed while it completes what was there.
        for _ in 0..random.random_range(1..=3) {
            let mut run = bench.command("restore-cluster", &args);
            let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * random.random_range(0.0..0.95)));
            child.kill().unwrap();
            child.wait().unwrap();
            let has_control = place.target.join("global/pg_control").exists();
            let is_marked = place.target.join("backstay-restore.unfinished").exists();
            unfinished += u32::from(is_marked);
            untouched += u32::from(!place.target.exists());
            if has_control {
                // Everything that a start needs was durable before.
                assert!(place.target.join("recovery.signal").exists(), "round {round}");
                verify(cluster.postgres.install(), &place.target).unwrap();
            }
        }
        let ended = bench.run("restore-cluster", &args);
        // A restore that was complete when it was killed is in the way, as any cluster.
        assert!(ended.code == 0 || ended.code == 4, "round {round}: {ended:?}");
        assert!(ended.code == 0 || ended.stderr.contains("holds a cluster"), "round {round}: {ended:?}");
        verify(cluster.postgres.install(), &place.target).unwrap();
        assert!(!place.target.join("backstay-restore.unfinished").exists());
    }
    assert!(unfinished > 0, "none of the kills came while files were written ({untouched} came before)");
    let settings = format!("-c port={} -c unix_socket_directories=", place.port.port());
    let log = place.target.join("log.txt");
    place
        .tool("pg_ctl", &["start", "-s", "-w", "-D", &target, "-o", &settings, "-l", log.to_str().unwrap()])
        .unwrap();
    assert_eq!(place.psql("postgres", "SELECT count(*) FROM t"), "100000");
}
