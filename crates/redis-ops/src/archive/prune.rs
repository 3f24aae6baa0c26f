//! Which segments nobody needs any more: a plan that only reads, then its execution.
//!
//! A segment is needed when a base that stays lies on one of its lines before its end: recovery begins there and reads on. Fresh
//! segments are not needed beside merged ones that hold the same bytes in the same repository. Records of histories stay.
//!
//! Nothing goes where anything is uncertain: a repository that cannot be read, a set of which nobody knows what it is, no base at
//! all. The line that grew last keeps what has no base before it, because its base may still be on its way. What arrived within
//! the grace period by the store's clock stays too.

use std::collections::BTreeSet;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::config::TimeSpan;
use backstay_backup_core::error::describe;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::lease::store_now;
use backstay_backup_core::prune::PrunePlan;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::line::{Base, Line};
use super::name::{Level, SegmentName, Span, StreamId, segment_key, times_key};
use super::survey::{SegmentObject, StreamSurvey, survey_streams};
use super::{ArchiveError, Coverage};

/// Objects deleted at the same time.
const DELETES: usize = 8;

/// What would be removed of the streams of a stanza.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct StreamPrunePlan {
    /// The stanza.
    pub stanza: Stanza,
    /// Each stream.
    pub streams: Vec<OneStreamPlan>,
    /// Why all of it stays, when that is so.
    pub kept_because: Option<String>,
    #[serde(skip)]
    grace: TimeSpan,
    #[serde(skip)]
    staying: Vec<Base>,
}

/// What would be removed of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct OneStreamPlan {
    /// The stream.
    pub stream: StreamId,
    /// From each repository.
    pub repositories: Vec<RepositoryStreamPlan>,
}

/// What would be removed from one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RepositoryStreamPlan {
    /// Its name.
    pub repository: String,
    /// Segments that no kept base needs.
    pub unneeded: u64,
    /// Fresh segments whose bytes lie in merged ones.
    pub superseded: u64,
    /// Size of both in bytes.
    pub bytes: u64,
    #[serde(skip)]
    names: BTreeSet<SegmentName>,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct StreamPruneReport {
    /// Segments that are gone, over all streams and repositories.
    pub segments: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// What could not be removed, and why.
    pub failed: Vec<(String, String)>,
    /// Repositories in which nothing was touched, and why.
    pub blocked: Vec<(String, String)>,
}

impl StreamPrunePlan {
    /// Whether there is nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(|stream| stream.repositories.is_empty())
    }

    /// Bytes that applying it frees.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.streams.iter().flat_map(|stream| &stream.repositories).map(|plan| plan.bytes).sum()
    }
}

/// Decides which segments to remove. Only reads: a listing of the streams in each repository.
///
/// `bases` are the snapshots of the catalog, `sets` is what will be removed of the sets; nothing when `None`. What arrived
/// within `grace` stays.
///
/// # Errors
/// When no repository can be listed.
pub async fn plan_stream_prune(
    repositories: &Repositories,
    catalog: &Catalog,
    bases: &[Base],
    sets: Option<&PrunePlan>,
    grace: TimeSpan,
) -> Result<StreamPrunePlan, ArchiveError> {
    let stanza = &catalog.stanza;
    let staying = staying(bases, catalog, sets);
    let surveys = survey_streams(repositories, stanza).await?;
    let mut plan = StreamPrunePlan {
        stanza: stanza.clone(),
        streams: Vec::new(),
        kept_because: uncertain(catalog, sets, &surveys, &staying),
        grace,
        staying,
    };
    if plan.kept_because.is_none() {
        let now = repositories.clock().now();
        plan.streams =
            surveys.iter().map(|survey| plan_one(survey, &plan.staying, now, length(grace))).collect();
    }
    Ok(plan)
}

fn length(span: TimeSpan) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

/// Bases of which a copy stays somewhere.
fn staying(bases: &[Base], catalog: &Catalog, plan: Option<&PrunePlan>) -> Vec<Base> {
    let removed = |set: &SetId, repository: &str| {
        let plans = plan.into_iter().flat_map(|plan| &plan.repositories);
        let mut of = plans.filter(|plan| plan.repository == repository);
        of.any(|plan| plan.remove.iter().any(|it| it.set == *set))
    };
    let stays = |base: &&Base| {
        let set = catalog.sets.iter().find(|set| set.id == base.set);
        set.is_some_and(|set| set.copies.iter().any(|copy| !removed(&set.id, &copy.repository)))
    };
    bases.iter().filter(stays).cloned().collect()
}

