//! Real clusters, recovered to moments of which it was noted what was committed by then.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod restored;

use backstay_backup_core::error::Classified;
use backstay_postgres_ops::cluster_restore::Outcome;
use backstay_postgres_ops::recovery::RecoveryTarget;
use backstay_testkit::{PostgresInstall, PostgresOptions};
use cluster::{Cluster, verify};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use restored::{Restored, archive_all, request};

/// What was noted of one commit.
#[derive(Clone, Debug)]
struct Commit {
    /// How many there are with this one.
    count: u64,
    xid: String,
    /// Where the log was just after it.
    after: String,
    /// A moment after it and before the next.
    time: String,
    /// A restore point after it.
    name: Option<String>,
}

fn commit(cluster: &Cluster, count: u64) -> Commit {
    let xid = cluster
        .psql("INSERT INTO done (n) SELECT count(*) + 1 FROM done RETURNING pg_current_xact_id()::xid");
    let after = cluster.psql("SELECT pg_current_wal_insert_lsn()");
    cluster.psql("SELECT pg_sleep(0.002)");
    let time = cluster
        .psql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    let name = count.is_multiple_of(3).then(|| format!("point {count}"));
    if let Some(name) = &name {
        cluster.psql(&format!("SELECT pg_create_restore_point('{name}')"));
    }
    cluster.psql("SELECT pg_sleep(0.002)");
    Commit { count, xid, after, time, name }
}

/// A target and how many commits it means.
fn random_target(random: &mut StdRng, commits: &[Commit]) -> (RecoveryTarget, u64) {
    let commit = &commits[random.random_range(0..commits.len())];
    let inclusive = random.random::<bool>();
    match random.random_range(0..4) {
        0 => (RecoveryTarget::time(&commit.time, inclusive).unwrap(), commit.count),
        1 => (RecoveryTarget::lsn(&commit.after, false).unwrap(), commit.count),
        2 => {
            let count = if inclusive { commit.count } else { commit.count - 1 };
            (RecoveryTarget::xid(&commit.xid, inclusive).unwrap(), count)
        }
        _ => match &commit.name {
            Some(name) => (RecoveryTarget::name(name).unwrap(), commit.count),
            None => random_target(random, commits),
        },
    }
}

