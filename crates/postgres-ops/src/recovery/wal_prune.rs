//! Which WAL nobody needs any more: a plan that only reads, then its execution.
//!
//! What lies before the beginning of the oldest base backup that stays is needed by none of them, on whichever timeline:
//! recovery reads upwards from there. So one position per cluster decides, and everything from it on stays, gaps or not.
//! Histories are never removed: they are a few lines, and without them later WAL is worthless.
//!
//! Nothing goes where anything is uncertain: a repository that cannot be read, a set of which nobody knows what it needs,
//! no base backup at all, or none that can be recovered. The plan says which of these it is.
//!
//! What arrived within the grace period by the store's clock stays too: a base backup that is being taken needs it, and
//! does not exist before its manifest does.

mod apply;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::config::TimeSpan;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::prune::PrunePlan;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::store::ObjectMeta;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

pub use apply::{RepositoryWalPruned, WalPruneReport};

use super::status::surveys_of;
use super::{BaseBackup, PhysicalSets};
use crate::wal::{Lsn, Segment, SegmentSize, SystemId, WalFile};
use crate::wal_archive::{WalArchiveError, WalSurvey, parse_key};

/// What would be removed of the WAL of a stanza.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct WalPrunePlan {
    /// The stanza.
    pub stanza: Stanza,
    /// Each cluster of which there is WAL.
    pub clusters: Vec<ClusterWalPlan>,
    #[serde(skip)]
    grace: TimeSpan,
}

/// What would be removed of the WAL of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClusterWalPlan {
    /// The cluster.
    pub system: SystemId,
    /// WAL from here on stays: the beginning of the oldest base backup that stays. `None` when all of it stays.
    pub keep_from: Option<Lsn>,
    /// That base backup.
    pub needed_by: Option<SetId>,
    /// Why all of it stays, when that is so.
    pub kept_because: Option<String>,
    /// What would be removed from each repository; empty when nothing would be.
    pub repositories: Vec<RepositoryWalPlan>,
    #[serde(skip)]
    size: SegmentSize,
}

/// What would be removed from one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RepositoryWalPlan {
    /// Its name.
    pub repository: String,
    /// Objects: segments, partial segments and backup labels.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The first segment, in the order of names.
    pub first: Segment,
    /// The last one.
    pub last: Segment,
}

impl WalPrunePlan {
    /// Whether there is nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clusters.iter().all(|cluster| cluster.repositories.is_empty())
    }

    /// Bytes that applying it frees.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.clusters.iter().flat_map(|cluster| &cluster.repositories).map(|plan| plan.bytes).sum()
    }
}

/// Decides which WAL to remove. Only reads: a listing of the WAL in each repository, twice where some of it can go.
///
/// `sets` is what will be removed of the sets; nothing when `None`. Younger WAL than `grace` stays.
///
/// # Errors
/// [`WalArchiveError`] when no repository can be listed.
pub async fn plan_wal_prune(
    repositories: &Repositories,
    catalog: &Catalog,
    sets: Option<&PrunePlan>,
    grace: TimeSpan,
) -> Result<WalPrunePlan, WalArchiveError> {
    let stanza = &catalog.stanza;
    let young = duration(grace);
    let physical = PhysicalSets::of(catalog);
    let staying = staying(catalog, sets);
    let mut clusters = Vec::new();
    for survey in surveys_of(repositories, stanza, &physical, &Identities::none()).await? {
        let uncertain = uncertain(catalog, sets, &survey, &physical);
        let bound = uncertain.map_or_else(|| bound(&physical, &staying, &survey), Err);
        let mut plan = ClusterWalPlan::new(&survey);
        match bound {
            Err(why) => plan.kept_because = Some(why),
            Ok((from, set)) => {
                (plan.keep_from, plan.needed_by) = (Some(from), Some(set));
                let now = repositories.clock().now();
                for member in repositories.members() {
                    plan.repositories.extend(plan_repository(member, stanza, &plan, now, young).await?);
                }
            }
        }
        if !survey.timelines.is_empty() {
            clusters.push(plan);
        }
    }
    Ok(WalPrunePlan { stanza: stanza.clone(), clusters, grace })
}

/// Sets of which a copy stays somewhere.
fn staying(catalog: &Catalog, plan: Option<&PrunePlan>) -> BTreeSet<SetId> {
    let removed = |set: &SetId, repository: &str| {
        let plans = plan.into_iter().flat_map(|plan| &plan.repositories);
        plans
            .filter(|plan| plan.repository == repository)
            .any(|plan| plan.remove.iter().any(|it| it.set == *set))
    };
    let stays =
        catalog.sets.iter().filter(|set| set.copies.iter().any(|copy| !removed(&set.id, &copy.repository)));
    stays.map(|set| set.id.clone()).collect()
}

