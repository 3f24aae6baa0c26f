//! A store in memory: the reference implementation of the seam, for tests and simulations.
//!
//! It is faithful where a mock would flatter: parts are checked on completion, listings are read page by page and see
//! what changes between pages, locked objects cannot be deleted before their time, and `modified` comes from the
//! [`Clock`] handed in. [`MemoryStore::with_capabilities`] makes it one of the stores that ignore conditions.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::key::{Key, Prefix};
use crate::store::{
    Attributes, Capabilities, ETag, GetResult, Multipart, ObjectMeta, ObjectStore, PartNumber, PartTag,
    PendingUpload, PutMode, StoreError, UploadId, cut_range,
};

/// Bytes handed out at a time.
const CHUNK: usize = 1 << 20;
/// Objects of one page of a listing.
const PAGE: usize = 1000;

/// Keeps objects in memory until it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    capabilities: Capabilities,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, Object>,
    uploads: HashMap<UploadId, Upload>,
    /// Source of tags and upload names; never reused, so a tag stands for one version.
    counter: u64,
}

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    modified: Timestamp,
    etag: ETag,
    retain_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Upload {
    key: Key,
    started: Timestamp,
    attributes: Attributes,
    parts: BTreeMap<PartNumber, Bytes>,
}

impl MemoryStore {
    /// An empty store whose time is the clock's.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let capabilities =
            Capabilities { create_only: true, compare_and_swap: true, min_part: 1, max_parts: 10_000 };
        Self::with_capabilities(clock, capabilities)
    }

    /// An empty store that can do less. Without `create_only` a create silently replaces, and without
    /// `compare_and_swap` the tag is ignored, as such stores do; part limits are enforced.
    #[must_use]
    pub fn with_capabilities(clock: Arc<dyn Clock>, capabilities: Capabilities) -> Self {
        Self { clock, capabilities, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, prefix: &Prefix, after: Option<&Key>) -> Vec<ObjectMeta> {
        let state = self.state();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let from_start = state.objects.range::<Key, _>((start, Bound::Unbounded));
        from_start
            .skip_while(|(key, _)| key.as_str() < prefix.as_str())
            .take_while(|(key, _)| prefix.contains(key))
            .take(PAGE)
            .map(|(key, object)| object.meta(key))
            .collect()
    }
}

