//! The catalog: all sets of a stanza in all repositories, and what is known of each.
//!
//! A set is *good* when one of its copies is: the manifest can be read and lies where it belongs, the source was read
//! completely, no check failed since the last good one, and the same holds for every set it needs. Damaged, misplaced
//! and newer manifests are listed with their problem; they hide nothing and stop nothing. A repository that cannot be
//! read is named, and the others are shown.
//!
//! Everything comes from manifests, proofs and store times; names of keys only say where to look (P4).

mod clock;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod scan;
mod select;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

pub use clock::clock_problems;
pub use select::Filter;
pub use view::{CatalogReport, CheckReport, CopyReport, SetReport, UnreachableReport};

use crate::error::{Error, describe};
use crate::id::{SetId, Stanza};
use crate::manifest::Manifest;
use crate::proof::Proofs;
use crate::replicas::Repositories;
use crate::retention::{Candidate, Health, Hold, Parent};
use scan::{CopyScan, Scan};

/// All sets of a stanza.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Catalog {
    /// The stanza.
    pub stanza: Stanza,
    /// Sets, newest recovery point first.
    pub sets: Vec<SetSummary>,
    /// Repositories that could not be read, with the reason.
    pub unreachable: Vec<(String, String)>,
}

/// What is known of one set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetSummary {
    /// The set.
    pub id: SetId,
    /// Its manifest, of the copy that arrived first, unless none can be read.
    pub manifest: Option<Arc<Manifest>>,
    /// Its copies, in the order of the repositories.
    pub copies: Vec<SetCopy>,
    /// Arrival of the first copy, by that store's clock.
    pub store_time: Timestamp,
    /// Why it is held, when it is held anywhere.
    pub held: Option<String>,
    /// A set it needs that is not good, when there is one.
    pub broken_parent: Option<SetId>,
}

/// A copy of a set in one repository.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetCopy {
    /// Name of the repository.
    pub repository: String,
    /// Its manifest, unless it cannot be read.
    pub manifest: Option<Arc<Manifest>>,
    /// Arrival of the manifest by the store's clock.
    pub store_time: Timestamp,
    /// What is known of it.
    pub state: CopyState,
    /// What is wrong with the manifest.
    pub problem: Option<String>,
    /// What was proven of it.
    pub proofs: Proofs,
    /// What this repository says of holds.
    pub hold: Hold,
    /// Hold events that cannot be read.
    pub damaged_hold: Option<String>,
}

/// What is known of a copy by itself, its parents left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CopyState {
    /// Nothing is wrong with it as far as is known.
    Good,
    /// A check failed since the last good one.
    Failed,
    /// Its manifest is not the same as that of an older copy.
    Differs,
    /// The source could not be read completely.
    Incomplete,
    /// Its manifest was written by a newer program.
    Newer,
    /// Its manifest is damaged, or belongs elsewhere.
    Unreadable,
    /// The store did not hand its manifest out; it may be good.
    Unread,
}

