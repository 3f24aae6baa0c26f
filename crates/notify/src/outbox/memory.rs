//! What the outbox remembers besides parcels: what channels call threads, which tasks ever succeeded, and when this host
//! noticed what its clock says is still to come.

use std::collections::BTreeMap;

use backstay_backup_core::manifest::seal;
use backstay_backup_core::store::{PutMode, StoreError};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::FORMAT;
use super::spool::{Spool, SpoolError, key, mark};

impl Spool {
    /// Whether a task succeeds for the first time; from now on it did.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn is_first(&self, task: &str) -> Result<bool, SpoolError> {
        let key = key(&format!("tasks/{}.json", mark(task)))?;
        match self.put(&key, Bytes::from(task.to_owned()), PutMode::Create).await {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed("write to")(error)),
        }
    }

    /// What a channel calls a thread.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn reference(&self, channel: &str, thread: &str) -> Result<Option<String>, SpoolError> {
        let key = key(&format!("refs/{channel}/{}.json", mark(thread)))?;
        Ok(match self.read::<Reference>(&key).await? {
            Some(Ok((reference, _))) => Some(reference.reference),
            _ => None,
        })
    }

    /// Keeps what a channel calls a thread; the first name stays.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn keep_reference(
        &self,
        channel: &str,
        thread: &str,
        reference: &str,
    ) -> Result<(), SpoolError> {
        let key = key(&format!("refs/{channel}/{}.json", mark(thread)))?;
        let record = Reference { format: FORMAT, thread: thread.to_owned(), reference: reference.to_owned() };
        let body =
            Bytes::from(seal(&record).map_err(|error| SpoolError::Internal { what: error.to_string() })?);
        match self.put(&key, body, PutMode::Create).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(self.failed("write to")(error)),
        }
    }

    /// What was noticed before its time, by name.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn noticed(&self) -> Result<BTreeMap<String, Timestamp>, SpoolError> {
        let mut all = BTreeMap::new();
        for key in self.keys("noticed").await? {
            let Some(name) = key.file_name().strip_suffix(".json") else { continue };
            if let Some(Ok((noticed, _))) = self.read::<Noticed>(&key).await? {
                all.insert(name.to_owned(), noticed.at);
            }
        }
        Ok(all)
    }

    /// Notes that something was noticed at a moment of this host's clock; the first one stays.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn note(&self, name: &str, at: Timestamp) -> Result<(), SpoolError> {
        let noticed = Noticed { format: FORMAT, at };
        let body =
            Bytes::from(seal(&noticed).map_err(|error| SpoolError::Internal { what: error.to_string() })?);
        match self.put(&key(&format!("noticed/{name}.json"))?, body, PutMode::Create).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(self.failed("write to")(error)),
        }
    }

    /// Forgets such a note.
    ///
    /// # Errors
    /// The disk would not.
    pub async fn forget_note(&self, name: &str) -> Result<(), SpoolError> {
        self.store.delete(&key(&format!("noticed/{name}.json"))?).await.map_err(self.failed("clear"))
    }
}

#[derive(Serialize, Deserialize)]
struct Reference {
    format: u32,
    thread: String,
    reference: String,
}

/// When this host noticed something.
#[derive(Serialize, Deserialize)]
struct Noticed {
    format: u32,
    at: Timestamp,
}
