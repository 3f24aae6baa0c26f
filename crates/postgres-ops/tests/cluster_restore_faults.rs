//! Every way in which a store fails, at any call of a restore: one clear error, and a directory that cannot be started.
#![allow(clippy::unwrap_used, missing_docs)]

mod physical_sets;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::error::{Classified, describe};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_postgres_ops::cluster_restore::{
    ClusterRestoreError, ClusterRestoreOptions, FilesReceipt, RecoverySettings, plan_files,
};
use backstay_postgres_ops::recovery::StopPoint;
use backstay_postgres_ops::wal::{Lsn, Timeline};
use physical_sets::{SetMaker, contents_of, repositories, sample};
use tokio_util::sync::CancellationToken;

async fn restore(
    repositories: &Repositories,
    set: &Manifest,
    target: &Path,
) -> Result<FilesReceipt, ClusterRestoreError> {
    let (none, options) = (Identities::none(), ClusterRestoreOptions::new(target));
    let stop = StopPoint::Record { lsn: Lsn::new(0x200_0100), inclusive: true };
    let settings = RecoverySettings::new("restore-wal %f %p", stop, Timeline::FIRST);
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let plan = plan_files(repositories, set, &none, &options).await?;
    plan.apply(repositories, &none, &settings, &progress, &cancel).await
}

fn mishaps() -> Vec<Mishap> {
    let cuts = [true, false].map(|loud| Mishap::Cut { after: 100, loud });
    let errors = ErrorKind::ALL.map(Mishap::Error);
    errors.into_iter().chain(cuts).chain([Mishap::Flip, Mishap::LostReply]).collect()
}

#[tokio::test]
async fn a_store_that_fails_leaves_one_clear_error_and_nothing_that_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    sample(&source);
    let place = folder.path().join("store");
    let set = SetMaker::new(&repositories(std::slice::from_ref(&place)).await).make(&source, 100).await;
    let store = Arc::new(Fault::new(Arc::new(LocalStore::open(place).unwrap()), 1));
    let repository = Repository::open("store", store.clone()).await.unwrap();
    let faulty = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
    let before = store.count(Operation::Get);
    restore(&faulty, &set, &target).await.unwrap();
    let whole = contents_of(&target);
    let calls = store.count(Operation::Get) - before;
    assert!(calls >= 8, "{calls}");

    let soak = std::env::var_os("BACKSTAY_SOAK").is_some();
    for (number, mishap) in mishaps().into_iter().enumerate() {
        let chosen: Vec<u64> =
            if soak { (1..=calls).collect() } else { vec![1 + (number as u64 * 5) % calls, calls] };
        for call in chosen {
            std::fs::remove_dir_all(&target).unwrap();
            std::fs::create_dir(&target).unwrap();
            let injected = store.injected();
            store.on(Operation::Get, store.count(Operation::Get) + call, mishap);
            let outcome = restore(&faulty, &set, &target).await;
            let context = format!("{mishap:?} at call {call} of {calls}");
            assert_eq!(store.injected(), injected + 1, "{context}");
            let error = outcome.expect_err(&context);
            assert_ne!(error.class(), Class::Internal, "{context}: {error}");
            assert!(describe(&error).len() > 20 && !describe(&error).contains('\n'), "{context}: {error}");
            assert!(!target.join("global/pg_control").exists(), "{context}");
            store.calm();
            restore(&faulty, &set, &target).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(contents_of(&target) == whole, "{context}");
        }
    }
    // A store that is merely slow costs time and nothing else.
    std::fs::remove_dir_all(&target).unwrap();
    store.on(Operation::Get, store.count(Operation::Get) + 3, Mishap::Slow(Duration::from_millis(300)));
    restore(&faulty, &set, &target).await.unwrap();
    assert!(contents_of(&target) == whole);
}
