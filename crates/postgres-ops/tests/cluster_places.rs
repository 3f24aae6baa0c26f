//! Restores beside a living source: nothing of the source's is written to.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod restored;

use std::path::PathBuf;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;
use backstay_postgres_ops::cluster_restore::Outcome;
use backstay_postgres_ops::recovery::RecoveryTarget;
use backstay_testkit::PostgresOptions;
use cluster::Cluster;
use restored::{Restored, archive_all, fingerprint, request};

fn make_tablespace(cluster: &Cluster, name: &str) -> PathBuf {
    let postgres = &cluster.postgres;
    let folder = postgres.scratch().subdirectory(name, postgres.account()).unwrap();
    cluster.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", folder.display()));
    cluster
        .psql(&format!("CREATE TABLE in_{name} TABLESPACE {name} AS SELECT generate_series(1, 5000) AS n"));
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn three_tablespaces_are_restored_beside_those_that_live() {
    let cluster = Cluster::start(PostgresOptions::default().setting("autovacuum", "off")).await;
    let names = ["fast", "slow", "cold"];
    let living: Vec<_> = names.iter().map(|name| make_tablespace(&cluster, name)).collect();
    cluster.back_up(&cluster.options()).await.unwrap();
    for name in names {
        cluster.psql(&format!("INSERT INTO in_{name} VALUES (0); VACUUM in_{name}"));
    }
    archive_all(&cluster).await;
    cluster.psql("CHECKPOINT");
    let before: Vec<_> = living.iter().map(|folder| fingerprint(folder)).collect();

    let place = Restored::beside(&cluster.postgres, "beside");
    let receipt = place.recover(&cluster, &request(RecoveryTarget::Latest)).await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Exact, "{receipt:#?}");
    for name in names {
        assert_eq!(place.psql("postgres", &format!("SELECT count(*) FROM in_{name}")), "5001");
        place.psql("postgres", &format!("UPDATE in_{name} SET n = n + 1; CHECKPOINT"));
        let location =
            format!("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = '{name}'");
        let there = place.psql("postgres", &location);
        assert!(there.starts_with(&format!("{}.tablespaces/", place.target.display())), "{there}");
    }
    let after: Vec<_> = living.iter().map(|folder| fingerprint(folder)).collect();
    assert!(before.iter().all(|files| !files.is_empty()) && before == after, "a living file was touched");
    assert_eq!(cluster.psql("SELECT count(*) FROM in_fast WHERE n = 0"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_that_the_log_creates_in_a_living_directory_is_never_replayed() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.back_up(&cluster.options()).await.unwrap();
    cluster.psql("CREATE TABLE before_it (n int); SELECT pg_create_restore_point('before')");
    let living = make_tablespace(&cluster, "later");
    archive_all(&cluster).await;
    let place = Restored::beside(&cluster.postgres, "later-not");
    let error = place.recover(&cluster, &request(RecoveryTarget::Latest)).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict, "{error}");
    assert!(error.to_string().contains("the log creates tablespace"), "{error}");
    assert!(!place.target.join("global/pg_control").exists());
    assert_eq!(cluster.psql("SELECT count(*) FROM in_later"), "5000");

    // A target before it needs no such directory, and completes what was begun, however much that was.
    let receipt = place.recover(&cluster, &request(RecoveryTarget::name("before").unwrap())).await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Exact, "{receipt:#?}");
    assert!(living.read_dir().unwrap().next().is_some());
}
