//! Removes WAL that nobody needs, after everything was read and decided again.

use backstay_backup_core::catalog::{Catalog, SetSummary};
use backstay_backup_core::config::TimeSpan;
use backstay_backup_core::error::describe;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::lease::store_now;
use backstay_backup_core::proof::Problem;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::store::{ObjectMeta, StoreError};
use backstay_backup_core::verify::{Depth, Outcome, VerifyOptions, verify_set};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{ClusterWalPlan, WalPrunePlan, by_system, duration, plan_wal_prune, removable};
use crate::recovery::PhysicalSets;
use crate::wal::SystemId;
use crate::wal_archive::WalArchiveError;

/// Objects deleted at the same time.
const DELETES: usize = 8;
/// Objects that could not be deleted before a run gives up on a repository: a locked archive may hold a million.
const MOST_PROBLEMS: usize = 1000;

/// What was removed of the WAL of a stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct WalPruneReport {
    /// Each cluster and repository of the plan.
    pub repositories: Vec<RepositoryWalPruned>,
    /// Clusters all of whose WAL stays although there is some that could go, and why.
    pub kept: Vec<(SystemId, String)>,
}

/// What was removed from one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RepositoryWalPruned {
    /// The cluster.
    pub system: SystemId,
    /// Name of the repository.
    pub repository: String,
    /// Objects deleted.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Why nothing, or not everything, was touched, when that is so.
    pub stopped: Option<String>,
    /// What the store did not allow to delete.
    pub denied: Vec<Problem>,
    /// What failed; the next run tries again.
    pub failed: Vec<Problem>,
}

impl WalPrunePlan {
    /// Removes what the plan says, as far as it still is to be removed: the catalog is read again, the newest good base
    /// backup of each cluster must be whole, and the store's clock must agree with the host's. Running it again is
    /// harmless.
    ///
    /// # Errors
    /// Only when no repository can be read.
    ///
    /// # Cancel safety
    /// Stops between two objects when `cancel` is. WAL goes in the order of its positions, so what is left is whole from
    /// some segment on.
    pub async fn apply(
        &self,
        repositories: &Repositories,
        tolerance: TimeSpan,
        cancel: &CancellationToken,
    ) -> Result<WalPruneReport, WalArchiveError> {
        let mut report = WalPruneReport::default();
        if self.is_empty() {
            return Ok(report);
        }
        let catalog = Catalog::load(repositories, &self.stanza).await?;
        let fresh = plan_wal_prune(repositories, &catalog, None, self.grace).await?;
        let planned = by_system(self);
        for cluster in &fresh.clusters {
            let Some(before) = planned.get(&cluster.system).filter(|plan| !plan.repositories.is_empty())
            else {
                continue;
            };
            if let Some(why) = &cluster.kept_because {
                report.kept.push((cluster.system, why.clone()));
            } else if let Some(why) = not_whole(repositories, &catalog, cluster).await {
                report.kept.push((cluster.system, why));
            } else {
                // Never more than was shown.
                let mut cluster = cluster.clone();
                cluster.keep_from = cluster.keep_from.min(before.keep_from);
                for plan in &before.repositories {
                    let Some(member) = repositories.member(&plan.repository) else { continue };
                    let run =
                        Run { stanza: &self.stanza, cluster: &cluster, grace: duration(self.grace), cancel };
                    report.repositories.push(run.remove_from(member, repositories, tolerance).await);
                }
            }
        }
        Ok(report)
    }
}

/// Why the newest good base backup cannot be trusted, if so: nothing older is removed before somebody has looked.
async fn not_whole(
    repositories: &Repositories,
    catalog: &Catalog,
    cluster: &ClusterWalPlan,
) -> Option<String> {
    let sets = PhysicalSets::of(catalog);
    let mine = sets.good.iter().filter(|set| set.system == cluster.system);
    let Some(newest) = mine.max_by_key(|set| set.stop) else {
        return Some("there is no good base backup".to_owned());
    };
    let summary: Option<&SetSummary> = catalog.sets.iter().find(|set| set.id == newest.set);
    let Some(summary) = summary else {
        return Some(format!("the newest good base backup {} is not in the catalog", newest.set));
    };
    let options = VerifyOptions::new(Depth::Quick);
    let verified = verify_set(repositories, &catalog.stanza, summary, &options).await;
    let whole = verified.copies.iter().any(|copy| copy.outcome == Outcome::Passed);
    (!whole).then(|| format!("the newest good base backup {} could not be found whole", newest.set))
}