async fn recorded(cluster: &Cluster, commits: u64) -> Vec<Commit> {
    cluster.psql("CREATE TABLE done (n int PRIMARY KEY); INSERT INTO done VALUES (1)");
    cluster.back_up(&cluster.options()).await.unwrap();
    let half = commits / 2;
    let mut noted: Vec<_> = (2..2 + half).map(|count| commit(cluster, count)).collect();
    cluster.psql("CREATE TABLE filler AS SELECT repeat(md5(n::text), 20) FROM generate_series(1, 20000) n");
    noted.extend((2 + half..2 + commits).map(|count| commit(cluster, count)));
    archive_all(cluster).await;
    noted
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_ends_exactly_where_it_was_told_to() {
    let soak = std::env::var_os("BACKSTAY_SOAK").is_some();
    for (seed, major) in [(1, 15), (2, 17)] {
        let install = PostgresInstall::find(major).unwrap();
        let cluster = Cluster::start(PostgresOptions::default().install(&install)).await;
        let commits = recorded(&cluster, 30).await;
        let mut random = StdRng::seed_from_u64(seed);
        for number in 0..if soak { 110 } else { 5 } {
            let (target, expected) = random_target(&mut random, &commits);
            let place = Restored::beside(&cluster.postgres, &format!("restored-{number}"));
            let receipt = place.recover(&cluster, &request(target.clone())).await;
            let receipt = receipt.unwrap_or_else(|error| panic!("seed {seed}, {number}, {target}: {error}"));
            let context = format!("seed {seed}, {number}, {target}: {receipt:#?}");
            assert_eq!(receipt.outcome, Outcome::Exact, "{context}");
            assert_eq!(
                place.psql("postgres", "SELECT count(*) FROM done"),
                expected.to_string(),
                "{context}"
            );
            assert_eq!(receipt.reached.as_ref().unwrap().new_timeline.number(), 2, "{context}");
            assert_eq!(place.psql("postgres", "SHOW archive_mode"), "off");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_satisfies_what_postgres_has_to_check_it() {
    let majors = if std::env::var_os("BACKSTAY_SOAK").is_some() { vec![15, 17, 18] } else { vec![15, 18] };
    for major in majors {
        let install = PostgresInstall::find(major).unwrap();
        let cluster = Cluster::start(PostgresOptions::default().install(&install)).await;
        cluster
            .psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS word FROM generate_series(1, 50000) g");
        cluster.psql("CREATE UNIQUE INDEX ON t (id); CREATE EXTENSION amcheck");
        cluster.back_up(&cluster.options()).await.unwrap();
        cluster.psql("DELETE FROM t WHERE id % 7 = 0; VACUUM t; INSERT INTO t VALUES (0, 'last')");
        archive_all(&cluster).await;
        let place = Restored::beside(&cluster.postgres, "checked");
        let plan = place.plan(&cluster, &request(RecoveryTarget::Latest)).await.unwrap();
        let settings = plan.settings(&restored::copy_command(&cluster));
        let files = &plan.files;
        let (progress, cancel) =
            (backstay_backup_core::progress::Progress::new(), tokio_util::sync::CancellationToken::new());
        let none = backstay_backup_core::encryption::Identities::none();
        files.apply(&cluster.repositories, &none, &settings, &progress, &cancel).await.unwrap();
        verify(&install, &place.target).unwrap();
        std::fs::remove_dir_all(&place.target).unwrap();

        let receipt = place.recover(&cluster, &request(RecoveryTarget::Latest)).await.unwrap();
        assert_eq!(receipt.outcome, Outcome::Exact, "{receipt:#?}");
        assert_eq!((receipt.missing.bytes, receipt.missing.transactions), (0, Some(0)), "{receipt:#?}");
        let sum = "SELECT count(*) || ' ' || sum(hashtext(word)) FROM t";
        assert_eq!(place.psql("postgres", sum), cluster.psql(sum));
        place.psql("postgres", "CREATE TABLE written_after (n int)");
        let bad = "SELECT count(*) FROM verify_heapam('t')";
        assert_eq!(place.psql("postgres", bad), "0");
        place.psql("postgres", "SELECT bt_index_check(indexrelid, true) FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am ON pg_am.oid = relam AND amname = 'btree'");
        place.stop("fast");
        let target = place.target.to_str().unwrap();
        place.tool("pg_checksums", &["--check", "-D", target]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_be_reached_is_refused_before_anything_is_touched() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    let commits = recorded(&cluster, 4).await;
    let place = Restored::beside(&cluster.postgres, "refused");
    for target in [
        RecoveryTarget::time("2000-01-01T00:00:00Z", true).unwrap(),
        RecoveryTarget::time("2100-01-01T00:00:00Z", true).unwrap(),
        RecoveryTarget::name("no such point").unwrap(),
        RecoveryTarget::lsn("FF/0", true).unwrap(),
    ] {
        let error = place.plan(&cluster, &request(target)).await.unwrap_err();
        assert_eq!(error.class(), backstay_backup_core::Class::Absent, "{error}");
    }
    assert!(!place.target.exists());
    let first = place.recover(&cluster, &request(RecoveryTarget::Immediate)).await.unwrap();
    assert_eq!(
        (first.outcome, place.psql("postgres", "SELECT count(*) FROM done")),
        (Outcome::Exact, "1".to_owned())
    );
    place.stop("immediate");
    std::fs::remove_dir_all(&place.target).unwrap();
    let last = commits.last().unwrap();
    let receipt = place.recover(&cluster, &request(RecoveryTarget::Latest)).await.unwrap();
    assert_eq!(place.psql("postgres", "SELECT count(*) FROM done"), last.count.to_string(), "{receipt:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_misses_wal_fails_in_its_own_words() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    recorded(&cluster, 4).await;
    let place = Restored::beside(&cluster.postgres, "torn");
    let plan = place.plan(&cluster, &request(RecoveryTarget::Latest)).await.unwrap();
    let settings = plan.settings("false %f %p");
    let error = place.apply(&cluster, &plan, &settings).await.unwrap_err();
    assert_eq!(error.class(), backstay_backup_core::Class::Data, "{error}");
    assert!(error.to_string().contains("FATAL"), "{error}");
    assert!(!place.target.join("postmaster.pid").exists());
}
