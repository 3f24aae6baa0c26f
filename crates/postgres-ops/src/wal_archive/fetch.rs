use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::key::Key;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::{SealError, unseal};
use backstay_backup_core::store::GetResult;
use bytes::Bytes;
use futures::TryStreamExt;

use super::push::check;
use super::{WalArchive, WalArchiveError};
use crate::wal::WalFile;

/// Largest stored form of a file: a segment of 1 GiB that does not compress, and a little.
const MAX_STORED: u64 = (1 << 30) + (16 << 20);

/// The answer to a request for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Its content, proven by seal and header.
    Content(Bytes),
    /// No repository has it, and nothing that follows from it.
    Absent,
}

impl WalArchive {
    /// Reads one file and proves it.
    ///
    /// # Errors
    /// Any [`WalArchiveError`]: everything that is not a proof of absence. [`WalArchiveError::Hole`] when it is missing
    /// and something later is there.
    pub async fn fetch(&self, file: WalFile, identities: &Identities) -> Result<Fetched, WalArchiveError> {
        match self.find(file, identities).await? {
            Some(content) => Ok(Fetched::Content(content)),
            None => self.prove_absence(file, identities).await.map(|()| Fetched::Absent),
        }
    }

    /// The content from the first repository that has a whole copy; `None` when every repository says that it has none.
    /// That is no proof that the log ends here, as [`WalArchive::fetch`] gives it: for whoever reads ahead.
    ///
    /// # Errors
    /// As [`WalArchive::fetch`], without the proof's.
    pub async fn find(
        &self,
        file: WalFile,
        identities: &Identities,
    ) -> Result<Option<Bytes>, WalArchiveError> {
        let key = self.key(file)?;
        let mut skipped = Skipped::of(file);
        for repository in self.repositories().members() {
            match self.read(repository, &key, file, identities).await {
                Ok(Some(content)) => return Ok(Some(content)),
                Ok(None) => {}
                Err(error) => skipped.add(repository, error),
            }
        }
        skipped.none()
    }

    /// One copy; `None` when this repository proved that it has none.
    pub(super) async fn read(
        &self,
        repository: &Repository,
        key: &Key,
        file: WalFile,
        identities: &Identities,
    ) -> Result<Option<Bytes>, WalArchiveError> {
        let Some(stored) = read_object(repository, key).await? else { return Ok(None) };
        let identities = identities.clone();
        let opening = tokio::task::spawn_blocking(move || unseal(&stored, &identities));
        let opened = opening.await.map_err(|error| CoreError::Internal { what: error.to_string() })?;
        let damaged = |source: SealError| {
            let repository = repository.name().to_owned();
            WalArchiveError::Damaged { file, repository, source }
        };
        let content = opened.map_err(damaged)?;
        check(file, &content, self.system()).map_err(|source| WalArchiveError::Content { file, source })?;
        Ok(Some(content.into()))
    }
}

/// Copies that could not be used.
pub(super) struct Skipped {
    file: WalFile,
    first: Option<WalArchiveError>,
}

impl Skipped {
    pub(super) fn of(file: WalFile) -> Self {
        Self { file, first: None }
    }

    pub(super) fn add(&mut self, repository: &Repository, error: WalArchiveError) {
        tracing::warn!(repository = repository.name(), file = %self.file, %error, "WAL copy skipped");
        self.first.get_or_insert(error);
    }

    /// That there is none, where every repository said so, or else why there may be one.
    pub(super) fn none<T>(self) -> Result<Option<T>, WalArchiveError> {
        self.first.map_or(Ok(None), Err)
    }
}

/// Opens what a repository has; `None` when it proved that it has nothing.
pub(super) async fn open_object(
    repository: &Repository,
    key: &Key,
) -> Result<Option<GetResult>, WalArchiveError> {
    let opened = match repository.store().get(key, None).await {
        Err(error) if error.is_absent() => return Ok(None),
        opened => opened.map_err(|source| repository.failed("read WAL", source))?,
    };
    let size = opened.meta.size;
    if size > MAX_STORED {
        let what = format!("object {key} of {size} bytes is no WAL");
        return Err(CoreError::Internal { what }.into());
    }
    Ok(Some(opened))
}

async fn read_object(repository: &Repository, key: &Key) -> Result<Option<Bytes>, WalArchiveError> {
    let failed = |source| WalArchiveError::from(repository.failed("read WAL", source));
    let Some(mut result) = open_object(repository, key).await? else { return Ok(None) };
    let mut stored = Vec::with_capacity(usize::try_from(result.meta.size).unwrap_or_default());
    while let Some(chunk) = result.body.try_next().await.map_err(failed)? {
        stored.extend_from_slice(&chunk);
    }
    Ok(Some(stored.into()))
}
