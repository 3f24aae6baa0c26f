//! How much memory `backup-cluster` takes: for an ordinary cluster, and for one of very many files.
//!
//! 50,000 files more than usual, or a million with `BACKSTAY_SOAK` in the environment.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
mod support;

use std::process::{Command, Stdio};

use backstay_testkit::PostgresOptions;

use cluster::Cluster;

/// The most memory that a backup ever had, in MiB.
fn peak(cluster: &Cluster) -> u64 {
    let mut program = Command::new(support::path("backup-cluster"));
    program
        .arg("--repository")
        .arg(cluster.root.path().join("repository"))
        .args(["--jobs", "2", "--option", "compression.workers=2"])
        .args(["--database-url", &cluster.postgres.url_without_password("postgres")])
        .env("PGPASSFILE", cluster.postgres.passfile())
        .env("HOME", cluster.root.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    support::peak(program)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_small_and_grows_by_some_bytes_for_each_file() {
    let files: u64 = if std::env::var_os("BACKSTAY_SOAK").is_some() { 1_000_000 } else { 50_000 };
    let cluster = Cluster::start(PostgresOptions::default()).await;
    // Does not compress, so that every buffer is filled.
    let rows = "create table t as select g, (select string_agg(md5((g * 1000 + i)::text), '') from generate_series(1, 30) i) \
                from generate_series(1, 150000) g";
    cluster.psql(rows);
    let ordinary = peak(&cluster);
    let folder = cluster.postgres.data_directory().join("base/5");
    for number in 0..files {
        std::fs::write(folder.join((1_000_000_000 + number).to_string()), "").unwrap();
    }
    let many = peak(&cluster);
    eprintln!("{ordinary} MiB for an ordinary cluster, {many} MiB with {files} files more");
    assert!(ordinary <= 64, "{ordinary} MiB");
    assert!(
        many <= 256 && many <= ordinary + 8 + files * 80 / (1 << 20),
        "{many} MiB with {files} files more"
    );
}
