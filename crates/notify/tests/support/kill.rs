//! A process that is killed at one of its steps: before and after every write and every message.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::{
    Attributes, Capabilities, GetResult, Multipart, ObjectMeta, ObjectStore, PartNumber, PartTag,
    PendingUpload, PutMode, SharedStore, StoreError, UploadId,
};
use backstay_notify::Notice;
use backstay_notify::channel::{Channel, Draft, Message};
use backstay_notify::outbox::Outcome;
use bytes::Bytes;
use futures::stream::BoxStream;

/// Counts steps, and ends this process with SIGKILL at one of them.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    taken: Arc<AtomicU64>,
    kill_at: u64,
}

impl Steps {
    /// Dies at that step; 0 for never.
    pub fn new(kill_at: u64) -> Self {
        Self { taken: Arc::default(), kill_at }
    }

    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    fn step(&self) {
        if self.taken.fetch_add(1, Ordering::SeqCst) + 1 == self.kill_at {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }
}

#[derive(Debug)]
pub struct KilledStore(pub SharedStore, pub Steps);

#[async_trait]
impl ObjectStore for KilledStore {
    fn location(&self) -> String {
        self.0.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
        with: &Attributes,
    ) -> Result<ObjectMeta, StoreError> {
        self.1.step();
        let stored = self.0.put(key, body, mode, with).await;
        self.1.step();
        stored
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        self.0.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.0.head(key).await
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        self.0.list_after(prefix, after)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.1.step();
        self.0.delete(key).await?;
        self.1.step();
        Ok(())
    }
}

#[async_trait]
impl Multipart for KilledStore {
    async fn start_upload(&self, key: &Key, with: &Attributes) -> Result<UploadId, StoreError> {
        self.0.start_upload(key, with).await
    }

    async fn put_part(
        &self,
        key: &Key,
        id: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        self.0.put_part(key, id, part, body).await
    }

    async fn complete_upload(
        &self,
        key: &Key,
        id: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        self.0.complete_upload(key, id, parts).await
    }

    async fn abort_upload(&self, key: &Key, id: &UploadId) -> Result<(), StoreError> {
        self.0.abort_upload(key, id).await
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        self.0.list_uploads(prefix).await
    }
}

#[derive(Debug)]
pub struct KilledChannel(pub Arc<dyn Channel>, pub Steps);

#[async_trait]
impl Channel for KilledChannel {
    fn kind(&self) -> ChannelKind {
        self.0.kind()
    }

    fn is_idempotent(&self) -> bool {
        self.0.is_idempotent()
    }

    fn per_minute(&self) -> u32 {
        self.0.per_minute()
    }

    fn takes(&self, notice: &Notice) -> bool {
        self.0.takes(notice)
    }

    async fn reach(&self) -> Result<(), String> {
        self.0.reach().await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        self.0.draft(message)
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        self.1.step();
        let outcome = self.0.deliver(message).await;
        self.1.step();
        outcome
    }
}