/// Why nobody can tell what is needed.
fn uncertain(
    catalog: &Catalog,
    plan: Option<&PrunePlan>,
    surveys: &[StreamSurvey],
    staying: &[Base],
) -> Option<String> {
    // Of nothing nothing can go, and most stanzas are no Redis.
    let nothing = |survey: &StreamSurvey| {
        survey.is_empty() && survey.repositories.iter().all(|repository| repository.problem.is_none())
    };
    if surveys.iter().all(nothing) {
        return None;
    }
    let unread = catalog.unreachable.first().map(|(name, why)| (name.clone(), why.clone()));
    let unlisted = surveys
        .iter()
        .flat_map(|survey| &survey.repositories)
        .find_map(|it| Some((it.repository.clone(), it.problem.clone()?)));
    if let Some((name, why)) = unread.or(unlisted) {
        return Some(format!("repository {name}, which may hold bases, cannot be read: {why}"));
    }
    let blocked = plan.into_iter().flat_map(|plan| &plan.repositories).find_map(|it| it.blocked.as_ref());
    if let Some(blocked) = blocked {
        return Some(blocked.to_string());
    }
    if let Some(set) = catalog.sets.iter().find(|set| set.manifest.is_none()) {
        return Some(format!("set {} may be a base, and its manifest cannot be read", set.id));
    }
    let record = surveys
        .iter()
        .flat_map(|survey| &survey.histories)
        .find_map(|(id, facts)| Some((id, facts.problem.as_ref()?)));
    if let Some((id, problem)) = record {
        return Some(format!("where history {id} comes from cannot be read: {problem}"));
    }
    let is_archived = surveys.iter().any(|survey| !survey.is_empty());
    (is_archived && !staying.iter().any(|base| base.good)).then(|| "there is no good base".to_owned())
}

/// What one stream has that nobody needs. Pure.
fn plan_one(survey: &StreamSurvey, bases: &[Base], now: Timestamp, grace: SignedDuration) -> OneStreamPlan {
    let unneeded = unneeded(survey, bases);
    let mut repositories = Vec::new();
    for (at, repository) in survey.repositories.iter().enumerate() {
        let mut plan = RepositoryStreamPlan {
            repository: repository.repository.clone(),
            unneeded: 0,
            superseded: 0,
            bytes: 0,
            names: BTreeSet::new(),
        };
        let here = |object: &&SegmentObject| object.copies.contains(&at);
        for object in survey.all_segments().filter(here) {
            if now.duration_since(object.arrived) < grace {
                continue;
            }
            if unneeded.contains(&object.name) {
                plan.unneeded += 1;
            } else if is_superseded(survey, at, &object.name) {
                plan.superseded += 1;
            } else {
                continue;
            }
            plan.bytes += object.stored;
            plan.names.insert(object.name);
        }
        if !plan.names.is_empty() {
            repositories.push(plan);
        }
    }
    OneStreamPlan { stream: survey.stream.clone(), repositories }
}

/// Segments that no base that stays leads through.
fn unneeded(survey: &StreamSurvey, bases: &[Base]) -> BTreeSet<SegmentName> {
    let lines: Vec<Line> = survey.histories.keys().map(|id| survey.line(*id)).collect();
    let living = survey.histories.keys().max_by_key(|id| survey.last_growth(**id));
    let firsts: Vec<_> = lines
        .iter()
        .map(|line| {
            let mine = bases.iter().filter(|base| line.has(base.position));
            (line, mine.map(|base| base.position.offset).min())
        })
        .collect();
    let is_needed = |name: &SegmentName| {
        let mut through = firsts.iter().filter(|(line, _)| {
            line.pieces()
                .iter()
                .any(|(id, span)| *id == name.replication_id && !span.and(&name.span).is_empty())
        });
        through.any(|(line, first)| match first {
            Some(first) => *first < name.span.end,
            None => Some(&line.id()) == living,
        })
    };
    survey.all_segments().map(|object| object.name).filter(|name| !is_needed(name)).collect()
}

