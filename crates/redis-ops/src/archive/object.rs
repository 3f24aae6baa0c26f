//! Reading objects of a stream: whole and proven, or only what they say of themselves.

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::key::Key;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::{NOTE_WITHIN, Seal, SealError, read_note, unseal};
use backstay_backup_core::store::StoreError;
use bytes::Bytes;
use futures::TryStreamExt;

use super::head::{HeadError, SegmentHead};
use super::name::{SegmentName, Span, segment_key, times_key};
use super::survey::{SegmentObject, StreamSurvey};
use super::times::TimeIndex;
use super::{ArchiveError, MAX_SEGMENT, StreamArchive};

/// Largest stored form of a segment: one that does not compress, encrypted, and a little.
const MAX_STORED: u64 = MAX_SEGMENT + (1 << 20);

impl StreamArchive {
    /// What a segment says of itself, from the first repository that has a readable copy. Needs no key and proves nothing.
    ///
    /// # Errors
    /// The first copy's failure, when no repository has a readable one.
    pub async fn head(&self, object: &SegmentObject) -> Result<SegmentHead, ArchiveError> {
        self.first_of(object, |repository| self.head_in(repository, &object.name)).await
    }

    /// The bytes of a segment, proven, from the first repository that has a whole copy.
    ///
    /// Holds the stored form and the content in memory, some 32 MiB each at most.
    ///
    /// # Errors
    /// The first copy's failure, when no repository has a whole one.
    pub async fn segment(
        &self,
        object: &SegmentObject,
        identities: &Identities,
    ) -> Result<(SegmentHead, Bytes), ArchiveError> {
        self.first_of(object, |repository| self.segment_in(repository, &object.name, identities)).await
    }

    /// The times of a merged segment; `None` when no repository has them.
    ///
    /// # Errors
    /// The first copy's failure, when there is one and no repository has a readable one.
    pub async fn times(&self, object: &SegmentObject) -> Result<Option<TimeIndex>, ArchiveError> {
        if !object.has_times {
            return Ok(None);
        }
        self.first_of(object, |repository| self.times_in(repository, &object.name)).await.map(Some)
    }

    async fn first_of<'a, T, F>(
        &'a self,
        object: &SegmentObject,
        read: impl Fn(&'a Repository) -> F,
    ) -> Result<T, ArchiveError>
    where
        F: Future<Output = Result<T, ArchiveError>>,
    {
        let mut first = None;
        for at in &object.copies {
            let Some(repository) = self.repositories().members().get(*at) else { continue };
            match read(repository).await {
                Ok(read) => return Ok(read),
                Err(error) => {
                    let (name, repository) = (object.name, repository.name());
                    tracing::warn!(repository, %name, %error, "copy skipped");
                    first.get_or_insert(error);
                }
            }
        }
        let nowhere = || CoreError::Internal { what: format!("{} is in no repository", object.name) };
        Err(first.unwrap_or_else(|| nowhere().into()))
    }

    async fn head_in(
        &self,
        repository: &Repository,
        name: &SegmentName,
    ) -> Result<SegmentHead, ArchiveError> {
        let key = segment_key(self.stanza(), self.stream(), name);
        let read = read_range(repository, &key).await;
        let beginning = read.map_err(|source| repository.failed("read a segment", source))?;
        head_of(&beginning, name, repository)
    }

    /// One copy of a segment, proven.
    pub(super) async fn segment_in(
        &self,
        repository: &Repository,
        name: &SegmentName,
        identities: &Identities,
    ) -> Result<(SegmentHead, Bytes), ArchiveError> {
        let key = segment_key(self.stanza(), self.stream(), name);
        let (stored, content) = self.unsealed(repository, &key, name, identities).await?;
        let head = head_of(&stored[..stored.len().min(NOTE_WITHIN as usize)], name, repository)?;
        if content.len() as u64 != name.span.len() {
            let problem = format!("{} bytes are in it", content.len());
            let source = SealError::Damaged { problem };
            return Err(ArchiveError::Damaged {
                name: *name,
                repository: repository.name().to_owned(),
                source,
            });
        }
        Ok((head, content))
    }

    async fn times_in(&self, repository: &Repository, name: &SegmentName) -> Result<TimeIndex, ArchiveError> {
        let key = times_key(self.stanza(), self.stream(), name);
        let (_, content) = self.unsealed(repository, &key, name, &Identities::none()).await?;
        let unreadable = || {
            let source = HeadError::Unreadable { problem: "its times are no such thing".to_owned() };
            ArchiveError::Head { name: *name, repository: repository.name().to_owned(), source }
        };
        TimeIndex::decode(&content, name.span).ok_or_else(unreadable)
    }

