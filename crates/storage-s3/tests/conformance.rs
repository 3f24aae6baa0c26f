//! The suite that every store has to pass, on a real server in every mode.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;

use backstay_backup_core::conformance;
use backstay_backup_core::store::SharedStore;
use backstay_storage_s3::{Checksums, S3Options, S3Store};
use common::*;

async fn conforms(bucket: &str, set: impl Fn(S3Options) -> S3Options) -> Vec<&'static str> {
    let server = server().await;
    let store = S3Store::open(set(options(&server.endpoint(), bucket, ADMIN))).await.unwrap();
    let store: SharedStore = Arc::new(store);
    let summary = conformance::run(async || store.clone()).await.unwrap();
    assert!(summary.passed.len() > 10, "{summary:?}");
    assert!(server.access_log_dropped() == 0);
    summary.skipped
}

#[tokio::test]
async fn with_checksums() {
    assert_eq!(conforms(PLAIN, |options| options).await, [""; 0]);
}

#[tokio::test]
async fn in_the_compatible_mode() {
    assert_eq!(conforms(PLAIN, |options| options.checksums(Checksums::Compatible)).await, [""; 0]);
}

#[tokio::test]
async fn where_versions_are_kept() {
    assert_eq!(conforms(LOCKED, |options| options).await, [""; 0]);
}

#[tokio::test]
async fn without_conditional_writes_the_rest_holds() {
    let skipped = conforms(PLAIN, |options| options.conditional_writes(false)).await;
    assert!(!skipped.is_empty());
}
