use std::sync::Arc;

use backstay_backup_core::clock::{Clock, SystemClock};
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::manifest::{Codec, ManifestError};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::store::{Attributes, PutMode, SharedStore};
use backstay_backup_core::{Class, Error};
use bytes::Bytes;

use crate::support::{memory, repositories, stanza, write_set};

async fn describe(store: &SharedStore, text: &str) -> Error {
    let body = Bytes::copy_from_slice(text.as_bytes());
    store.put(&layout::description(), body, PutMode::Create, &Attributes::default()).await.unwrap();
    Repository::open("r", store.clone()).await.unwrap_err()
}

#[tokio::test]
async fn a_store_without_description_is_no_repository() {
    let error = Repository::open("r", memory()).await.unwrap_err();
    assert!(matches!(error, Error::NotARepository { .. }), "{error}");
    assert_eq!(error.class(), Class::Usage);
}

#[tokio::test]
async fn a_damaged_or_newer_description_is_refused() {
    for text in ["", "{}", "not json", r#"{"manifest":{"format":1},"sha256":"00"}"#] {
        let error = describe(&memory(), text).await;
        let Error::Description { source: ManifestError::Damaged { .. }, .. } = error else {
            panic!("{text:?}: {error}");
        };
    }
    let newer = backstay_backup_core::manifest::seal(&serde_json::json!({ "format": 2 })).unwrap();
    let error = describe(&memory(), std::str::from_utf8(&newer).unwrap()).await;
    assert!(
        matches!(error, Error::Description { source: ManifestError::TooNew { found: 2 }, .. }),
        "{error}"
    );
    assert_eq!(error.class(), Class::Usage);
}

#[tokio::test]
async fn creating_twice_is_a_conflict() {
    let store = memory();
    Repository::create("r", store.clone(), &SystemClock).await.unwrap();
    let error = Repository::create("r", store, &SystemClock).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_creators_open_the_same_repository() {
    for _ in 0..50 {
        let store = memory();
        let creators = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { Repository::open_or_create("r", store, &SystemClock).await })
        });
        let opened = futures::future::join_all(creators).await;
        let ids: std::collections::BTreeSet<_> =
            opened.into_iter().map(|opened| opened.unwrap().unwrap().info().unwrap().id.clone()).collect();
        assert_eq!(ids.len(), 1);
    }
}

#[tokio::test]
async fn a_quorum_must_fit_and_names_must_differ() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let member = Repository::create("r", memory(), &SystemClock).await.unwrap();
    for quorum in [0, 2] {
        assert!(Repositories::new(vec![member.clone()], quorum, clock.clone()).is_err());
    }
    assert!(Repositories::new(Vec::new(), 0, clock.clone()).is_err());
    assert!(Repositories::new(vec![member.clone(), member], 1, clock).is_err());
}

#[tokio::test]
async fn a_manifest_below_a_foreign_set_is_misplaced() {
    let store = memory();
    let repositories = repositories(std::slice::from_ref(&store), 1).await;
    let set = async || {
        let receipt =
            write_set(&repositories, Recipients::none(), Codec::None, &[("x", b"x")]).await.unwrap();
        receipt.manifest
    };
    let (first, second) = (set().await, set().await);
    let key = layout::manifest(&stanza(), &second.set);
    store.delete(&key).await.unwrap();
    let foreign = Bytes::from(first.encode().unwrap());
    store.put(&key, foreign, PutMode::Create, &Attributes::default()).await.unwrap();
    let error = repositories.manifest(&stanza(), &second.set).await.unwrap_err();
    assert!(matches!(error, Error::Misplaced { .. }), "{error}");
    assert_eq!(error.class(), Class::Data);
    store.delete(&key).await.unwrap();
    let error = repositories.manifest(&stanza(), &second.set).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchSet { .. }), "{error}");
}
