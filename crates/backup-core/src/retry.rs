//! Repeats what failed for the moment, and finds out what became of calls whose reply was lost.
//!
//! A temporary failure does not say whether the store did the work. Reads, deletions and parts are simply repeated. A
//! *create* that is repeated and then refused, because the key exists or its tag has changed, is compared
//! with what was sent: equal means that the first attempt succeeded, anything else is somebody else's object and stays
//! an error. A body that breaks is reopened at the byte it came to, and only if it still is the same object.
//!
//! Delays grow from [`RetryPolicy::base`] to [`RetryPolicy::cap`] with jitter, and are never shorter than what the store
//! asked for. Both the number of attempts and the total time are bounded; in a body or a listing both start
//! anew with every bit of progress. This is the only place of retries: no store and no caller repeats anything itself.

mod body;
mod tries;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::tries::Tries;
use crate::key::{Key, Prefix};
use crate::store::{
    Attributes, Capabilities, GetResult, Multipart, ObjectMeta, ObjectStore, PartNumber, PartTag,
    PendingUpload, PutMode, SharedStore, StoreError, UploadId,
};

/// How often and how long a call is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts of one call, the first included; 8 by default, 1 means no retry.
    pub attempts: u32,
    /// No attempt begins later than this after the first one; 2 minutes by default. An attempt under way is not cut off:
    /// that is up to the store's own timeouts.
    pub total: Duration,
    /// Delay before the second attempt, 200 ms by default; it doubles from attempt to attempt.
    pub base: Duration,
    /// Longest delay of our own choice, 20 s by default; a store may ask for more.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 8,
            total: Duration::from_secs(120),
            base: Duration::from_millis(200),
            cap: Duration::from_secs(20),
        }
    }
}

impl RetryPolicy {
    /// Sets the number of attempts.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the time after which no attempt begins.
    #[must_use]
    pub fn total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// Sets the delay before the second attempt.
    #[must_use]
    pub fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// Sets the longest delay.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }
}

/// A store that repeats temporary failures of another one.
#[derive(Debug)]
pub struct Retry {
    store: SharedStore,
    policy: RetryPolicy,
    random: Mutex<StdRng>,
}

impl Retry {
    /// Wraps a store.
    #[must_use]
    pub fn new(store: SharedStore, policy: RetryPolicy) -> Self {
        Self::with_seed(store, policy, rand::random())
    }