impl Catalog {
    /// Reads the catalog of a stanza from all repositories. A stanza nobody wrote to is empty.
    ///
    /// Memory grows with the number of sets and the size of their manifests, not with the number of objects.
    ///
    /// # Errors
    /// The first repository's failure, when none can be read.
    pub async fn load(repositories: &Repositories, stanza: &Stanza) -> Result<Self, Error> {
        let members = repositories.members();
        let scans = join_all(members.iter().map(|member| scan::scan(member, stanza))).await;
        let mut read = Vec::new();
        let mut unreachable = Vec::new();
        let mut first = None;
        for (member, scan) in members.iter().zip(scans) {
            match scan {
                Ok(scan) => read.push((member.name().to_owned(), scan)),
                Err(error) => {
                    tracing::warn!(
                        repository = member.name(),
                        error = describe(&error),
                        "repository not listed"
                    );
                    unreachable.push((member.name().to_owned(), describe(&error)));
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            Some(error) if read.is_empty() => Err(error),
            _ => Ok(Self::merge(stanza, read, unreachable)),
        }
    }

    fn merge(stanza: &Stanza, scans: Vec<(String, Scan)>, unreachable: Vec<(String, String)>) -> Self {
        let mut sets: BTreeMap<SetId, SetSummary> = BTreeMap::new();
        for (repository, scan) in scans {
            let Scan { copies, mut proofs, mut holds } = scan;
            for (id, copy) in copies {
                let mut copy = SetCopy::new(&repository, copy, proofs.remove(&id).unwrap_or_default());
                let hold = holds.remove(&id);
                let held =
                    hold.as_ref().filter(|hold| hold.hold == Hold::Held).map(|hold| hold.reason.clone());
                if let Some(hold) = hold {
                    copy.hold = hold.hold;
                    copy.damaged_hold =
                        hold.damaged.map(|damage| format!("{}: {}", damage.object, damage.problem));
                }
                let set = sets.entry(id.clone()).or_insert_with(|| SetSummary::new(id, copy.store_time));
                set.held = set.held.take().or(held);
                set.store_time = set.store_time.min(copy.store_time);
                set.copies.push(copy);
            }
        }
        sets.values_mut().for_each(SetSummary::agree);
        find_broken_parents(&mut sets);
        let mut sets: Vec<_> = sets.into_values().collect();
        sets.sort_by_key(|set| std::cmp::Reverse((set.effective_point(), set.store_time)));
        Self { stanza: stanza.clone(), sets, unreachable }
    }

    /// What retention has to know of the copies in one repository.
    #[must_use]
    pub fn candidates(&self, repository: &str) -> Vec<Candidate> {
        self.sets.iter().filter_map(|set| set.candidate(repository)).collect()
    }
}

impl SetCopy {
    fn new(repository: &str, scan: CopyScan, proofs: Proofs) -> Self {
        let (manifest, problem) = match scan.manifest {
            Ok(manifest) => (Ok(manifest), None),
            Err(unreadable) => (Err(unreadable.state), Some(unreadable.problem)),
        };
        let state = match &manifest {
            Err(state) => *state,
            Ok(manifest) if !manifest.complete => CopyState::Incomplete,
            Ok(_) if proofs.doubt().is_some() => CopyState::Failed,
            Ok(_) => CopyState::Good,
        };
        Self {
            repository: repository.to_owned(),
            manifest: manifest.ok(),
            store_time: scan.store_time,
            state,
            problem,
            proofs,
            hold: Hold::None,
            damaged_hold: None,
        }
    }
}

impl SetSummary {
    fn new(id: SetId, store_time: Timestamp) -> Self {
        Self { id, manifest: None, copies: Vec::new(), store_time, held: None, broken_parent: None }
    }

    /// Takes the manifest of the oldest readable copy and marks the copies that differ from it.
    fn agree(&mut self) {
        let readable = self.copies.iter().filter(|copy| copy.manifest.is_some());
        let Some(first) = readable.min_by_key(|copy| copy.store_time) else { return };
        let manifest = first.manifest.clone();
        let named = first.repository.clone();
        for copy in &mut self.copies {
            if copy.manifest.is_some() && copy.manifest != manifest {
                copy.state = CopyState::Differs;
                copy.problem = Some(format!("its manifest differs from the older one in {named}"));
            } else if copy.manifest.is_some() {
                copy.manifest.clone_from(&manifest);
            }
        }
        self.manifest = manifest;
    }

    /// Whether a restore should use it: a good copy exists, of it and of every set it needs.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.has_good_copy() && self.broken_parent.is_none()
    }

    fn has_good_copy(&self) -> bool {
        self.copies.iter().any(|copy| copy.state == CopyState::Good)
    }

    /// Whether nobody knows what it is: no copy of its manifest can be had, and one of them may be good.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.manifest.is_none() && self.copies.iter().any(|copy| copy.state == CopyState::Unread)
    }

    /// The copy in a repository.
    #[must_use]
    pub fn copy_in(&self, repository: &str) -> Option<&SetCopy> {
        self.copies.iter().find(|copy| copy.repository == repository)
    }