impl Object {
    fn meta(&self, key: &Key) -> ObjectMeta {
        ObjectMeta {
            key: key.clone(),
            size: self.bytes.len() as u64,
            modified: self.modified,
            etag: Some(self.etag.clone()),
        }
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn insert(
        &mut self,
        key: &Key,
        bytes: Bytes,
        modified: Timestamp,
        attributes: &Attributes,
    ) -> ObjectMeta {
        let etag = ETag(format!("{:016x}", self.next()));
        let object = Object { bytes, modified, etag, retain_until: attributes.retain_until };
        let meta = object.meta(key);
        self.objects.insert(key.clone(), object);
        meta
    }

    fn check_mode(&self, key: &Key, mode: &PutMode, can: Capabilities) -> Result<(), StoreError> {
        let current = self.objects.get(key);
        match mode {
            PutMode::Create if can.create_only && current.is_some() => {
                Err(StoreError::AlreadyExists { key: key.clone() })
            }
            PutMode::Replace(tag)
                if can.compare_and_swap && current.map(|object| &object.etag) != Some(tag) =>
            {
                Err(StoreError::Conflict { key: key.clone() })
            }
            PutMode::Create | PutMode::Replace(_) => Ok(()),
        }
    }

    fn upload(&mut self, key: &Key, upload: &UploadId) -> Result<&mut Upload, StoreError> {
        match self.uploads.get_mut(upload) {
            Some(found) if found.key == *key => Ok(found),
            Some(_) | None => Err(failed("upload", key, "no such upload")),
        }
    }
}

impl Upload {
    /// Joins the parts of the receipt; every one must be the part that was stored.
    fn join(&self, key: &Key, parts: &[PartTag], can: Capabilities) -> Result<Bytes, StoreError> {
        let mut whole = BytesMut::new();
        let mut previous = 0;
        for (index, tag) in parts.iter().enumerate() {
            let stored = self.parts.get(&tag.part).filter(|bytes| part_tag(bytes) == tag.tag);
            let Some(bytes) = stored else {
                return Err(failed("complete", key, "a part was not stored as its receipt says"));
            };
            if tag.part.number <= previous || tag.part.offset != whole.len() as u64 {
                return Err(failed("complete", key, "the parts do not join up"));
            }
            if index + 1 < parts.len() && (bytes.len() as u64) < can.min_part {
                return Err(failed("complete", key, "a part before the last one is too small"));
            }
            previous = tag.part.number;
            whole.extend_from_slice(bytes);
        }
        Ok(whole.freeze())
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
        attributes: &Attributes,
    ) -> Result<ObjectMeta, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        state.check_mode(key, &mode, self.capabilities)?;
        Ok(state.insert(key, Bytes::copy_from_slice(&body), now, attributes))
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        let (meta, bytes) = match self.state().objects.get(key) {
            Some(object) => (object.meta(key), object.bytes.clone()),
            None => return Err(StoreError::Absent { key: key.clone() }),
        };
        let range = cut_range(range, meta.size);
        let rest = bytes.slice(range.start as usize..range.end as usize);
        Ok(GetResult { meta, range, body: chunks(rest) })
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        match self.state().objects.get(key) {
            Some(object) => Ok(object.meta(key)),
            None => Err(StoreError::Absent { key: key.clone() }),
        }
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        let pages = stream::unfold(Some(after), move |after| {
            let page = after.map(|last| self.page(&prefix, last.as_ref()));
            async move {
                let page = page?;
                let last = page.last().map(|meta| meta.key.clone());
                Some((stream::iter(page.into_iter().map(Ok)), last.map(Some)))
            }
        });
        pages.flatten().boxed()
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        let locked =
            state.objects.get(key).and_then(|object| object.retain_until).filter(|until| now < *until);
        if let Some(until) = locked {
            let source = format!("locked until {until}").into();
            return Err(StoreError::Denied { op: "delete", what: key.to_string(), source });
        }
        state.objects.remove(key);
        Ok(())
    }
}

#[async_trait]
impl Multipart for MemoryStore {
    async fn start_upload(&self, key: &Key, attributes: &Attributes) -> Result<UploadId, StoreError> {
        let started = self.clock.now();
        let mut state = self.state();
        let id = UploadId(format!("upload-{:016x}", state.next()));
        let upload =
            Upload { key: key.clone(), started, attributes: attributes.clone(), parts: BTreeMap::new() };
        state.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        if part.number == 0 || part.number > self.capabilities.max_parts {
            return Err(failed("store a part of", key, "the part number is out of range"));
        }
        let tag = PartTag { part, len: body.len() as u64, tag: part_tag(&body), checksum: String::new() };
        // A copy, because the caller waits for its memory.
        self.state().upload(key, upload)?.parts.insert(part, Bytes::copy_from_slice(&body));
        Ok(tag)
    }

    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        state.check_mode(key, &PutMode::Create, self.capabilities)?;
        let found = state.upload(key, upload)?;
        let attributes = found.attributes.clone();
        let whole = found.join(key, parts, self.capabilities)?;
        state.uploads.remove(upload);
        Ok(state.insert(key, whole, now, &attributes))
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.uploads.get(upload).is_some_and(|found| found.key == *key) {
            state.uploads.remove(upload);
        }
        Ok(())
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        let state = self.state();
        let below = state.uploads.iter().filter(|(_, upload)| prefix.contains(&upload.key));
        let mut pending: Vec<_> = below
            .map(|(id, upload)| PendingUpload {
                key: upload.key.clone(),
                upload: id.clone(),
                started: upload.started,
            })
            .collect();
        pending.sort_by(|a, b| (&a.key, &a.upload.0).cmp(&(&b.key, &b.upload.0)));
        Ok(pending)
    }
}

fn chunks(mut rest: Bytes) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let chunks = std::iter::from_fn(move || {
        let next = rest.split_to(rest.len().min(CHUNK));
        (!next.is_empty()).then_some(Ok(next))
    });
    stream::iter(chunks).boxed()
}

fn part_tag(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn failed(op: &'static str, key: &Key, why: &'static str) -> StoreError {
    StoreError::Failed { op, what: key.to_string(), source: why.into() }
}
