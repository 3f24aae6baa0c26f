//! Writing objects of a stream: each once, into every repository, done when the quorum has it.

use std::io;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::key::Key;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::{NOTE_WITHIN, Seal, SealOptions, seal_from};
use backstay_backup_core::store::{Attributes, PutMode, StoreError};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;

use super::head::SegmentHead;
use super::history::{HistoryRecord, MAX_RECORD};
use super::name::{Level, SegmentName, history_key, segment_key, times_key};
use super::object::read_small;
use super::times::TimeIndex;
use super::{ArchiveError, MAX_SEGMENT, StreamArchive};

/// Where an object is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreReceipt {
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Repositories that took it now.
    pub stored: Vec<String>,
    /// Repositories that had it already.
    pub present: Vec<String>,
    /// Repositories without it, and why. No more of them than the quorum allows.
    pub missing: Vec<(String, String)>,
}

enum Outcome {
    Stored,
    Present,
}

impl StreamArchive {
    /// Stores a segment. Returns when the quorum has it durably.
    ///
    /// Holds content and stored form in memory.
    ///
    /// # Errors
    /// Any [`ArchiveError`]. [`ArchiveError::Conflict`] when any repository has other bytes for the same place.
    ///
    /// # Cancel safety
    /// A dropped call leaves whole objects in some repositories; storing it again completes the others.
    pub async fn store_segment(
        &self,
        name: &SegmentName,
        head: &SegmentHead,
        content: Bytes,
        options: &SealOptions,
    ) -> Result<StoreReceipt, ArchiveError> {
        let length = content.len() as u64;
        if length != name.span.len() || length > MAX_SEGMENT || length == 0 {
            let what = format!("{length} bytes are no content of {name}");
            return Err(CoreError::Internal { what }.into());
        }
        let options = options.clone().note(&head.encode());
        let (seal, stored) = sealed(name, move || seal_from(&content[..], &options)).await?;
        let key = segment_key(self.stanza(), self.stream(), name);
        let members = self.repositories().members();
        let puts = members.iter().map(|repository| create(repository, &key, name, seal, stored.clone()));
        self.receipt(stored.len(), join_all(puts).await)
    }

    /// Stores the times of a merged segment; goes before the segment itself. They are not encrypted.
    ///
    /// # Errors
    /// Any [`ArchiveError`].
    pub async fn store_times(
        &self,
        name: &SegmentName,
        times: &TimeIndex,
    ) -> Result<StoreReceipt, ArchiveError> {
        debug_assert_eq!(name.level, Level::Merged);
        let content = times.encode(name.span);
        let (_, stored) = sealed(name, move || seal_from(&content[..], &SealOptions::default())).await?;
        let key = times_key(self.stanza(), self.stream(), name);
        let members = self.repositories().members();
        // Whoever was first saw the same bytes come, at nearly the same time.
        let puts = members.iter().map(|repository| create_or_keep(repository, &key, stored.clone()));
        self.receipt(stored.len(), join_all(puts).await)
    }

    /// Stores what is known of the beginning of a history; goes before its first segment. The first record counts.
    ///
    /// # Errors
    /// Any [`ArchiveError`]; [`ArchiveError::Record`] when there is one already that says something else.
    pub async fn store_history(&self, record: &HistoryRecord) -> Result<StoreReceipt, ArchiveError> {
        let bytes = Bytes::from(record.encode());
        let key = history_key(self.stanza(), self.stream(), record.replication_id);
        let members = self.repositories().members();
        let puts =
            members.iter().map(|repository| self.create_record(repository, &key, record, bytes.clone()));
        self.receipt(bytes.len(), join_all(puts).await)
    }

