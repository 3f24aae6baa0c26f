//! One record that is read and replaced atomically, on stores of three abilities.
//!
//! - Compare-and-swap: one object, replaced under its tag.
//! - Create-only: a log of objects numbered from 1; the highest number is the record, and to replace it is to
//!   create the next number, which only one can.
//! - Neither: the same log with the session in every name. Who wrote first by the store's clock wins, after a pause in
//!   which everybody who read the same state has written. That is advice, not a guarantee.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;

use super::state::{Record, Seen};
use super::{LeaseError, LeaseMode};
use crate::error::Error;
use crate::id::Stanza;
use crate::key::{Key, Prefix};
use crate::manifest::{ManifestError, seal, unseal};
use crate::repository::{Repository, layout};
use crate::store::{Attributes, ETag, GetResult, ObjectMeta, PutMode, StoreError};

/// Largest record that is read, in bytes.
const MAX_RECORD: u64 = 64 << 10;
/// How long a write on a store without any condition waits for rivals.
const SETTLE: Duration = Duration::from_secs(2);

/// Where the record of one lease lies.
#[derive(Clone, Debug)]
pub(super) struct Register {
    repository: Repository,
    stanza: Stanza,
    name: String,
    mode: LeaseMode,
    key: Key,
    log: Prefix,
}

/// Which version of the record was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Absent,
    Tag(ETag),
    Number(u64),
}

/// Why a record was not replaced.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody else was faster.
    Conflict,
    /// The store failed; the write may have happened.
    Failed(Error),
}

impl Register {
    pub(super) fn new(repository: &Repository, stanza: &Stanza, name: &str) -> Result<Self, Error> {
        let wrong = |what: String| Error::Internal { what: format!("lease name {name:?}: {what}") };
        if name.contains('/') || name == "clock" {
            return Err(wrong("it must be one segment of a key, and not clock".to_owned()));
        }
        let key = layout::lease(stanza, name).map_err(|error| wrong(error.to_string()))?;
        let log = layout::leases(stanza).folder(name).map_err(|error| wrong(error.to_string()))?;
        let can = repository.store().capabilities();
        let mode = match (can.compare_and_swap, can.create_only) {
            (true, _) => LeaseMode::CompareAndSwap,
            (false, true) => LeaseMode::CreateOnly,
            (false, false) => LeaseMode::Advisory,
        };
        Ok(Self {
            repository: repository.clone(),
            stanza: stanza.clone(),
            name: name.to_owned(),
            mode,
            key,
            log,
        })
    }

