//! Looks for what comes after a file that is not there, at the price of a few requests for each repository, which are
//! made at the same time.
//!
//! Listings begin behind the wanted name and end at the first hit, so the answer costs the same in an archive of a
//! hundred segments and of a million.

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::sealed::Seal;
use futures::TryStreamExt;
use futures::future::try_join_all;
use futures::try_join;

use super::absence::{Found, later, may_continue};
use super::push::beginning;
use super::{WalArchive, WalArchiveError};
use crate::wal::{Segment, SegmentSize, Timeline, TimelineHistory, WalFile};

impl WalArchive {
    /// Whether a file that no repository handed out is absent, or else why that cannot be said.
    pub(super) async fn prove_absence(
        &self,
        file: WalFile,
        identities: &Identities,
    ) -> Result<(), WalArchiveError> {
        let (found, is_known) = try_join!(self.found_after(file, identities), self.is_known())?;
        match later(file, &found) {
            Some(itself) if itself == file => Err(WalArchiveError::Contradiction { file }),
            Some(later) => Err(WalArchiveError::Hole { file, later }),
            None if is_known => Ok(()),
            None => Err(WalArchiveError::Unknown { system: self.system(), stanza: self.stanza().clone() }),
        }
    }

    async fn found_after(&self, file: WalFile, identities: &Identities) -> Result<Found, WalArchiveError> {
        match file {
            WalFile::Segment(wanted) => self.segments_after(wanted, identities).await,
            WalFile::History(wanted) => {
                Ok(Found { histories: self.histories(wanted, identities).await?, ..Found::default() })
            }
            // Nothing follows from these; recovery does without them.
            WalFile::Partial(_) | WalFile::Backup(..) => Ok(Found::default()),
        }
    }

    /// Whether any repository has ever seen this cluster. One that has not says nothing about its log: more likely
    /// the stanza or the folder is the wrong one.
    async fn is_known(&self) -> Result<bool, WalArchiveError> {
        let below = layout::wal(self.stanza(), self.system().number());
        for repository in self.repositories().members() {
            let mut listing = repository.store().list(&below);
            let first = listing.try_next().await.map_err(|source| repository.failed("list WAL", source))?;
            if first.is_some() {
                return Ok(true);
            }
        }
        let registry = super::ClusterRegistry::new(self.repositories().clone(), self.stanza().clone());
        Ok(registry.list().await?.iter().any(|record| record.system_identifier == self.system()))
    }

    /// The first segment from the wanted one on, on its timeline and on each that descends from it.
    async fn segments_after(
        &self,
        wanted: Segment,
        identities: &Identities,
    ) -> Result<Found, WalArchiveError> {
        let own = self.first_of_each(wanted);
        let (histories, mut firsts) = try_join!(self.histories(wanted.timeline(), identities), own)?;
        let timelines = histories.iter().map(TimelineHistory::timeline).filter(|it| *it != wanted.timeline());
        for timeline in timelines.filter(|it| may_continue(*it, wanted.timeline(), &histories)) {
            firsts.extend(self.first_of_each(wanted.on(timeline)).await?);
        }
        let size = match firsts.first() {
            // Without branches there is nothing to compare positions with.
            Some((repository, _, key)) if !histories.is_empty() => Some(size_of(repository, key).await?),
            _ => None,
        };
        let segments = firsts.into_iter().map(|(_, segment, _)| segment).collect();
        Ok(Found { segments, histories, size })
    }

    /// [`WalArchive::first_from`] of every repository that has one.
    async fn first_of_each(
        &self,
        from: Segment,
    ) -> Result<Vec<(&Repository, Segment, Key)>, WalArchiveError> {
        let asked = self.repositories().members().iter().map(|repository| async move {
            let first = self.first_from(repository, from).await?;
            Ok::<_, WalArchiveError>(first.map(|(segment, key)| (repository, segment, key)))
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// The first whole segment of a timeline that is not before `from`.
    async fn first_from(
        &self,
        repository: &Repository,
        from: Segment,
    ) -> Result<Option<(Segment, Key)>, WalArchiveError> {
        let below = layout::wal_timeline(self.stanza(), self.system().number(), from.timeline().number());
        let mut listing = listing_from(repository, &below, &self.key(WalFile::Segment(from))?);
        while let Some(key) = listing.try_next().await? {
            match key.file_name().parse::<Segment>() {
                Ok(segment) if segment >= from && segment.timeline() == from.timeline() => {
                    return Ok(Some((segment, key)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Histories from a timeline on, of all repositories.
    async fn histories(
        &self,
        from: Timeline,
        identities: &Identities,
    ) -> Result<Vec<TimelineHistory>, WalArchiveError> {
        let below = layout::wal_histories(self.stanza(), self.system().number());
        let first = self.key(WalFile::History(from))?;
        let mut histories: Vec<TimelineHistory> = Vec::new();
        for repository in self.repositories().members() {
            let listed: Vec<Key> = listing_from(repository, &below, &first).try_collect().await?;
            let names = listed.iter().map(|key| format!("{}.history", key.file_name()).parse());
            for timeline in names.filter_map(|name| match name {
                Ok(WalFile::History(timeline)) => Some(timeline),
                _ => None,
            }) {
                if timeline >= from && histories.iter().all(|known| known.timeline() != timeline) {
                    histories.push(self.history(repository, timeline, identities).await?);
                }
            }
        }
        Ok(histories)
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
}

/// Keys below a prefix from `first` on, and perhaps a few before it.
fn listing_from<'a>(
    repository: &'a Repository,
    below: &Prefix,
    first: &Key,
) -> impl futures::Stream<Item = Result<Key, WalArchiveError>> + Unpin + use<'a> {
    // A name without its last digit comes right before the sixteen that begin with it.
    let text = first.as_str();
    let before = Key::parse(&text[..text.len() - 1]).ok();
    let listing = repository.store().list_after(below, before.as_ref());
    Box::pin(
        listing
            .map_ok(|meta| meta.key)
            .map_err(move |source| WalArchiveError::from(repository.failed("list WAL", source))),
    )
}

/// Segment size of a cluster: the length that is sealed into one of its segments.
async fn size_of(repository: &Repository, key: &Key) -> Result<SegmentSize, WalArchiveError> {
    let bytes = beginning(repository, key).await;
    let bytes = bytes.map_err(|source| repository.failed("read the seal of WAL", source))?;
    let unusable = |what: String| {
        let what = format!("object {key} of repository {}: {what}", repository.name());
        WalArchiveError::from(CoreError::Internal { what })
    };
    let seal = Seal::read(&bytes).map_err(|error| unusable(error.to_string()))?;
    SegmentSize::new(seal.length).map_err(|error| unusable(error.to_string()))
}
