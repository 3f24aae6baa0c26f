//! Retry, limit and fault injection around a store in memory, under paused time.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "wrappers/fault.rs"]
mod fault;
#[path = "wrappers/limit.rs"]
mod limit;
#[path = "wrappers/resume.rs"]
mod resume;
#[path = "wrappers/retry.rs"]
mod retry;
#[path = "wrappers/sweep.rs"]
mod sweep;

use std::ops::Range;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::fault::Fault;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::retry::{Retry, RetryPolicy};
use backstay_backup_core::store::{Attributes, ETag, ObjectMeta, ObjectStore, PutMode, StoreError};
use bytes::Bytes;
use futures::TryStreamExt as _;

const SEED: u64 = 20_260_101;

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

/// A memory store behind faults behind retries.
fn stack(policy: RetryPolicy) -> (Arc<MemoryStore>, Arc<Fault>, Retry) {
    let memory = memory();
    let fault = Arc::new(Fault::new(memory.clone(), SEED));
    let retry = Retry::with_seed(fault.clone(), policy, SEED);
    (memory, fault, retry)
}

async fn create(store: &dyn ObjectStore, name: &str, body: &[u8]) -> Result<ObjectMeta, StoreError> {
    let body = Bytes::copy_from_slice(body);
    store.put(&key(name), body, PutMode::Create, &Attributes::default()).await
}

async fn replace(
    store: &dyn ObjectStore,
    name: &str,
    body: &[u8],
    tag: &ETag,
) -> Result<ObjectMeta, StoreError> {
    let body = Bytes::copy_from_slice(body);
    store.put(&key(name), body, PutMode::Replace(tag.clone()), &Attributes::default()).await
}

async fn read_range(
    store: &dyn ObjectStore,
    name: &str,
    range: Option<Range<u64>>,
) -> Result<Vec<u8>, StoreError> {
    let chunks: Vec<Bytes> = store.get(&key(name), range).await?.body.try_collect().await?;
    Ok(chunks.concat())
}

async fn read(store: &dyn ObjectStore, name: &str) -> Result<Vec<u8>, StoreError> {
    read_range(store, name, None).await
}

async fn keys(store: &dyn ObjectStore) -> Result<Vec<String>, StoreError> {
    store.list(&Prefix::root()).map_ok(|meta| meta.key.as_str().to_owned()).try_collect().await
}
