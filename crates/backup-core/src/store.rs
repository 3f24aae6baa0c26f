//! The seam between Backstay and whatever keeps its objects.
//!
//! A store maps [`Key`]s to immutable objects. Two rules make every promise of the repository possible: an object
//! is *created once* ([`PutMode::Create`] refuses an existing key, atomically), and it becomes visible *whole or not
//! at all*. Only leases are ever replaced, by compare-and-swap ([`PutMode::Replace`]).
//!
//! ```text
//! caller → Limit → Retry → (Fault in tests) → LocalStore | MemoryStore | S3
//! ```
//!
//! Every operation is idempotent or conditional, so that a wrapper can repeat it without knowing what it is for.
//! Multipart uploads are a seam of their own ([`Multipart`]) with numbered, repeatable parts; callers use
//! [`crate::upload::Uploader`], which bounds the parts in flight and aborts on error. The conformance suite
//! (`backstay_backup_core::conformance`, feature `testing`) states what an implementation must do.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::key::{Key, Prefix};

/// A store shared by tasks.
pub type SharedStore = Arc<dyn ObjectStore>;

/// A place that keeps objects under keys.
#[async_trait]
pub trait ObjectStore: Multipart + fmt::Debug + Send + Sync + 'static {
    /// Where it is, for messages; never contains a secret.
    fn location(&self) -> String;

    /// What the store can be relied on to do.
    fn capabilities(&self) -> Capabilities;

    /// Stores a small object in one step. `body` must not be kept after the call.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] for [`PutMode::Create`] on an existing key, [`StoreError::Conflict`] when the
    /// tag of [`PutMode::Replace`] is not the current one (or the key is absent).
    ///
    /// # Cancel safety
    /// A dropped call leaves the object whole or absent.
    async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
        attributes: &Attributes,
    ) -> Result<ObjectMeta, StoreError>;

    /// Opens an object, or a byte range of it (the range is cut at the object's end).
    ///
    /// # Errors
    /// [`StoreError::Absent`] only when the store proved that the key does not exist.
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError>;

    /// Facts of an object.
    ///
    /// # Errors
    /// [`StoreError::Absent`] only when the store proved that the key does not exist.
    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError>;

    /// All objects below a prefix in ascending key order, page by page as the stream is read.
    fn list(&self, prefix: &Prefix) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        self.list_after(prefix, None)
    }

    /// [`ObjectStore::list`], beginning behind a key, which need not exist: what comes before it costs nothing.
    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>>;

    /// Deletes an object; deleting an absent one succeeds.
    ///
    /// # Errors
    /// [`StoreError::Denied`] for a role without the permission or an object under lock.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;
}

/// Uploads in numbered parts. Every call may be repeated with the same arguments.
#[async_trait]
pub trait Multipart: Send + Sync {
    /// Begins an upload; nothing becomes visible before [`Multipart::complete_upload`].
    async fn start_upload(&self, key: &Key, attributes: &Attributes) -> Result<UploadId, StoreError>;

    /// Stores one part; parts may arrive in any order and at the same time.
    ///
    /// `body` must not be kept after the call: its memory is counted against a budget and used again, and a writer
    /// waits for that.
    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError>;

    /// Makes the parts, in order, one object under its key, create-only.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the key exists; the upload can then be aborted. Repeating a completion that
    /// succeeded ends so too, even though the upload is gone: only an unknown upload without an object is
    /// [`StoreError::Failed`].
    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError>;

    /// Forgets an upload and its parts; an unknown upload is fine.
    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError>;

    /// Uploads begun below the prefix and neither completed nor aborted: litter of crashed writers.
    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError>;
}

/// How [`ObjectStore::put`] treats an existing object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// Refuses an existing key.
    Create,
    /// Replaces exactly the version with this tag: compare-and-swap, for leases only.
    Replace(ETag),
}

/// Opaque version tag of an object's content, as the store gave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

/// Opaque name of a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(pub String);

/// Position of a part: 1-based number and byte offset in the finished object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber {
    /// 1 to 10,000.
    pub number: u32,
    /// Offset of the part's first byte in the finished object.
    pub offset: u64,
}

/// Receipt of a stored part, handed back on completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartTag {
    /// Which part.
    pub part: PartNumber,
    /// Its length in bytes.
    pub len: u64,
    /// Opaque tag of the store.
    pub tag: String,
    /// Opaque checksum of the store, empty where it has none.
    pub checksum: String,
}

