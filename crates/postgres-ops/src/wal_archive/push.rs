use std::io;
use std::sync::Arc;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::key::Key;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::sealed::{SEAL_WITHIN, Seal, SealOptions, seal_from};
use backstay_backup_core::store::{Attributes, PutMode, StoreError};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::WalArchiveError;
use crate::wal::{SegmentHeader, SystemId, TimelineHistory, WalError, WalFile};

/// Histories and labels are a few lines.
pub(super) const MAX_TEXT: u64 = 1 << 20;

/// The archive of the log of one cluster.
#[derive(Clone, Debug)]
pub struct WalArchive {
    repositories: Repositories,
    stanza: Stanza,
    system: SystemId,
    sealing: SealOptions,
    /// Passes to compress; without a limit there is no gate.
    gate: Option<Arc<Semaphore>>,
    /// Whether files that are fetched are probably there.
    is_expected: bool,
}

/// Where a file is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushReceipt {
    /// The file.
    pub file: WalFile,
    /// Its length and digest.
    pub seal: Seal,
    /// Repositories that took it now.
    pub stored: Vec<String>,
    /// Repositories that had it already.
    pub present: Vec<String>,
    /// Repositories without it, and why. Empty, or shorter than what the quorum allows.
    pub missing: Vec<(String, String)>,
}

impl WalArchive {
    /// The archive of `system` in a stanza. zstd level 3, no encryption.
    #[must_use]
    pub fn new(repositories: Repositories, stanza: Stanza, system: SystemId) -> Self {
        Self { repositories, stanza, system, sealing: SealOptions::default(), gate: None, is_expected: true }
    }

    /// How what is pushed is compressed and encrypted, all at once.
    #[must_use]
    pub fn sealed_with(mut self, options: SealOptions) -> Self {
        self.sealing = options;
        self
    }

    /// The zstd level of what is pushed.
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.sealing = self.sealing.level(level);
        self
    }

    /// Encrypts what is pushed.
    #[must_use]
    pub fn recipients(mut self, recipients: Recipients) -> Self {
        self.sealing = self.sealing.recipients(recipients);
        self
    }

    /// How many threads compress one file; 1 by default. Each costs about 4 MiB.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.sealing = self.sealing.threads(threads);
        self
    }

    /// Compresses one file at a time, however many are pushed: while one is stored the next one is compressed, and
    /// memory holds one file being compressed and the stored forms of the others.
    #[must_use]
    pub fn one_at_a_time(mut self) -> Self {
        self.gate = Some(Arc::new(Semaphore::new(1)));
        self
    }

    /// Whether the segments to fetch are probably there, as is assumed otherwise. Of those that are not, whether the log
    /// really ends before them is asked at the same time: a round trip less, and a few requests in vain if they are there.
    #[must_use]
    pub fn expects(mut self, is_expected: bool) -> Self {
        self.is_expected = is_expected;
        self
    }

    /// Whether a file is probably there. A server asks for many histories, and most are absent.
    pub(super) fn is_expected(&self, file: WalFile) -> bool {
        self.is_expected && !matches!(file, WalFile::History(_))
    }

    /// Waits for the turn to compress.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        match &self.gate {
            // It is never closed.
            Some(gate) => gate.clone().acquire_owned().await.ok(),
            None => None,
        }
    }

    /// Archives one file. Returns when the quorum has it durably.
    ///
    /// Holds the content and its stored form in memory.
    ///
    /// # Errors
    /// Any [`WalArchiveError`]. [`WalArchiveError::Conflict`] also when the quorum could have been reached without the
    /// repository that has something else.
    ///
    /// # Cancel safety
    /// A dropped call leaves whole objects in some repositories; pushing again completes the others.
    pub async fn push(&self, file: WalFile, content: Bytes) -> Result<PushReceipt, WalArchiveError> {
        check(file, &content, self.system).map_err(|source| WalArchiveError::Content { file, source })?;
        let options = self.sealing.clone();
        let (seal, stored) = blocking(file, move || seal_from(&content[..], &options)).await?;
        self.store(file, seal, stored).await
    }

    /// Puts the stored form into every repository.
    pub(super) async fn store(
        &self,
        file: WalFile,
        seal: Seal,
        stored: Bytes,
    ) -> Result<PushReceipt, WalArchiveError> {
        let key = self.key(file)?;
        let members = self.repositories.members();
        let puts = members.iter().map(|repository| create(repository, &key, file, seal, stored.clone()));
        self.receipt(file, seal, join_all(puts).await)
    }

    pub(super) fn sealing(&self) -> &SealOptions {
        &self.sealing
    }

    pub(super) fn receipt(
        &self,
        file: WalFile,
        seal: Seal,
        outcomes: Vec<Result<Outcome, WalArchiveError>>,
    ) -> Result<PushReceipt, WalArchiveError> {
        let (mut stored, mut present, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = None;
        for (repository, outcome) in self.repositories.members().iter().zip(outcomes) {
            let name = repository.name().to_owned();
            match outcome {
                Ok(Outcome::Stored) => stored.push(name),
                Ok(Outcome::Present) => present.push(name),
                Err(conflict @ WalArchiveError::Conflict { .. }) => return Err(conflict),
                Err(error) => {
                    missing.push((name, error.to_string()));
                    first.get_or_insert(error);
                }
            }
        }
        let reached = stored.len() + present.len();
        let needed = self.repositories.quorum();
        match first {
            Some(WalArchiveError::Repository(source)) if reached < needed && missing.len() > 1 => {
                Err(CoreError::Quorum { reached, needed, source: Box::new(source) }.into())
            }
            Some(error) if reached < needed => Err(error),
            _ => Ok(PushReceipt { file, seal, stored, present, missing }),
        }
    }

    pub(super) fn repositories(&self) -> &Repositories {
        &self.repositories
    }

    pub(super) fn stanza(&self) -> &Stanza {
        &self.stanza
    }

    pub(super) fn system(&self) -> SystemId {
        self.system
    }

    pub(super) fn key(&self, file: WalFile) -> Result<Key, CoreError> {
        let (stanza, system) = (&self.stanza, self.system.number());
        let key = match file {
            WalFile::History(timeline) => return Ok(layout::wal_history(stanza, system, timeline.number())),
            WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup(segment, _) => {
                let timeline = segment.timeline().number();
                layout::wal_file(stanza, system, timeline, segment.log(), &file.to_string())
            }
        };
        key.map_err(|error| CoreError::Internal { what: error.to_string() })
    }
}

