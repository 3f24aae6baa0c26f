//! Executes a plan: measures the clock, decides everything again, and removes what both times was to be removed.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::remove::Remover;
use super::{Blocked, LitterKind, PrunePlan, Removal, RepositoryPlan, plan_from};
use crate::catalog::Catalog;
use crate::error::{Error, describe};
use crate::hold;
use crate::id::{SetId, Stanza};
use crate::lease::register::store_now;
use crate::proof::Problem;
use crate::replicas::Repositories;
use crate::repository::{Repository, layout};
use crate::retention::{Health, Hold, length};
use crate::store::StoreError;
use crate::verify::{Depth, Outcome, VerifyOptions, verify_set};

/// What pruning did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PruneReport {
    /// The stanza.
    pub stanza: Stanza,
    /// Each repository.
    pub repositories: Vec<RepositoryReport>,
}

/// What pruning did in one repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RepositoryReport {
    /// Its name.
    pub repository: String,
    /// Why nothing was touched here, when that is so.
    pub blocked: Option<Blocked>,
    /// Sets that are gone.
    pub removed: Vec<SetId>,
    /// Sets of the plan that stay, and sets that cannot be read, and why.
    pub skipped: Vec<Skipped>,
    /// Litter that is gone.
    pub litter: Vec<LitterKind>,
    /// Objects deleted.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// What the store did not allow to delete: locked objects, or a role without the permission.
    pub denied: Vec<Problem>,
    /// What failed; the next run tries again.
    pub failed: Vec<Problem>,
    /// Newest good sets that were found damaged: nothing older of their kind was removed.
    pub damaged: Vec<Problem>,
}

/// A set that was not removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Skipped {
    /// The set.
    pub set: SetId,
    /// Why it stays.
    pub reason: String,
}

impl PruneReport {
    /// Whether everything was done that could be: nothing blocked, denied, failed or damaged.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.repositories.iter().all(|report| {
            let problems = [&report.denied, &report.failed, &report.damaged];
            report.blocked.is_none() && problems.into_iter().all(Vec::is_empty)
        })
    }
}

impl PrunePlan {
    /// Removes what the plan says, as far as it still is to be removed. Running it again is harmless.
    ///
    /// # Errors
    /// Only when no repository can be read; whatever happens later stands in the report.
    ///
    /// # Cancel safety
    /// Stops between two sets when `cancel` is; a dropped call leaves whole sets, and litter for the next run.
    pub async fn apply(
        &self,
        repositories: &Repositories,
        cancel: &CancellationToken,
    ) -> Result<PruneReport, Error> {
        let clocks: Vec<_> = repositories.members().iter().map(|member| self.ask_clock(member)).collect();
        let clocks = join_all(clocks).await;
        let catalog = Catalog::load(repositories, &self.stanza).await?;
        let fresh = plan_from(repositories, &catalog, &self.policy).await;
        let mut reports = Vec::new();
        for (member, clock) in repositories.members().iter().zip(clocks) {
            let (Some(old), Some(new)) = (self.of(member.name()), fresh.of(member.name())) else { continue };
            let mut report = RepositoryReport { repository: member.name().to_owned(), ..Default::default() };
            for unread in old.unread.iter().chain(&new.unread) {
                if !report.failed.contains(unread) {
                    report.failed.push(unread.clone());
                }
            }
            match self.store_time(repositories, old, new, clock) {
                Err(blocked) => report.blocked = Some(blocked),
                Ok(now) => {
                    let run = Run { plan: self, repositories, repository: member, catalog: &catalog, cancel };
                    run.tell_unreadable(new, &mut report);
                    run.remove_sets(old, new, &mut report).await;
                    run.remove_litter(old, new, now, &mut report).await;
                }
            }
            reports.push(report);
        }
        Ok(PruneReport { stanza: self.stanza.clone(), repositories: reports })
    }

    /// What the store takes for the time; not asked where nothing will be removed.
    async fn ask_clock(&self, member: &Repository) -> Option<Result<Timestamp, Error>> {
        let blocked = self.of(member.name()).is_none_or(|plan| plan.blocked.is_some());
        if blocked { None } else { Some(store_now(member, &self.stanza).await) }
    }

    /// The store's time, if nothing forbids to go on. `None` when it cannot be had because nothing can be written: not
    /// allowed, or no room left, and room is what pruning is for.
    fn store_time(
        &self,
        repositories: &Repositories,
        old: &RepositoryPlan,
        new: &RepositoryPlan,
        clock: Option<Result<Timestamp, Error>>,
    ) -> Result<Option<Timestamp>, Blocked> {
        if let Some(blocked) = old.blocked.as_ref().or(new.blocked.as_ref()) {
            return Err(blocked.clone());
        }
        let host = repositories.clock().now();
        match clock {
            Some(Ok(store)) => {
                let difference = store.duration_since(host).abs();
                let tolerance = length(self.policy.clock_tolerance);
                if difference > tolerance { Err(Blocked::Clock { host, store }) } else { Ok(Some(store)) }
            }
            Some(Err(Error::Store {
                source: StoreError::Denied { .. } | StoreError::Full { .. }, ..
            }))
            | None => Ok(None),
            Some(Err(error)) => Err(Blocked::Unreachable { problem: describe(&error) }),
        }
    }
}