/// An upload that was begun and not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingUpload {
    /// Key it would have become.
    pub key: Key,
    /// Name for [`Multipart::abort_upload`].
    pub upload: UploadId,
    /// Begin by the store's clock; a store may report the last sign of life instead, which is never earlier.
    pub started: Timestamp,
}

/// Facts of a stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: Key,
    /// Length in bytes.
    pub size: u64,
    /// Last modification **by the store's clock**; retention trusts this and no writer's clock.
    pub modified: Timestamp,
    /// Tag for compare-and-swap.
    pub etag: Option<ETag>,
}

/// What a new object carries besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// Locks the object against deletion until then, where the store can.
    pub retain_until: Option<Timestamp>,
    /// Tags, where the store has them.
    pub tags: Vec<(String, String)>,
    /// MIME type, `application/octet-stream` by default.
    pub content_type: Option<String>,
}

impl Attributes {
    /// Sets the lock.
    #[must_use]
    pub fn retain_until(mut self, until: Option<Timestamp>) -> Self {
        self.retain_until = until;
        self
    }

    /// Sets the MIME type.
    #[must_use]
    pub fn content_type(mut self, mime: &str) -> Self {
        self.content_type = Some(mime.to_owned());
        self
    }
}

/// What a store guarantees; learned from its kind and configuration, checked by `check-storage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// [`PutMode::Create`] is atomic. Where it is not, unique keys and conflict detection must do.
    pub create_only: bool,
    /// [`PutMode::Replace`] is atomic.
    pub compare_and_swap: bool,
    /// Smallest size of a part that is not the last, in bytes.
    pub min_part: u64,
    /// Largest number of parts.
    pub max_parts: u32,
}

/// An opened object.
pub struct GetResult {
    /// Facts of the whole object.
    pub meta: ObjectMeta,
    /// The range that the stream delivers.
    pub range: Range<u64>,
    /// The bytes.
    pub body: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl fmt::Debug for GetResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetResult")
            .field("meta", &self.meta)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// The part of an object of `size` bytes that a `get` delivers: the range asked for, cut at the object's end.
#[must_use]
pub fn cut_range(range: Option<Range<u64>>, size: u64) -> Range<u64> {
    let range = range.unwrap_or(0..size);
    let start = range.start.min(size);
    start..range.end.clamp(start, size)
}

/// The error of the library or system below a store, kept for the chain.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store proved that there is no such object.
    #[error("no object {key}")]
    Absent {
        /// The key.
        key: Key,
    },
    /// Create-only refused an existing key.
    #[error("object {key} exists already")]
    AlreadyExists {
        /// The key.
        key: Key,
    },
    /// Compare-and-swap found another version.
    #[error("object {key} was changed by somebody else")]
    Conflict {
        /// The key.
        key: Key,
    },
    /// Credentials or permissions do not allow it.
    #[error("not allowed to {op} {what}")]
    Denied {
        /// The operation.
        op: &'static str,
        /// Key, prefix or bucket.
        what: String,
        /// The store's own words.
        source: Cause,
    },
    /// The store refuses everything from a machine whose clock is that wrong.
    #[error("cannot {op} {what}, because the store refuses this machine's clock")]
    Clock {
        /// The operation.
        op: &'static str,
        /// Key, prefix or bucket.
        what: String,
        /// The store's own words, with both times.
        source: Cause,
    },
    /// No space or quota left.
    #[error("no space left to {op} {what}")]
    Full {
        /// The operation.
        op: &'static str,
        /// Key or directory.
        what: String,
        /// The store's own words.
        source: Cause,
    },
    /// The store itself is missing: bucket, directory, host name.
    #[error("the store at {location} does not exist")]
    Missing {
        /// Its location.
        location: String,
        /// The store's own words.
        source: Cause,
    },
    /// May succeed when repeated: timeouts, throttling, 5xx, broken connections.
    #[error("cannot {op} {what} at the moment")]
    Temporary {
        /// The operation.
        op: &'static str,
        /// Key, prefix or bucket.
        what: String,
        /// Earliest useful moment for the next attempt, when the store said one.
        retry_after: Option<Duration>,
        /// The store's own words.
        source: Cause,
    },
    /// Bytes differ from the checksum that went with them.
    #[error("bytes of {key} do not match their checksum")]
    Checksum {
        /// The key.
        key: Key,
    },
    /// Anything else; repeating it is pointless.
    #[error("cannot {op} {what}")]
    Failed {
        /// The operation.
        op: &'static str,
        /// Key, prefix or bucket.
        what: String,
        /// The store's own words.
        source: Cause,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. } | Self::Checksum { .. })
    }

    /// Whether absence was proven.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}
