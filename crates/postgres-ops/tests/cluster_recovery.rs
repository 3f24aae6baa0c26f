//! Real clusters, recovered to moments of which it was noted what was committed by then.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod cluster;
mod restored;

use backstay_backup_core::error::Classified;
use backstay_postgres_ops::cluster_restore::Outcome;
use backstay_postgres_ops::recovery::RecoveryTarget;
use backstay_testkit::{PostgresInstall, PostgresOptions};
use cluster::Cluster;
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

fn kind(target: &RecoveryTarget) -> &'static str {
    match target {
        RecoveryTarget::Time { .. } => "time",
        RecoveryTarget::Lsn { .. } => "LSN",
        RecoveryTarget::Xid { .. } => "xid",
        RecoveryTarget::Name { .. } => "name",
        _ => "other",
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
    let mut exact = std::collections::BTreeMap::<&str, u32>::new();
    for (seed, major) in [(1, 15), (2, 17), (3, 14)] {
        let install = PostgresInstall::find(major).unwrap();
        let cluster = Cluster::start(PostgresOptions::default().install(&install)).await;
        let commits = recorded(&cluster, 30).await;
        let mut random = StdRng::seed_from_u64(seed);
        // Of 14, whose functions for backups have other names, a few.
        let recoveries = if soak && major > 14 { 110 } else { 5 };
        for number in 0..recoveries {
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
            *exact.entry(kind(&target)).or_default() += 1;
        }
    }
    eprintln!("recovered exactly to what was recorded: {exact:?}");
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
