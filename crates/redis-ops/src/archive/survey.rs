//! What the repositories of a stanza have of its streams.
//!
//! Keys tell which bytes there are; only the records of histories are read. Costs one listing of the streams per repository
//! and one small read for each history. Memory grows with the number of segments, some 100 bytes each.

use std::collections::BTreeMap;

use backstay_backup_core::error::describe;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::key::Prefix;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::{Repository, layout};
use futures::TryStreamExt;
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::coverage::Coverage;
use super::history::{HistoryRecord, MAX_RECORD};
use super::line::{Base, HistoryFacts, Line, LineFacts, line_facts, lines};
use super::name::{Entry, Level, SegmentName, Span, StreamId, below, history_key, parse};
use super::object::read_small;
use super::{ArchiveError, StreamArchive};
use crate::ReplicationId;

/// One stored segment, in any repository.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentObject {
    /// What is in it.
    pub name: SegmentName,
    /// Bytes as stored.
    pub stored: u64,
    /// Arrival of the first copy, by that store's clock.
    pub arrived: Timestamp,
    /// Which repositories have it, by their place in [`StreamSurvey::repositories`].
    pub copies: Vec<usize>,
    /// Whether a repository has the times of its parts.
    pub has_times: bool,
}

/// What one repository has of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RepositoryStream {
    /// Its name.
    pub repository: String,
    /// Objects of the stream.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Bytes of the stream that another repository has and this one has not.
    pub missing: u64,
    /// Objects that are no part of a stream.
    pub foreign: u64,
    /// Why it could not be listed, when that is so; nothing is known of what it has then.
    pub problem: Option<String>,
}

/// What the repositories have of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSurvey {
    /// The stream.
    pub stream: StreamId,
    /// Its histories.
    pub histories: BTreeMap<ReplicationId, HistoryFacts>,
    /// Each repository, in order of preference.
    pub repositories: Vec<RepositoryStream>,
    segments: BTreeMap<ReplicationId, Vec<SegmentObject>>,
}

impl StreamSurvey {
    /// A stream of which there is nothing.
    #[must_use]
    pub fn empty(stream: StreamId) -> Self {
        let (histories, segments) = (BTreeMap::new(), BTreeMap::new());
        Self { stream, histories, repositories: Vec::new(), segments }
    }

    /// The segments of a history, by their beginning; longer ones first.
    #[must_use]
    pub fn segments(&self, id: ReplicationId) -> &[SegmentObject] {
        self.segments.get(&id).map_or(&[], Vec::as_slice)
    }

    /// All segments.
    pub fn all_segments(&self) -> impl Iterator<Item = &SegmentObject> {
        self.segments.values().flatten()
    }

    /// Whether nothing was ever archived, as far as is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histories.is_empty()
    }

    /// Whether a repository could not be listed, so that there may be more than is known.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.repositories.iter().any(|repository| repository.problem.is_some())
    }

    /// The line of a history.
    #[must_use]
    pub fn line(&self, id: ReplicationId) -> Line {
        Line::of(id, &self.histories)
    }

    /// Windows and gaps of every line worth a look, the one that grew last at the end.
    #[must_use]
    pub fn lines(&self, bases: &[Base]) -> Vec<LineFacts> {
        let mut histories = self.histories.clone();
        // A history of which there is a base, and no byte yet.
        for base in bases {
            histories.entry(base.position.replication_id).or_default();
        }
        let mut lines: Vec<_> =
            lines(&histories).iter().map(|line| line_facts(line, &histories, bases)).collect();
        lines.retain(|line| self.histories.contains_key(&line.replication_id));
        lines.sort_by_key(|line| self.last_growth(line.replication_id));
        lines
    }

    /// When a history was last added to, by the store's clock.
    #[must_use]
    pub fn last_growth(&self, id: ReplicationId) -> Option<Timestamp> {
        let recorded = self.histories.get(&id).and_then(|facts| Some(facts.record.as_ref()?.recorded));
        self.segments(id).iter().map(|segment| segment.arrived).max().or(recorded)
    }
}

impl StreamArchive {
    /// What the repositories have of this stream.
    ///
    /// # Errors
    /// The first failure, when no repository can be listed. One that cannot be beside others is named in the survey.
    pub async fn survey(&self) -> Result<StreamSurvey, ArchiveError> {
        let below = below(self.stanza(), self.stream());
        let mut found = survey_below(self.repositories(), self.stanza(), &below).await?;
        Ok(found.pop().unwrap_or_else(|| StreamSurvey::empty(self.stream().clone())))
    }
}

/// What the repositories have of all streams of a stanza, by name.
///
/// # Errors
/// As [`StreamArchive::survey`].
pub async fn survey_streams(
    repositories: &Repositories,
    stanza: &Stanza,
) -> Result<Vec<StreamSurvey>, ArchiveError> {
    survey_below(repositories, stanza, &layout::streams(stanza)).await
}

/// What one repository lists.
#[derive(Default)]
struct Listed {
    streams: BTreeMap<StreamId, Holdings>,
    foreign: u64,
    problem: Option<String>,
}

/// What one repository has of one stream.
#[derive(Default)]
struct Holdings {
    segments: BTreeMap<SegmentName, (u64, Timestamp)>,
    times: Vec<SegmentName>,
    histories: Vec<ReplicationId>,
    objects: u64,
    bytes: u64,
}