    async fn unsealed(
        &self,
        repository: &Repository,
        key: &Key,
        name: &SegmentName,
        identities: &Identities,
    ) -> Result<(Bytes, Bytes), ArchiveError> {
        let damaged =
            |source| ArchiveError::Damaged { name: *name, repository: repository.name().to_owned(), source };
        let read = read_small(repository, key, MAX_STORED).await;
        let stored: Bytes = read.map_err(|source| repository.failed("read a segment", source))?.into();
        let seal = Seal::read(&stored).map_err(damaged)?;
        if seal.length > MAX_SEGMENT {
            let problem = format!("{} bytes were sealed, where {MAX_SEGMENT} are the most", seal.length);
            return Err(damaged(SealError::Damaged { problem }));
        }
        let (identities, input) = (identities.clone(), stored.clone());
        let opening = tokio::task::spawn_blocking(move || unseal(&input, &identities));
        let opened = opening.await.map_err(|error| CoreError::Internal { what: error.to_string() })?;
        Ok((stored, opened.map_err(damaged)?.into()))
    }
}

impl StreamSurvey {
    /// The best segment that has the byte behind `offset` of a history: merged before fresh, then the longest.
    #[must_use]
    pub fn segment_at(
        &self,
        id: crate::ReplicationId,
        offset: crate::Offset,
        avoid: impl Fn(&SegmentName) -> bool,
    ) -> Option<&SegmentObject> {
        let segments = self.segments(id);
        let behind = segments.partition_point(|it| it.name.span.start <= offset);
        // Those that begin before and reach far enough; beginnings are in order, ends need not be.
        let has = |it: &&SegmentObject| it.name.span.end > offset && !avoid(&it.name);
        let rank = |it: &&SegmentObject| (it.name.level.is_merged(), it.name.span.end);
        segments[..behind].iter().filter(has).max_by_key(rank)
    }

    /// The segments with the bytes of a span of one history, in order, with what to take of each.
    pub(super) fn pieces(
        &self,
        id: crate::ReplicationId,
        span: Span,
        avoid: impl Fn(&SegmentName) -> bool,
    ) -> Result<Vec<(SegmentObject, Span)>, crate::Offset> {
        let mut pieces = Vec::new();
        let mut at = span.start;
        while at < span.end {
            let Some(object) = self.segment_at(id, at, &avoid) else { return Err(at) };
            let end = object.name.span.end.min(span.end);
            pieces.push((object.clone(), Span { start: at, end }));
            at = end;
        }
        Ok(pieces)
    }
}

fn head_of(
    beginning: &[u8],
    name: &SegmentName,
    repository: &Repository,
) -> Result<SegmentHead, ArchiveError> {
    let name_of = || repository.name().to_owned();
    let note = read_note(beginning).map_err(|source| ArchiveError::Damaged {
        name: *name,
        repository: name_of(),
        source,
    })?;
    let missing = HeadError::Unreadable { problem: "there is none".to_owned() };
    note.ok_or(missing)
        .and_then(|note| SegmentHead::decode(&note, name))
        .map_err(|source| ArchiveError::Head { name: *name, repository: name_of(), source })
}

async fn read_range(repository: &Repository, key: &Key) -> Result<Vec<u8>, StoreError> {
    let opened = repository.store().get(key, Some(0..NOTE_WITHIN)).await?;
    opened.body.try_fold(Vec::new(), append).await
}

async fn append(mut all: Vec<u8>, chunk: Bytes) -> Result<Vec<u8>, StoreError> {
    all.extend_from_slice(&chunk);
    Ok(all)
}

/// All of an object that must not be longer.
pub(super) async fn read_small(
    repository: &Repository,
    key: &Key,
    limit: u64,
) -> Result<Vec<u8>, StoreError> {
    let too_long = || {
        let source = format!("it is longer than {limit} bytes").into();
        StoreError::Failed { op: "read", what: key.to_string(), source }
    };
    let mut opened = repository.store().get(key, None).await?;
    if opened.meta.size > limit {
        return Err(too_long());
    }
    let mut all = Vec::with_capacity(usize::try_from(opened.meta.size).unwrap_or_default());
    while let Some(chunk) = opened.body.try_next().await? {
        all.extend_from_slice(&chunk);
        if all.len() as u64 > limit {
            return Err(too_long());
        }
    }
    Ok(all)
}
