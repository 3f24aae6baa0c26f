//! `backup_cluster` on stores that fail at any call: whole sets or none, and no server left in backup mode.
//!
//! Every sixth call, or every call with `BACKSTAY_SOAK` in the environment.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod cluster;

use std::sync::Arc;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap};
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::Error;
use backstay_postgres_ops::physical::{BackupError, backup_cluster};
use backstay_testkit::PostgresOptions;
use tokio_util::sync::CancellationToken;

use cluster::{Cluster, expect_no_backup, stanza};

async fn repositories(store: SharedStore) -> Repositories {
    let repository = Repository::open_or_create("memory", store, &SystemClock).await.unwrap();
    Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap()
}

/// A backup through a store whose call number `spoilt`, counted from its beginning, goes wrong; how many calls there
/// were, and whether it succeeded.
async fn back_up(cluster: &Cluster, store: &SharedStore, spoilt: Option<(u64, Mishap)>) -> (u64, bool) {
    let fault = Arc::new(Fault::new(store.clone(), 1));
    let through = repositories(fault.clone()).await;
    let before = fault.calls().len() as u64;
    if let Some((call, mishap)) = spoilt {
        fault.on_call(before + call, mishap);
    }
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let mut options = cluster.options();
    // Many parts, so that calls of every kind come.
    options.data_path = options.data_path.part_size(1 << 20);
    let server = cluster.server();
    let backup = backup_cluster(&server, &through, &options, &progress, &cancel);
    let done = Box::pin(backup).await;
    (fault.calls().len() as u64 - before, done.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_there_is_a_whole_set_or_none() {
    let store: SharedStore = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let root = tempfile::tempdir().unwrap();
    let cluster =
        Cluster::start_in(PostgresOptions::default(), root, repositories(store.clone()).await).await;
    let (calls, done) = back_up(&cluster, &store, None).await;
    assert!(done && calls > 12, "{calls}");
    let mut sets = 1;
    let step = if std::env::var_os("BACKSTAY_SOAK").is_some() { 1 } else { 6 };
    let mishaps = [Mishap::Error(ErrorKind::Denied), Mishap::LostReply, Mishap::Error(ErrorKind::Full)];
    let mut failed = 0;
    for (number, call) in (1..=calls).step_by(step).enumerate() {
        let mishap = mishaps[number % mishaps.len()];
        let when = format!("call {call} of {calls}, {mishap:?}");
        let (_, done) = back_up(&cluster, &store, Some((call, mishap))).await;
        let listed = Catalog::load(&cluster.repositories, &stanza()).await.unwrap();
        assert!(listed.sets.iter().all(|set| set.is_good()), "{when}");
        // A manifest whose reply was lost may be there all the same.
        assert!(
            listed.sets.len() == sets + usize::from(done) || !done && listed.sets.len() == sets + 1,
            "{when}"
        );
        sets = listed.sets.len();
        failed += usize::from(!done);
        expect_no_backup(&cluster);
    }
    eprintln!("{failed} backups failed, {sets} sets are good");
    assert!(failed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_ends_the_backup() {
    let cluster = Cluster::start(PostgresOptions::default()).await;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let (server, mut options) = (cluster.server(), cluster.options());
    // Slow enough for what is done meanwhile, also on a busy machine.
    options.rate = Some(4 << 20);
    let backup = backup_cluster(&server, &cluster.repositories, &options, &progress, &cancel);
    let ending = async {
        while progress.snapshot().phase != "copy" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'backstay %'";
        assert_eq!(cluster.psql(sql), "1");
    };
    let (done, ()) = tokio::join!(Box::pin(backup), ending);
    let error = done.unwrap_err();
    assert!(matches!(error, Error::ClusterBackup(BackupError::Session { .. })), "{error:?}");
    let listed = Catalog::load(&cluster.repositories, &stanza()).await.unwrap();
    assert!(listed.sets.is_empty());
    cluster.back_up(&cluster.options()).await.unwrap();
}
