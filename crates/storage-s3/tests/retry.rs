//! The store behind the retry wrapper: the same result as without faults, or one clear error.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::LazyLock;
use std::time::Duration;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::store::{Attributes, PutMode, SharedStore, StoreError};
use backstay_backup_core::upload::{UploadOptions, Uploader};
use backstay_storage_s3::Checksums;
use backstay_testkit::s3::{Effect, FaultRule, Faults, S3Server};
use bytes::Bytes;
use common::*;

/// Two parts, the second one short.
const BIG: usize = (5 << 20) + 300_000;

fn big() -> Bytes {
    static BODY: LazyLock<Bytes> = LazyLock::new(|| noise(BIG));
    BODY.clone()
}

async fn upload(store: &SharedStore, name: &str) -> Result<(), StoreError> {
    let options = UploadOptions::default().part_size(5 << 20).parts_in_flight(3);
    let mut uploader = Uploader::new(store.clone(), key(name), Attributes::default(), options);
    let body = big();
    for at in (0..BIG).step_by(1 << 20) {
        uploader.write(body.slice(at..BIG.min(at + (1 << 20)))).await?;
    }
    uploader.finish().await.map(drop)
}

/// Everything the store does, once; fails on any difference to what it should have done.
async fn work(store: &SharedStore, name: &str) -> Result<(), StoreError> {
    let pending = work_and_count_uploads(store, name).await?;
    assert_eq!(pending, 0, "{name}");
    Ok(())
}

async fn work_and_count_uploads(store: &SharedStore, name: &str) -> Result<usize, StoreError> {
    create(&**store, &format!("{name}/small"), noise(70_000)).await?;
    upload(store, &format!("{name}/big")).await?;
    assert_eq!(read(&**store, &format!("{name}/small")).await?, noise(70_000));
    assert_eq!(read(&**store, &format!("{name}/big")).await?, big());
    assert_eq!(listed(&**store, name).await.len(), 2);
    let pending = store.list_uploads(&Prefix::parse(name).unwrap()).await?.len();
    store.delete(&key(&format!("{name}/small"))).await?;
    assert!(store.head(&key(&format!("{name}/small"))).await.unwrap_err().is_absent());
    Ok(pending)
}

fn no_overwrites(server: &S3Server) {
    let overwrites: Vec<_> = server.access_log().into_iter().filter(|record| record.overwrote).collect();
    assert!(overwrites.is_empty(), "{overwrites:?}");
}

#[tokio::test]
async fn every_fault_at_every_call_is_survived() {
    let server = server().await;
    let effects = [
        Effect::InternalError,
        Effect::SlowDown,
        Effect::Conflict,
        Effect::DropRequest,
        Effect::LoseReply,
        Effect::CutUpload(1000),
        Effect::CutReply(30_000),
        Effect::ErrorInside200,
    ];
    let operations = [
        ("PutObject", 1),
        ("CreateMultipartUpload", 1),
        ("UploadPart", 2),
        ("CompleteMultipartUpload", 1),
        ("GetObject", 2),
        ("ListObjectsV2", 1),
        ("ListMultipartUploads", 1),
        ("DeleteObject", 1),
    ];
    let mut run = 0;
    let broken = [Effect::LoseReply, Effect::CutUpload(1000), Effect::CutReply(30_000)];
    // The refusals do not depend on the checksums; broken bodies may.
    for (checksums, effects) in [(Checksums::Crc64Nvme, &effects[..]), (Checksums::Compatible, &broken)] {
        let store = retrying(&open(&server, checksums).await);
        for effect in effects {
            for (operation, calls) in operations {
                // Replies with a body of their own cannot hide an error in it.
                if operation == "GetObject" && *effect == Effect::ErrorInside200 {
                    continue;
                }
                for nth in 1..=calls {
                    run += 1;
                    server
                        .faults()
                        .set(Faults::default().rule(FaultRule::on(operation, effect.clone()).nth(nth)));
                    let done = work_and_count_uploads(&store, &format!("run-{run}")).await;
                    let case = format!("{checksums:?} {operation} {nth} {effect:?}");
                    // Nobody can know the name of an upload whose beginning was not answered; prune finds it.
                    let unanswered = matches!(effect, Effect::LoseReply | Effect::CutUpload(_));
                    let orphans = usize::from(operation == "CreateMultipartUpload" && unanswered);
                    match done {
                        Ok(pending) => assert_eq!(pending, orphans, "{case}"),
                        Err(error) => panic!("{case}: {}", words(&error)),
                    }
                    assert_eq!(server.faults().fired(), 1, "{case}");
                    server.faults().clear();
                    drain(&store, &format!("run-{run}")).await;
                }
            }
        }
    }
    no_overwrites(&server);
}

