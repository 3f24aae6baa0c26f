//! Each probe against a real server that misbehaves in exactly that way, and against one that does not.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::clock::{ManualClock, SystemClock};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::ObjectStore as _;
use backstay_storage_s3::doctor::{
    Diagnosis, DoctorOptions, Probe, Role, S3Probe as _, Status, diagnose, diagnose_s3,
};
use backstay_storage_s3::{Checksums, Encryption, LockMode, S3Store};
use backstay_testkit::s3::{Effect, FaultRule, Faults, Misbehaviour, S3Server};
use common::*;
use futures::TryStreamExt as _;
use jiff::Timestamp;

fn doctor(nonce: u64) -> DoctorOptions {
    // A busy machine is no slow store; the test of the limit sets its own.
    DoctorOptions::new(Arc::new(SystemClock), nonce).limit(Duration::from_secs(60))
}

async fn locked_store(server: &S3Server, who: (&str, &str), mode: LockMode) -> S3Store {
    S3Store::open(options(&server.endpoint(), LOCKED, who).lock(mode)).await.unwrap()
}

/// Diagnoses a bucket with object lock as a maintainer while the server misbehaves.
async fn misbehaving(switches: impl IntoIterator<Item = Misbehaviour>) -> Diagnosis {
    let server = server().await;
    server.faults().misbehave(switches);
    let store = locked_store(&server, ADMIN, LockMode::Compliance).await;
    diagnose_s3(&store, doctor(1).role(Role::Maintainer).lock(Duration::from_secs(60))).await
}

#[track_caller]
fn only_unsafe(diagnosis: &Diagnosis, expected: &[Probe]) {
    let found: Vec<_> =
        diagnosis.findings.iter().filter(|f| f.status == Status::Unsafe).map(|f| f.probe).collect();
    assert_eq!(found, expected, "{diagnosis:#?}");
    assert!(diagnosis.findings.iter().all(|f| f.status != Status::Unknown), "{diagnosis:#?}");
    assert!(diagnosis.findings.iter().all(|f| (f.status == Status::Unsafe) == f.remedy.is_some()));
    assert_eq!(diagnosis.findings.len(), Probe::ALL.len());
    assert_eq!(diagnosis.verdict, if expected.is_empty() { Status::Safe } else { Status::Unsafe });
}

#[tokio::test]
async fn a_good_store_is_safe_and_left_clean() {
    let server = server().await;
    for (nonce, checksums) in [(1, Checksums::Crc64Nvme), (2, Checksums::Crc32), (3, Checksums::Compatible)] {
        let options = options(&server.endpoint(), PLAIN, ADMIN)
            .checksums(checksums)
            .storage_class("STANDARD_IA")
            .encryption(Encryption::Aes256);
        let store = S3Store::open(options).await.unwrap();
        let diagnosis = diagnose_s3(&store, doctor(nonce).role(Role::Maintainer)).await;
        only_unsafe(&diagnosis, &[]);
        assert_eq!(diagnosis.leftovers, []);
        assert_eq!(listed(&store, "").await, [""; 0]);
        assert_eq!(store.list_uploads_count().await, 0);
    }
}

#[tokio::test]
async fn a_good_writer_cannot_delete_and_its_objects_are_named() {
    let server = server().await;
    let store = locked_store(&server, WRITER, LockMode::Compliance).await;
    let diagnosis = diagnose_s3(&store, doctor(0xABC).lock(Duration::from_secs(60))).await;
    only_unsafe(&diagnosis, &[]);
    let mut left: Vec<_> = diagnosis.leftovers.iter().map(|left| left.key.to_string()).collect();
    left.sort();
    assert_eq!(left, listed(&store, "").await);
    assert!(left.iter().all(|key| key.starts_with("probe/0000000000000abc/")));
    let locked = diagnosis.leftovers.iter().find(|left| left.key.as_str().ends_with("/locked")).unwrap();
    assert!(locked.reason.contains("is locked until"), "{locked:?}");
    let json = serde_json::to_value(&diagnosis).unwrap();
    assert_eq!(json["verdict"], "safe");
    assert_eq!(json["folder"], "probe/0000000000000abc/");
}

