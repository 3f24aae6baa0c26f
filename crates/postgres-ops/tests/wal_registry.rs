//! Which cluster a stanza is: first come, first registered, and nobody else without being told.
#![allow(clippy::unwrap_used, missing_docs)]

mod wal_scene;

use std::sync::Arc;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::key::Key;
use backstay_backup_core::store::{Attributes, PutMode};
use backstay_postgres_ops::wal::{SegmentSize, SystemId};
use backstay_postgres_ops::wal_archive::{ClusterIdentity, ClusterRegistry, WalArchiveError};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use wal_scene::{memory, repositories, repository, stanza};

fn cluster(system: u64) -> ClusterIdentity {
    ClusterIdentity { system: SystemId::new(system), major: 15, segment_size: SegmentSize::DEFAULT }
}

async fn registry(stores: &[backstay_backup_core::store::SharedStore], quorum: usize) -> ClusterRegistry {
    let names = ["a", "b", "c"];
    let members =
        join_all(names.iter().zip(stores).map(|(name, store)| repository(name, store.clone()))).await;
    ClusterRegistry::new(repositories(members, quorum), stanza())
}

#[tokio::test]
async fn the_first_cluster_is_registered_and_another_one_refused() {
    let store = memory();
    let registry = registry(std::slice::from_ref(&store), 1).await;
    registry.check(SystemId::new(7)).await.unwrap();
    for _ in 0..2 {
        let record = registry.ensure(cluster(u64::MAX), "test").await.unwrap();
        assert_eq!((record.number, record.server_major, record.segment_size), (1, 15, 16 << 20));
    }
    for error in [
        registry.ensure(cluster(7), "test").await.unwrap_err(),
        registry.check(SystemId::new(7)).await.unwrap_err(),
    ] {
        assert!(matches!(&error, WalArchiveError::OtherCluster { found, .. } if found.number() == 7));
        assert_eq!(error.class(), Class::Conflict);
        assert!(error.hint().unwrap().contains("archive-wal --register"));
    }
    let key = Key::parse("main/clusters/00001.json").unwrap();
    let stored: Vec<Bytes> = store.get(&key, None).await.unwrap().body.try_collect().await.unwrap();
    let text = String::from_utf8(stored.concat()).unwrap();
    assert!(text.contains(r#""system-identifier":"18446744073709551615""#), "{text}");
}

#[tokio::test]
async fn a_cluster_that_takes_over_is_registered_once_and_the_old_one_refused() {
    let registry = registry(&[memory()], 1).await;
    registry.ensure(cluster(1), "test").await.unwrap();
    for _ in 0..2 {
        assert_eq!(registry.register(cluster(2), "test").await.unwrap().number, 2);
    }
    registry.ensure(cluster(2), "test").await.unwrap();
    assert!(matches!(registry.ensure(cluster(1), "test").await, Err(WalArchiveError::OtherCluster { .. })));
    assert_eq!(registry.register(cluster(1), "test").await.unwrap().number, 3);
    let systems: Vec<u64> =
        registry.list().await.unwrap().iter().map(|record| record.system_identifier.number()).collect();
    assert_eq!(systems, [1, 2, 1]);
}

#[tokio::test]
async fn of_clusters_that_come_at_the_same_time_one_is_registered() {
    for _ in 0..20 {
        let registry = registry(&[memory()], 1).await;
        let outcomes = join_all((1..=4).map(|system| registry.ensure(cluster(system), "test"))).await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "{outcomes:?}");
        assert!(
            outcomes
                .iter()
                .filter_map(|outcome| outcome.as_ref().err())
                .all(|error| error.class() == Class::Conflict)
        );
    }
}

#[tokio::test]
async fn a_repository_that_was_away_gets_the_record_later() {
    let away = Arc::new(Fault::new(memory(), 1));
    let stores = [memory(), away.clone() as _];
    let registry = registry(&stores, 1).await;
    for operation in [Operation::Get, Operation::Put, Operation::List] {
        away.always(operation, Mishap::Error(ErrorKind::Temporary));
    }
    registry.ensure(cluster(1), "test").await.unwrap();
    let strict = ClusterRegistry::new(repositories(vec![repository("x", memory()).await], 1), stanza());
    assert!(strict.list().await.unwrap().is_empty());
    away.calm();
    registry.ensure(cluster(1), "test").await.unwrap();
    let alone =
        ClusterRegistry::new(repositories(vec![repository("b", stores[1].clone()).await], 1), stanza());
    assert_eq!(alone.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_asked_or_read_is_not_taken_for_a_yes() {
    let fault = Arc::new(Fault::new(memory(), 1));
    let registry = registry(&[fault.clone() as _], 1).await;
    registry.ensure(cluster(1), "test").await.unwrap();
    for (operation, mishap, class) in [
        (Operation::List, Mishap::Error(ErrorKind::Temporary), Class::Temporary),
        (Operation::List, Mishap::Error(ErrorKind::Denied), Class::Usage),
        (Operation::Get, Mishap::Error(ErrorKind::Temporary), Class::Temporary),
        (Operation::Get, Mishap::Flip, Class::Data),
        (Operation::Get, Mishap::Cut { after: 20, loud: false }, Class::Data),
    ] {
        fault.always(operation, mishap);
        assert_eq!(registry.ensure(cluster(1), "test").await.unwrap_err().class(), class, "{mishap:?}");
        fault.calm();
    }
}

#[tokio::test]
async fn a_dispute_between_repositories_is_told_and_settled() {
    let stores = [memory(), memory()];
    for (store, system) in stores.iter().zip([1, 2]) {
        registry(std::slice::from_ref(store), 1).await.ensure(cluster(system), "test").await.unwrap();
    }
    let registry = registry(&stores, 2).await;
    let error = registry.ensure(cluster(1), "test").await.unwrap_err();
    assert!(matches!(error, WalArchiveError::Disputed { .. }), "{error:?}");
    assert_eq!(registry.register(cluster(1), "test").await.unwrap().number, 2);
    registry.ensure(cluster(1), "test").await.unwrap();
}

#[tokio::test]
async fn a_record_that_lies_elsewhere_is_refused() {
    let store = memory();
    let registry = registry(std::slice::from_ref(&store), 1).await;
    registry.ensure(cluster(1), "test").await.unwrap();
    let first = Key::parse("main/clusters/00001.json").unwrap();
    let stored: Vec<Bytes> = store.get(&first, None).await.unwrap().body.try_collect().await.unwrap();
    let second = Key::parse("main/clusters/00002.json").unwrap();
    store.put(&second, stored.concat().into(), PutMode::Create, &Attributes::default()).await.unwrap();
    let error = registry.ensure(cluster(1), "test").await.unwrap_err();
    assert!(matches!(error, WalArchiveError::Registration { number: 2, .. }), "{error:?}");
}