/// Keeps the memory of a long test small.
async fn drain(store: &SharedStore, name: &str) {
    for name in listed(&**store, name).await {
        store.delete(&key(&name)).await.unwrap();
    }
}

#[tokio::test]
async fn a_storm_of_throttling_passes() {
    let server = server().await;
    let store = retrying(&open(&server, Checksums::default()).await);
    server.faults().set(Faults::default().seed(3).rule(FaultRule::any(Effect::SlowDown).probability(0.4)));
    for run in 0..3 {
        work(&store, &format!("storm-{run}")).await.unwrap();
    }
    assert!(server.faults().fired() > 10, "{}", server.faults().fired());
    no_overwrites(&server);
}

#[tokio::test]
async fn a_lost_reply_is_no_conflict_with_oneself_and_hides_no_other_writer() {
    let server = server().await;
    let store = retrying(&open(&server, Checksums::default()).await);
    let lose = || Faults::default().rule(FaultRule::on("PutObject", Effect::LoseReply).nth(1));
    server.faults().set(lose());
    create(&*store, "mine", noise(1000)).await.unwrap();

    create(&*store, "theirs", noise(999)).await.unwrap();
    server.faults().set(lose());
    let refused = create(&*store, "theirs", noise(1000)).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })), "{refused:?}");

    let tag = create(&*store, "leases/x", Bytes::from_static(b"1")).await.unwrap().etag.unwrap();
    server.faults().set(lose());
    let swap = PutMode::Replace(tag.clone());
    store
        .put(&key("leases/x"), Bytes::from_static(b"2"), swap.clone(), &Attributes::default())
        .await
        .unwrap();
    server.faults().set(lose());
    let refused = store.put(&key("leases/x"), Bytes::from_static(b"3"), swap, &Attributes::default()).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_download_survives_a_connection_that_breaks_again_and_again() {
    let server = server().await;
    let store = retrying(&open(&server, Checksums::default()).await);
    create(&*store, "a", noise(1_000_000)).await.unwrap();
    server.faults().set(Faults::default().rule(FaultRule::on("GetObject", Effect::CutReply(90_000))));
    assert_eq!(read(&*store, "a").await.unwrap(), noise(1_000_000));
}

#[tokio::test]
async fn a_dead_store_is_one_clear_error_and_nothing_visible() {
    let server = server().await;
    let store = retrying(&open(&server, Checksums::default()).await);
    server.faults().set(Faults::default().rule(FaultRule::any(Effect::ServiceUnavailable)));
    let error = upload(&store, "a").await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    assert!(words(&error).contains("503 ServiceUnavailable"), "{}", words(&error));
    server.faults().clear();
    assert!(listed(&*store, "").await.is_empty());
}

#[tokio::test]
async fn a_slow_store_is_waited_for() {
    let server = server().await;
    let store = retrying(&open(&server, Checksums::default()).await);
    server.faults().set(Faults::default().latency(Duration::from_millis(80)));
    work(&store, "slow").await.unwrap();
}

#[tokio::test]
async fn a_writer_that_may_neither_delete_nor_overwrite_can_do_its_work() {
    let server = server().await;
    let store = retrying(&open_as(&server, PLAIN, WRITER).await);
    server.clear_access_log();
    create(&*store, "set/a", noise(1000)).await.unwrap();
    upload(&store, "set/big").await.unwrap();
    let tag = create(&*store, "leases/x", Bytes::from_static(b"1")).await.unwrap().etag.unwrap();
    store
        .put(&key("leases/x"), Bytes::from_static(b"2"), PutMode::Replace(tag), &Attributes::default())
        .await
        .unwrap();
    assert_eq!(read(&*store, "set/big").await.unwrap(), big());
    assert_eq!(listed(&*store, "set").await.len(), 2);
    let log = server.access_log();
    assert!(log.iter().all(|record| !record.is_denied()), "{log:?}");
    let overwritten: Vec<_> = log.iter().filter(|record| record.overwrote).collect();
    assert!(overwritten.iter().all(|record| record.key.as_deref().unwrap().contains("/leases/")));
    assert_eq!(overwritten.len(), 1);

    assert!(matches!(store.delete(&key("set/a")).await, Err(StoreError::Denied { .. })));
    let again = create(&*store, "set/a", noise(5)).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })));
    let reader = open_as(&server, PLAIN, READER).await;
    assert!(matches!(create(&reader, "set/b", noise(5)).await, Err(StoreError::Denied { .. })));
}