    pub(super) fn mode(&self) -> LeaseMode {
        self.mode
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn repository(&self) -> &str {
        self.repository.name()
    }

    /// The record as it is now.
    pub(super) async fn read(&self) -> Result<(Option<Seen>, Version), Error> {
        match self.mode {
            LeaseMode::CompareAndSwap => self.read_object().await,
            LeaseMode::CreateOnly | LeaseMode::Advisory => self.read_log().await,
        }
    }

    /// Replaces the version seen; the moment is the store's.
    pub(super) async fn write(
        &self,
        record: &Record,
        over: &Version,
    ) -> Result<(Version, Timestamp), Refusal> {
        let body =
            seal(record).map_err(|error| Refusal::Failed(Error::Internal { what: error.to_string() }))?;
        let body = Bytes::from(body);
        match self.mode {
            LeaseMode::CompareAndSwap => self.swap(body, over).await,
            LeaseMode::CreateOnly | LeaseMode::Advisory => self.add(body, over, &record.session).await,
        }
    }

    /// A lower bound of the store's time: the arrival of something written during this call.
    pub(super) async fn store_now(&self) -> Result<Timestamp, Error> {
        store_now(&self.repository, &self.stanza).await
    }

    pub(super) fn unreadable(&self, source: ManifestError) -> Error {
        let repository = self.repository.name().to_owned();
        Error::Lease(LeaseError::Unreadable { name: self.name.clone(), repository, source })
    }

    async fn read_object(&self) -> Result<(Option<Seen>, Version), Error> {
        let Some((record, meta)) = self.get(&self.key).await? else { return Ok((None, Version::Absent)) };
        let tag = self.tag(&meta)?;
        Ok((Some(Seen { record, modified: meta.modified }), Version::Tag(tag)))
    }

    async fn swap(&self, body: Bytes, over: &Version) -> Result<(Version, Timestamp), Refusal> {
        let mode = match over {
            Version::Tag(tag) => PutMode::Replace(tag.clone()),
            Version::Absent | Version::Number(_) => PutMode::Create,
        };
        let meta = self.put(&self.key, body, mode).await?;
        let tag = self.tag(&meta).map_err(Refusal::Failed)?;
        Ok((Version::Tag(tag), meta.modified))
    }

    fn tag(&self, meta: &ObjectMeta) -> Result<ETag, Error> {
        let none =
            || Error::Internal { what: format!("{} gave no tag for {}", self.repository.name(), meta.key) };
        meta.etag.clone().ok_or_else(none)
    }

    async fn read_log(&self) -> Result<(Option<Seen>, Version), Error> {
        let Some((number, first)) = self.latest().await? else { return Ok((None, Version::Absent)) };
        match self.get(&first.key).await? {
            Some((record, meta)) => {
                Ok((Some(Seen { record, modified: meta.modified }), Version::Number(number)))
            }
            // Old entries are collected, the newest never is.
            None => Err(self.unreadable(ManifestError::Damaged { problem: "it vanished".to_owned() })),
        }
    }

    /// The highest number and the entry that has it, the first to arrive if there are several. Remembers two entries
    /// however long the log is.
    async fn latest(&self) -> Result<Option<(u64, ObjectMeta)>, Error> {
        let mut latest: Option<(u64, ObjectMeta)> = None;
        let mut listing = self.repository.store().list(&self.log);
        while let Some(meta) =
            listing.try_next().await.map_err(|source| self.repository.failed("list lease", source))?
        {
            let Some(number) = number_of(meta.key.file_name()) else { continue };
            let is_first = |known: &(u64, ObjectMeta)| {
                number > known.0
                    || number == known.0 && (meta.modified, &meta.key) < (known.1.modified, &known.1.key)
            };
            if latest.as_ref().is_none_or(is_first) {
                latest = Some((number, meta));
            }
        }
        Ok(latest)
    }

    /// Creates the next entry and looks whether it is the record now: another may have been first where the store
    /// cannot refuse, or the numbers in between may have been collected while this process slept.
    async fn add(&self, body: Bytes, over: &Version, session: &str) -> Result<(Version, Timestamp), Refusal> {
        let number = match over {
            Version::Number(number) => number.saturating_add(1),
            Version::Absent | Version::Tag(_) => 1,
        };
        let advisory = self.mode == LeaseMode::Advisory;
        let stem = if advisory { format!("{number:020}-{session}") } else { format!("{number:020}") };
        let key = self.entry(&stem)?;
        let meta = self.put(&key, body, PutMode::Create).await?;
        if advisory {
            tokio::time::sleep(SETTLE).await;
        }
        match self.latest().await.map_err(Refusal::Failed)? {
            Some((latest, first)) if latest == number && first.key == key => {
                Ok((Version::Number(number), meta.modified))
            }
            _ => Err(Refusal::Conflict),
        }
    }

    fn entry(&self, stem: &str) -> Result<Key, Refusal> {
        let wrong =
            |error: crate::key::KeyError| Refusal::Failed(Error::Internal { what: error.to_string() });
        self.log.key(&format!("{stem}.json")).map_err(wrong)
    }

    async fn put(&self, key: &Key, body: Bytes, mode: PutMode) -> Result<ObjectMeta, Refusal> {
        match self.repository.store().put(key, body, mode, &attributes()).await {
            Ok(meta) => Ok(meta),
            Err(StoreError::AlreadyExists { .. } | StoreError::Conflict { .. }) => Err(Refusal::Conflict),
            Err(source) => Err(Refusal::Failed(self.repository.failed("write lease", source))),
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<(Record, ObjectMeta)>, Error> {
        let failed = |source| self.repository.failed("read lease", source);
        let damaged = |problem: &str| self.unreadable(ManifestError::Damaged { problem: problem.to_owned() });
        let GetResult { meta, mut body, .. } = match self.repository.store().get(key, None).await {
            Ok(result) => result,
            Err(StoreError::Absent { .. }) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = body.try_next().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MAX_RECORD {
                return Err(damaged("it is too long"));
            }
        }
        let record: Record = unseal(&bytes).map_err(|source| self.unreadable(source))?;
        if record.name != self.name || record.stanza != self.stanza {
            return Err(damaged("it belongs to another lease"));
        }
        Ok(Some((record, meta)))
    }
}

/// The number that an entry of the log begins with.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".json")?;
    let digits = stem.split_once('-').map_or(stem, |(digits, _)| digits);
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

fn attributes() -> Attributes {
    Attributes::default().content_type("application/json")
}

/// Folder of the objects that are written to read the store's clock.
pub(crate) fn clock_folder(stanza: &Stanza) -> Prefix {
    layout::leases(stanza).folder("clock").expect("a fixed name below a stanza is a prefix")
}

/// A lower bound of the store's time: the arrival of an object that is written during this call.
///
/// With compare-and-swap one object is replaced again and again; without, each call leaves a small object that prune
/// collects.
///
/// # Errors
/// [`Error::Store`] when it cannot be written.
pub async fn store_now(repository: &Repository, stanza: &Stanza) -> Result<Timestamp, Error> {
    let store = repository.store();
    let failed = |source| repository.failed("read the store's clock", source);
    let nonce = format!("{:032x}", rand::random::<u128>());
    let body = Bytes::from(format!("{nonce}\n"));
    let folder = clock_folder(stanza);
    let key = |name: &str| folder.key(name).map_err(|error| Error::Internal { what: error.to_string() });
    if !store.capabilities().compare_and_swap {
        let meta = store.put(&key(&nonce)?, body, PutMode::Create, &attributes()).await.map_err(failed)?;
        return Ok(meta.modified);
    }
    let key = key("now")?;
    let mode = match store.head(&key).await {
        Ok(ObjectMeta { etag: Some(tag), .. }) => PutMode::Replace(tag),
        Ok(_) => {
            return Err(Error::Internal { what: format!("{} gave no tag for {key}", repository.name()) });
        }
        Err(StoreError::Absent { .. }) => PutMode::Create,
        Err(source) => return Err(failed(source)),
    };
    match store.put(&key, body, mode, &attributes()).await {
        Ok(meta) => Ok(meta.modified),
        // Somebody else wrote it since we looked, so its time is as fresh as ours would be.
        Err(StoreError::AlreadyExists { .. } | StoreError::Conflict { .. }) => {
            store.head(&key).await.map(|meta| meta.modified).map_err(failed)
        }
        Err(source) => Err(failed(source)),
    }
}