struct Run<'a> {
    stanza: &'a Stanza,
    cluster: &'a ClusterWalPlan,
    grace: SignedDuration,
    cancel: &'a CancellationToken,
}

impl Run<'_> {
    async fn remove_from(
        &self,
        member: &Repository,
        repositories: &Repositories,
        tolerance: TimeSpan,
    ) -> RepositoryWalPruned {
        let mut report = RepositoryWalPruned {
            system: self.cluster.system,
            repository: member.name().to_owned(),
            objects: 0,
            bytes: 0,
            stopped: None,
            denied: vec![],
            failed: vec![],
        };
        match self.store_time(member, repositories.clock().now(), tolerance).await {
            Ok(now) => self.delete(member, now, &mut report).await,
            Err(why) => report.stopped = Some(why),
        }
        report
    }

    /// The store's time, by which WAL is old enough. Where nothing can be written to learn it, the arrival of the newest
    /// WAL is a lower bound, by which less is old.
    async fn store_time(
        &self,
        member: &Repository,
        host: Timestamp,
        tolerance: TimeSpan,
    ) -> Result<Timestamp, String> {
        let limit = duration(tolerance);
        match store_now(member, self.stanza).await {
            Ok(store) if store.duration_since(host).abs() > limit => {
                Err(format!("the clock of this host shows {host}, the clock of the store {store}"))
            }
            Ok(store) => Ok(store),
            Err(backstay_backup_core::Error::Store {
                source: StoreError::Denied { .. } | StoreError::Full { .. },
                ..
            }) => {
                let below = layout::wal(self.stanza, self.cluster.system.number());
                let newest = member
                    .store()
                    .list(&below)
                    .try_fold(None, async |newest, meta: ObjectMeta| Ok(newest.max(Some(meta.modified))));
                let newest = newest.await.map_err(|error| describe(&error))?;
                Ok(newest.unwrap_or(host).min(host))
            }
            Err(error) => Err(describe(&error)),
        }
    }

    /// Deletes in the order of the listing, which is that of positions on each timeline.
    async fn delete(&self, member: &Repository, now: Timestamp, report: &mut RepositoryWalPruned) {
        let store = member.store();
        let below = layout::wal(self.stanza, self.cluster.system.number());
        let goes = |meta: &ObjectMeta| removable(meta, self.stanza, self.cluster, now, self.grace).is_some();
        let mut deletions = std::pin::pin!(
            store
                .list(&below)
                .try_filter(|meta| std::future::ready(goes(meta)))
                .map_ok(async |meta| {
                    if self.cancel.is_cancelled() {
                        return Ok((meta, None));
                    }
                    let result = store.delete(&meta.key).await;
                    Ok::<_, StoreError>((meta, Some(result)))
                })
                .try_buffered(DELETES)
                .into_stream()
        );
        while let Some(deletion) = deletions.next().await {
            match deletion {
                Ok((_, None)) => {
                    report.stopped = Some("cancelled".to_owned());
                    return;
                }
                Ok((meta, Some(Ok(())))) => {
                    report.objects += 1;
                    report.bytes += meta.size;
                }
                Ok((meta, Some(Err(error)))) => {
                    let problem = Problem::new(meta.key.as_str(), describe(&error));
                    match error {
                        StoreError::Denied { .. } => report.denied.push(problem),
                        _ => report.failed.push(problem),
                    }
                    if report.denied.len() + report.failed.len() > MOST_PROBLEMS {
                        report.stopped = Some("too many objects could not be deleted".to_owned());
                        return;
                    }
                }
                Err(error) => {
                    report.failed.push(Problem::new(below.as_str(), describe(&error)));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) async fn remove_for_test(
    stanza: &Stanza,
    cluster: &ClusterWalPlan,
    grace: SignedDuration,
    cancel: &CancellationToken,
    repository: &Repository,
    repositories: &Repositories,
) -> RepositoryWalPruned {
    let run = Run { stanza, cluster, grace, cancel };
    run.remove_from(repository, repositories, TimeSpan::from_secs(3600)).await
}