#[tokio::test]
async fn where_versions_are_kept_only_the_locked_one_stays() {
    let server = server().await;
    let store = locked_store(&server, ADMIN, LockMode::Governance).await;
    let diagnosis = diagnose_s3(&store, doctor(5).role(Role::Maintainer).lock(Duration::from_secs(60))).await;
    only_unsafe(&diagnosis, &[]);
    let left: Vec<_> = diagnosis.leftovers.iter().map(|left| left.key.clone()).collect();
    assert_eq!(left, [key("probe/0000000000000005/locked")]);
    let versions = store.versions(&Prefix::root()).await.unwrap();
    let keys: Vec<_> = versions.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, left);
}

#[tokio::test]
async fn ignored_create_only_is_found() {
    let diagnosis = misbehaving([Misbehaviour::IgnoresIfNoneMatch]).await;
    only_unsafe(&diagnosis, &[Probe::CreateOnly, Probe::CreateRace, Probe::CreateOnlyUpload]);
}

#[tokio::test]
async fn two_winners_of_a_race_are_found() {
    only_unsafe(&misbehaving([Misbehaviour::TwoWinners]).await, &[Probe::CreateRace]);
}

#[tokio::test]
async fn ignored_compare_and_swap_is_found() {
    only_unsafe(
        &misbehaving([Misbehaviour::IgnoresIfMatch]).await,
        &[Probe::CompareAndSwap, Probe::SwapRace],
    );
}

#[tokio::test]
async fn accepted_wrong_checksums_are_found() {
    only_unsafe(&misbehaving([Misbehaviour::AcceptsWrongChecksums]).await, &[Probe::WrongChecksum]);
}

#[tokio::test]
async fn stored_wrong_checksums_are_found() {
    only_unsafe(&misbehaving([Misbehaviour::StoresRejectedBodies]).await, &[Probe::WrongChecksum]);
}

#[tokio::test]
async fn stale_listings_are_found() {
    let diagnosis = misbehaving([Misbehaviour::StaleListing(Duration::from_secs(30))]).await;
    only_unsafe(&diagnosis, &[Probe::ListAfterWrite]);
}

#[tokio::test]
async fn powerless_locks_are_found() {
    let diagnosis = misbehaving([Misbehaviour::DeletesLockedVersions]).await;
    only_unsafe(&diagnosis, &[Probe::ObjectLock]);
    assert_eq!(diagnosis.leftovers, []);
}

#[tokio::test]
async fn forgotten_locks_are_found() {
    only_unsafe(&misbehaving([Misbehaviour::ForgetsLocks]).await, &[Probe::ObjectLock]);
}

#[tokio::test]
async fn a_bucket_without_locks_is_found() {
    let server = server().await;
    let store =
        S3Store::open(options(&server.endpoint(), PLAIN, ADMIN).lock(LockMode::Governance)).await.unwrap();
    let diagnosis = diagnose_s3(&store, doctor(1).role(Role::Maintainer).lock(Duration::from_secs(60))).await;
    only_unsafe(&diagnosis, &[Probe::ObjectLock]);
}

#[tokio::test]
async fn aborted_uploads_that_stay_are_found() {
    only_unsafe(&misbehaving([Misbehaviour::KeepsAbortedUploads]).await, &[Probe::Multipart]);
}

#[tokio::test]
async fn a_store_with_two_clocks_is_found() {
    only_unsafe(&misbehaving([Misbehaviour::WrongDate(-600)]).await, &[Probe::Clock]);
}

#[tokio::test]
async fn clocks_that_differ_are_found() {
    let server = server().await;
    server.faults().set(Faults::default().clock_skew_seconds(300));
    let store = open(&server, Checksums::default()).await;
    let diagnosis = diagnose_s3(&store, doctor(1).role(Role::Maintainer)).await;
    only_unsafe(&diagnosis, &[Probe::Clock]);
}

#[tokio::test]
async fn a_clock_so_wrong_that_nothing_works_is_named() {
    let server = server().await;
    server.faults().set(Faults::default().clock_skew_seconds(-86_400));
    let store = open(&server, Checksums::default()).await;
    let diagnosis = diagnose_s3(&store, doctor(1)).await;
    assert_eq!(diagnosis.verdict, Status::Unsafe);
    let clock = diagnosis.finding(Probe::Clock).unwrap();
    assert_eq!(clock.status, Status::Unsafe);
    assert!(clock.meaning.contains("the clock of this machine is wrong"), "{clock:?}");
    assert_eq!(diagnosis.finding(Probe::CreateOnly).unwrap().status, Status::Unknown);
}