async fn survey_below(
    repositories: &Repositories,
    stanza: &Stanza,
    below: &Prefix,
) -> Result<Vec<StreamSurvey>, ArchiveError> {
    let members = repositories.members();
    let listings = join_all(members.iter().map(|member| list(member, stanza, below))).await;
    let mut all = Vec::new();
    let mut first = None;
    for listing in listings {
        all.push(listing.unwrap_or_else(|error| {
            let problem = Some(describe(&error));
            first.get_or_insert(error);
            Listed { problem, ..Listed::default() }
        }));
    }
    match first {
        Some(error) if all.iter().all(|listed| listed.problem.is_some()) => return Err(error),
        _ => {}
    }
    let mut streams: Vec<_> = all.iter().flat_map(|listed| listed.streams.keys().cloned()).collect();
    streams.sort_unstable();
    streams.dedup();
    let mut surveys = Vec::new();
    for stream in streams {
        surveys.push(join(repositories, stanza, stream, &all).await);
    }
    Ok(surveys)
}

async fn list(repository: &Repository, stanza: &Stanza, below: &Prefix) -> Result<Listed, ArchiveError> {
    let mut listed = Listed::default();
    let mut objects = repository.store().list(below);
    let failed = |source| ArchiveError::from(repository.failed("list streams", source));
    while let Some(meta) = objects.try_next().await.map_err(failed)? {
        let Some((stream, entry)) = parse(stanza, &meta.key) else {
            listed.foreign += 1;
            continue;
        };
        let holdings = listed.streams.entry(stream).or_default();
        holdings.objects += 1;
        holdings.bytes += meta.size;
        match entry {
            Entry::Segment(name) => _ = holdings.segments.insert(name, (meta.size, meta.modified)),
            Entry::Times(name) => holdings.times.push(name),
            Entry::History(id) => holdings.histories.push(id),
        }
    }
    Ok(listed)
}

async fn join(
    repositories: &Repositories,
    stanza: &Stanza,
    stream: StreamId,
    listed: &[Listed],
) -> StreamSurvey {
    let mut survey = StreamSurvey::empty(stream);
    let nothing = Holdings::default();
    let mut objects: BTreeMap<SegmentName, SegmentObject> = BTreeMap::new();
    let mut ids = Vec::new();
    for (at, one) in listed.iter().enumerate() {
        let holdings = one.streams.get(&survey.stream).unwrap_or(&nothing);
        for (name, (stored, arrived)) in &holdings.segments {
            let object = objects.entry(*name).or_insert_with(|| SegmentObject {
                name: *name,
                stored: *stored,
                arrived: *arrived,
                copies: Vec::new(),
                has_times: false,
            });
            object.arrived = object.arrived.min(*arrived);
            object.copies.push(at);
        }
        ids.extend(holdings.histories.iter().map(|id| (*id, at)));
    }
    for name in listed.iter().filter_map(|one| one.streams.get(&survey.stream)).flat_map(|it| &it.times) {
        if let Some(object) = objects.get_mut(name) {
            object.has_times = true;
        }
    }
    for object in objects.into_values() {
        survey.segments.entry(object.name.replication_id).or_default().push(object);
    }
    for (id, segments) in &mut survey.segments {
        let order =
            |object: &SegmentObject| (object.name.span.start, std::cmp::Reverse(object.name.span.end));
        segments.sort_by_key(|object| (order(object), object.name.level));
        let coverage = Coverage::of(segments.iter().map(|segment| segment.name.span));
        survey.histories.entry(*id).or_default().coverage = coverage;
    }
    for (id, at) in ids {
        let known = survey.histories.entry(id).or_default();
        if known.record.is_none() {
            match read_record(&repositories.members()[at], stanza, &survey.stream, id).await {
                Ok(record) => (known.record, known.problem) = (Some(record), None),
                Err(error) => known.problem = Some(describe(&error)),
            }
        }
    }
    for (member, one) in repositories.members().iter().zip(listed) {
        let holdings = one.streams.get(&survey.stream).unwrap_or(&nothing);
        survey.repositories.push(RepositoryStream {
            repository: member.name().to_owned(),
            objects: holdings.objects,
            bytes: holdings.bytes,
            missing: if one.problem.is_some() { 0 } else { missing(&survey, holdings) },
            foreign: one.foreign,
            problem: one.problem.clone(),
        });
    }
    survey
}

/// Bytes of the stream that others have.
fn missing(survey: &StreamSurvey, holdings: &Holdings) -> u64 {
    let of = |(id, facts): (&ReplicationId, &HistoryFacts)| {
        let mine = holdings.segments.keys().filter(|name| name.replication_id == *id);
        let spans: Vec<Span> = mine.map(|name| name.span).collect();
        facts.coverage.bytes() - Coverage::of(spans).bytes()
    };
    survey.histories.iter().map(of).sum()
}

async fn read_record(
    repository: &Repository,
    stanza: &Stanza,
    stream: &StreamId,
    id: ReplicationId,
) -> Result<HistoryRecord, ArchiveError> {
    let key = history_key(stanza, stream, id);
    let read = read_small(repository, &key, MAX_RECORD).await;
    let bytes = read.map_err(|source| repository.failed("read a history", source))?;
    let name = repository.name().to_owned();
    HistoryRecord::decode(&bytes, stanza, stream, id).map_err(|source| ArchiveError::Record {
        id,
        repository: name,
        source,
    })
}

impl Level {
    /// Whether it is read first where both have a byte.
    pub(super) fn is_merged(self) -> bool {
        self == Self::Merged
    }
}
