//! What the repositories of a stanza have of the logs of its clusters.
//!
//! Keys tell everything but the segment size, which the seal of one segment of each timeline tells, and the histories,
//! which are read. Costs one listing per repository and a few small reads; memory grows with the number of gaps, not of
//! segments.

use std::collections::{BTreeMap, BTreeSet};

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::error::describe;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::sealed::Seal;
use futures::TryStreamExt;
use futures::future::join_all;
use serde::Serialize;

use super::holdings::{Holdings, missing, parse, union};
use super::push::beginning;
use super::{Fetched, Runs, WalArchive, WalArchiveError};
use crate::wal::{Segment, SegmentSize, SystemId, Timeline, TimelineHistory, WalError, WalFile};

/// What the repositories have of the log of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalSurvey {
    /// The cluster.
    pub system: SystemId,
    /// Bytes of its segments; 16 MiB where there is none to tell.
    pub size: SegmentSize,
    /// All timelines of which there is anything, by number.
    pub timelines: BTreeMap<Timeline, TimelineWal>,
    /// Each repository.
    pub repositories: Vec<RepositoryWal>,
}

/// What there is of one timeline, in any repository.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimelineWal {
    /// Whole segments, as runs.
    pub segments: Runs,
    /// Segments that a promotion cut off. Recovery never reads them.
    pub partials: Runs,
    /// Where the timeline came from.
    pub history: HistoryState,
}

/// What is known of the past of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryState {
    /// It is this. Timeline 1 has no ancestor, and needs no file.
    Known(TimelineHistory),
    /// No repository has the file, so nothing can be recovered along this timeline but from its own base backups.
    Missing,
    /// There is a file, and this is why it cannot be read.
    Unreadable(String),
}

/// What one repository has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RepositoryWal {
    /// Its name.
    pub repository: String,
    /// Segments that others have and this one has not.
    pub missing: Vec<Runs>,
    /// Objects that are no WAL of this cluster's segment size.
    pub foreign: u64,
    /// Why it could not be listed, when that is so; nothing is known of what it has then.
    pub problem: Option<String>,
}

impl WalSurvey {
    /// A survey that found nothing. Fill it in with [`WalSurvey::timeline_mut`].
    #[must_use]
    pub const fn empty(system: SystemId, size: SegmentSize) -> Self {
        Self { system, size, timelines: BTreeMap::new(), repositories: Vec::new() }
    }

    /// What there is of a timeline, for putting a survey together.
    pub fn timeline_mut(&mut self, timeline: Timeline) -> &mut TimelineWal {
        let size = self.size;
        self.timelines.entry(timeline).or_insert_with(|| TimelineWal::empty(timeline, size))
    }

    /// Where a timeline came from; `None` where that is not known.
    #[must_use]
    pub fn history(&self, timeline: Timeline) -> Option<TimelineHistory> {
        if timeline == Timeline::FIRST {
            return Some(TimelineHistory::first());
        }
        match &self.timelines.get(&timeline)?.history {
            HistoryState::Known(history) => Some(history.clone()),
            _ => None,
        }
    }

    /// Whether a repository could not be listed, so that there may be more than is known.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.repositories.iter().any(|repository| repository.problem.is_some())
    }
}

impl TimelineWal {
    fn empty(timeline: Timeline, size: SegmentSize) -> Self {
        let history = match timeline {
            Timeline::FIRST => HistoryState::Known(TimelineHistory::first()),
            _ => HistoryState::Missing,
        };
        let runs = Runs::new(timeline, size);
        Self { segments: runs.clone(), partials: runs, history }
    }
}

impl WalArchive {
    /// What all repositories have of this cluster's log. Histories are read with `identities`.
    ///
    /// # Errors
    /// The first failure, when no repository can be listed. One that cannot be beside others is named in the survey.
    /// [`WalArchiveError::Content`] when segments have different sizes.
    pub async fn survey(&self, identities: &Identities) -> Result<WalSurvey, WalArchiveError> {
        let below = layout::wal(self.stanza(), self.system().number());
        let listed = list_all(self.repositories(), self.stanza(), &below).await?;
        self.join(&listed, identities).await
    }

    /// The seal of each repository's copy of a file; `None` where there is none. Nothing is proven by it.
    pub(crate) async fn seals(&self, file: WalFile) -> Vec<(String, Result<Option<Seal>, WalArchiveError>)> {
        let seals = self
            .repositories()
            .members()
            .iter()
            .map(async |repository| (repository.name().to_owned(), self.seal_in(repository, file).await));
        join_all(seals).await
    }

    async fn seal_in(&self, repository: &Repository, file: WalFile) -> Result<Option<Seal>, WalArchiveError> {
        let bytes = match beginning(repository, &self.key(file)?).await {
            Err(error) if error.is_absent() => return Ok(None),
            read => read.map_err(|source| repository.failed("read WAL", source))?,
        };
        let repository = repository.name().to_owned();
        Seal::read(&bytes).map(Some).map_err(|source| WalArchiveError::Damaged { file, repository, source })
    }

