//! Sets that build on each other: a full one, and increments.
//!
//! Each increment names its parent in the manifest, so retention keeps what a kept set needs, and the catalog calls a set good
//! only when all that it needs is. An increment builds on the newest good set alone, which `prune` never removes.

use std::collections::BTreeSet;
use std::sync::Arc;

use backstay_backup_core::catalog::{Catalog, CopyState, Filter, SetSummary};
use backstay_backup_core::manifest::{Manifest, SetKind};
use backstay_backup_core::replicas::Repositories;

use super::KIND;
use super::error::CodeError;
use super::facts::CodeFacts;
use super::state::Oid;

/// Most sets of a chain that are followed.
const LONGEST: usize = 1_000;

/// The newest good set, and all that it builds on.
#[derive(Debug)]
pub(super) struct Previous {
    pub(super) manifest: Arc<Manifest>,
    pub(super) facts: CodeFacts,
    /// LFS objects that the chain has.
    pub(super) lfs: BTreeSet<String>,
    pub(super) tips: Vec<Oid>,
    /// Sets in the chain.
    pub(super) length: u64,
    /// Whether every repository has a good copy of each of them.
    pub(super) everywhere: bool,
}

/// The sets that a set needs, the full one first, itself last.
///
/// # Errors
/// One of them is not there, or is not what it should be.
pub fn chain(catalog: &Catalog, set: &SetSummary) -> Result<Vec<Arc<Manifest>>, CodeError> {
    Ok(summaries(catalog, set)?.into_iter().filter_map(|set| set.manifest.clone()).collect())
}

fn summaries<'a>(catalog: &'a Catalog, set: &'a SetSummary) -> Result<Vec<&'a SetSummary>, CodeError> {
    let differs = |problem: String| CodeError::Differs { set: set.id.to_string(), problem };
    let (mut sets, mut next) = (vec![set], set);
    loop {
        let Some(manifest) = next.manifest.as_deref() else {
            return Err(differs(format!("the manifest of set {} cannot be read", next.id)));
        };
        if manifest.kind.0 != KIND {
            return Err(differs(format!("set {} is of kind {}, not {KIND}", next.id, manifest.kind)));
        }
        let Some(parent) = &manifest.parent else { break };
        let found = catalog.sets.iter().find(|other| other.id == *parent);
        next = found.ok_or_else(|| differs(format!("set {parent}, which it builds on, is not there")))?;
        if sets.len() >= LONGEST || sets.iter().any(|known| known.id == next.id) {
            return Err(differs("the sets that it builds on have no beginning".to_owned()));
        }
        sets.push(next);
    }
    sets.reverse();
    Ok(sets)
}

/// Facts of a set of code.
///
/// # Errors
/// It is of another kind, or its facts cannot be read.
pub fn facts(manifest: &Manifest) -> Result<CodeFacts, CodeError> {
    let differs = |problem: String| CodeError::Differs { set: manifest.set.to_string(), problem };
    if manifest.kind.0 != KIND {
        return Err(differs(format!("it is of kind {}, not {KIND}", manifest.kind)));
    }
    serde_json::from_value(manifest.facts.clone())
        .map_err(|error| differs(format!("its facts cannot be read ({error})")))
}

/// The newest good set of that name. Without one that is good and can be followed there is none: a full set is made then.
pub(super) fn previous(catalog: &Catalog, repositories: &Repositories, name: &str) -> Option<Previous> {
    let filter = Filter::default().kind(SetKind::new(KIND)).database(name);
    let newest = catalog.newest_good(&filter).ok()?;
    let sets = summaries(catalog, newest).ok()?;
    let mut lfs = BTreeSet::new();
    for set in &sets {
        lfs.extend(facts(set.manifest.as_deref()?).ok()?.lfs.stored.into_iter().map(String::from));
    }
    let manifest = newest.manifest.clone()?;
    let facts = facts(&manifest).ok()?;
    let good =
        |set: &SetSummary, name: &str| set.copy_in(name).is_some_and(|copy| copy.state == CopyState::Good);
    let everywhere =
        repositories.members().iter().all(|member| sets.iter().all(|set| good(set, member.name())));
    let (tips, length) = (facts.tips.clone(), sets.len() as u64);
    Some(Previous { manifest, facts, lfs, tips, length, everywhere })
}

impl Previous {
    /// Whether all objects of it can be read by the same.
    pub(super) fn has_readers(&self, mut readers: Vec<String>) -> bool {
        readers.sort();
        self.manifest.objects.iter().all(|object| {
            let mut others = object.recipients.clone();
            others.sort();
            others == readers
        })
    }
}
