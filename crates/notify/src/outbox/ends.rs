//! Ends: closing what every channel is done with, and what is kept of it for a while.

use std::collections::{BTreeMap, BTreeSet};

use backstay_backup_core::key::Key;
use backstay_backup_core::manifest::seal;
use backstay_backup_core::store::{PutMode, StoreError};
use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{FORMAT, Parcel, Phase, Settled};
use super::spool::{Pending, Spool, SpoolError, key, mark, prefix};
use crate::incident::Event;

/// How long ends are kept.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How many ends are kept at least, whatever their age.
const KEPT_AT_LEAST: usize = 100;

#[derive(Deserialize)]
struct Done {
    settled: Settled,
    parcel: Parcel,
}

impl Spool {
    /// Marks of the parcels that are done, and the highest number among them.
    pub(super) async fn done_marks(&self) -> Result<(BTreeSet<String>, u64), SpoolError> {
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
        struct End<'a> {
            format: u32,
            settled: &'a Settled,
            parcel: &'a Parcel,
        }
        let done = End { format: FORMAT, settled, parcel: &item.parcel };
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
        let mut all = Vec::new();
        for key in self.keys("done").await? {
            if let Some(Ok((done, _))) = self.read::<Done>(&key).await? {
                all.push((done.parcel, done.settled));
            }
        }
        Ok(all)
    }

    /// The events of the ends that are still kept, oldest first. An end never changes, so each is read once.
    ///
    /// # Errors
    /// The disk would not.
    pub(crate) async fn done_events(&self) -> Result<Vec<Event>, SpoolError> {
        let keys: BTreeSet<Key> = self.keys("done").await?.into_iter().collect();
        let mut events = Vec::new();
        for key in &keys {
            let known = self.ends().get(key).cloned();
            let event = match known {
                Some(event) => event,
                None => match self.read::<Done>(key).await? {
                    Some(Ok((done, _))) => {
                        self.ends().insert(key.clone(), done.parcel.event.clone());
                        done.parcel.event
                    }
                    _ => None,
                },
            };
            events.extend(event);
        }
        self.ends().retain(|key, _| keys.contains(key));
        Ok(events)
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