    async fn create_record(
        &self,
        repository: &Repository,
        key: &Key,
        record: &HistoryRecord,
        bytes: Bytes,
    ) -> Result<Outcome, ArchiveError> {
        let outcome = create_or_keep(repository, key, bytes).await?;
        if matches!(outcome, Outcome::Present) {
            let read = read_small(repository, key, MAX_RECORD).await;
            let found = read.map_err(|source| repository.failed("read a history", source))?;
            let (id, name) = (record.replication_id, repository.name());
            let unusable = |source| ArchiveError::Record { id, repository: name.to_owned(), source };
            let known = HistoryRecord::decode(&found, self.stanza(), self.stream(), id).map_err(unusable)?;
            if known.parent != record.parent {
                tracing::warn!(repository = name, %id, "another beginning of this history is recorded already");
            }
        }
        Ok(outcome)
    }

    fn receipt(
        &self,
        bytes: usize,
        outcomes: Vec<Result<Outcome, ArchiveError>>,
    ) -> Result<StoreReceipt, ArchiveError> {
        let mut receipt = StoreReceipt { stored_bytes: bytes as u64, ..StoreReceipt::default() };
        let mut first = None;
        for (repository, outcome) in self.repositories().members().iter().zip(outcomes) {
            let name = repository.name().to_owned();
            match outcome {
                Ok(Outcome::Stored) => receipt.stored.push(name),
                Ok(Outcome::Present) => receipt.present.push(name),
                Err(conflict @ ArchiveError::Conflict { .. }) => return Err(conflict),
                Err(error) => {
                    receipt.missing.push((name, backstay_backup_core::error::describe(&error)));
                    first.get_or_insert(error);
                }
            }
        }
        let reached = receipt.stored.len() + receipt.present.len();
        let needed = self.repositories().quorum();
        match first {
            Some(ArchiveError::Repository(source)) if reached < needed && receipt.missing.len() > 1 => {
                Err(CoreError::Quorum { reached, needed, source: Box::new(source) }.into())
            }
            Some(error) if reached < needed => Err(error),
            _ => Ok(receipt),
        }
    }
}

async fn sealed(
    name: &SegmentName,
    work: impl FnOnce() -> io::Result<(Seal, Bytes)> + Send + 'static,
) -> Result<(Seal, Bytes), ArchiveError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|result| result);
    done.map_err(|source| CoreError::Source { object: name.to_string(), source }.into())
}

async fn create(
    repository: &Repository,
    key: &Key,
    name: &SegmentName,
    seal: Seal,
    stored: Bytes,
) -> Result<Outcome, ArchiveError> {
    let put = repository.store().put(key, stored, PutMode::Create, &Attributes::default()).await;
    let Err(error) = put else { return Ok(Outcome::Stored) };
    // Its reply may have been lost, or somebody was first.
    let Ok(beginning) = beginning(repository, key).await else {
        return Err(repository.failed("archive a segment", error).into());
    };
    let conflict =
        |found| ArchiveError::Conflict { name: *name, repository: repository.name().to_owned(), found };
    match Seal::read(&beginning) {
        Ok(found) if found == seal => Ok(Outcome::Present),
        Ok(found) => Err(conflict(format!("{} bytes with digest {}", found.length, found.digest))),
        Err(problem) => Err(conflict(problem.to_string())),
    }
}

async fn create_or_keep(repository: &Repository, key: &Key, bytes: Bytes) -> Result<Outcome, ArchiveError> {
    let put = repository.store().put(key, bytes, PutMode::Create, &Attributes::default()).await;
    match put {
        Ok(_) => Ok(Outcome::Stored),
        Err(StoreError::AlreadyExists { .. }) => Ok(Outcome::Present),
        Err(error) if repository.store().head(key).await.is_ok() => {
            tracing::debug!(%key, %error, "the reply was lost, the object is there");
            Ok(Outcome::Present)
        }
        Err(error) => Err(repository.failed("archive a stream", error).into()),
    }
}

async fn beginning(repository: &Repository, key: &Key) -> Result<Vec<u8>, StoreError> {
    let opened = repository.store().get(key, Some(0..NOTE_WITHIN)).await?;
    let append = async |mut all: Vec<u8>, chunk: Bytes| {
        all.extend_from_slice(&chunk);
        Ok(all)
    };
    opened.body.try_fold(Vec::new(), append).await
}
