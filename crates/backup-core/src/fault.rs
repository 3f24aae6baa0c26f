//! A store that misbehaves on request, for tests of everything above it.
//!
//! Faults are scripted by call: "the third `put` fails so", "every call of the next ten seconds", "the disk is full
//! after a megabyte". All calls are recorded, so a test can run a scenario once, count them, and then repeat it with
//! each fault at each position, also where calls overlap and so come in another order each time ([`Spot`]). The seed decides what is left to chance: which bit flips, which call chaos hits.
//!
//! It changes nothing by itself and is as fast as the store below until told otherwise.

mod script;
mod spoil;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use self::script::Script;
pub use self::script::{Call, ErrorKind, Mishap, Operation, Spot};
use crate::key::{Key, Prefix};
use crate::store::{
    Attributes, Capabilities, GetResult, Multipart, ObjectMeta, ObjectStore, PartNumber, PartTag,
    PendingUpload, PutMode, SharedStore, StoreError, UploadId,
};

/// A store with scripted faults.
#[derive(Debug)]
pub struct Fault {
    store: SharedStore,
    script: Mutex<Script>,
}

impl Fault {
    /// Wraps a store; nothing goes wrong yet.
    #[must_use]
    pub fn new(store: SharedStore, seed: u64) -> Self {
        Self { store, script: Mutex::new(Script::new(seed)) }
    }

    /// Lets call `number` (from 1) of an operation go wrong.
    pub fn on(&self, operation: Operation, number: u64, mishap: Mishap) {
        self.script().on(Some(operation), number, mishap);
    }

    /// Lets call `number` (from 1) of all calls go wrong, whatever it is.
    pub fn on_call(&self, number: u64, mishap: Mishap) {
        self.script().on(None, number, mishap);
    }

    /// Lets the call at a spot go wrong, counted from now on, and the `calls - 1` after it, whatever they are.
    pub fn at(&self, spot: Spot, calls: u64, mishap: Mishap) {
        self.script().at(spot, calls, mishap);
    }

    /// Lets every call of an operation go wrong from now on.
    pub fn always(&self, operation: Operation, mishap: Mishap) {
        self.script().always(operation, mishap);
    }

    /// Lets every call fail for a while as an overloaded store does (503).
    pub fn storm(&self, time: Duration) {
        self.script().storm(time);
    }

    /// Takes this many more bytes and is full then.
    pub fn full_after(&self, bytes: u64) {
        self.script().full_after(bytes);
    }

    /// Lets any call go wrong with this probability (0 to 1), in one of these ways.
    pub fn chaos(&self, probability: f64, mishaps: Vec<Mishap>) {
        self.script().chaos(probability, mishaps);
    }

    /// Ends all faults; the calls stay recorded and counted.
    pub fn calm(&self) {
        self.script().calm();
    }

    /// All calls so far, in the order they were made.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.script().calls().to_vec()
    }

    /// How many calls went wrong.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.script().calls().iter().filter(|call| call.mishap.is_some()).count() as u64
    }

    /// How often an operation was called.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.script().count(operation)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call and lets happen what comes before the store is reached.
    async fn begin(&self, operation: Operation, what: &str, bytes: usize) -> Result<Fate<'_>, StoreError> {
        let mishap = self.script().next(operation, what, bytes);
        let what = what.to_owned();
        match mishap {
            Some(Mishap::Error(kind)) => return Err(kind.error(operation.name(), &what)),
            Some(Mishap::Slow(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        Ok(Fate { fault: self, operation, what, mishap })
    }

    async fn begin_key(&self, operation: Operation, key: &Key) -> Result<Fate<'_>, StoreError> {
        self.begin(operation, key.as_str(), 0).await
    }
}

/// What is still to happen to a call.
struct Fate<'a> {
    fault: &'a Fault,
    operation: Operation,
    what: String,
    mishap: Option<Mishap>,
}

impl Fate<'_> {
    /// The reply, unless it is lost.
    fn end<T>(&self, reply: Result<T, StoreError>) -> Result<T, StoreError> {
        match (&self.mishap, reply) {
            (Some(Mishap::LostReply), Ok(_)) => Err(StoreError::Temporary {
                op: self.operation.name(),
                what: self.what.clone(),
                retry_after: None,
                source: "injected: the reply was lost".into(),
            }),
            (_, reply) => reply,
        }
    }

    /// The bytes on their way into the store.
    fn sent(&self, body: Bytes) -> Bytes {
        match self.mishap {
            Some(Mishap::Flip) => spoil::flip(&body, self.fault.script().random_bit(body.len() as u64)),
            _ => body,
        }
    }

    /// The bytes on their way out.
    fn received(&self, opened: GetResult) -> GetResult {
        let GetResult { meta, range, body } = opened;
        let body = match self.mishap {
            Some(Mishap::Flip) => {
                let bit = self.fault.script().random_bit(range.end - range.start);
                spoil::flip_in(body, bit)
            }
            Some(Mishap::Cut { after, loud }) => spoil::cut(body, after, loud.then(|| self.broken())),
            _ => body,
        };
        GetResult { meta, range, body }
    }

    fn broken(&self) -> StoreError {
        StoreError::Temporary {
            op: self.operation.name(),
            what: self.what.clone(),
            retry_after: None,
            source: "injected: the connection broke".into(),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ObjectStore for Fault {
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
        let fate = self.begin(Operation::Put, key.as_str(), body.len()).await?;
        fate.end(self.store.put(key, fate.sent(body), mode, attributes).await)
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        let fate = self.begin_key(Operation::Get, key).await?;
        let opened = fate.end(self.store.get(key, range).await)?;
        Ok(fate.received(opened))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let fate = self.begin_key(Operation::Head, key).await?;
        fate.end(self.store.head(key).await)
    }

    fn list(&self, prefix: &Prefix) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        self.list_after(prefix, None)
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        stream::once(async move {
            let fate = self.begin(Operation::List, prefix.as_str(), 0).await?;
            fate.end(Ok(()))?;
            let listing = self.store.list_after(&prefix, after.as_ref());
            Ok::<_, StoreError>(match fate.mishap {
                Some(Mishap::Cut { after, loud }) => {
                    let items = usize::try_from(after).unwrap_or(usize::MAX);
                    let broken = loud.then(|| Err(fate.broken()));
                    listing.take(items).chain(stream::iter(broken)).boxed()
                }
                _ => listing,
            })
        })
        .try_flatten()
        .boxed()
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let fate = self.begin_key(Operation::Delete, key).await?;
        fate.end(self.store.delete(key).await)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Multipart for Fault {
    async fn start_upload(&self, key: &Key, attributes: &Attributes) -> Result<UploadId, StoreError> {
        let fate = self.begin_key(Operation::StartUpload, key).await?;
        fate.end(self.store.start_upload(key, attributes).await)
    }

    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let fate = self.begin(Operation::PutPart, key.as_str(), body.len()).await?;
        fate.end(self.store.put_part(key, upload, part, fate.sent(body)).await)
    }

    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        let fate = self.begin_key(Operation::CompleteUpload, key).await?;
        fate.end(self.store.complete_upload(key, upload, parts).await)
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError> {
        let fate = self.begin_key(Operation::AbortUpload, key).await?;
        fate.end(self.store.abort_upload(key, upload).await)
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        let fate = self.begin(Operation::ListUploads, prefix.as_str(), 0).await?;
        fate.end(self.store.list_uploads(prefix).await)
    }
}
