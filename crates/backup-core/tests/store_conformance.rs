//! The conformance suite against every store of this crate, and against stores that lie.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "conformance/liar.rs"]
mod liar;
#[path = "conformance/memory.rs"]
mod memory;

use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::conformance;
use backstay_backup_core::fault::{Fault, Mishap, Operation};
use backstay_backup_core::limit::{Limit, Limits};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::retry::{Retry, RetryPolicy};
use backstay_backup_core::store::{Capabilities, SharedStore};

fn in_memory() -> SharedStore {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

/// A memory store that wants parts as large as S3 does.
fn coarse() -> SharedStore {
    let can =
        Capabilities { create_only: true, compare_and_swap: true, min_part: 5 << 20, max_parts: 10_000 };
    Arc::new(MemoryStore::with_capabilities(Arc::new(SystemClock), can))
}

async fn all_pass(store: SharedStore) {
    let summary = conformance::run(async || store.clone()).await.unwrap();
    assert!(summary.skipped.is_empty(), "{summary:?}");
    assert_eq!(summary.passed.len(), conformance::behaviours().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    all_pass(in_memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_with_large_parts_conforms() {
    all_pass(coarse()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_directory_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path().to_path_buf()).unwrap();
    all_pass(Arc::new(store)).await;
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left = left.filter(|name| name != ".lock").count();
    // A put that was dropped may come to its end after everything else was removed.
    assert!(left <= 1, "the suite removes what it stored, and the store removes empty folders");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrapper_conforms() {
    all_pass(Arc::new(Retry::new(in_memory(), RetryPolicy::default()))).await;
    all_pass(Arc::new(Fault::new(in_memory(), 1))).await;
    let limits = Limits::default().concurrency(2).bytes_per_second(Some(4 << 30));
    all_pass(Arc::new(Limit::new(in_memory(), limits))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_stack_on_a_local_directory_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalStore::open(folder.path().to_path_buf()).unwrap();
    let retry = Retry::new(Arc::new(local), RetryPolicy::default());
    all_pass(Arc::new(Limit::new(Arc::new(retry), Limits::default()))).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_every_body_breaks_conforms_behind_retries() {
    let fault = Fault::new(in_memory(), 1);
    fault.always(Operation::Get, Mishap::Cut { after: 300_000, loud: true });
    all_pass(Arc::new(Retry::new(Arc::new(fault), RetryPolicy::default()))).await;
}

#[tokio::test]
async fn what_a_store_does_not_claim_is_skipped() {
    let can = Capabilities { create_only: false, compare_and_swap: false, min_part: 1, max_parts: 10_000 };
    let store: SharedStore = Arc::new(MemoryStore::with_capabilities(Arc::new(SystemClock), can));
    let summary = conformance::run(async || store.clone()).await.unwrap();
    assert!(summary.skipped.contains(&"an_existing_object_is_never_overwritten"));
    assert!(summary.skipped.contains(&"replacing_needs_the_current_tag"));
    assert_eq!(summary.passed.len() + summary.skipped.len(), conformance::behaviours().len());
}
