//! Removes what retention does not keep, and what crashes left behind: first a plan, then its execution.
//!
//! The plan only reads. Each repository has rules of its own and is judged by its own store times, see
//! [`crate::retention`]; a repository that cannot be read, holds sets of a newer program or has a clock that
//! contradicts the host's is *blocked*, and nothing in it is touched.
//!
//! Executing the plan begins with reading the store's clock by writing to it. If that differs from the host's by more
//! than the tolerance, one of them is wrong and nothing is removed. Then everything is read and decided again: only what
//! is to be removed *both* times is removed, after the newest good set of its kind was found whole, and after one
//! more look at its holds. Per set the order is manifest, objects, proofs and holds, children before parents: a crash
//! at any point leaves whole sets and litter. Whatever is locked stays and is reported.
//!
//! Litter is a set's folder without a manifest, an upload that was never completed, records of a set that is gone.
//! It may also be a backup that is running, so it is touched only when its newest object is older than the grace
//! period by the store's clock; the grace must be longer than the upload of the largest single object. Keys that do
//! not fit the layout are nobody's litter: they are counted, named and left alone.
//!
//! A set that is being written needs its parent although no manifest says so yet. Writers of such sets hold a lease
//! that prune takes too, or choose the newest good set as parent, which is never removed.
//!
//! Costs: two listings of the stanza's sets for the plan and two for its execution, one request for each object removed.
//! Memory grows with the number of sets, not of objects.

mod apply;
mod inventory;
mod litter;
mod remove;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

pub use apply::{PruneReport, RepositoryReport, Skipped};
pub use inventory::Foreign;
pub use litter::{Litter, LitterKind};

use crate::catalog::{Catalog, CopyState};
use crate::config::TimeSpan;
use crate::error::{Class, Error, describe};
use crate::id::{SetId, Stanza};
use crate::proof::Problem;
use crate::replicas::Repositories;
use crate::repository::Repository;
use crate::retention::{Decision, Health, Rules, decide, length};
use inventory::Inventory;

/// What to keep, and how carefully to remove the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PrunePolicy {
    /// Rules of repositories without rules of their own.
    pub rules: Rules,
    /// Rules by name of repository.
    pub by_repository: BTreeMap<String, Rules>,
    /// Litter younger than this is left alone, since it may be a running backup. One day by default.
    pub grace: TimeSpan,
    /// Largest difference between the host's clock and the store's. One hour by default.
    pub clock_tolerance: TimeSpan,
}

impl Default for PrunePolicy {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            by_repository: BTreeMap::new(),
            grace: TimeSpan::from_secs(24 * 3600),
            clock_tolerance: TimeSpan::from_secs(3600),
        }
    }
}

impl PrunePolicy {
    /// A policy with these rules everywhere.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Sets the rules of one repository.
    #[must_use]
    pub fn rules_of(mut self, repository: &str, rules: Rules) -> Self {
        self.by_repository.insert(repository.to_owned(), rules);
        self
    }

    /// Sets the grace period of litter.
    #[must_use]
    pub fn grace(mut self, grace: TimeSpan) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the largest difference of the clocks.
    #[must_use]
    pub fn clock_tolerance(mut self, tolerance: TimeSpan) -> Self {
        self.clock_tolerance = tolerance;
        self
    }

    fn rules_for(&self, repository: &str) -> &Rules {
        self.by_repository.get(repository).unwrap_or(&self.rules)
    }
}

/// What pruning would do. Apply it with [`PrunePlan::apply`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PrunePlan {
    /// The stanza.
    pub stanza: Stanza,
    /// The policy it follows.
    pub policy: PrunePolicy,
    /// Each repository.
    pub repositories: Vec<RepositoryPlan>,
}

/// What pruning would do in one repository.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RepositoryPlan {
    /// Its name.
    pub repository: String,
    /// Why nothing is touched here, when that is so.
    pub blocked: Option<Blocked>,
    /// Sets that stay, with the reasons; newest first.
    pub keep: Vec<Decision>,
    /// Sets to be removed; newest first.
    pub remove: Vec<Removal>,
    /// Litter to be removed.
    pub litter: Vec<Litter>,
    /// Sets whose manifests the store did not hand out: nobody can decide about them, so they stay.
    pub unread: Vec<Problem>,
    /// Objects that fit no part of the layout; they are never touched.
    pub foreign: Foreign,
}

/// A set to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Removal {
    /// The set.
    pub set: SetId,
    /// Arrival of its manifest by the store's clock.
    pub store_time: Timestamp,
    /// What is known of it.
    pub health: Health,
    /// Objects in its folder.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The set it needs, which outlives it.
    pub parent: Option<SetId>,
    /// Sets of one group are counted together.
    #[serde(skip)]
    group: String,
}

/// Why nothing in a repository is touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
#[non_exhaustive]
pub enum Blocked {
    /// One of two clocks is wrong, and it cannot be told which.
    #[error("the clock of this host shows {host}, the clock of the store {store}")]
    Clock {
        /// The host's time.
        host: Timestamp,
        /// The store's time, or the newest time seen in it.
        store: Timestamp,
    },
    /// A set was written by a newer program, which may need others.
    #[error("set {set} was written by a newer version of this program")]
    NewerFormat {
        /// The set.
        set: SetId,
    },
    /// It cannot be read.
    #[error("the repository cannot be read: {problem}")]
    Unreachable {
        /// Why.
        problem: String,
    },
}

