//! What the memory store does beyond the seam.

use std::sync::Arc;

use backstay_backup_core::clock::{Clock as _, ManualClock};
use backstay_backup_core::key::Key;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::store::{
    Attributes, Multipart as _, ObjectStore as _, PartNumber, PutMode, StoreError,
};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

fn key() -> Key {
    Key::parse("main/x").unwrap()
}

#[tokio::test]
async fn locked_objects_cannot_be_deleted_before_their_time() {
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let store = MemoryStore::new(Arc::new(clock.clone()));
    let until = clock.now() + SignedDuration::from_hours(1);
    let locked = Attributes::default().retain_until(Some(until));
    let upload = store.start_upload(&key(), &locked).await.unwrap();
    let part = PartNumber { number: 1, offset: 0 };
    let tag = store.put_part(&key(), &upload, part, Bytes::from_static(b"1")).await.unwrap();
    store.complete_upload(&key(), &upload, &[tag]).await.unwrap();
    clock.advance(SignedDuration::from_mins(59));
    let error = store.delete(&key()).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(store.head(&key()).await.is_ok());
    clock.advance(SignedDuration::from_mins(1));
    store.delete(&key()).await.unwrap();
    assert!(store.head(&key()).await.unwrap_err().is_absent());
}

#[tokio::test]
async fn times_are_those_of_the_clock() {
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let store = MemoryStore::new(Arc::new(clock.clone()));
    clock.advance(SignedDuration::from_hours(5));
    let meta = store.put(&key(), Bytes::new(), PutMode::Create, &Attributes::default()).await.unwrap();
    assert_eq!(meta.modified, clock.now());
}

#[tokio::test]
async fn a_receipt_must_be_that_of_a_stored_part() {
    let store = MemoryStore::new(Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)));
    let upload = store.start_upload(&key(), &Attributes::default()).await.unwrap();
    let first = PartNumber { number: 1, offset: 0 };
    let second = PartNumber { number: 2, offset: 3 };
    let body = Bytes::from_static(b"abc");
    let right = store.put_part(&key(), &upload, first, body.clone()).await.unwrap();
    let mut forged = right.clone();
    forged.part = second;
    let late = store.put_part(&key(), &upload, second, body).await.unwrap();
    let mut stale = right.clone();
    stale.tag = "00".to_owned();
    for parts in [vec![right.clone(), forged, late.clone()], vec![stale, late.clone()], vec![late, right]] {
        let error = store.complete_upload(&key(), &upload, &parts).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    }
    assert!(store.head(&key()).await.unwrap_err().is_absent());
}