#[tokio::test]
async fn a_writer_that_can_delete_and_overwrite_is_found() {
    let server = server().await;
    let store = open(&server, Checksums::default()).await;
    let diagnosis = diagnose_s3(&store, doctor(1)).await;
    only_unsafe(&diagnosis, &[Probe::DeletePermission, Probe::OverwritePermission]);
    assert_eq!(diagnosis.leftovers, []);
}

#[tokio::test]
async fn a_maintainer_that_cannot_delete_is_found() {
    let server = server().await;
    let store = open_as(&server, PLAIN, WRITER).await;
    let diagnosis = diagnose_s3(&store, doctor(1).role(Role::Maintainer)).await;
    only_unsafe(&diagnosis, &[Probe::DeletePermission]);
    assert!(!diagnosis.leftovers.is_empty());
}

#[tokio::test]
async fn switched_off_conditions_are_called_unsafe() {
    let server = server().await;
    let options = options(&server.endpoint(), PLAIN, ADMIN).conditional_writes(false);
    let store = S3Store::open(options).await.unwrap();
    let diagnosis = diagnose_s3(&store, doctor(1).role(Role::Maintainer)).await;
    for probe in [Probe::CreateOnly, Probe::CreateOnlyUpload, Probe::CompareAndSwap] {
        assert_eq!(diagnosis.finding(probe).unwrap().status, Status::Unsafe, "{probe}");
    }
}

#[tokio::test]
async fn a_store_that_refuses_everything_is_unsafe_with_the_reason() {
    let server = server().await;
    let store = open_as(&server, PLAIN, READER).await;
    let diagnosis = diagnose_s3(&store, doctor(1)).await;
    assert_eq!(diagnosis.verdict, Status::Unsafe);
    let first = diagnosis.finding(Probe::RoundTrip).unwrap();
    assert!(first.meaning.contains("AccessDenied"), "{first:?}");
    assert_eq!(diagnosis.leftovers, []);
    assert!(diagnosis.findings.iter().skip(1).all(|finding| finding.status == Status::Unknown));
}

#[tokio::test]
async fn a_slow_store_is_unknown_and_the_limit_is_kept() {
    let server = server().await;
    server.faults().set(Faults::default().latency(Duration::from_millis(250)));
    let store = open(&server, Checksums::default()).await;
    let start = Instant::now();
    let diagnosis = diagnose_s3(&store, doctor(1).role(Role::Maintainer).limit(Duration::from_secs(2))).await;
    assert!(start.elapsed() < Duration::from_millis(2600), "{:?}", start.elapsed());
    assert_eq!(diagnosis.verdict, Status::Unknown, "{diagnosis:#?}");
    server.faults().clear();
    let left: Vec<_> = diagnosis.leftovers.iter().map(|left| left.key.to_string()).collect();
    let there = listed(&store, "").await;
    assert!(there.iter().all(|key| left.contains(key)), "unreported: {there:?} {left:?}");
}

#[tokio::test]
async fn a_failing_probe_is_unknown_and_the_others_are_not() {
    let server = server().await;
    let rule = FaultRule::on("ListObjectsV2", Effect::InternalError);
    server.faults().set(Faults::default().rule(rule));
    let store = open(&server, Checksums::default()).await;
    let diagnosis = diagnose_s3(&store, doctor(1).role(Role::Maintainer)).await;
    assert_eq!(diagnosis.verdict, Status::Unknown);
    let unknown: Vec<_> =
        diagnosis.findings.iter().filter(|f| f.status == Status::Unknown).map(|f| f.probe).collect();
    assert_eq!(unknown, [Probe::ListAfterWrite]);
}

#[tokio::test]
async fn a_local_directory_can_be_probed_too() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::create(scratch.path().join("store")).unwrap());
    let diagnosis = diagnose(store.clone(), None, doctor(1).role(Role::Maintainer)).await;
    only_unsafe(&diagnosis, &[]);
    assert_eq!(diagnosis.leftovers, []);
    let past = ManualClock::at("2020-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    let wrong = DoctorOptions::new(Arc::new(past), 2).role(Role::Maintainer);
    only_unsafe(&diagnose(store.clone(), None, wrong).await, &[Probe::Clock]);
    let rest: Vec<_> = store.list(&Prefix::root()).try_collect().await.unwrap();
    assert!(rest.is_empty());
}

/// Uploads that a run left pending.
trait Pending {
    async fn list_uploads_count(&self) -> usize;
}

impl Pending for S3Store {
    async fn list_uploads_count(&self) -> usize {
        use backstay_backup_core::store::Multipart as _;
        self.list_uploads(&Prefix::root()).await.unwrap().len()
    }
}