impl Blocked {
    /// What it means to whoever started the operation.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Clock { .. } | Self::NewerFormat { .. } => Class::Usage,
            Self::Unreachable { .. } => Class::Temporary,
        }
    }
}

impl PrunePlan {
    /// Whether there is nothing to remove anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.repositories.iter().all(|plan| plan.remove.is_empty() && plan.litter.is_empty())
    }

    /// Bytes that applying it frees, as far as they are known.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let of = |plan: &RepositoryPlan| {
            let sets: u64 = plan.remove.iter().map(|removal| removal.bytes).sum();
            sets + plan.litter.iter().map(|litter| litter.bytes).sum::<u64>()
        };
        self.repositories.iter().map(of).sum()
    }

    fn of(&self, repository: &str) -> Option<&RepositoryPlan> {
        self.repositories.iter().find(|plan| plan.repository == repository)
    }
}

/// Decides what to remove from each repository. Only reads.
///
/// # Errors
/// The first repository's failure, when none can be read. One that cannot be read beside others is blocked.
pub async fn plan_prune(
    repositories: &Repositories,
    stanza: &Stanza,
    policy: &PrunePolicy,
) -> Result<PrunePlan, Error> {
    let catalog = Catalog::load(repositories, stanza).await?;
    Ok(plan_from(repositories, &catalog, policy).await)
}

async fn plan_from(repositories: &Repositories, catalog: &Catalog, policy: &PrunePolicy) -> PrunePlan {
    let now = repositories.clock().now();
    let mut plans = Vec::new();
    for member in repositories.members() {
        let unreachable = catalog.unreachable.iter().find(|(name, _)| name == member.name());
        let plan = match unreachable {
            Some((_, problem)) => Err(problem.clone()),
            None => plan_repository(member, catalog, policy, now).await.map_err(|error| describe(&error)),
        };
        plans.push(plan.unwrap_or_else(|problem| {
            let mut plan = RepositoryPlan::new(member.name());
            plan.blocked = Some(Blocked::Unreachable { problem });
            plan
        }));
    }
    PrunePlan { stanza: catalog.stanza.clone(), policy: policy.clone(), repositories: plans }
}

async fn plan_repository(
    repository: &Repository,
    catalog: &Catalog,
    policy: &PrunePolicy,
    now: Timestamp,
) -> Result<RepositoryPlan, Error> {
    let name = repository.name();
    let inventory = Inventory::take(repository, &catalog.stanza).await?;
    let mut plan = RepositoryPlan::new(name);
    plan.foreign = inventory.foreign.clone();
    plan.unread = unread(catalog, name);
    plan.blocked = blocked(catalog, name, &inventory, policy, now);
    let candidates = catalog.candidates(name);
    let decisions = decide(&candidates, policy.rules_for(name));
    if plan.blocked.is_some() {
        plan.keep = decisions;
        return Ok(plan);
    }
    for (candidate, decision) in candidates.into_iter().zip(decisions) {
        if !decision.is_removal() {
            plan.keep.push(decision);
            continue;
        }
        let folder = inventory.sets.get(&candidate.set);
        plan.remove.push(Removal {
            set: candidate.set,
            store_time: candidate.store_time,
            health: candidate.health,
            objects: folder.map_or(0, |folder| folder.objects),
            bytes: folder.map_or(0, |folder| folder.bytes),
            parent: candidate.parent.set().cloned(),
            group: candidate.group,
        });
    }
    plan.litter = litter::find(&inventory, now, length(policy.grace));
    Ok(plan)
}

fn unread(catalog: &Catalog, repository: &str) -> Vec<Problem> {
    let copies = catalog.sets.iter().filter_map(|set| Some((&set.id, set.copy_in(repository)?)));
    let unread = copies.filter(|(_, copy)| copy.state == CopyState::Unread);
    unread.map(|(set, copy)| Problem::new(set.as_str(), copy.problem.clone().unwrap_or_default())).collect()
}

/// Whether something forbids to touch the repository. A plan knows only a lower bound of the store's time.
fn blocked(
    catalog: &Catalog,
    repository: &str,
    inventory: &Inventory,
    policy: &PrunePolicy,
    now: Timestamp,
) -> Option<Blocked> {
    let ahead = inventory.newest.filter(|newest| newest.duration_since(now) > length(policy.clock_tolerance));
    if let Some(store) = ahead {
        return Some(Blocked::Clock { host: now, store });
    }
    let newer = catalog.sets.iter().find(|set| {
        let copies = &set.copies;
        copies.iter().any(|copy| copy.repository == repository && copy.state == CopyState::Newer)
    });
    newer.map(|set| Blocked::NewerFormat { set: set.id.clone() })
}

impl RepositoryPlan {
    fn new(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            blocked: None,
            keep: Vec::new(),
            remove: Vec::new(),
            litter: Vec::new(),
            unread: Vec::new(),
            foreign: Foreign::default(),
        }
    }
}
