//! `verify-backups --restore-test` of a whole cluster.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../crates/postgres-ops/tests/restored/mod.rs"]
mod restored;
mod support;

use backstay_testkit::PostgresOptions;

use cluster::Cluster;
use restored::{archive_all, copy_command};
use support::{Bench, files, flip_a_bit};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_proven_by_a_restore_that_leaves_nothing_behind() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.psql("CREATE TABLE t AS SELECT g AS n FROM generate_series(1, 5000) g; CREATE INDEX ON t (n)");
    let report = cluster.back_up(&cluster.options()).await.unwrap();
    let set = report.receipt.manifest.set.to_string();
    archive_all(&cluster).await;
    let mut bench = Bench::new();
    bench.reach(&cluster.postgres, "postgres");
    let repository = cluster.root.path().join("repository");
    let scratch = cluster.postgres.scratch().subdirectory("tests", cluster.postgres.account()).unwrap();
    bench.write("check.sql", "SELECT count(*) = 5000 FROM t;\n");
    let command = copy_command(&cluster);
    let args =
        ["--repository", repository.to_str().unwrap(), "--restore-test", "--restore-command", &command];
    let args = [&args[..], &["--scratch", scratch.to_str().unwrap(), "--check", "check.sql"]].concat();

    let ended = bench.run("verify-backups", &args).expect(0);
    for words in
        ["restored", "pg_amcheck: no corruption", "check.sql #1: true", "1 of 1 restore tests passed"]
    {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    assert_eq!(files(&scratch), Vec::<std::path::PathBuf>::new());
    let (_, listed) = bench.json("list-backups", &["--repository", repository.to_str().unwrap()]);
    assert!(listed.to_string().contains("restore-test"), "{listed:#}");

    bench.write("check.sql", "SELECT count(*) = 4999 FROM t;\n");
    let ended = bench.run("verify-backups", &args).expect(3);
    assert!(ended.stdout.contains("! check check.sql #1: false"), "{}", ended.stdout);
    // Its newest test failed, so it is no longer taken by itself.
    let args = [&args[..], &["--set", &set]].concat();
    // WAL that cannot be had is no fault of the set, and leaves nothing behind either.
    let no_wal = args.map_command("false");
    let ended = bench.run("verify-backups", &no_wal).expect(3);
    assert!(ended.stdout.contains("FATAL"), "{}", ended.stdout);
    let packs = files(&repository).into_iter().filter(|path| path.to_string_lossy().contains("pack-"));
    packs.for_each(|pack| flip_a_bit(&pack));
    let ended = bench.run("verify-backups", &args).expect(3);
    assert!(ended.stdout.contains("is damaged"), "{}", ended.stdout);
    assert_eq!(files(&scratch), Vec::<std::path::PathBuf>::new());
}

trait WithCommand {
    /// The same arguments with another `restore_command`.
    fn map_command(&self, command: &'static str) -> Vec<&str>;
}

impl WithCommand for Vec<&str> {
    fn map_command(&self, command: &'static str) -> Vec<&str> {
        self.iter().map(|word| if word.starts_with("cp ") { command } else { word }).collect()
    }
}