    /// Everything known to be wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for copy in &self.copies {
            let mut add = |problem: &str| problems.push(format!("{}: {problem}", copy.repository));
            copy.problem.iter().for_each(|problem| add(problem));
            if let Some(doubt) = copy.proofs.doubt() {
                let first = doubt.proof.problems.first();
                let words =
                    first.map_or_else(String::new, |first| format!(": {}: {}", first.object, first.problem));
                add(&format!("{} failed{words}", doubt.proof.kind));
            }
            copy.proofs
                .damaged
                .iter()
                .for_each(|damage| add(&format!("{}: {}", damage.object, damage.problem)));
            copy.damaged_hold.iter().for_each(|damage| add(damage));
        }
        if let Some(manifest) = self.manifest.as_deref() {
            if !manifest.complete {
                problems.push("its source could not be read completely".to_owned());
            }
            problems.extend(clock::problem(manifest, self.store_time));
        }
        problems.extend(
            self.broken_parent.iter().map(|parent| format!("it needs set {parent}, which is not good")),
        );
        problems
    }

    /// The recovery point, as far as it can be true: nothing holds a state later than its arrival.
    fn effective_point(&self) -> Timestamp {
        self.manifest
            .as_ref()
            .map_or(self.store_time, |manifest| manifest.recovery_point.min(self.store_time))
    }

    /// What retention has to know of the copy in a repository. Nothing here comes from a writer's clock.
    fn candidate(&self, repository: &str) -> Option<Candidate> {
        let copy = self.copy_in(repository)?;
        let manifest = copy.manifest.as_ref().or(self.manifest.as_ref());
        let health = match copy.state {
            CopyState::Good if self.broken_parent.is_none() => Health::Good,
            CopyState::Good | CopyState::Failed | CopyState::Differs => Health::Doubtful,
            CopyState::Incomplete => Health::Incomplete,
            CopyState::Newer | CopyState::Unreadable | CopyState::Unread => Health::Unreadable,
        };
        let held = self.copies.iter().any(|copy| copy.hold == Hold::Held);
        Some(Candidate {
            set: self.id.clone(),
            group: manifest.map_or_else(String::new, |manifest| {
                format!("{}/{}", manifest.kind, manifest.source.database)
            }),
            store_time: copy.store_time,
            health,
            parent: match manifest.map(|manifest| manifest.parent.clone()) {
                None => Parent::Unknown,
                Some(None) => Parent::None,
                Some(Some(parent)) => Parent::Set(parent),
            },
            hold: if held { Hold::Held } else { copy.hold },
        })
    }
}

/// Marks every set that needs, directly or not, a set that is missing or not good, and those that need themselves.
fn find_broken_parents(sets: &mut BTreeMap<SetId, SetSummary>) {
    let parent_of = |id: &SetId| {
        let set: Option<&SetSummary> = sets.get(id);
        set.and_then(|set| set.manifest.as_ref()).and_then(|manifest| manifest.parent.clone())
    };
    let is_good = |id: &SetId| sets.get(id).is_some_and(SetSummary::has_good_copy);
    // What each set is broken by; filled from the root of a chain towards its children, so each set is visited once.
    let mut known: BTreeMap<SetId, Option<SetId>> = BTreeMap::new();
    for id in sets.keys() {
        let mut path = vec![id.clone()];
        let mut seen = BTreeSet::from([id.clone()]);
        let mut verdict = loop {
            let last = &path[path.len() - 1];
            if let Some(verdict) = known.get(last) {
                break verdict.clone();
            }
            match parent_of(last) {
                None => break None,
                Some(parent) if !is_good(&parent) || seen.contains(&parent) => break Some(parent),
                Some(parent) => {
                    seen.insert(parent.clone());
                    path.push(parent);
                }
            }
        };
        for id in path.into_iter().rev() {
            verdict = known.entry(id).or_insert(verdict).clone();
        }
    }
    for (id, set) in sets.iter_mut() {
        set.broken_parent = known.remove(id).flatten();
    }
}
