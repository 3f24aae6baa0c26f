//! The bounded upload on top of any store.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::store::{Attributes, Capabilities, PutMode, SharedStore, StoreError};
use backstay_backup_core::upload::{MAX_OBJECT, UploadOptions, Uploader, part_size_for};
use bytes::Bytes;
use futures::TryStreamExt as _;
use proptest::prelude::{ProptestConfig, prop, proptest};
use tokio::time::Instant;

fn memory() -> SharedStore {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

fn uploader(store: &SharedStore, part_size: u64) -> Uploader {
    let options = UploadOptions::default().part_size(part_size);
    Uploader::new(Arc::clone(store), name(), Attributes::default(), options)
}

fn name() -> Key {
    Key::parse("sets/x/data").unwrap()
}

async fn content(store: &SharedStore) -> Vec<u8> {
    let body = store.get(&name(), None).await.unwrap().body;
    let chunks: Vec<Bytes> = body.try_collect().await.unwrap();
    chunks.concat()
}

async fn pending(store: &SharedStore) -> usize {
    store.list_uploads(&Prefix::root()).await.unwrap().len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_is_stored(
        chunks in prop::collection::vec(prop::collection::vec(0_u8.., 0..50), 0..20),
        part_size in 1_u64..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = memory();
            let mut upload = uploader(&store, part_size);
            for chunk in &chunks {
                upload.write(Bytes::from(chunk.clone())).await.unwrap();
            }
            let meta = upload.finish().await.unwrap();
            let sent = chunks.concat();
            assert_eq!(meta.size, sent.len() as u64);
            assert_eq!(content(&store).await, sent);
            assert_eq!(pending(&store).await, 0);
        });
    }
}

#[tokio::test]
async fn nothing_is_visible_before_finish_and_nothing_is_left_after_abort() {
    let store = memory();
    let mut upload = uploader(&store, 10);
    upload.write(Bytes::from(vec![7; 95])).await.unwrap();
    assert_eq!(pending(&store).await, 1);
    assert!(store.head(&name()).await.unwrap_err().is_absent());
    upload.abort().await;
    assert_eq!(pending(&store).await, 0);
    assert!(store.head(&name()).await.unwrap_err().is_absent());
}

#[tokio::test]
async fn an_existing_object_is_kept_and_the_upload_removed() {
    for size in [5, 95] {
        let store = memory();
        let first = Bytes::from_static(b"first");
        store.put(&name(), first, PutMode::Create, &Attributes::default()).await.unwrap();
        let mut upload = uploader(&store, 10);
        upload.write(Bytes::from(vec![7; size])).await.unwrap();
        let error = upload.finish().await.unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
        assert_eq!(content(&store).await, b"first");
        assert_eq!(pending(&store).await, 0);
    }
}

#[tokio::test]
async fn a_store_of_one_part_takes_everything_in_it() {
    let can = Capabilities { create_only: true, compare_and_swap: true, min_part: 1, max_parts: 1 };
    let store: SharedStore = Arc::new(MemoryStore::with_capabilities(Arc::new(SystemClock), can));
    let mut upload = uploader(&store, 4);
    upload.write(Bytes::from_static(b"more than one part")).await.unwrap();
    assert_eq!(upload.finish().await.unwrap().size, 18);
}

/// A memory store behind faults, and both of them.
fn faulty() -> (SharedStore, Arc<Fault>) {
    let fault = Arc::new(Fault::new(memory(), 1));
    (fault.clone(), fault)
}

#[tokio::test(start_paused = true)]
async fn as_many_parts_are_under_way_as_allowed() {
    let second = Duration::from_secs(1);
    for (parts, seconds) in [(1, 12), (3, 4), (5, 3)] {
        let (store, fault) = faulty();
        fault.always(Operation::PutPart, Mishap::Slow(second));
        let options = UploadOptions::default().part_size(10).parts_in_flight(parts);
        let mut upload = Uploader::new(store, name(), Attributes::default(), options);
        let begin = Instant::now();
        upload.write(Bytes::from(vec![0; 120])).await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(begin.elapsed(), seconds * second, "{parts} parts in flight");
    }
}

#[tokio::test]
async fn a_failed_part_ends_the_upload_for_good() {
    let (store, fault) = faulty();
    fault.on(Operation::PutPart, 2, Mishap::Error(ErrorKind::Full));
    let mut upload = uploader(&store, 10);
    let mut outcome = Ok(());
    for _ in 0..10 {
        outcome = upload.write(Bytes::from(vec![7; 20])).await;
        if outcome.is_err() {
            break;
        }
    }
    assert!(matches!(outcome, Err(StoreError::Full { .. })), "{outcome:?}");
    assert_eq!(pending(&store).await, 0);
    let parts = fault.count(Operation::PutPart);
    assert!(upload.write(Bytes::from(vec![7; 20])).await.is_err());
    assert!(upload.finish().await.is_err());
    assert_eq!(fault.count(Operation::PutPart), parts, "nothing is sent after an error");
    assert!(store.head(&name()).await.unwrap_err().is_absent());
}

#[tokio::test(start_paused = true)]
async fn an_abort_that_hangs_or_fails_does_not_hide_the_error() {
    for mishap in [Mishap::Error(ErrorKind::Denied), Mishap::Slow(Duration::from_secs(86_400))] {
        let (store, fault) = faulty();
        fault.on(Operation::CompleteUpload, 1, Mishap::Error(ErrorKind::Full));
        fault.always(Operation::AbortUpload, mishap);
        let mut upload = uploader(&store, 10);
        upload.write(Bytes::from(vec![7; 25])).await.unwrap();
        let begin = Instant::now();
        let error = upload.finish().await.unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(60));
        assert_eq!(pending(&store).await, 1, "what could not be aborted is listed");
    }
}

#[tokio::test]
async fn a_dropped_upload_leaves_a_pending_one_at_most() {
    let store = memory();
    let mut upload = uploader(&store, 10);
    upload.write(Bytes::from(vec![7; 25])).await.unwrap();
    drop(upload);
    assert_eq!(pending(&store).await, 1);
    assert!(store.head(&name()).await.unwrap_err().is_absent());
}

#[test]
fn five_tebibytes_fit_the_parts_of_s3() {
    for base in [5 << 20, 8 << 20, 64 << 20, 600 << 20] {
        let sizes: Vec<u64> = (1..=10_000).map(|number| part_size_for(number, base, 10_000)).collect();
        assert!(sizes.iter().sum::<u64>() >= MAX_OBJECT, "base {base}");
        assert!(sizes.is_sorted());
        assert!(*sizes.last().unwrap() <= 5 << 30, "S3 takes no larger part");
        assert!(sizes[..5000].iter().all(|size| *size == base), "memory stays as asked for the first half");
    }
}
