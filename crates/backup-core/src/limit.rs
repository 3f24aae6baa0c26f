//! Bounds how much a store is asked to do at a time, so that a backup does not take the network or disk from
//! the system it protects.
//!
//! Two limits, both changeable while calls are under way: calls that wait for the store at the same time, and bytes per
//! second in both directions together. Both are fair: who waits longest goes first, and a large body pays in small
//! slices, so that a lease is renewed in time behind it.
//!
//! A body or listing that nobody reads at the moment does not count as a call: a program that copies from
//! a store into the same store would otherwise wait for itself for ever.

mod bucket;
mod gate;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use self::bucket::Bucket;
use self::gate::Gate;
use crate::key::{Key, Prefix};
use crate::store::{
    Attributes, Capabilities, GetResult, Multipart, ObjectMeta, ObjectStore, PartNumber, PartTag,
    PendingUpload, PutMode, SharedStore, StoreError, UploadId,
};

/// What a store may be asked to do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Calls at the same time, 16 by default; zero is taken as one.
    pub concurrency: usize,
    /// Bytes per second, reading and writing together; unlimited by default, zero is taken as one.
    pub bytes_per_second: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 16, bytes_per_second: None }
    }
}

impl Limits {
    /// Sets the number of calls at the same time.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls;
        self
    }

    /// Sets the bytes per second.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: Option<u64>) -> Self {
        self.bytes_per_second = bytes;
        self
    }
}

/// A store behind limits.
#[derive(Debug)]
pub struct Limit {
    store: SharedStore,
    handle: LimitHandle,
}

/// Changes the limits of a [`Limit`] while it is in use; clones change the same limits.
#[derive(Clone, Debug)]
pub struct LimitHandle {
    gate: Arc<Gate>,
    bucket: Arc<Bucket>,
}

impl LimitHandle {
    /// The limits of this moment.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { concurrency: self.gate.limit(), bytes_per_second: self.bucket.rate() }
    }

    /// Sets the number of calls at the same time; calls under way beyond it are let finish.
    pub fn set_concurrency(&self, calls: usize) {
        self.gate.set(calls);
    }

    /// Sets the bytes per second, for those already waiting, too; `None` lifts the limit.
    pub fn set_bytes_per_second(&self, bytes: Option<u64>) {
        self.bucket.set(bytes);
    }
}

impl Limit {
    /// Puts a store behind limits.
    #[must_use]
    pub fn new(store: SharedStore, limits: Limits) -> Self {
        let gate = Arc::new(Gate::new(limits.concurrency));
        let bucket = Arc::new(Bucket::new(limits.bytes_per_second));
        Self { store, handle: LimitHandle { gate, bucket } }
    }

    /// The means to change the limits.
    #[must_use]
    pub fn handle(&self) -> LimitHandle {
        self.handle.clone()
    }

    /// Runs one call, after its bytes are paid for.
    async fn call<T>(&self, bytes: usize, call: impl Future<Output = T>) -> T {
        // Paying comes first: who waits for bytes must not keep others from calls without any.
        self.handle.bucket.pay(bytes as u64).await;
        let _pass = self.handle.gate.enter().await;
        call.await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ObjectStore for Limit {
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
        self.call(body.len(), self.store.put(key, body, mode, attributes)).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        let GetResult { meta, range, body } = self.call(0, self.store.get(key, range)).await?;
        let state = (self.handle.clone(), body);
        let body = stream::unfold(state, |(handle, mut body)| async {
            let chunk = {
                let _pass = handle.gate.enter().await;
                body.next().await?
            };
            if let Ok(bytes) = &chunk {
                handle.bucket.pay(bytes.len() as u64).await;
            }
            Some((chunk, (handle, body)))
        });
        Ok(GetResult { meta, range, body: body.boxed() })
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.call(0, self.store.head(key)).await
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        self.list_after(prefix, None)
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        stream::unfold(self.store.list_after(prefix, after), |mut inner| async {
            let meta = self.call(0, inner.next()).await?;
            Some((meta, inner))
        })
        .boxed()
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.call(0, self.store.delete(key)).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Multipart for Limit {
    async fn start_upload(&self, key: &Key, attributes: &Attributes) -> Result<UploadId, StoreError> {
        self.call(0, self.store.start_upload(key, attributes)).await
    }

    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        self.call(body.len(), self.store.put_part(key, upload, part, body)).await
    }

    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        self.call(0, self.store.complete_upload(key, upload, parts)).await
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError> {
        self.call(0, self.store.abort_upload(key, upload)).await
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        self.call(0, self.store.list_uploads(prefix)).await
    }
}