    async fn join(&self, listed: &[Listed], identities: &Identities) -> Result<WalSurvey, WalArchiveError> {
        let system = self.system().number();
        let of =
            |listed: &Listed| listed.systems.as_ref().ok().and_then(|systems| systems.get(&system).cloned());
        let holdings: Vec<_> = listed.iter().map(|listed| of(listed).unwrap_or_default()).collect();
        let size = holdings.iter().find_map(|one| one.size).unwrap_or(SegmentSize::DEFAULT);
        let segments = union(holdings.iter().map(|one| &one.segments));
        let mut survey = WalSurvey::empty(self.system(), size);
        for (one, listed) in holdings.iter().zip(listed) {
            let problem = listed.systems.as_ref().err().map(|error| describe(error));
            let missing = if problem.is_some() { vec![] } else { missing(&one.segments, &segments) };
            let repository = listed.repository.clone();
            survey.repositories.push(RepositoryWal { repository, missing, foreign: one.foreign, problem });
        }
        for (timeline, runs) in segments {
            survey.timeline_mut(timeline).segments = runs;
        }
        for (timeline, runs) in union(holdings.iter().map(|one| &one.partials)) {
            survey.timeline_mut(timeline).partials = runs;
        }
        let histories: BTreeSet<_> = holdings.iter().flat_map(|one| &one.histories).copied().collect();
        for timeline in histories {
            survey.timeline_mut(timeline).history = self.history_state(timeline, identities).await;
        }
        Ok(survey)
    }

    async fn history_state(&self, timeline: Timeline, identities: &Identities) -> HistoryState {
        let content = match self.fetch(WalFile::History(timeline), identities).await {
            Ok(Fetched::Content(content)) => content,
            Ok(Fetched::Absent) => return HistoryState::Missing,
            Err(error) => return HistoryState::Unreadable(describe(&error)),
        };
        match TimelineHistory::parse(timeline, &String::from_utf8_lossy(&content)) {
            Ok(history) => HistoryState::Known(history),
            Err(error) => HistoryState::Unreadable(error.to_string()),
        }
    }
}

/// What all repositories have of the logs of all clusters of a stanza, by system identifier.
///
/// # Errors
/// As [`WalArchive::survey`].
pub async fn survey_stanza(
    repositories: &Repositories,
    stanza: &Stanza,
    identities: &Identities,
) -> Result<Vec<WalSurvey>, WalArchiveError> {
    let listed = list_all(repositories, stanza, &layout::all_wal(stanza)).await?;
    let all = listed.iter().filter_map(|listed| listed.systems.as_ref().ok()).flat_map(BTreeMap::keys);
    let systems: BTreeSet<u64> = all.copied().collect();
    let mut surveys = Vec::new();
    for system in systems {
        let archive = WalArchive::new(repositories.clone(), stanza.clone(), SystemId::new(system));
        surveys.push(archive.join(&listed, identities).await?);
    }
    Ok(surveys)
}

/// What one repository lists.
struct Listed {
    repository: String,
    systems: Result<BTreeMap<u64, Holdings>, WalArchiveError>,
}

async fn list_all(
    repositories: &Repositories,
    stanza: &Stanza,
    below: &Prefix,
) -> Result<Vec<Listed>, WalArchiveError> {
    let listings = repositories.members().iter().map(async |repository| Listed {
        repository: repository.name().to_owned(),
        systems: list(repository, stanza, below).await,
    });
    let mut all = join_all(listings).await;
    // Sizes that differ are no trouble of a store, and no repository makes up for them.
    let stops = |listed: &Listed| matches!(listed.systems, Err(WalArchiveError::Content { .. }));
    let none = all.iter().all(|listed| listed.systems.is_err());
    let fatal = if none { Some(0) } else { all.iter().position(stops) };
    match fatal.map(|at| all.swap_remove(at).systems) {
        Some(Err(error)) => Err(error),
        _ => Ok(all),
    }
}

/// Lists one repository. The seal of the first segment of each timeline tells the segment size.
async fn list(
    repository: &Repository,
    stanza: &Stanza,
    below: &Prefix,
) -> Result<BTreeMap<u64, Holdings>, WalArchiveError> {
    let wal = layout::all_wal(stanza);
    let failed = |source| WalArchiveError::from(repository.failed("list WAL", source));
    let mut systems: BTreeMap<u64, Holdings> = BTreeMap::new();
    let mut listed = repository.store().list(below);
    while let Some(meta) = listed.try_next().await.map_err(failed)? {
        let parsed = meta.key.as_str().strip_prefix(wal.as_str()).and_then(parse);
        let Some((system, file)) = parsed else { continue };
        let holdings = systems.entry(system).or_default();
        let size = match file {
            WalFile::Segment(segment) if !holdings.segments.contains_key(&segment.timeline()) => {
                let Some(found) = segment_size(repository, &meta.key).await? else {
                    // What nobody can open is no segment.
                    holdings.foreign += 1;
                    continue;
                };
                agree(&mut holdings.size, found, segment)?
            }
            _ => holdings.size.unwrap_or(SegmentSize::DEFAULT),
        };
        holdings.note(file, size);
    }
    Ok(systems)
}

fn agree(
    known: &mut Option<SegmentSize>,
    found: SegmentSize,
    segment: Segment,
) -> Result<SegmentSize, WalArchiveError> {
    let expected = *known.get_or_insert(found);
    if expected == found {
        return Ok(found);
    }
    let source = WalError::Length { name: segment, found: found.bytes(), expected: expected.bytes() };
    Err(WalArchiveError::Content { file: WalFile::Segment(segment), source })
}

/// The size that a seal speaks of; `None` when there is no such seal.
async fn segment_size(repository: &Repository, key: &Key) -> Result<Option<SegmentSize>, WalArchiveError> {
    let bytes = beginning(repository, key).await.map_err(|source| repository.failed("read WAL", source))?;
    Ok(Seal::read(&bytes).ok().and_then(|seal| SegmentSize::new(seal.length).ok()))
}