    /// Wraps a store; the same seed gives the same delays.
    #[must_use]
    pub fn with_seed(store: SharedStore, policy: RetryPolicy, seed: u64) -> Self {
        Self { store, policy, random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    fn tries(&self) -> Tries {
        let seed = self.random.lock().unwrap_or_else(PoisonError::into_inner).random();
        Tries::new(self.policy, seed)
    }

    /// After a refusal of a repeated write: the object, if it is what the lost attempt wrote.
    async fn settle(&self, key: &Key, sent: &Bytes, refusal: StoreError) -> Result<ObjectMeta, StoreError> {
        let found = match self.get(key, None).await {
            Ok(found) => found,
            Err(error) if error.is_temporary() => return Err(error),
            // A role that may not read cannot know: the refusal stands.
            Err(_) => return Err(refusal),
        };
        let meta = found.meta;
        let (mut body, mut rest) = (found.body, sent.as_ref());
        if meta.size != rest.len() as u64 {
            return Err(refusal);
        }
        while let Some(chunk) = body.next().await {
            match rest.strip_prefix(chunk?.as_ref()) {
                Some(after) => rest = after,
                None => return Err(refusal),
            }
        }
        tracing::debug!(%key, "the reply to a write was lost, its object is there");
        Ok(meta)
    }

    /// The same for a completed upload, of which only the size is known.
    async fn settle_size(
        &self,
        key: &Key,
        parts: &[PartTag],
        refusal: StoreError,
    ) -> Result<ObjectMeta, StoreError> {
        let sent: u64 = parts.iter().map(|part| part.len).sum();
        match self.head(key).await {
            Ok(meta) if meta.size == sent => {
                tracing::debug!(%key, "the reply to a completion was lost, its object is there");
                Ok(meta)
            }
            Err(error) if error.is_temporary() => Err(error),
            Ok(_) | Err(_) => Err(refusal),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ObjectStore for Retry {
    fn location(&self) -> String {
        self.store.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
        attributes: &Attributes,
    ) -> Result<ObjectMeta, StoreError> {
        let mut tries = self.tries();
        loop {
            match self.store.put(key, body.clone(), mode.clone(), attributes).await {
                Ok(meta) => return Ok(meta),
                Err(error) if tries.repeated() && is_refusal(&error) => {
                    return self.settle(key, &body, error).await;
                }
                Err(error) => tries.pause(error).await?,
            }
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        let mut tries = self.tries();
        loop {
            match self.store.get(key, range.clone()).await {
                Ok(opened) => return Ok(body::resuming(self.store.clone(), opened, self.tries())),
                Err(error) => tries.pause(error).await?,
            }
        }
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let mut tries = self.tries();
        loop {
            match self.store.head(key).await {
                Ok(meta) => return Ok(meta),
                Err(error) => tries.pause(error).await?,
            }
        }
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        self.list_after(prefix, None)
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let (prefix, last) = (prefix.clone(), after.cloned());
        let listing = Listing { retry: self, prefix, inner: None, last, tries: self.tries() };
        stream::unfold(Some(listing), |listing| async {
            match listing?.next().await {
                Ok(Some((meta, listing))) => Some((Ok(meta), Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let mut tries = self.tries();
        loop {
            match self.store.delete(key).await {
                Ok(()) => return Ok(()),
                Err(error) => tries.pause(error).await?,
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Multipart for Retry {
    async fn start_upload(&self, key: &Key, attributes: &Attributes) -> Result<UploadId, StoreError> {
        let mut tries = self.tries();
        loop {
            // A lost reply leaves an upload nobody knows: litter that `list_uploads` shows.
            match self.store.start_upload(key, attributes).await {
                Ok(upload) => return Ok(upload),
                Err(error) => tries.pause(error).await?,
            }
        }
    }

    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let mut tries = self.tries();
        loop {
            match self.store.put_part(key, upload, part, body.clone()).await {
                Ok(tag) => return Ok(tag),
                Err(error) => tries.pause(error).await?,
            }
        }
    }

    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        let mut tries = self.tries();
        loop {
            match self.store.complete_upload(key, upload, parts).await {
                Ok(meta) => return Ok(meta),
                Err(error) if tries.repeated() && is_refusal(&error) => {
                    return self.settle_size(key, parts, error).await;
                }
                Err(error) => tries.pause(error).await?,
            }
        }
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError> {
        let mut tries = self.tries();
        loop {
            match self.store.abort_upload(key, upload).await {
                Ok(()) => return Ok(()),
                Err(error) => tries.pause(error).await?,
            }
        }
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        let mut tries = self.tries();
        loop {
            match self.store.list_uploads(prefix).await {
                Ok(uploads) => return Ok(uploads),
                Err(error) => tries.pause(error).await?,
            }
        }
    }
}

/// A listing that goes on after a failure behind what it has already delivered.
struct Listing<'a> {
    retry: &'a Retry,
    prefix: Prefix,
    inner: Option<BoxStream<'a, Result<ObjectMeta, StoreError>>>,
    last: Option<Key>,
    tries: Tries,
}

impl Listing<'_> {
    async fn next(mut self) -> Result<Option<(ObjectMeta, Self)>, StoreError> {
        loop {
            let after = self.last.as_ref();
            let inner = self.inner.get_or_insert_with(|| self.retry.store.list_after(&self.prefix, after));
            match inner.next().await {
                None => return Ok(None),
                Some(Ok(meta)) if self.last.as_ref().is_some_and(|last| meta.key <= *last) => {}
                Some(Ok(meta)) => {
                    self.last = Some(meta.key.clone());
                    self.tries.progress();
                    return Ok(Some((meta, self)));
                }
                Some(Err(error)) => {
                    self.inner = None;
                    self.tries.pause(error).await?;
                }
            }
        }
    }
}

fn is_refusal(error: &StoreError) -> bool {
    matches!(error, StoreError::AlreadyExists { .. } | StoreError::Conflict { .. })
}
