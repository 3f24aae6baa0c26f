//! Where events are kept: create-only objects below one prefix of one or more stores.
//!
//! ```text
//! <prefix>/<incident>/<number>-<event id>-<what>.json
//! ```
//!
//! Writes go to all stores and count when one has them; reads take the union, so that a store that missed an event, or
//! cannot be reached, hides nothing that another one knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::manifest::{seal, unseal};
use backstay_backup_core::store::{Attributes, PutMode, SharedStore, StoreError};
use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::event::{Event, FORMAT};
use super::id::IncidentId;

/// Largest event that is read, in bytes.
const MAX_EVENT: u64 = 4 << 20;
/// Largest number of a file name.
const DIGITS: usize = 6;

/// The events of all incidents.
#[derive(Clone, Debug)]
pub struct Journal {
    stores: Vec<SharedStore>,
    prefix: Prefix,
    unreachable: Option<String>,
    /// Events of open incidents that were read before: they never change.
    known: Arc<Mutex<BTreeMap<Key, Event>>>,
}

/// What the journal knows.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Known {
    /// Events by incident.
    pub events: BTreeMap<IncidentId, Vec<Event>>,
    /// Incidents that are over, and whose events were not asked for.
    pub over: BTreeSet<IncidentId>,
}

/// Why the journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// No store could.
    #[error("cannot {op} the incidents")]
    Store {
        /// What was being done.
        op: &'static str,
        /// The first store's error.
        source: StoreError,
    },
    /// Nobody could be asked.
    #[error("the incidents cannot be reached: {problem}")]
    Unreachable {
        /// Why.
        problem: String,
    },
    /// Cannot happen.
    #[error("an event cannot be written: {what}")]
    Internal {
        /// What happened.
        what: String,
    },
}

impl Journal {
    /// The journal below a prefix of these stores; at least one.
    #[must_use]
    pub fn new(stores: Vec<SharedStore>, prefix: Prefix) -> Self {
        Self { stores, prefix, unreachable: None, known: Arc::default() }
    }

    /// A journal whose stores cannot be reached: everything fails for now, so events wait in the outbox.
    #[must_use]
    pub fn unreachable(problem: &str) -> Self {
        let unreachable = Some(problem.to_owned());
        Self { unreachable, ..Self::new(Vec::new(), Prefix::root()) }
    }

    fn reach(&self) -> Result<(), JournalError> {
        match &self.unreachable {
            None => Ok(()),
            Some(problem) => Err(JournalError::Unreachable { problem: problem.clone() }),
        }
    }

    /// Why it cannot be reached, where nobody could ask it.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.unreachable.as_deref()
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn location(&self) -> String {
        self.stores.iter().map(|store| store.location()).collect::<Vec<_>>().join(", ")
    }

