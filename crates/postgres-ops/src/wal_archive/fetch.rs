use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::sealed::{SealError, unseal};
use bytes::Bytes;
use futures::TryStreamExt;

use super::absence::{Found, descendants, later};
use super::push::check;
use super::{WalArchive, WalArchiveError};
use crate::wal::{Segment, SegmentSize, Timeline, TimelineHistory, WalFile};

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
        let key = self.key(file)?;
        let mut problem = None;
        for repository in self.repositories().members() {
            match self.read(repository, &key, file, identities).await {
                Ok(Some(content)) => return Ok(Fetched::Content(content)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(repository = repository.name(), %file, %error, "WAL copy skipped");
                    problem.get_or_insert(error);
                }
            }
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        let size = SegmentSize::DEFAULT;
        match later(file, &self.found_after(file, identities).await?, size) {
            Some(itself) if itself == file => Err(WalArchiveError::Contradiction { file }),
            Some(later) => Err(WalArchiveError::Hole { file, later }),
            None => Ok(Fetched::Absent),
        }
    }

    /// One copy; `None` when this repository proved that it has none.
    async fn read(
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

    /// Everything that could follow a file, in any repository.
    async fn found_after(&self, file: WalFile, identities: &Identities) -> Result<Found, WalArchiveError> {
        let mut found = Found::default();
        for repository in self.repositories().members() {
            for timeline in self.timelines(repository).await? {
                let known = found.histories.iter().any(|history| history.timeline() == timeline);
                if !known {
                    found.histories.push(self.history(repository, timeline, identities).await?);
                }
            }
        }
        if let WalFile::Segment(segment) = file {
            let mut timelines = descendants(segment.timeline(), &found.histories);
            timelines.push(segment.timeline());
            for repository in self.repositories().members() {
                for timeline in &timelines {
                    found.segments.extend(self.segments(repository, *timeline).await?);
                }
            }
        }
        Ok(found)
    }

    /// Timelines whose histories a repository has.
    async fn timelines(&self, repository: &Repository) -> Result<Vec<Timeline>, WalArchiveError> {
        let below = layout::wal_histories(self.stanza(), self.system().number());
        let names = list(repository, &below).await?;
        let timelines = names.iter().filter_map(|name| match format!("{name}.history").parse() {
            Ok(WalFile::History(timeline)) => Some(timeline),
            _ => None,
        });
        Ok(timelines.collect())
    }

    /// A history that this repository lists.
    async fn history(
        &self,
        repository: &Repository,
        timeline: Timeline,
        identities: &Identities,
    ) -> Result<TimelineHistory, WalArchiveError> {
        let file = WalFile::History(timeline);
        let content = self.read(repository, &self.key(file)?, file, identities).await?;
        let content = content.ok_or(WalArchiveError::Contradiction { file })?;
        let parsed = TimelineHistory::parse(timeline, &String::from_utf8_lossy(&content));
        parsed.map_err(|source| WalArchiveError::Content { file, source })
    }

    /// Whole segments of a timeline that a repository has.
    async fn segments(
        &self,
        repository: &Repository,
        timeline: Timeline,
    ) -> Result<Vec<Segment>, WalArchiveError> {
        let below = layout::wal_timeline(self.stanza(), self.system().number(), timeline.number());
        let names = list(repository, &below).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// File names below a prefix.
async fn list(repository: &Repository, below: &Prefix) -> Result<Vec<String>, WalArchiveError> {
    let listed = repository.store().list(below).map_ok(|meta| meta.key.file_name().to_owned());
    let names: Result<Vec<String>, _> = listed.try_collect().await;
    names.map_err(|source| repository.failed("list WAL", source).into())
}

async fn read_object(repository: &Repository, key: &Key) -> Result<Option<Bytes>, WalArchiveError> {
    let failed = |source| WalArchiveError::from(repository.failed("read WAL", source));
    let mut result = match repository.store().get(key, None).await {
        Err(error) if error.is_absent() => return Ok(None),
        result => result.map_err(failed)?,
    };
    let size = result.meta.size;
    if size > MAX_STORED {
        let what = format!("object {key} of {size} bytes is no WAL");
        return Err(CoreError::Internal { what }.into());
    }
    let mut stored = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    while let Some(chunk) = result.body.try_next().await.map_err(failed)? {
        stored.extend_from_slice(&chunk);
    }
    Ok(Some(stored.into()))
}
