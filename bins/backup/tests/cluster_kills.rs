//! `backup-cluster` killed and stopped at random moments under load (P1, P10): what is listed is whole, no server is left
//! in backup mode, and the next run succeeds.
//!
//! 12 kills and 4 stops, or 120 and 40 with `BACKSTAY_SOAK` in the environment.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use backstay_testkit::PostgresOptions;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use cluster::{Cluster, Load, expect_no_backup, unpack, verify};

const SEED: u64 = 11;

fn start(cluster: &Cluster) -> Child {
    Command::new(support::path("backup-cluster"))
        .arg("--repository")
        .arg(cluster.root.path().join("repository"))
        .args(["--rate", "20MiB", "--database-url", &cluster.postgres.url_without_password("postgres")])
        .env("PGPASSFILE", cluster.postgres.passfile())
        .env("HOME", cluster.root.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Folders of the sets that exist.
fn sets(cluster: &Cluster) -> BTreeSet<PathBuf> {
    let Ok(entries) = cluster.root.path().join("repository/main/sets").read_dir() else {
        return BTreeSet::new();
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    folders.filter(|folder| folder.join("manifest.json").exists()).collect()
}

/// Unpacks the sets that were not seen before.
fn prove_new(cluster: &Cluster, proven: &mut BTreeSet<PathBuf>, when: &str) {
    for set in sets(cluster) {
        if proven.insert(set.clone()) {
            let target = cluster.root.path().join("unpacked");
            unpack(&set, &target);
            verify(cluster.postgres.install(), &target).unwrap_or_else(|error| panic!("{when}: {error}"));
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
}

/// As if the time of the lease of the killed run had passed.
fn forget_lease(cluster: &Cluster) {
    std::fs::remove_dir_all(cluster.root.path().join("repository/main/leases")).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_or_stopped_at_any_moment_it_leaves_whole_sets_and_no_backup_mode() {
    let kills = if std::env::var_os("BACKSTAY_SOAK").is_some() { 120 } else { 12 };
    let cluster = Cluster::start(PostgresOptions::default()).await;
    Load::prepare(&cluster);
    let load = Load::start(&cluster, 1);
    let begun = Instant::now();
    assert!(start(&cluster).wait_with_output().unwrap().status.success());
    let usual = begun.elapsed();
    let mut proven = BTreeSet::new();
    prove_new(&cluster, &mut proven, "at first");
    let mut random = StdRng::seed_from_u64(SEED);
    let (mut stopped, mut finished) = (0, 0);
    for number in 0..kills + kills / 3 {
        let delay = usual.mul_f64(random.random_range(0.0..1.0));
        let term = number % 4 == 3;
        let when = format!("run {number} of seed {SEED}, after {delay:?} of {usual:?}");
        let mut child = start(&cluster);
        std::thread::sleep(delay);
        if term {
            let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
            assert!(sent.success(), "{when}");
        } else {
            child.kill().unwrap();
        }
        let ended = child.wait_with_output().unwrap();
        match ended.status.code() {
            Some(0) => finished += 1,
            Some(5) if term => stopped += 1,
            // Before it listens to signals, or killed.
            None => {}
            _ => panic!("{when}: {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr)),
        }
        expect_no_backup(&cluster);
        prove_new(&cluster, &mut proven, &when);
        forget_lease(&cluster);
    }
    eprintln!(
        "{kills} kills, {stopped} stopped in order, {finished} had finished, {} sets proven",
        proven.len()
    );
    assert!(stopped > 0);
    assert!(start(&cluster).wait_with_output().unwrap().status.success(), "the next one succeeds");
    load.stop(&cluster);
    prove_new(&cluster, &mut proven, "at last");
}