/// Why nobody can tell what is needed.
fn uncertain(
    catalog: &Catalog,
    plan: Option<&PrunePlan>,
    survey: &WalSurvey,
    sets: &PhysicalSets,
) -> Option<String> {
    let unread = catalog.unreachable.first().map(|(name, why)| (name.clone(), why.clone()));
    let unlisted =
        survey.repositories.iter().find_map(|it| Some((it.repository.clone(), it.problem.clone()?)));
    if let Some((name, why)) = unread.or(unlisted) {
        return Some(format!("repository {name}, which may hold base backups, cannot be read: {why}"));
    }
    let blocked = plan.into_iter().flat_map(|plan| &plan.repositories).find_map(|it| it.blocked.as_ref());
    if let Some(blocked) = blocked {
        return Some(blocked.to_string());
    }
    let (set, why) = sets.unknown.first()?;
    Some(format!("set {set} may need it, and {why}"))
}

/// The first position that somebody needs, and who. Pure.
fn bound(sets: &PhysicalSets, staying: &BTreeSet<SetId>, survey: &WalSurvey) -> Result<(Lsn, SetId), String> {
    let mine = |set: &&BaseBackup| set.system == survey.system && staying.contains(&set.set);
    let Some(oldest) = sets.known().filter(mine).min_by_key(|set| set.start) else {
        return Err("there is no base backup of this cluster that says what is needed".to_owned());
    };
    let mut good = sets.good.iter().filter(mine);
    if !good.any(|set| !set.wal.is_empty() && set.missing(survey).is_empty()) {
        return Err("no base backup that stays can be made consistent".to_owned());
    }
    // Recovery begins to read at the segment, and a backup from a standby on an older timeline.
    let first =
        oldest.wal.iter().map(|range| range.start).min().map_or(oldest.start, |it| it.min(oldest.start));
    let segment = first.bytes() / survey.size.bytes() * survey.size.bytes();
    Ok((Lsn::new(segment), oldest.set.clone()))
}

impl ClusterWalPlan {
    fn new(survey: &WalSurvey) -> Self {
        Self {
            system: survey.system,
            keep_from: None,
            needed_by: None,
            kept_because: None,
            repositories: vec![],
            size: survey.size,
        }
    }

    /// The segment that an object belongs to, if nobody needs it.
    fn unneeded(&self, system: u64, file: WalFile) -> Option<Segment> {
        let (WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup(segment, _)) = file
        else {
            return None;
        };
        let is_before = segment.fits(self.size) && segment.start(self.size) < self.keep_from?;
        (system == self.system.number() && is_before).then_some(segment)
    }
}

/// What one repository has that nobody needs.
async fn plan_repository(
    repository: &Repository,
    stanza: &Stanza,
    cluster: &ClusterWalPlan,
    now: Timestamp,
    grace: SignedDuration,
) -> Result<Option<RepositoryWalPlan>, WalArchiveError> {
    let below = layout::wal(stanza, cluster.system.number());
    let failed = |source| WalArchiveError::from(repository.failed("list WAL", source));
    let mut plan: Option<RepositoryWalPlan> = None;
    let mut listed = repository.store().list(&below);
    while let Some(meta) = listed.try_next().await.map_err(failed)? {
        let Some(segment) = removable(&meta, stanza, cluster, now, grace) else { continue };
        let found = plan.get_or_insert_with(|| RepositoryWalPlan {
            repository: repository.name().to_owned(),
            objects: 0,
            bytes: 0,
            first: segment,
            last: segment,
        });
        found.objects += 1;
        found.bytes += meta.size;
        found.last = segment;
    }
    Ok(plan)
}

/// The segment that an object belongs to, if it can go.
fn removable(
    meta: &ObjectMeta,
    stanza: &Stanza,
    cluster: &ClusterWalPlan,
    now: Timestamp,
    grace: SignedDuration,
) -> Option<Segment> {
    let (system, file) = parse_key(stanza, &meta.key)?;
    let segment = cluster.unneeded(system, file)?;
    (now.duration_since(meta.modified) >= grace).then_some(segment)
}

/// As the clock counts.
fn duration(span: TimeSpan) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

/// Plans of clusters, by their identifier.
fn by_system(plan: &WalPrunePlan) -> BTreeMap<SystemId, &ClusterWalPlan> {
    plan.clusters.iter().map(|cluster| (cluster.system, cluster)).collect()
}
