//! `backup-cluster` killed and stopped at random moments under load (P1, P10): what is listed is whole, no server is left
//! in backup mode, and the next run succeeds.
//!
//! 10 kills, or 120 with `BACKSTAY_SOAK` in the environment, of runs that were alive when they were killed, and a third as many
//! stops.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use backstay_testkit::PostgresOptions;

use cluster::{Cluster, Load, expect_no_backup, unpack, verify};
use support::{Bench, Moments};

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

/// What `list-backups` lists are the sets that were proven, and `verify-backups` reads every byte of them.
fn expect_good(cluster: &Cluster, proven: &BTreeSet<PathBuf>) {
    let repository = cluster.root.path().join("repository").display().to_string();
    let bench = Bench::new();
    let (listed, sets) = bench.json("list-backups", &["--repository", &repository]);
    listed.expect(0);
    let sets = sets.to_string();
    let id = |folder: &PathBuf| folder.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(proven.iter().all(|folder| sets.contains(&id(folder))), "{sets}");
    bench.run("verify-backups", &["--repository", &repository]).expect(0);
}

/// A run that nobody disturbs.
fn complete(cluster: &Cluster) {
    let ended = start(cluster).wait_with_output().unwrap();
    assert!(ended.status.success(), "{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr));
}

/// Tells a run to stop at a random moment; whether it was stopped in order.
fn stop(cluster: &Cluster, moments: &mut Moments) -> bool {
    let (begun, mut child) = (Instant::now(), start(cluster));
    if moments.wait(&mut child, begun).is_none() {
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    let ended = child.wait_with_output().unwrap();
    // None: before it listens to signals.
    let known = [Some(0), Some(5), None].contains(&ended.status.code());
    assert!(known, "{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr));
    ended.status.code() == Some(5)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_or_stopped_at_any_moment_it_leaves_whole_sets_and_no_backup_mode() {
    let kills = if std::env::var_os("BACKSTAY_SOAK").is_some() { 120 } else { 10 };
    let cluster = Cluster::start(PostgresOptions::default()).await;
    Load::prepare(&cluster);
    let load = Load::start(&cluster, 1);
    complete(&cluster);
    let begun = Instant::now();
    forget_lease(&cluster);
    complete(&cluster);
    let mut moments = Moments::new(SEED, begun.elapsed());
    let mut proven = BTreeSet::new();
    prove_new(&cluster, &mut proven, "at first");
    let (mut stopped, mut number) = (0, 0);
    while moments.kills() < kills || stopped == 0 {
        number += 1;
        assert!(number < 4 * kills + 100, "{moments}; {stopped} stopped");
        forget_lease(&cluster);
        if number % 4 == 0 {
            stopped += u32::from(stop(&cluster, &mut moments));
        } else {
            let (begun, mut child) = (Instant::now(), start(&cluster));
            let ended = moments.kill(&mut child, begun);
            assert!(ended.is_none_or(|status| status.success()), "run {number} of seed {SEED}: {ended:?}");
        }
        expect_no_backup(&cluster);
        prove_new(&cluster, &mut proven, &format!("after run {number} of seed {SEED}"));
        if number % 10 == 0 {
            forget_lease(&cluster);
            complete(&cluster);
        }
    }
    eprintln!("{moments}; {stopped} stopped in order, {} sets proven", proven.len());
    forget_lease(&cluster);
    complete(&cluster);
    load.stop(&cluster);
    prove_new(&cluster, &mut proven, "at last");
    expect_good(&cluster, &proven);
}
