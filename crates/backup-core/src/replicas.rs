//! Several repositories as one: writes go to all of them, reads fall back to the next.
//!
//! A write counts as done when the *quorum* has it; a repository that fails is left out of the set being written
//! and named in its receipt. Reads take the first copy that is there and whole.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::error::Error;
use crate::id::{SetId, Stanza};
use crate::manifest::Manifest;
use crate::repository::Repository;

/// The repositories of a configuration, in order of preference. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repositories {
    members: Arc<[Repository]>,
    quorum: usize,
    clock: Arc<dyn Clock>,
    suspects: Arc<Mutex<BTreeSet<ObjectCopy>>>,
}

/// One copy of one object: repository, set, object name.
type ObjectCopy = (String, SetId, String);

impl Repositories {
    /// Combines repositories; `quorum` of them must take a write.
    ///
    /// # Errors
    /// [`Error::Internal`] without members, with two of one name, and for a quorum that is zero or more than there
    /// are members: the configuration is checked before it comes here.
    pub fn new(members: Vec<Repository>, quorum: usize, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let names: BTreeSet<_> = members.iter().map(Repository::name).collect();
        if names.len() != members.len() {
            return Err(Error::Internal { what: "two repositories have the same name".to_owned() });
        }
        if quorum == 0 || quorum > members.len() {
            let what = format!("a quorum of {quorum} does not fit {} repositories", members.len());
            return Err(Error::Internal { what });
        }
        Ok(Self { members: members.into(), quorum, clock, suspects: Arc::default() })
    }

    /// The repositories, in order of preference.
    #[must_use]
    pub fn members(&self) -> &[Repository] {
        &self.members
    }

    /// How many repositories must take a write.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The repository of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Repository> {
        self.members.iter().find(|member| member.name() == name)
    }

    /// Only the repository of that name, for reading one particular copy.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<Self> {
        let member = self.member(name)?.clone();
        Some(Self {
            members: Arc::new([member]),
            quorum: 1,
            clock: self.clock.clone(),
            suspects: self.suspects.clone(),
        })
    }

    /// The manifest of a set, from the first repository that has a readable one.
    ///
    /// # Errors
    /// [`Error::NoSuchSet`] when every repository proved that it has none. Otherwise the most hopeful failure: a
    /// store that could not be asked before a manifest that cannot be used.
    pub async fn manifest(&self, stanza: &Stanza, set: &SetId) -> Result<Manifest, Error> {
        let mut unreachable = None;
        let mut unusable = None;
        for member in self.members() {
            match member.manifest(stanza, set).await {
                Ok(manifest) => return Ok(manifest),
                Err(Error::Store { source, .. }) if source.is_absent() => continue,
                Err(error) => {
                    tracing::warn!(repository = member.name(), %set, %error, "manifest skipped");
                    let slot =
                        if matches!(error, Error::Store { .. }) { &mut unreachable } else { &mut unusable };
                    slot.get_or_insert(error);
                }
            }
        }
        let absent = || Error::NoSuchSet { wanted: format!("set {set}"), stanza: stanza.clone() };
        Err(unreachable.or(unusable).unwrap_or_else(absent))
    }

    /// The repositories in the order in which to try a copy of an object: those found damaged before come last.
    pub(crate) fn by_trust(&self, set: &SetId, object: &str) -> Vec<Repository> {
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let suspect = |member: &Repository| {
            suspects.contains(&(member.name().to_owned(), set.clone(), object.to_owned()))
        };
        let (last, mut order): (Vec<_>, Vec<_>) = self.members.iter().cloned().partition(suspect);
        order.extend(last);
        order
    }

    /// Remembers that a copy is damaged, so that the next reader takes another one first.
    pub(crate) fn distrust(&self, repository: &str, set: &SetId, object: &str) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.insert((repository.to_owned(), set.clone(), object.to_owned()));
    }
}
