//! The outbox on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstay_backup_core::error::{Class, Classified};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::manifest::{Sha256Hex, seal, unseal};
use backstay_backup_core::store::{Attributes, ETag, ObjectStore, PutMode, SharedStore, StoreError};
use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::record::{Attempted, Parcel};
use crate::incident::Event;

/// Largest record that is read, in bytes.
const MAX_RECORD: u64 = 4 << 20;
/// How often everything is read anew, because somebody closes a parcel meanwhile.
const RACES: u32 = 20;
/// How many writers may want the same number at once.
const SAME_NUMBER: u64 = 1000;

/// Why the outbox did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The disk would not.
    #[error("cannot {op} the outbox in {location}")]
    Store {
        /// What was being done.
        op: &'static str,
        /// Where it is.
        location: String,
        /// The reason.
        source: StoreError,
    },
    /// It is longer than what is read back.
    #[error("{bytes} bytes are too much for one message: the outbox takes {MAX_RECORD}")]
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// Cannot happen.
    #[error("internal error of the outbox: {what}")]
    Internal {
        /// What happened.
        what: String,
    },
}

impl Classified for SpoolError {
    fn class(&self) -> Class {
        match self {
            Self::Store { source, .. } => match source {
                StoreError::Denied { .. } | StoreError::Missing { .. } => Class::Usage,
                _ => Class::Temporary,
            },
            Self::TooLarge { .. } => Class::Usage,
            Self::Internal { .. } => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store { source: StoreError::Full { .. }, .. } => {
                "make room on the disk of notify.state; nothing that was accepted before is lost"
            }
            Self::Store { source: StoreError::Denied { .. } | StoreError::Missing { .. }, .. } => {
                "choose a directory that this account may write to: notify.state in the configuration"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// A parcel that is not delivered everywhere yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pending {
    /// Its number.
    pub seq: u64,
    /// The parcel.
    pub parcel: Parcel,
    /// How far each channel is.
    pub states: BTreeMap<String, Attempted>,
}

impl Pending {
    /// How far a channel is.
    #[must_use]
    pub fn state(&self, channel: &str) -> Attempted {
        let fresh =
            || Attempted::fresh(self.parcel.notice.as_ref().map_or(Timestamp::MIN, |notice| notice.created));
        self.states.get(channel).cloned().unwrap_or_else(fresh)
    }
}

/// Something in the outbox that is not right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which object.
    pub object: String,
    /// What is wrong.
    pub problem: String,
}

/// The outbox.
#[derive(Clone, Debug)]
pub struct Spool {
    pub(super) store: SharedStore,
    /// Parcels that were read before: they never change, and a service reads them once a second.
    known: Arc<Mutex<BTreeMap<Key, Parcel>>>,
    /// States that were read before and are settled, which no longer change either.
    settled: Arc<Mutex<BTreeMap<Key, Attempted>>>,
    /// The events of ends that were read before.
    ends: Arc<Mutex<BTreeMap<Key, Option<Event>>>>,
}

/// What lies in the outbox, by its names: whoever puts a parcel in or closes one changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(Sha256Hex);

pub(crate) fn mark(id: &str) -> String {
    hex::encode(&Sha256Hex::of(id.as_bytes()).0[..8])
}

pub(super) fn key(text: &str) -> Result<Key, SpoolError> {
    Key::parse(text).map_err(|error| SpoolError::Internal { what: error.to_string() })
}

pub(super) fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).expect("it is made of key characters")
}

