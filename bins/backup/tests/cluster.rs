//! `backup-cluster` from end to end: into directories and a bucket, refused before it begins, stopped and killed.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use backstay_testkit::PostgresOptions;

use cluster::{Cluster, Load, expect_no_backup, unpack, verify};
use support::{Bench, Bucket, Ended, files};

/// A place to run the program in that reaches the cluster and its repository.
fn bench(cluster: &Cluster) -> Bench {
    let mut bench = Bench::new();
    bench.reach(&cluster.postgres, "postgres");
    bench
}

fn repository(cluster: &Cluster) -> String {
    cluster.root.path().join("repository").display().to_string()
}

fn manifests(cluster: &Cluster) -> usize {
    files(&cluster.root.path().join("repository"))
        .iter()
        .filter(|path| path.ends_with("manifest.json"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_planned_backed_up_and_listed() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.psql("create table t as select generate_series(1, 1000) g; create unlogged table u as select 1");
    let (bench, repository) = (bench(&cluster), repository(&cluster));
    let (ended, plan) = bench.json("backup-cluster", &["--dry-run"]);
    ended.expect(0);
    assert!(plan["files"].as_u64().unwrap() > 900 && plan["bytes"].as_u64().unwrap() > 20 << 20);
    assert_eq!((&plan["unlogged-files"], &plan["page-checksums"]), (&1.into(), &true.into()));
    let args = ["--repository", &repository, "--label", "sunday", "--annotation", "why=test"];
    let (ended, report) = bench.json("backup-cluster", &args);
    ended.expect(0);
    assert_eq!(report["corrupt-page-count"], 0);
    let set = report["set"].as_str().unwrap();
    let folder = cluster.root.path().join("repository/main/sets").join(set);
    let target = cluster.root.path().join("unpacked");
    unpack(&folder, &target);
    verify(cluster.postgres.install(), &target).unwrap();
    let label = std::fs::read_to_string(target.join("backup_label")).unwrap();
    assert!(label.contains("LABEL: sunday\n"), "{label}");
    let (ended, listed) = bench.json("list-backups", &["--repository", &repository]);
    ended.expect(0);
    assert!(listed.to_string().contains(set));
    bench.run("verify-backups", &["--repository", &repository]).expect(0);
    expect_no_backup(&cluster);
}

#[test]
fn a_bucket_takes_a_cluster_encrypted_under_load() {
    // The bucket has a runtime of its own.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::start(PostgresOptions::default()));
    Load::prepare(&cluster);
    let mut bench = bench(&cluster);
    let bucket = Bucket::start();
    bucket.lend(&mut bench);
    // The WAL goes where the set goes.
    let recipients = [(); 2].map(|()| age::x25519::Identity::generate().to_public().to_string());
    let config = std::fs::read_to_string(bench.path("backstay.toml")).unwrap();
    let local = format!("[[repository]]\nname = \"disk\"\npath = \"{}\"\n", repository(&cluster));
    let recipients = format!("[encryption]\nrecipients = {recipients:?}\n");
    bench.write("backstay.toml", &format!("quorum = 1\n{config}\n{local}\n{recipients}"));
    let load = Load::start(&cluster, 2);
    let (ended, report) = bench.json("backup-cluster", &[]);
    load.stop(&cluster);
    ended.expect(0);
    assert_eq!(report["stored-in"].as_array().unwrap().len(), 2, "{report}");
    let history = bucket.history();
    let set = report["set"].as_str().unwrap();
    let names = [
        "pack-00001.tar.zst.age",
        "last.tar.zst.age",
        "backup_manifest.zst.age",
        "index.zst.age",
        "manifest.json",
    ];
    for name in names {
        assert!(history.contains(&format!("{set}/{name}")), "{name} is not in\n{history}");
    }
    bench.run("verify-backups", &["--full"]).expect(0);
}

/// Runs the program, which must refuse before it writes anything.
fn refused(cluster: &Cluster, bench: &Bench, args: &[&str], code: i32) -> Ended {
    let sets = cluster.root.path().join("repository/main/sets");
    let before = files(&sets).len();
    let ended =
        bench.run("backup-cluster", &[&["--repository", &repository(cluster)], args].concat()).expect(code);
    assert_eq!(files(&sets).len(), before, "{ended:?}");
    expect_no_backup(cluster);
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_said_before_anything_is_written() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    let other = backstay_testkit::TestPostgres::start(PostgresOptions::default()).await.unwrap();
    let mut bench = bench(&cluster);
    let wrong = other.data_directory().display().to_string();
    let ended = refused(&cluster, &bench, &["--data-directory", &wrong], 2);
    assert!(
        ended.stderr.contains("is not the data directory of this server: it is of cluster"),
        "{}",
        ended.stderr
    );
    let ended = refused(&cluster, &bench, &["--data-directory", "/nowhere"], 2);
    assert!(ended.stderr.contains("cannot read /nowhere/global/pg_control"), "{}", ended.stderr);
    // A copy has the same identity, but no server runs in it.
    let copy = cluster.root.path().join("copy");
    let copied = Command::new("cp").arg("-a").arg(cluster.postgres.data_directory()).arg(&copy).status();
    assert!(copied.unwrap().success());
    std::fs::remove_file(copy.join("postmaster.pid")).unwrap();
    let ended = refused(&cluster, &bench, &["--data-directory", &copy.display().to_string()], 2);
    assert!(ended.stderr.contains("no server runs in it"), "{}", ended.stderr);
    bench.url(cluster.postgres.url("nowhere"));
    let ended = refused(&cluster, &bench, &[], 2);
    assert!(ended.stderr.contains("nowhere"), "{}", ended.stderr);
    bench.url(other.url("postgres"));
    let ended = refused(&cluster, &bench, &[], 2);
    assert!(
        ended.stderr.contains("archive_mode is off") && ended.stderr.contains("hint: "),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_is_told_what_to_grant() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.psql("create role clerk login password 'x'");
    let mut bench = bench(&cluster);
    bench.url(format!("postgres://clerk:x@127.0.0.1:{}/postgres", cluster.postgres.port()));
    let ended = refused(&cluster, &bench, &[], 2);
    assert!(ended.stderr.contains("GRANT pg_read_all_settings TO clerk"), "{}", ended.stderr);
    cluster.psql("grant pg_read_all_settings to clerk");
    let ended = refused(&cluster, &bench, &[], 2);
    let grant = "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO clerk";
    assert!(ended.stderr.contains(grant), "{}", ended.stderr);
    cluster.psql(grant);
    bench.run("backup-cluster", &["--repository", &repository(&cluster)]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_may_not_be_read_is_named() {
    if backstay_testkit::Account::for_servers().unwrap().is_none() {
        // The server's files are this account's own.
        return;
    }
    let cluster = Cluster::start(PostgresOptions::default()).await;
    let mut bench = bench(&cluster);
    bench.wrap(&["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]);
    let ended = refused(&cluster, &bench, &[], 2);
    assert!(ended.stderr.contains("run it as the account that the server runs as"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_never_arrives_ends_the_wait_and_leaves_no_set() {
    let mut cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.stop_archiver();
    let bench = bench(&cluster);
    let args = ["--repository", &repository(&cluster), "--wal-timeout", "2"];
    let ended = bench.run("backup-cluster", &args).expect(5);
    assert!(ended.stderr.contains("did not reach the archive within 2 s"), "{}", ended.stderr);
    assert!(ended.stderr.contains("does archive_command archive to this stanza"), "{}", ended.stderr);
    assert_eq!(manifests(&cluster), 0);
    expect_no_backup(&cluster);
    // Now the archiver itself fails, and the message says so.
    cluster.psql("alter system set archive_command = 'false'");
    cluster.postgres.reload();
    cluster.psql("create table t (id int); select pg_switch_wal()");
    let deadline = Instant::now() + Duration::from_secs(300);
    while cluster.psql("select failed_count > 0 from pg_stat_archiver") != "t" {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = bench.run("backup-cluster", &args).expect(5);
    assert!(ended.stderr.contains("the server's archiver fails, last at 0"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_end_in_3_unless_they_are_allowed() {
    use std::os::unix::fs::FileExt;
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.psql("create table t as select g, repeat('x', 300) from generate_series(1, 1000) g; checkpoint");
    let path = cluster.psql("select pg_relation_filepath('t')");
    let file =
        std::fs::File::options().write(true).open(cluster.postgres.data_directory().join(&path)).unwrap();
    file.write_all_at(b"damage", 7 * 8192 + 4000).unwrap();
    let (bench, repository) = (bench(&cluster), repository(&cluster));
    let ended = bench.run("backup-cluster", &["--repository", &repository]).expect(3);
    assert!(ended.stdout.contains(&format!("! 1 damaged pages:\n!   {path} block 7")), "{}", ended.stdout);
    bench.run("backup-cluster", &["--repository", &repository, "--allow-corrupt"]).expect(0);
    let (_, listed) = bench.json("list-backups", &["--repository", &repository]);
    assert_eq!(listed.to_string().matches("its source could not be read completely").count(), 1, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_repository_is_said_and_leaves_no_set() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    let mut bench = bench(&cluster);
    bench.make_full("full");
    let ended = bench.run("backup-cluster", &["--repository", "full"]);
    assert_ne!(ended.code, 0, "{ended:?}");
    let text = ended.stderr.to_lowercase();
    assert!(text.contains("no space left") || text.contains("file too large"), "{}", ended.stderr);
    expect_no_backup(&cluster);
}
