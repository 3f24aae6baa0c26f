//! Streams an object of unknown size into any store with bounded memory.
//!
//! ```text
//! write(bytes)… → buffer of one part → put_part × parts_in_flight → complete
//! ```
//!
//! An object that fits one part is a single create-only `put`. Memory is at most `(parts_in_flight + 1) × part size`;
//! parts keep the size asked for through the first half of the numbers a store has and then grow, so that 5 TiB
//! fit ([`part_size_for`]). On the first error the upload is aborted; what an abort cannot reach, and what a dropped
//! [`Uploader`] leaves, is a pending upload that `prune` collects. Nothing is visible before [`Uploader::finish`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::key::Key;
use crate::store::{Attributes, ObjectMeta, PartNumber, PartTag, PutMode, SharedStore, StoreError, UploadId};

/// Largest object that part sizes are planned for: 5 TiB.
pub const MAX_OBJECT: u64 = 5 << 40;
/// Part sizes grow in multiples of this.
const GROWTH_UNIT: u64 = 64 << 10;
/// Buffers grow freely up to here; from here on they are reserved as a whole.
const SMALL: usize = 1 << 20;
/// How long an abort may take before the upload is left to `prune`.
const ABORT_TIME: Duration = Duration::from_secs(15);

/// How an object is cut and how much of it may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadOptions {
    /// Bytes of a part, 5 MiB by default; raised to the store's smallest part.
    pub part_size: u64,
    /// Parts being stored at the same time, 2 by default. Memory is bounded by one part more than this.
    pub parts_in_flight: usize,
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self { part_size: 5 << 20, parts_in_flight: 2 }
    }
}

impl UploadOptions {
    /// Sets the size of a part in bytes.
    #[must_use]
    pub fn part_size(mut self, bytes: u64) -> Self {
        self.part_size = bytes;
        self
    }

    /// Sets the number of parts stored at the same time.
    #[must_use]
    pub fn parts_in_flight(mut self, parts: usize) -> Self {
        self.parts_in_flight = parts;
        self
    }
}

/// Size of part `number` (from 1) so that [`MAX_OBJECT`] fits `max_parts`: `base` for the first half of the parts, then
/// growing by the same amount from part to part.
#[must_use]
pub fn part_size_for(number: u32, base: u64, max_parts: u32) -> u64 {
    let flat = max_parts / 2;
    if number <= flat {
        return base;
    }
    let growing = u64::from(max_parts - flat);
    let missing = MAX_OBJECT.saturating_sub(base.saturating_mul(u64::from(max_parts)));
    let steps = growing * (growing + 1) / 2;
    let step = missing.div_ceil(steps.max(1)).next_multiple_of(GROWTH_UNIT);
    base.saturating_add(step.saturating_mul(u64::from(number - flat)))
}

/// One object on its way into a store.
#[derive(Debug)]
pub struct Uploader {
    store: SharedStore,
    key: Key,
    attributes: Attributes,
    options: UploadOptions,
    max_parts: u32,
    buffer: BytesMut,
    written: u64,
    upload: Option<UploadId>,
    next: PartNumber,
    in_flight: JoinSet<Result<PartTag, StoreError>>,
    stored: Vec<PartTag>,
    given_up: bool,
}

