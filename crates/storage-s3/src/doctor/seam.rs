//! Questions that only a store speaking S3 understands.

use async_trait::async_trait;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::StoreError;
use bytes::Bytes;
use jiff::Timestamp;

use crate::options::{Encryption, LockMode};

/// What the options ask for and the store has to honour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// Storage class of new objects.
    pub storage_class: Option<String>,
    /// Encryption of new objects.
    pub encryption: Option<Encryption>,
    /// Mode of locks.
    pub lock: Option<LockMode>,
    /// Whether bytes travel with checksums that may come behind the body.
    pub trailing_checksums: bool,
}

/// What a store says about an object it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredHeaders {
    /// Storage class; `STANDARD` where the store names none.
    pub storage_class: String,
    /// `AES256` or `aws:kms`.
    pub encryption: Option<String>,
    /// Key of the encryption.
    pub kms_key: Option<String>,
}

impl StoredHeaders {
    /// Facts as a store told them.
    #[must_use]
    pub fn new(storage_class: Option<String>, encryption: Option<String>, kms_key: Option<String>) -> Self {
        Self { storage_class: storage_class.unwrap_or_else(|| "STANDARD".to_owned()), encryption, kms_key }
    }
}

/// A lock as the store recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Its mode, in the word of the protocol.
    pub mode: String,
    /// Its end.
    pub until: Timestamp,
}

/// A way to write that [`ObjectStore`](backstay_backup_core::store::ObjectStore) does not offer, for good reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Odd {
    /// Create-only, with a checksum that is deliberately wrong; a good store refuses.
    WrongChecksum,
    /// Create-only, from a stream whose checksum follows the body.
    TrailingChecksum,
    /// Without any condition.
    Unconditional,
    /// Create-only, locked until then.
    Locked(Timestamp),
}

/// A store that can be asked about checksums, versions and locks.
#[async_trait]
pub trait S3Probe: Send + Sync {
    /// What its options ask for.
    fn asked(&self) -> Asked;

    /// Writes an object in an odd way; the name of its version, where the store keeps versions.
    async fn put_oddly(&self, key: &Key, body: Bytes, how: Odd) -> Result<Option<String>, StoreError>;

    /// The lock of a version.
    async fn retention(&self, key: &Key, version: &str) -> Result<Option<Retention>, StoreError>;

    /// Moves the end of a version's lock, in the mode it has.
    async fn set_retention(&self, key: &Key, version: &str, until: Timestamp) -> Result<(), StoreError>;

    /// Deletes one version for good, without bypassing any lock.
    async fn delete_version(&self, key: &Key, version: &str) -> Result<(), StoreError>;

    /// All versions below the prefix, marks of deletions too.
    async fn versions(&self, prefix: &Prefix) -> Result<Vec<(Key, String)>, StoreError>;

    /// Storage class and encryption of an object.
    async fn stored_headers(&self, key: &Key) -> Result<StoredHeaders, StoreError>;
}