/// Whether the content is what a file of this name must hold. Pure.
pub(super) fn check(file: WalFile, content: &[u8], system: SystemId) -> Result<(), WalError> {
    let text = || {
        let text = if content.len() as u64 > MAX_TEXT { None } else { str::from_utf8(content).ok() };
        text.ok_or(WalError::NotWal { what: "it is not a short text" })
    };
    match file {
        WalFile::Segment(name) | WalFile::Partial(name) => {
            SegmentHeader::parse(content)?.check(name, content.len() as u64, system)
        }
        WalFile::History(timeline) => TimelineHistory::parse(timeline, text()?).map(drop),
        WalFile::Backup(..) => text().map(drop),
    }
}

/// Runs what blocks; a failure is one of the file.
pub(super) async fn blocking<T: Send + 'static>(
    file: WalFile,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CoreError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|result| result);
    done.map_err(|source| CoreError::Source { object: file.to_string(), source })
}

pub(super) enum Outcome {
    Stored,
    Present,
}

async fn create(
    repository: &Repository,
    key: &Key,
    file: WalFile,
    seal: Seal,
    stored: Bytes,
) -> Result<Outcome, WalArchiveError> {
    let store = repository.store();
    match store.put(key, stored, PutMode::Create, &Attributes::default()).await {
        Ok(_) => Ok(Outcome::Stored),
        Err(error) => refused(repository, key, file, seal, error).await,
    }
}

/// Looks at what is there after a write that did not succeed: its reply may have been lost, or somebody was first.
pub(super) async fn refused(
    repository: &Repository,
    key: &Key,
    file: WalFile,
    seal: Seal,
    error: StoreError,
) -> Result<Outcome, WalArchiveError> {
    let conflict =
        |found| WalArchiveError::Conflict { file, repository: repository.name().to_owned(), found };
    match beginning(repository, key).await {
        Ok(bytes) => match Seal::read(&bytes) {
            Ok(found) if found == seal => Ok(Outcome::Present),
            Ok(found) => Err(conflict(format!("{} bytes with digest {}", found.length, found.digest))),
            Err(problem) => Err(conflict(problem.to_string())),
        },
        Err(_) => Err(repository.failed("archive WAL", error).into()),
    }
}

/// The first bytes of an object, where its seal is.
pub(super) async fn beginning(repository: &Repository, key: &Key) -> Result<Vec<u8>, StoreError> {
    let result = repository.store().get(key, Some(0..SEAL_WITHIN)).await?;
    result
        .body
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}
