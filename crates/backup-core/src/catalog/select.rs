//! Choosing a set: by state and recovery point, never by name (P4).

use jiff::Timestamp;

use super::{Catalog, SetSummary};
use crate::error::Error;
use crate::manifest::SetKind;

/// Which sets come into question. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Only this kind.
    pub kind: Option<SetKind>,
    /// Only this database.
    pub database: Option<String>,
    /// Only sets whose recovery point is not later.
    pub at_or_before: Option<Timestamp>,
}

impl Filter {
    /// Sets the kind.
    #[must_use]
    pub fn kind(mut self, kind: SetKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Sets the database.
    #[must_use]
    pub fn database(mut self, database: &str) -> Self {
        self.database = Some(database.to_owned());
        self
    }

    /// Sets the latest recovery point.
    #[must_use]
    pub fn at_or_before(mut self, at: Timestamp) -> Self {
        self.at_or_before = Some(at);
        self
    }

    fn fits(&self, set: &SetSummary) -> bool {
        let Some(manifest) = &set.manifest else { return false };
        self.kind.as_ref().is_none_or(|kind| *kind == manifest.kind)
            && self.database.as_ref().is_none_or(|database| *database == manifest.source.database)
            && self.at_or_before.is_none_or(|at| manifest.recovery_point <= at)
    }

    fn words(&self) -> String {
        let mut words = "good set".to_owned();
        if let Some(kind) = &self.kind {
            words = format!("good {kind} set");
        }
        if let Some(database) = &self.database {
            words.push_str(&format!(" of database {database}"));
        }
        if let Some(at) = &self.at_or_before {
            words.push_str(&format!(" with a recovery point at or before {at}"));
        }
        words
    }
}

impl Catalog {
    /// Sets that fit, newest recovery point first, good or not.
    pub fn select<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a SetSummary> + 'a {
        self.sets.iter().filter(|set| filter.fits(set))
    }

    /// The good set with the newest recovery point. A set that arrived later and cannot be read is not passed over,
    /// because it may be the newest; a damaged one is.
    ///
    /// # Errors
    /// [`Error::NoSuchSet`] when no good set fits, [`Error::Unread`] when that is not certain.
    pub fn newest_good(&self, filter: &Filter) -> Result<&SetSummary, Error> {
        let newest = self.sets.iter().find(|set| filter.fits(set) && set.is_good());
        let later = |set: &&SetSummary| newest.is_none_or(|newest| set.store_time >= newest.store_time);
        if let Some(unread) = self.sets.iter().filter(|set| set.is_unread()).find(later) {
            let problem = unread.problems().join("; ");
            return Err(Error::Unread { set: unread.id.clone(), problem });
        }
        newest.ok_or_else(|| self.no_such(filter.words()))
    }

    /// The set of this id, or the only one whose id begins so; good or not.
    ///
    /// # Errors
    /// [`Error::NoSuchSet`] when there is none, or several begin so.
    pub fn by_id(&self, text: &str) -> Result<&SetSummary, Error> {
        let mut found = self.sets.iter().filter(|set| !text.is_empty() && set.id.as_str().starts_with(text));
        match (found.next(), found.count()) {
            (Some(set), 0) => Ok(set),
            (None, _) => Err(self.no_such(format!("set {text}"))),
            (Some(_), more) => {
                Err(self.no_such(format!("single set that begins with {text:?}: there are {}", more + 1)))
            }
        }
    }

    fn no_such(&self, wanted: String) -> Error {
        Error::NoSuchSet { wanted, stanza: self.stanza.clone() }
    }
}
