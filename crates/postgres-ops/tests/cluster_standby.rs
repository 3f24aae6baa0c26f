//! Backups taken from a standby, and what promotions and quiet primaries do to them.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;

use std::time::Duration;

use backstay_backup_core::progress::Progress;
use backstay_postgres_ops::physical::{BackupError, backup_cluster};
use backstay_postgres_ops::{Error, Server};
use backstay_testkit::{PostgresOptions, TestPostgres};
use tokio_util::sync::CancellationToken;

use cluster::{Cluster, Load, recover, unpack, verify};

/// A standby that follows the cluster's primary.
async fn standby(cluster: &Cluster) -> TestPostgres {
    let target = cluster.target("standby");
    let mut command = cluster.postgres.client("pg_basebackup").unwrap();
    let output = command.args(["-X", "stream", "-c", "fast", "-D"]).arg(&target).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(target.join("standby.signal"), "").unwrap();
    let connection = format!(
        "host=127.0.0.1 port={} user={} passfile={}",
        cluster.postgres.port(),
        cluster.postgres.user(),
        cluster.postgres.passfile().display()
    );
    cluster.own("passfile");
    let options = PostgresOptions::default()
        .existing(&target, cluster.postgres.password())
        .setting("primary_conninfo", &connection)
        .setting("archive_mode", "off");
    let standby = TestPostgres::start(options).await.unwrap();
    catch_up(cluster, &standby);
    standby
}

fn catch_up(cluster: &Cluster, standby: &TestPostgres) {
    let position = cluster.psql("select pg_current_wal_lsn()");
    let replayed = format!("select pg_last_wal_replay_lsn() >= '{position}'");
    let deadline = std::time::Instant::now() + Duration::from_secs(300);
    while standby.psql("postgres", &replayed).unwrap() != "t" {
        assert!(std::time::Instant::now() < deadline, "the standby does not follow");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn server(postgres: &TestPostgres) -> Server {
    Server::parse(&postgres.url("postgres"), &std::collections::BTreeMap::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_backed_up_with_the_wal_of_its_primary() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    Load::prepare(&cluster);
    let standby = standby(&cluster).await;
    let load = Load::start(&cluster, 1);
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let options = cluster.options();
    let server = server(&standby);
    let backup = backup_cluster(&server, &cluster.repositories, &options, &progress, &cancel);
    let switching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.psql("select pg_switch_wal()");
        }
    };
    let report = tokio::select! {
        report = Box::pin(backup) => report.unwrap(),
        () = switching => unreachable!(),
    };
    load.stop(&cluster);
    assert!(report.receipt.manifest.recovery_point <= report.facts.stop_time);
    assert!(report.facts.from_standby && report.facts.backup_label.contains("BACKUP FROM: standby"));
    assert_eq!(report.facts.corrupt_page_count, 0);
    let target = cluster.target("unpacked");
    unpack(&cluster.set_folder(&report.receipt.manifest), &target);
    assert!(!target.join("standby.signal").exists());
    verify(cluster.postgres.install(), &target).unwrap();
    let again = recover(&cluster, &report, &target).await;
    assert_eq!(again.psql("postgres", "select count(*) from busy").unwrap(), "40000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_ends_the_backup_of_a_standby() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    Load::prepare(&cluster);
    let standby = standby(&cluster).await;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let mut options = cluster.options();
    // Slow enough for what is done meanwhile, also on a busy machine.
    options.rate = Some(4 << 20);
    let server = server(&standby);
    let backup = backup_cluster(&server, &cluster.repositories, &options, &progress, &cancel);
    let promoting = async {
        while progress.snapshot().phase != "copy" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        standby.psql("postgres", "select pg_promote()").unwrap();
        assert_eq!(progress.snapshot().phase, "copy", "it was promoted in the middle");
    };
    let (backup, ()) = tokio::join!(Box::pin(backup), promoting);
    let error = backup.unwrap_err();
    assert!(matches!(error, Error::ClusterBackup(BackupError::Promoted { .. })), "{error:?}");
    assert!(
        !cluster
            .root
            .path()
            .join("repository/main/sets")
            .read_dir()
            .unwrap()
            .any(|set| { set.unwrap().path().join("manifest.json").exists() })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_quiet_primary_the_wait_ends_with_a_hint() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    let standby = standby(&cluster).await;
    // Something that no full segment holds.
    cluster.psql("create table t (id int); checkpoint");
    catch_up(&cluster, &standby);
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let mut options = cluster.options();
    options.wal_timeout = Duration::from_secs(2);
    let server = server(&standby);
    let backup = backup_cluster(&server, &cluster.repositories, &options, &progress, &cancel);
    let error = Box::pin(backup).await.unwrap_err();
    let Error::ClusterBackup(error) = error else { panic!("{error:?}") };
    assert!(matches!(error, BackupError::WalMissing { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("pg_switch_wal"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_promotion_the_archive_gets_the_history_that_it_lacks() {
    let mut cluster = Cluster::start(PostgresOptions::default()).await;
    cluster.postgres.stop(backstay_testkit::StopMode::Fast).unwrap();
    std::fs::write(cluster.postgres.data_directory().join("standby.signal"), "").unwrap();
    cluster.own("data/standby.signal");
    cluster.postgres.restart().unwrap();
    cluster.psql("select pg_promote()");
    cluster.psql("create table t as select generate_series(1, 1000) g; checkpoint");
    let report = cluster.back_up(&cluster.options()).await.unwrap();
    assert_eq!((report.facts.timeline.number(), report.warnings), (2, vec![]));
    // As if the stanza had been begun after the promotion.
    let wal = cluster.root.path().join("repository/main/wal").join(report.facts.system.to_string());
    let history = wal.join("history/00000002");
    std::fs::remove_file(&history).unwrap();
    let report = cluster.back_up(&cluster.options()).await.unwrap();
    assert_eq!(report.warnings, [] as [String; 0]);
    assert!(history.exists());
    let target = cluster.target("unpacked");
    unpack(&cluster.set_folder(&report.receipt.manifest), &target);
    verify(cluster.postgres.install(), &target).unwrap();
    let again = recover(&cluster, &report, &target).await;
    assert_eq!(again.psql("postgres", "select count(*) from t").unwrap(), "1000");
}