/// Whether the bytes of a fresh segment lie in merged ones of the same repository.
fn is_superseded(survey: &StreamSurvey, repository: usize, name: &SegmentName) -> bool {
    if name.level == Level::Merged {
        return false;
    }
    let merged = survey.segments(name.replication_id).iter().filter(|object| {
        object.name.level == Level::Merged && object.copies.contains(&repository) && object.has_times
    });
    let spans = merged.map(|object| object.name.span.and(&name.span)).filter(|span: &Span| !span.is_empty());
    Coverage::of(spans).bytes() == name.span.len()
}

impl StreamPrunePlan {
    /// Removes what the plan says, as far as it still is to be removed by a second look. Running it again is harmless.
    ///
    /// # Errors
    /// When no repository can be listed; whatever happens later stands in the report.
    ///
    /// # Cancel safety
    /// Stops between objects when `cancel` is.
    pub async fn apply(
        &self,
        repositories: &Repositories,
        tolerance: TimeSpan,
        cancel: &CancellationToken,
    ) -> Result<StreamPruneReport, ArchiveError> {
        let mut report = StreamPruneReport::default();
        if self.is_empty() {
            return Ok(report);
        }
        let surveys = survey_streams(repositories, &self.stanza).await?;
        if surveys.iter().any(StreamSurvey::is_partial) {
            report.blocked.push(("all".to_owned(), "a repository cannot be listed any more".to_owned()));
            return Ok(report);
        }
        for member in repositories.members() {
            let now = match self.clock(repositories, member, tolerance).await {
                Ok(now) => now,
                Err(why) => {
                    report.blocked.push((member.name().to_owned(), why));
                    continue;
                }
            };
            for survey in &surveys {
                let fresh = plan_one(survey, &self.staying, now, length(self.grace));
                let mine = |plan: &OneStreamPlan| {
                    let of = plan.repositories.iter().find(|it| it.repository == member.name());
                    of.map(|it| it.names.clone()).unwrap_or_default()
                };
                let old = self
                    .streams
                    .iter()
                    .find(|plan| plan.stream == survey.stream)
                    .map(mine)
                    .unwrap_or_default();
                let doomed: Vec<_> = mine(&fresh).intersection(&old).copied().collect();
                self.remove(member, survey, doomed, cancel, &mut report).await;
            }
        }
        Ok(report)
    }

    async fn clock(
        &self,
        repositories: &Repositories,
        member: &Repository,
        tolerance: TimeSpan,
    ) -> Result<Timestamp, String> {
        let store = store_now(member, &self.stanza).await.map_err(|error| describe(&error))?;
        let host = repositories.clock().now();
        if store.duration_since(host).abs() > length(tolerance) {
            return Err(format!("the clock of this host shows {host}, the clock of the store {store}"));
        }
        Ok(store)
    }

    async fn remove(
        &self,
        repository: &Repository,
        survey: &StreamSurvey,
        doomed: Vec<SegmentName>,
        cancel: &CancellationToken,
        report: &mut StreamPruneReport,
    ) {
        let store = repository.store();
        let sizes = |name: &SegmentName| {
            let mut of = survey.segments(name.replication_id).iter();
            of.find(|object| object.name == *name).map_or(0, |object| object.stored)
        };
        let deletions = doomed.into_iter().take_while(|_| !cancel.is_cancelled()).map(async |name| {
            // The segment before its times: what lies there without times still can be read.
            let mut result = store.delete(&segment_key(&self.stanza, &survey.stream, &name)).await;
            if result.is_ok() && name.level == Level::Merged {
                result = store.delete(&times_key(&self.stanza, &survey.stream, &name)).await;
            }
            (name, result)
        });
        let mut deletions = std::pin::pin!(stream::iter(deletions).buffer_unordered(DELETES));
        while let Some((name, result)) = deletions.next().await {
            match result {
                Ok(()) => {
                    report.segments += 1;
                    report.bytes += sizes(&name);
                }
                Err(error) => {
                    report
                        .failed
                        .push((format!("{name} in repository {}", repository.name()), describe(&error)));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "prune_tests.rs"]
mod tests;