/// The execution in one repository.
struct Run<'a> {
    plan: &'a PrunePlan,
    repositories: &'a Repositories,
    repository: &'a Repository,
    catalog: &'a Catalog,
    cancel: &'a CancellationToken,
}

impl Run<'_> {
    /// Sets that no rule can judge stay whatever the rules are; somebody has to look at them.
    fn tell_unreadable(&self, new: &RepositoryPlan, report: &mut RepositoryReport) {
        let unreadable = new.keep.iter().filter(|decision| decision.health == Health::Unreadable);
        let told: Vec<String> = report.failed.iter().map(|problem| problem.object.clone()).collect();
        for decision in
            unreadable.filter(|decision| told.iter().all(|object| *object != decision.set.as_str()))
        {
            let set = self.catalog.sets.iter().find(|set| set.id == decision.set);
            let problem = set.and_then(|set| set.copy_in(self.repository.name())?.problem.clone());
            report.skip(&decision.set, problem.unwrap_or_else(|| "it cannot be read".to_owned()));
        }
    }

    async fn remove_sets(&self, old: &RepositoryPlan, new: &RepositoryPlan, report: &mut RepositoryReport) {
        let agreed: BTreeMap<&SetId, &Removal> =
            new.remove.iter().map(|removal| (&removal.set, removal)).collect();
        let mut doomed = Vec::new();
        for removal in &old.remove {
            match agreed.get(&removal.set) {
                Some(removal) => doomed.push(*removal),
                None => report.skip(&removal.set, why_kept(new, &removal.set)),
            }
        }
        let doubtful_groups = self.groups_without_whole_set(new, &doomed, report).await;
        // Whoever stays keeps its parents, whatever was planned for them.
        let planned: BTreeSet<&SetId> = doomed.iter().map(|removal| &removal.set).collect();
        let mut needed: BTreeMap<SetId, SetId> = BTreeMap::new();
        for candidate in self.catalog.candidates(self.repository.name()) {
            if !planned.contains(&candidate.set)
                && let Some(parent) = candidate.parent.set()
            {
                needed.insert(parent.clone(), candidate.set);
            }
        }
        for removal in children_first(&doomed) {
            let refusal = if let Some(child) = needed.get(&removal.set) {
                Some(format!("set {child}, which stays, needs it"))
            } else if let Some(reason) = doubtful_groups.get(removal.group.as_str()) {
                Some(reason.clone())
            } else if self.cancel.is_cancelled() {
                Some("cancelled".to_owned())
            } else {
                self.held(&removal.set, report).await
            };
            let mut remover = Remover { repository: self.repository, stanza: &self.plan.stanza, report };
            let gone = refusal.is_none() && remover.remove_set(&removal.set).await;
            if !gone && let Some(parent) = &removal.parent {
                needed.insert(parent.clone(), removal.set.clone());
            }
            if !gone {
                let reason = refusal.unwrap_or_else(|| "its manifest could not be deleted".to_owned());
                report.skip(&removal.set, reason);
            }
        }
    }

    /// Groups whose newest good set is not whole: nothing older is removed before a human has looked.
    async fn groups_without_whole_set<'r>(
        &self,
        new: &RepositoryPlan,
        doomed: &[&'r Removal],
        report: &mut RepositoryReport,
    ) -> BTreeMap<&'r str, String> {
        let name = self.repository.name();
        let kept: BTreeSet<&SetId> = new.keep.iter().map(|decision| &decision.set).collect();
        let candidates = self.catalog.candidates(name);
        let mut groups: BTreeMap<&str, String> = BTreeMap::new();
        let wanted: BTreeSet<&str> = doomed.iter().map(|removal| removal.group.as_str()).collect();
        for group in wanted {
            let good = candidates.iter().filter(|candidate| {
                candidate.group == group && candidate.health == Health::Good && kept.contains(&candidate.set)
            });
            let newest = good.max_by_key(|candidate| candidate.store_time).map(|candidate| &candidate.set);
            let refusal = match newest {
                None => Some("there is no good set of its kind".to_owned()),
                Some(newest) => self.not_whole(newest, report).await,
            };
            if let Some(refusal) = refusal {
                groups.insert(group, refusal);
            }
        }
        groups
    }

    async fn not_whole(&self, set: &SetId, report: &mut RepositoryReport) -> Option<String> {
        let name = self.repository.name();
        let found = self.catalog.sets.iter().find(|summary| summary.id == *set)?;
        let mut summary = found.clone();
        summary.copies.retain(|copy| copy.repository == name);
        let options = VerifyOptions::new(Depth::Quick);
        let verified = verify_set(self.repositories, &self.plan.stanza, &summary, &options).await;
        let copy = verified.copies.first()?;
        if copy.outcome == Outcome::Passed {
            return None;
        }
        let problem = copy.problems.first().or(copy.unchecked.first());
        let words =
            problem.map_or_else(String::new, |found| format!(": {}: {}", found.object, found.problem));
        let reason = format!("the newest good set {set} could not be found whole{words}");
        let found = Problem::new(set.as_str(), reason.clone());
        let list = if copy.outcome == Outcome::Failed { &mut report.damaged } else { &mut report.failed };
        list.push(found);
        Some(reason)
    }

    /// Looks for a hold once more, in all repositories that the plan could see; what cannot be asked now counts as
    /// a hold.
    async fn held(&self, set: &SetId, report: &mut RepositoryReport) -> Option<String> {
        let stanza = &self.plan.stanza;
        let below = layout::holds(stanza, set);
        let unseen = |name: &str| self.catalog.unreachable.iter().any(|(unreachable, _)| unreachable == name);
        for member in self.repositories.members().iter().filter(|member| !unseen(member.name())) {
            match hold::load(member, stanza, &below).await {
                Ok(states) => {
                    let state = states.get(set).filter(|state| state.hold == Hold::Held);
                    if let Some(state) = state {
                        return Some(format!("it is held: {}", state.reason));
                    }
                }
                Err(error) => {
                    let reason = format!("its holds cannot be read: {}", describe(&error));
                    report.failed.push(Problem::new(set.as_str(), reason.clone()));
                    return Some(reason);
                }
            }
        }
        None
    }

    async fn remove_litter(
        &self,
        old: &RepositoryPlan,
        new: &RepositoryPlan,
        store_now: Option<Timestamp>,
        report: &mut RepositoryReport,
    ) {
        // Without a clock the newest time seen in the catalog is a lower bound, by which less is old.
        let seen = self.catalog.sets.iter().filter_map(|set| set.copy_in(self.repository.name()));
        let Some(now) = store_now.or_else(|| seen.map(|copy| copy.store_time).max()) else { return };
        let planned: BTreeSet<&LitterKind> = old.litter.iter().map(|litter| &litter.what).collect();
        for found in new.litter.iter().filter(|litter| planned.contains(&litter.what)) {
            if self.cancel.is_cancelled() {
                return;
            }
            let mut remover = Remover { repository: self.repository, stanza: &self.plan.stanza, report };
            remover.remove_litter(found, now, length(self.plan.policy.grace)).await;
        }
    }
}