    /// Adds an event; adding it again changes nothing.
    ///
    /// # Errors
    /// No store took it.
    ///
    /// # Cancel safety
    /// A dropped call leaves the event whole or absent in each store.
    pub async fn append(&self, event: &Event) -> Result<(), JournalError> {
        self.reach()?;
        let internal = |what: String| JournalError::Internal { what };
        let name =
            format!("{}/{:0DIGITS$}-{}-{}.json", event.incident, event.number, event.id, event.change.name());
        let key = self.prefix.key(&name).map_err(|error| internal(error.to_string()))?;
        let body = Bytes::from(seal(event).map_err(|error| internal(error.to_string()))?);
        let attributes = Attributes::default().content_type("application/json");
        let mut failed = None;
        let mut taken = 0_usize;
        for store in &self.stores {
            match store.put(&key, body.clone(), PutMode::Create, &attributes).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => taken += 1,
                Err(error) => {
                    tracing::warn!(store = store.location(), %error, "event not taken");
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(source) if taken == 0 => Err(JournalError::Store { op: "write", source }),
            _ => Ok(()),
        }
    }

    /// All events of the incidents that are not over; with `closed` those of the others too. Damaged events are
    /// left out with a warning. Who asks again reads what is new since.
    ///
    /// # Errors
    /// No store could be read.
    pub async fn events(&self, closed: bool) -> Result<Known, JournalError> {
        self.reach()?;
        let mut all: BTreeMap<IncidentId, BTreeMap<String, Event>> = BTreeMap::new();
        let (mut failed, mut read, mut over) = (None, 0_usize, BTreeSet::new());
        for store in &self.stores {
            match self.read(store, closed, &mut all, &mut over).await {
                Ok(()) => read += 1,
                Err(error) => {
                    tracing::warn!(store = store.location(), %error, "incidents not read");
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(source) if read == 0 => Err(JournalError::Store { op: "read", source }),
            _ => {
                all.retain(|id, _| !over.contains(id));
                self.known().retain(|_, event| all.contains_key(&event.incident));
                let events =
                    all.into_iter().map(|(id, events)| (id, events.into_values().collect())).collect();
                Ok(Known { events, over })
            }
        }
    }

    async fn read(
        &self,
        store: &SharedStore,
        closed: bool,
        all: &mut BTreeMap<IncidentId, BTreeMap<String, Event>>,
        over: &mut BTreeSet<IncidentId>,
    ) -> Result<(), StoreError> {
        let mut keys: BTreeMap<IncidentId, Vec<Key>> = BTreeMap::new();
        let mut listing = store.list(&self.prefix);
        while let Some(meta) = listing.try_next().await? {
            if let Some((id, _)) = self.split(&meta.key) {
                keys.entry(id).or_default().push(meta.key);
            }
        }
        for (id, keys) in keys {
            let is_over = keys.iter().any(|key| key.as_str().ends_with("-resolved.json"));
            if is_over && !closed {
                over.insert(id);
                continue;
            }
            for key in keys {
                let known = all.get(&id);
                if known.is_some_and(|events| events.contains_key(key.file_name())) {
                    continue;
                }
                let known = self.known().get(&key).cloned();
                let event = match known {
                    Some(event) => Some(event),
                    None => read::<Event>(store, &key).await?,
                };
                match event {
                    Some(event) if event.incident == id => {
                        if !is_over {
                            self.known().insert(key.clone(), event.clone());
                        }
                        all.entry(id.clone()).or_default().insert(key.file_name().to_owned(), event);
                    }
                    _ => tracing::warn!(%key, "damaged event left out"),
                }
            }
        }
        Ok(())
    }

    /// Takes a timer of an incident for one host, so that two hosts do not fire it both. A host that took it and then
    /// fell silent is overtaken after `patience`. Without an answer of any store everybody fires: twice is better
    /// than never.
    ///
    /// # Cancel safety
    /// A dropped call may leave the timer taken, which `patience` mends.
    pub async fn claim(
        &self,
        incident: &IncidentId,
        timer: &str,
        by: &str,
        now: Timestamp,
        patience: SignedDuration,
    ) -> bool {
        let claim = Claim { format: FORMAT, by: by.to_owned(), at: now };
        let name = format!("{incident}/claim-{timer}.json");
        let (Ok(key), Ok(body)) = (self.prefix.key(&name), seal(&claim)) else { return true };
        let Some(store) = self.stores.first() else { return true };
        match store.put(&key, Bytes::from(body), PutMode::Create, &Attributes::default()).await {
            Err(StoreError::AlreadyExists { .. }) => {}
            _ => return true,
        }
        match read::<Claim>(store, &key).await {
            Ok(Some(other)) => other.by == by || now.duration_since(other.at).abs() >= patience,
            _ => true,
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Event>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn split(&self, key: &Key) -> Option<(IncidentId, String)> {
        let rest = key.as_str().strip_prefix(self.prefix.as_str())?;
        let (id, name) = rest.split_once('/')?;
        if name.starts_with("claim-") {
            return None;
        }
        Some((IncidentId::parse(id).ok()?, name.strip_suffix(".json")?.to_owned()))
    }
}

/// Whose a timer is.
#[derive(Serialize, Deserialize)]
struct Claim {
    format: u32,
    by: String,
    at: Timestamp,
}

/// Reads a record; `None` when it is damaged or was deleted meanwhile.
async fn read<T: DeserializeOwned>(store: &SharedStore, key: &Key) -> Result<Option<T>, StoreError> {
    let opened = match store.get(key, None).await {
        Err(error) if error.is_absent() => return Ok(None),
        opened => opened?,
    };
    if opened.meta.size > MAX_EVENT {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let mut body = opened.body;
    while let Some(chunk) = body.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(unseal(&bytes).ok())
}