impl Uploader {
    /// Prepares an object; the store is not asked yet.
    #[must_use]
    pub fn new(store: SharedStore, key: Key, attributes: Attributes, options: UploadOptions) -> Self {
        let can = store.capabilities();
        let options = UploadOptions {
            part_size: options.part_size.max(can.min_part).max(1),
            parts_in_flight: options.parts_in_flight.max(1),
        };
        Self {
            store,
            key,
            attributes,
            options,
            max_parts: can.max_parts,
            buffer: BytesMut::new(),
            written: 0,
            upload: None,
            next: PartNumber { number: 1, offset: 0 },
            in_flight: JoinSet::new(),
            stored: Vec::new(),
            given_up: false,
        }
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes; waits while as many parts as allowed are under way.
    ///
    /// # Errors
    /// Of this or any earlier part. The upload has been aborted then, and nothing becomes visible.
    ///
    /// # Cancel safety
    /// After a dropped call it is unknown how much was taken: only [`Uploader::abort`] makes sense.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if self.given_up {
            return Err(self.failed("the upload was given up after an error"));
        }
        match self.take(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.give_up(error).await),
        }
    }

    /// Stores the rest and makes the object visible, create-only.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the key exists; after any error the upload has been aborted.
    ///
    /// # Cancel safety
    /// A dropped call leaves the whole object, or none and perhaps a pending upload.
    pub async fn finish(mut self) -> Result<ObjectMeta, StoreError> {
        if self.given_up {
            return Err(self.failed("the upload was given up after an error"));
        }
        let rest = self.buffer.split().freeze();
        match self.complete(rest).await {
            Ok(meta) => Ok(meta),
            Err(error) => Err(self.give_up(error).await),
        }
    }

    /// [`Uploader::write`] and [`Uploader::finish`] in one, which stores the last bytes without copying them if
    /// they are at most a part.
    ///
    /// # Errors
    /// As [`Uploader::finish`].
    ///
    /// # Cancel safety
    /// As [`Uploader::finish`].
    pub async fn finish_with(mut self, last: Bytes) -> Result<ObjectMeta, StoreError> {
        let fits = self.part_len().is_ok_and(|size| last.len() <= size);
        if self.given_up || !self.buffer.is_empty() || !fits {
            self.write(last).await?;
            return self.finish().await;
        }
        self.written += last.len() as u64;
        match self.complete(last).await {
            Ok(meta) => Ok(meta),
            Err(error) => Err(self.give_up(error).await),
        }
    }

    /// Gives up: stops the parts under way and removes those stored. An abort that fails leaves a pending upload.
    pub async fn abort(mut self) {
        self.discard().await;
    }

    async fn take(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        self.written += bytes.len() as u64;
        while !bytes.is_empty() {
            let size = self.part_len()?;
            // A collected first part waits for one more byte: without it, the object is a single put. Bytes that
            // have the size of a part go on as they are, so that a caller who counts parts gets them back.
            if self.buffer.len() == size {
                let part = self.buffer.split().freeze();
                self.send(part).await?;
            } else if self.buffer.is_empty() && bytes.len() >= size {
                let part = bytes.split_to(size);
                self.send(part).await?;
            } else {
                let part = bytes.split_to(bytes.len().min(size - self.buffer.len()));
                let needed = self.buffer.len() + part.len();
                if needed > self.buffer.capacity() && needed > SMALL {
                    self.buffer.reserve(size - self.buffer.len());
                }
                self.buffer.extend_from_slice(&part);
            }
        }
        Ok(())
    }

    async fn complete(&mut self, rest: Bytes) -> Result<ObjectMeta, StoreError> {
        let meta = if self.upload.is_none() {
            self.store.put(&self.key, rest, PutMode::Create, &self.attributes).await?
        } else {
            if !rest.is_empty() {
                self.send(rest).await?;
            }
            while !self.in_flight.is_empty() {
                self.collect().await?;
            }
            self.stored.sort_unstable_by_key(|tag| tag.part);
            let upload = self.upload.as_ref().expect("an upload was begun");
            self.store.complete_upload(&self.key, upload, &self.stored).await?
        };
        if meta.size == self.written {
            return Ok(meta);
        }
        Err(self.failed("the stored object has another size than what was sent"))
    }

    async fn send(&mut self, body: Bytes) -> Result<(), StoreError> {
        let upload = match &self.upload {
            Some(upload) => upload.clone(),
            None => {
                let begun = self.store.start_upload(&self.key, &self.attributes).await?;
                self.upload.insert(begun).clone()
            }
        };
        while self.in_flight.len() >= self.options.parts_in_flight {
            self.collect().await?;
        }
        let part = self.next;
        self.next = PartNumber { number: part.number + 1, offset: part.offset + body.len() as u64 };
        let (store, key) = (self.store.clone(), self.key.clone());
        let storing = async move { store.put_part(&key, &upload, part, body).await };
        self.in_flight.spawn(storing.in_current_span());
        Ok(())
    }

    async fn collect(&mut self) -> Result<(), StoreError> {
        match self.in_flight.join_next().await {
            Some(Ok(stored)) => self.stored.push(stored?),
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) => return Err(self.failed("the runtime is shutting down")),
            None => {}
        }
        Ok(())
    }

    fn part_len(&self) -> Result<usize, StoreError> {
        if self.next.number > self.max_parts {
            return Err(self.failed("it is larger than the store's parts can hold"));
        }
        let size = part_size_for(self.next.number, self.options.part_size, self.max_parts);
        Ok(usize::try_from(size).unwrap_or(usize::MAX))
    }

    async fn give_up(&mut self, error: StoreError) -> StoreError {
        self.discard().await;
        error
    }

    async fn discard(&mut self) {
        self.given_up = true;
        self.buffer = BytesMut::new();
        self.in_flight.shutdown().await;
        let Some(upload) = self.upload.take() else { return };
        let abort = self.store.abort_upload(&self.key, &upload);
        match tokio::time::timeout(ABORT_TIME, abort).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(key = %self.key, %error, "an upload could not be aborted"),
            Err(_) => tracing::warn!(key = %self.key, "an upload could not be aborted in time"),
        }
    }

    fn failed(&self, why: &'static str) -> StoreError {
        StoreError::Failed { op: "store", what: self.key.to_string(), source: why.into() }
    }
}