impl RepositoryReport {
    fn skip(&mut self, set: &SetId, reason: String) {
        self.skipped.push(Skipped { set: set.clone(), reason });
    }
}

fn why_kept(new: &RepositoryPlan, set: &SetId) -> String {
    match new.keep.iter().find(|decision| decision.set == *set) {
        Some(decision) => {
            let reasons: Vec<_> = decision.keep.iter().map(ToString::to_string).collect();
            format!("it is kept now: {}", reasons.join(", "))
        }
        None => "it is gone already".to_owned(),
    }
}

/// Orders removals so that no set goes before one that needs it. Sets that need each other go in any order.
fn children_first<'a>(removals: &[&'a Removal]) -> Vec<&'a Removal> {
    let by_id: BTreeMap<&SetId, &'a Removal> =
        removals.iter().map(|removal| (&removal.set, *removal)).collect();
    let mut children: BTreeMap<&SetId, usize> = BTreeMap::new();
    for parent in removals.iter().filter_map(|removal| removal.parent.as_ref()) {
        *children.entry(parent).or_default() += 1;
    }
    let mut ready: Vec<&Removal> =
        removals.iter().copied().filter(|removal| !children.contains_key(&removal.set)).collect();
    let mut order = Vec::with_capacity(removals.len());
    let mut placed = BTreeSet::new();
    while let Some(removal) = ready.pop() {
        placed.insert(&removal.set);
        order.push(removal);
        let Some(parent) = removal.parent.as_ref().and_then(|parent| by_id.get(parent)) else { continue };
        let left = children.get_mut(&parent.set).map(|left| {
            *left -= 1;
            *left
        });
        if left == Some(0) {
            ready.push(parent);
        }
    }
    order.extend(removals.iter().copied().filter(|removal| !placed.contains(&removal.set)));
    order
}
