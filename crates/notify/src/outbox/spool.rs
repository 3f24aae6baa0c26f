//! The outbox on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstay_backup_core::error::{Class, Classified};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::manifest::{Sha256Hex, seal, unseal};
use backstay_backup_core::store::{Attributes, ETag, ObjectStore, PutMode, SharedStore, StoreError};
use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::{Attempted, FORMAT, Parcel, Phase, Settled};

/// Largest record that is read, in bytes.
const MAX_RECORD: u64 = 4 << 20;
/// How many writers may want the same number at once.
const SAME_NUMBER: u64 = 1000;
/// How long ends are kept.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How many ends are kept at least, whatever their age.
const KEPT_AT_LEAST: usize = 100;

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
}

pub(super) fn mark(id: &str) -> String {
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
        Self { store, known: Arc::default() }
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
        let (pending, _) = self.load().await?;
        if pending.iter().any(|known| known.parcel.id() == parcel.id()) {
            return Ok(None);
        }
        let (done, highest) = self.done_marks().await?;
        if done.contains(&mark(&parcel.id())) {
            return Ok(None);
        }
        let first = 1 + pending.last().map_or(0, |last| last.seq).max(highest);
        let body =
            Bytes::from(seal(parcel).map_err(|error| SpoolError::Internal { what: error.to_string() })?);
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

    async fn done_marks(&self) -> Result<(BTreeSet<String>, u64), SpoolError> {
        let (mut marks, mut highest) = (BTreeSet::new(), 0);
        for key in self.keys("done").await? {
            let Some((seq, mark)) =
                key.file_name().strip_suffix(".json").and_then(|name| name.split_once('-'))
            else {
                continue;
            };
            highest = highest.max(seq.parse().unwrap_or(0));
            marks.insert(mark.to_owned());
        }
        Ok((marks, highest))
    }

    /// Everything that is not delivered everywhere, in order, and what is damaged. Damaged parcels stay where
    /// they are until [`Spool::put_aside`]; a damaged state counts as an attempt whose outcome is not known.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn load(&self) -> Result<(Vec<Pending>, Vec<Finding>), SpoolError> {
        let (mut all, mut findings) = (Vec::new(), Vec::new());
        let mut states: BTreeMap<u64, Vec<Key>> = BTreeMap::new();
        for key in self.keys("state").await? {
            let seq = key.as_str().split('/').nth(1).and_then(|seq| seq.parse().ok());
            if let Some(seq) = seq {
                states.entry(seq).or_default().push(key);
            }
        }
        let keys = self.keys("pending").await?;
        self.forget_all_but(&keys);
        for key in keys {
            let seq = key.file_name().strip_suffix(".json").and_then(|seq| seq.parse().ok());
            let problem = match (seq, self.parcel(&key).await?) {
                (_, None) => continue,
                (Some(seq), Some(Ok(parcel))) => {
                    let mut pending = Pending { seq, parcel, states: BTreeMap::new() };
                    let mut is_whole = true;
                    for key in states.remove(&seq).unwrap_or_default() {
                        is_whole &= self.load_state(&key, &mut pending, &mut findings).await?;
                    }
                    // A state that was there a moment ago: somebody is just closing this parcel.
                    if !is_whole {
                        continue;
                    }
                    all.push(pending);
                    continue;
                }
                (None, Some(Ok(_))) => "its name is no number".to_owned(),
                (_, Some(Err(problem))) => problem,
            };
            findings.push(Finding { object: key.to_string(), problem });
        }
        all.sort_by_key(|pending| pending.seq);
        Ok((all, findings))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Parcel>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        let state = match self.read::<Attempted>(key).await? {
            None => return Ok(false),
            Some(Ok((state, _))) => state,
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

    /// Writes how far a channel is. The caller holds the channel's lock.
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

    /// Closes every parcel that is settled in all its channels; says which.
    ///
    /// # Errors
    /// The disk would not; closing again is harmless.
    pub async fn close_settled(&self, now: Timestamp) -> Result<Vec<(Parcel, Settled)>, SpoolError> {
        let (pending, _) = self.load().await?;
        let mut told: BTreeMap<(String, u64), Phase> = BTreeMap::new();
        for item in &pending {
            for (channel, state) in item.states.iter().filter(|(_, state)| state.phase.is_settled()) {
                told.extend(state.group.iter().map(|seq| ((channel.clone(), *seq), state.phase)));
            }
        }
        let mut closed = Vec::new();
        for item in pending {
            let ends = item.parcel.channels.iter().map(|channel| {
                let state = item.states.get(channel);
                let own = state
                    .map(|state| (state.phase, state.problem.clone()))
                    .filter(|(phase, _)| phase.is_settled());
                let by_another = || Some((*told.get(&(channel.clone(), item.seq))?, None));
                own.or_else(by_another).map(|(phase, problem)| (channel.clone(), phase, problem))
            });
            let Some(ends) = ends.collect::<Option<Vec<_>>>() else { continue };
            let settled = Settled { format: FORMAT, at: now, seq: item.seq, ends };
            // A leader stays until its group is closed: it is what says that the others were told.
            let leads = item.states.values().any(|state| !state.group.is_empty());
            if leads && !self.group_is_closed(&item).await? {
                closed.push((item, settled, true));
            } else {
                closed.push((item, settled, false));
            }
        }
        // Members first, their leaders last.
        closed.sort_by_key(|(item, _, leads)| (*leads, item.seq));
        let mut ends = Vec::new();
        for (item, settled, _) in closed {
            self.close(&item, &settled).await?;
            ends.push((item.parcel, settled));
        }
        Ok(ends)
    }

    async fn group_is_closed(&self, item: &Pending) -> Result<bool, SpoolError> {
        for seq in item.states.values().flat_map(|state| &state.group) {
            match self.store.head(&key(&format!("pending/{seq:012}.json"))?).await {
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(self.failed("read")(error)),
                Ok(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn close(&self, item: &Pending, settled: &Settled) -> Result<(), SpoolError> {
        #[derive(Serialize)]
        struct Done<'a> {
            format: u32,
            settled: &'a Settled,
            parcel: &'a Parcel,
        }
        let done = Done { format: FORMAT, settled, parcel: &item.parcel };
        let body =
            Bytes::from(seal(&done).map_err(|error| SpoolError::Internal { what: error.to_string() })?);
        let name = key(&format!("done/{:012}-{}.json", item.seq, mark(&item.parcel.id())))?;
        match self.put(&name, body, PutMode::Create).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(self.failed("write to")(error)),
        }
        // The parcel first: one without its states would be taken for one that nobody has tried.
        let pending = key(&format!("pending/{:012}.json", item.seq))?;
        self.store.delete(&pending).await.map_err(self.failed("clear"))?;
        for channel in item.states.keys() {
            let state = key(&format!("state/{:012}/{channel}.json", item.seq))?;
            self.store.delete(&state).await.map_err(self.failed("clear"))?;
        }
        Ok(())
    }

    /// The ends that are still kept, oldest first.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn done(&self) -> Result<Vec<(Parcel, Settled)>, SpoolError> {
        #[derive(serde::Deserialize)]
        struct Done {
            settled: Settled,
            parcel: Parcel,
        }
        let mut all = Vec::new();
        for key in self.keys("done").await? {
            if let Some(Ok((done, _))) = self.read::<Done>(&key).await? {
                all.push((done.parcel, done.settled));
            }
        }
        Ok(all)
    }

    /// Forgets old ends, and states that a killed process left of parcels that are closed.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn forget_old(&self, now: Timestamp) -> Result<(), SpoolError> {
        let states = self.keys("state").await?;
        let pending: BTreeSet<String> = self
            .keys("pending")
            .await?
            .iter()
            .map(|key| key.file_name().trim_end_matches(".json").to_owned())
            .collect();
        for state in states {
            if state.as_str().split('/').nth(1).is_some_and(|seq| !pending.contains(seq)) {
                self.store.delete(&state).await.map_err(self.failed("clear"))?;
            }
        }
        let listing = self.store.list(&prefix("done"));
        let all: Vec<_> = listing.try_collect().await.map_err(self.failed("list"))?;
        let surplus = all.len().saturating_sub(KEPT_AT_LEAST);
        for meta in &all[..surplus] {
            if now.duration_since(meta.modified) > KEPT {
                self.store.delete(&meta.key).await.map_err(self.failed("clear"))?;
            }
        }
        Ok(())
    }
}