impl Spool {
    /// The outbox in a store, which must be a local one for its promises to hold.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, known: Arc::default(), settled: Arc::default(), ends: Arc::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> String {
        self.store.location()
    }

    pub(super) fn failed(&self, op: &'static str) -> impl Fn(StoreError) -> SpoolError + '_ {
        move |source| SpoolError::Store { op, location: self.store.location(), source }
    }

    /// Takes a parcel in; the caller sees to it that nobody else does at the same time. When this returns, it survives whatever happens to this process and this machine's power.
    /// One whose id is there already, pending or done, is not taken in again.
    ///
    /// # Errors
    /// The disk is full, or would not; then nothing was taken in.
    ///
    /// # Cancel safety
    /// A dropped call leaves the parcel whole or absent.
    pub async fn enqueue(&self, parcel: &Parcel) -> Result<Option<u64>, SpoolError> {
        // Others wait for their number meanwhile: how far the channels are is not read here.
        let (pending, _) = self.parcels().await?;
        if pending.values().any(|known| known.id() == parcel.id()) {
            return Ok(None);
        }
        let (done, highest) = self.done_marks().await?;
        if done.contains(&mark(&parcel.id())) {
            return Ok(None);
        }
        let first = 1 + pending.keys().last().copied().unwrap_or(0).max(highest);
        let body =
            Bytes::from(seal(parcel).map_err(|error| SpoolError::Internal { what: error.to_string() })?);
        let bytes = body.len() as u64;
        if bytes > MAX_RECORD {
            return Err(SpoolError::TooLarge { bytes });
        }
        for seq in first..first + SAME_NUMBER {
            match self.put(&key(&format!("pending/{seq:012}.json"))?, body.clone(), PutMode::Create).await {
                Ok(_) => return Ok(Some(seq)),
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(self.failed("write to")(error)),
            }
        }
        Err(SpoolError::Internal { what: "no number is free".to_owned() })
    }

    pub(super) async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
    ) -> Result<Option<ETag>, StoreError> {
        let attributes = Attributes::default();
        Ok(self.store.put(key, body, mode, &attributes).await?.etag)
    }

    /// Reads a record: `None` when it is not there, the problem when it is damaged.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        key: &Key,
    ) -> Result<Option<Result<(T, Option<ETag>), String>>, SpoolError> {
        let opened = match self.store.get(key, None).await {
            Err(error) if error.is_absent() => return Ok(None),
            opened => opened.map_err(self.failed("read"))?,
        };
        if opened.meta.size > MAX_RECORD {
            return Ok(Some(Err(format!("{} bytes are more than a record has", opened.meta.size))));
        }
        let mut bytes = Vec::new();
        let mut body = opened.body;
        while let Some(chunk) = body.try_next().await.map_err(self.failed("read"))? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(unseal(&bytes).map(|record| (record, opened.meta.etag)).map_err(|error| error.to_string())))
    }

    pub(super) async fn keys(&self, below: &str) -> Result<Vec<Key>, SpoolError> {
        let listing = self.store.list(&prefix(below)).map_ok(|meta| meta.key);
        listing.try_collect().await.map_err(self.failed("list"))
    }

    /// A mark of what lies here, for whoever wants to know whether anything was put in or closed since the last look. It
    /// costs two listings; what channels wrote about single parcels is not part of it.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn mark(&self) -> Result<Mark, SpoolError> {
        let mut names = String::new();
        for folder in ["pending", "done"] {
            for key in self.keys(folder).await? {
                names.push_str(key.as_str());
                names.push('\n');
            }
        }
        Ok(Mark(Sha256Hex::of(names.as_bytes())))
    }

    /// The highest number of a parcel that is not closed.
    ///
    /// # Errors
    /// The disk would not.
    pub(crate) async fn newest(&self) -> Result<Option<u64>, SpoolError> {
        let keys = self.keys("pending").await?;
        Ok(keys.iter().filter_map(|key| key.file_name().strip_suffix(".json")?.parse().ok()).max())
    }

    /// The parcels that are not closed, by number, and what is damaged; without how far the channels are.
    ///
    /// # Errors
    /// The disk would not.
    pub(crate) async fn parcels(&self) -> Result<(BTreeMap<u64, Parcel>, Vec<Finding>), SpoolError> {
        let (mut all, mut findings) = (BTreeMap::new(), Vec::new());
        let keys = self.keys("pending").await?;
        self.forget_all_but(&keys);
        for key in keys {
            let seq = key.file_name().strip_suffix(".json").and_then(|seq| seq.parse().ok());
            let problem = match (seq, self.parcel(&key).await?) {
                (_, None) => continue,
                (Some(seq), Some(Ok(parcel))) => {
                    all.insert(seq, parcel);
                    continue;
                }
                (None, Some(Ok(_))) => "its name is no number".to_owned(),
                (_, Some(Err(problem))) => problem,
            };
            findings.push(Finding { object: key.to_string(), problem });
        }
        Ok((all, findings))
    }

    /// Everything that is not delivered everywhere, in order, and what is damaged. Damaged parcels stay where
    /// they are until [`Spool::put_aside`]; a damaged state counts as an attempt whose outcome is not known.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn load(&self) -> Result<(Vec<Pending>, Vec<Finding>), SpoolError> {
        self.load_of(None).await
    }

    /// As [`Spool::load`], with the states of one channel alone.
    pub(crate) async fn load_lane(&self, channel: &str) -> Result<(Vec<Pending>, Vec<Finding>), SpoolError> {
        self.load_of(Some(&format!("{channel}.json"))).await
    }

    async fn load_of(&self, name: Option<&str>) -> Result<(Vec<Pending>, Vec<Finding>), SpoolError> {
        let mut again = 0;
        loop {
            let (pending, findings, is_whole) = self.snapshot(name).await?;
            again += 1;
            if is_whole || again >= RACES {
                return Ok((pending, findings));
            }
        }
    }

    /// What is there, and whether nobody closed any of it meanwhile. Who closes removes a parcel before its states, and the
    /// parcels of a group before the one that leads it: a state that is gone may have been the one that says that others
    /// were told.
    async fn snapshot(&self, name: Option<&str>) -> Result<(Vec<Pending>, Vec<Finding>, bool), SpoolError> {
        let mut states: BTreeMap<u64, Vec<Key>> = BTreeMap::new();
        let keys: BTreeSet<Key> = self.keys("state").await?.into_iter().collect();
        self.settled().retain(|key, _| keys.contains(key));
        for key in keys.into_iter().filter(|key| name.is_none_or(|name| key.file_name() == name)) {
            let seq = key.as_str().split('/').nth(1).and_then(|seq| seq.parse().ok());
            if let Some(seq) = seq {
                states.entry(seq).or_default().push(key);
            }
        }
        let (parcels, mut findings) = self.parcels().await?;
        let (mut all, mut is_all) = (Vec::new(), true);
        for (seq, parcel) in parcels {
            let mut pending = Pending { seq, parcel, states: BTreeMap::new() };
            let mut is_whole = true;
            for key in states.remove(&seq).unwrap_or_default() {
                is_whole &= self.load_state(&key, &mut pending, &mut findings).await?;
            }
            is_all &= is_whole;
            if is_whole {
                all.push(pending);
            }
        }
        Ok((all, findings, is_all))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Parcel>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ends(&self) -> MutexGuard<'_, BTreeMap<Key, Option<Event>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> MutexGuard<'_, BTreeMap<Key, Attempted>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_all_but(&self, keys: &[Key]) {
        let keys: BTreeSet<&Key> = keys.iter().collect();
        self.known().retain(|key, _| keys.contains(key));
    }

    /// A parcel, from memory where it was read before.
    async fn parcel(&self, key: &Key) -> Result<Option<Result<Parcel, String>>, SpoolError> {
        if let Some(parcel) = self.known().get(key).cloned() {
            return Ok(Some(Ok(parcel)));
        }
        Ok(match self.read::<Parcel>(key).await? {
            Some(Ok((parcel, _))) => {
                self.known().insert(key.clone(), parcel.clone());
                Some(Ok(parcel))
            }
            Some(Err(problem)) => Some(Err(problem)),
            None => None,
        })
    }

    /// Reads one state; whether it was still there.
    async fn load_state(
        &self,
        key: &Key,
        pending: &mut Pending,
        findings: &mut Vec<Finding>,
    ) -> Result<bool, SpoolError> {
        let Some(channel) = key.file_name().strip_suffix(".json").map(str::to_owned) else { return Ok(true) };
        let known = self.settled().get(key).cloned();
        if let Some(state) = known {
            pending.states.insert(channel, state);
            return Ok(true);
        }
        let state = match self.read::<Attempted>(key).await? {
            None => return Ok(false),
            Some(Ok((state, _))) => {
                if state.phase.is_settled() {
                    self.settled().insert(key.clone(), state.clone());
                }
                state
            }
            Some(Err(problem)) => {
                findings.push(Finding { object: key.to_string(), problem });
                Attempted { unknown: 1, attempts: 1, ..pending.state(&channel) }
            }
        };
        pending.states.insert(channel, state);
        Ok(true)
    }

    /// Moves bytes that are no parcel out of the way; a damaged state is overwritten by the next attempt and stays.
    ///
    /// # Errors
    /// The disk would not; moving again is harmless.
    pub async fn put_aside(&self, finding: &Finding) -> Result<(), SpoolError> {
        let from = &key(&finding.object)?;
        if !finding.object.starts_with("pending/") {
            return Ok(());
        }
        let opened = match self.store.get(from, None).await {
            Err(error) if error.is_absent() => return Ok(()),
            opened => opened.map_err(self.failed("read"))?,
        };
        let chunks: Vec<Bytes> = opened.body.try_collect().await.map_err(self.failed("read"))?;
        let bytes = Bytes::from(chunks.concat());
        let name =
            format!("damaged/{}-{}", mark(&hex::encode(&Sha256Hex::of(&bytes).0[..8])), from.file_name());
        match self.put(&key(&name)?, bytes, PutMode::Create).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(self.failed("write to")(error)),
        }
        self.store.delete(from).await.map_err(self.failed("clear"))
    }

    /// Writes how far a channel is. The caller holds the channel's lock, and writes no other state over a settled one.
    ///
    /// # Errors
    /// The disk would not; what was written before stands.
    ///
    /// # Cancel safety
    /// A dropped call leaves the old or the new state.
    pub async fn write_state(&self, seq: u64, channel: &str, state: &Attempted) -> Result<(), SpoolError> {
        let key = key(&format!("state/{seq:012}/{channel}.json"))?;
        let body =
            Bytes::from(seal(state).map_err(|error| SpoolError::Internal { what: error.to_string() })?);
        let tag = match self.store.head(&key).await {
            Ok(meta) => meta.etag,
            Err(error) if error.is_absent() => None,
            Err(error) => return Err(self.failed("read")(error)),
        };
        let mode = tag.map_or(PutMode::Create, PutMode::Replace);
        self.put(&key, body, mode).await.map(|_| ()).map_err(self.failed("write to"))
    }
}
