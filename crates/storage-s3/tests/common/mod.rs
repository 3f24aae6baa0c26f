//! Servers and stores for the tests of this folder.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::retry::{Retry, RetryPolicy};
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::{Attributes, ObjectMeta, ObjectStore, PutMode, SharedStore, StoreError};
use backstay_storage_s3::{Checksums, Credentials, S3Options, S3Store, Timeouts};
use backstay_testkit::s3::{BucketOptions, Credential, S3Options as ServerOptions, S3Server};
use bytes::Bytes;
use futures::TryStreamExt as _;

pub const PLAIN: &str = "plain";
pub const LOCKED: &str = "locked";
pub const ADMIN: (&str, &str) = ("admin", "admin-secret-7Fq");
pub const WRITER: (&str, &str) = ("writer", "writer-secret-9Zk");
pub const READER: (&str, &str) = ("reader", "reader-secret-3Lm");

pub async fn server() -> S3Server {
    let options = ServerOptions::memory()
        .bucket(PLAIN)
        .bucket(BucketOptions::new(LOCKED).object_lock())
        .credential(Credential::admin(ADMIN.0, ADMIN.1))
        .credential(Credential::writer(WRITER.0, WRITER.1))
        .credential(Credential::reader(READER.0, READER.1));
    S3Server::start(options).await.unwrap()
}

/// Options for a bucket of the server; short limits, so that a test of a timeout is short too.
pub fn options(endpoint: &str, bucket: &str, who: (&str, &str)) -> S3Options {
    S3Options::new(bucket)
        .region("us-east-1")
        .endpoint(endpoint)
        .prefix(Prefix::parse("some/folder").unwrap())
        .credentials(Credentials::Static {
            access_key_id: who.0.to_owned(),
            secret_access_key: Secret::new(who.1.to_owned()),
            session_token: None,
        })
        .timeouts(Timeouts::default().reply(Duration::from_secs(5)).idle(Duration::from_secs(5)))
}

pub async fn open(server: &S3Server, checksums: Checksums) -> S3Store {
    S3Store::open(options(&server.endpoint(), PLAIN, ADMIN).checksums(checksums)).await.unwrap()
}

pub async fn open_as(server: &S3Server, bucket: &str, who: (&str, &str)) -> S3Store {
    S3Store::open(options(&server.endpoint(), bucket, who)).await.unwrap()
}

/// Repeats quickly and often.
pub fn retrying(store: &S3Store) -> SharedStore {
    let policy = RetryPolicy::default()
        .attempts(12)
        .base(Duration::from_millis(5))
        .cap(Duration::from_millis(50))
        .total(Duration::from_secs(30));
    Arc::new(Retry::with_seed(Arc::new(store.clone()), policy, 7))
}

pub fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// Bytes without any pattern that a cut or a shift would hide.
pub fn noise(len: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

pub async fn create(store: &dyn ObjectStore, name: &str, body: Bytes) -> Result<ObjectMeta, StoreError> {
    store.put(&key(name), body, PutMode::Create, &Attributes::default()).await
}

pub async fn read(store: &dyn ObjectStore, name: &str) -> Result<Bytes, StoreError> {
    let chunks: Vec<Bytes> = store.get(&key(name), None).await?.body.try_collect().await?;
    Ok(chunks.concat().into())
}

pub async fn listed(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let prefix = Prefix::parse(prefix).unwrap();
    let metas: Vec<_> = store.list(&prefix).try_collect().await.unwrap();
    metas.into_iter().map(|meta| meta.key.to_string()).collect()
}

/// All texts of an error, as a printer would show them.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
