//! Restored clusters satisfy everything that PostgreSQL has to check one: `pg_verifybackup`, `pg_amcheck`,
//! `pg_checksums --check`.
//!
//! Of PostgreSQL 15 and 18; with `BACKSTAY_SOAK` the large one too of 17 and 18.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod restored;

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::progress::Progress;
use backstay_postgres_ops::recovery::RecoveryTarget;
use backstay_testkit::{PostgresInstall, PostgresOptions};
use cluster::{Cluster, verify};
use restored::{Restored, archive_all, copy_command, copy_wal, request};
use tokio_util::sync::CancellationToken;

fn versions(usual: &[u32], long: &[u32]) -> Vec<PostgresInstall> {
    let majors = if std::env::var_os("BACKSTAY_SOAK").is_some() { long } else { usual };
    majors.iter().map(|major| PostgresInstall::find(*major).unwrap()).collect()
}

/// Backs up, goes on writing, restores to the last record, and checks with everything there is. `content` is asked of both.
async fn check_restored(cluster: &Cluster, later: &str, content: &str) {
    cluster.back_up(&cluster.options()).await.unwrap();
    cluster.psql(later);
    archive_all(cluster).await;
    let place = Restored::beside(&cluster.postgres, "checked");
    restore_files(cluster, &place).await;
    verify(cluster.postgres.install(), &place.target).unwrap();
    start(&place);
    assert_eq!(place.psql("postgres", content), cluster.psql(content));
    place.psql("postgres", "CREATE TABLE written_after (n int); DROP TABLE written_after");
    amcheck(cluster, &place).unwrap();
    place.stop("fast");
    place.tool("pg_checksums", &["--check", "-D", place.target.to_str().unwrap()]).unwrap();
}

/// Everything but the start, so that what was restored can be looked at as it is.
async fn restore_files(cluster: &Cluster, place: &Restored<'_>) {
    let plan = place.plan(cluster, &request(RecoveryTarget::Latest)).await.unwrap();
    copy_wal(cluster).await;
    let settings = plan.settings(&copy_command(cluster));
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let none = Identities::none();
    plan.files.apply(&cluster.repositories, &none, &settings, &progress, &cancel).await.unwrap();
}

/// Starts it and waits until it has been promoted.
fn start(place: &Restored<'_>) {
    let (target, log) = (place.target.to_str().unwrap(), place.target.join("log.txt"));
    let settings = format!("-c port={} -c unix_socket_directories= -c fsync=off", place.port.port());
    let start =
        ["start", "-s", "-w", "-t", "600", "-D", target, "-o", &settings, "-l", log.to_str().unwrap()];
    place.tool("pg_ctl", &start).unwrap_or_else(|error| {
        panic!("{error}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
    });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(600);
    while place.psql("postgres", "SELECT pg_is_in_recovery()") == "t" {
        assert!(std::time::Instant::now() < deadline, "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// All tables and indexes of all databases, every row looked up in every index.
fn amcheck(cluster: &Cluster, place: &Restored<'_>) -> Result<(), String> {
    let mut command = cluster.postgres.client("pg_amcheck").unwrap();
    command.args(["--no-password", "--all", "--install-missing", "--heapallindexed", "--jobs", "4"]);
    command.env("PGPORT", place.port.port().to_string()).env("PGPASSWORD", cluster.postgres.password());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_with_indexes_of_several_versions() {
    for install in versions(&[15, 18], &[15, 17, 18]) {
        let cluster = Cluster::start(PostgresOptions::default().install(&install)).await;
        cluster
            .psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS word FROM generate_series(1, 50000) g");
        cluster.psql("CREATE UNIQUE INDEX ON t (id); CREATE INDEX ON t (word)");
        let later = "DELETE FROM t WHERE id % 7 = 0; VACUUM t; INSERT INTO t VALUES (0, 'last')";
        check_restored(&cluster, later, "SELECT count(*) || ' ' || sum(hashtext(word)) FROM t").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_relations() {
    for install in versions(&[15], &[15, 17, 18]) {
        let cluster = Cluster::start(PostgresOptions::default().install(&install)).await;
        // A call each, or all locks would have to be held at once. Each is a table and an index.
        for first in (1..=5000).step_by(500) {
            cluster.psql(&format!(
                "DO $$ BEGIN FOR i IN {first}..{first} + 499 LOOP EXECUTE format('CREATE TABLE %I (n int PRIMARY KEY)', \
                 't' || i); IF i % 5 = 0 THEN EXECUTE format('INSERT INTO %I VALUES (%s)', 't' || i, i); END IF; \
                 END LOOP; END $$"
            ));
        }
        let relations =
            "SELECT count(*) FROM pg_class WHERE relname LIKE 't%' AND relnamespace = 'public'::regnamespace";
        assert_eq!(cluster.psql(relations), "10000");
        let later = "INSERT INTO t1 VALUES (7); DROP TABLE t2; CREATE TABLE t5001 (n int PRIMARY KEY)";
        let content =
            format!("SELECT ({relations}) || ' ' || (SELECT n FROM t1) || ' ' || (SELECT n FROM t5000)");
        check_restored(&cluster, later, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_tablespaces() {
    for install in versions(&[15], &[15, 17, 18]) {
        let cluster = Cluster::start(PostgresOptions::default().install(&install)).await;
        for name in ["fast", "slow", "cold"] {
            let postgres = &cluster.postgres;
            let folder = postgres.scratch().subdirectory(name, postgres.account()).unwrap();
            cluster.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", folder.display()));
            cluster.psql(&format!(
                "CREATE TABLE in_{name} (n int PRIMARY KEY USING INDEX TABLESPACE {name}, word text) TABLESPACE {name}; \
                 INSERT INTO in_{name} SELECT g, md5(g::text) FROM generate_series(1, 20000) g"
            ));
        }
        let later = "UPDATE in_fast SET word = 'later' WHERE n % 3 = 0; DELETE FROM in_slow WHERE n % 2 = 0; \
                     VACUUM in_slow; CREATE INDEX ON in_cold (word) TABLESPACE fast";
        let sum = |name| format!("(SELECT count(*) || ' ' || sum(hashtext(word)) FROM in_{name})");
        let content = format!("SELECT {} || {} || {}", sum("fast"), sum("slow"), sum("cold"));
        check_restored(&cluster, later, &content).await;
    }
}
