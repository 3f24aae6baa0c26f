//! The catalog as a report: what `list-backups` shows.

use jiff::Timestamp;
use serde::Serialize;

use super::{Catalog, CopyState, SetSummary};
use crate::id::{SetId, Stanza};
use crate::manifest::SetKind;
use crate::proof::{ProofKind, StoredProof};

/// All sets of a stanza.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct CatalogReport {
    /// The stanza.
    pub stanza: Stanza,
    /// Sets, newest recovery point first.
    pub sets: Vec<SetReport>,
    /// Repositories that could not be read; what only they hold is not shown.
    pub unreachable: Vec<UnreachableReport>,
}

/// A repository that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UnreachableReport {
    /// Its name.
    pub repository: String,
    /// Why.
    pub problem: String,
}

/// One set.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct SetReport {
    /// The set.
    pub set: SetId,
    /// Its kind; absent when no manifest can be read, as are the following.
    pub kind: Option<SetKind>,
    /// What was backed up.
    pub database: Option<String>,
    /// The moment whose state it holds.
    pub recovery_point: Option<Timestamp>,
    /// Seconds since then.
    pub age_seconds: Option<i64>,
    /// Bytes as stored, of one copy.
    pub stored_bytes: Option<u64>,
    /// Bytes of plain content.
    pub plain_bytes: Option<u64>,
    /// The set it needs.
    pub parent: Option<SetId>,
    /// When its first copy arrived, by that store's clock.
    pub stored_at: Timestamp,
    /// Whether a restore should use it.
    pub good: bool,
    /// Why it is held, when it is.
    pub held: Option<String>,
    /// The newest verification; a bad one that nothing refutes comes first.
    pub verified: Option<CheckReport>,
    /// The newest restore test; a bad one comes first.
    pub proven: Option<CheckReport>,
    /// Where it lies.
    pub copies: Vec<CopyReport>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// A copy of a set in one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CopyReport {
    /// Name of the repository.
    pub repository: String,
    /// What is known of it.
    pub state: CopyState,
}

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckReport {
    /// What was done.
    pub kind: ProofKind,
    /// Whether everything was as it should be.
    pub passed: bool,
    /// When the proof arrived, by the store's clock.
    pub at: Timestamp,
    /// The repository whose copy was checked.
    pub repository: String,
}

impl Catalog {
    /// The catalog as of `now`, which only decides the ages shown.
    #[must_use]
    pub fn report(&self, now: Timestamp) -> CatalogReport {
        let unreachable = self.unreachable.iter().map(|(repository, problem)| UnreachableReport {
            repository: repository.clone(),
            problem: problem.clone(),
        });
        CatalogReport {
            stanza: self.stanza.clone(),
            sets: self.sets.iter().map(|set| set.report(now)).collect(),
            unreachable: unreachable.collect(),
        }
    }
}

impl SetSummary {
    /// The set as of `now`.
    #[must_use]
    pub fn report(&self, now: Timestamp) -> SetReport {
        let manifest = self.manifest.as_deref();
        SetReport {
            set: self.id.clone(),
            kind: manifest.map(|manifest| manifest.kind.clone()),
            database: manifest.map(|manifest| manifest.source.database.clone()),
            recovery_point: manifest.map(|manifest| manifest.recovery_point),
            age_seconds: manifest.map(|manifest| now.duration_since(manifest.recovery_point).as_secs()),
            stored_bytes: manifest.map(|manifest| manifest.stored_size()),
            plain_bytes: manifest.map(|manifest| manifest.plain_size()),
            parent: manifest.and_then(|manifest| manifest.parent.clone()),
            stored_at: self.store_time,
            good: self.is_good(),
            held: self.held.clone(),
            verified: self.verified(),
            proven: self.proven(),
            copies: self
                .copies
                .iter()
                .map(|copy| CopyReport { repository: copy.repository.clone(), state: copy.state })
                .collect(),
            problems: self.problems(),
        }
    }

    /// The verification that matters most: a bad one that nothing refutes, or else the newest.
    #[must_use]
    pub fn verified(&self) -> Option<CheckReport> {
        self.check(&[ProofKind::VerifyQuick, ProofKind::VerifyFull])
    }

    /// The restore test that matters most: a bad one that nothing refutes, or else the newest.
    #[must_use]
    pub fn proven(&self) -> Option<CheckReport> {
        self.check(&[ProofKind::RestoreTest])
    }

    fn check(&self, kinds: &[ProofKind]) -> Option<CheckReport> {
        let of_copies = || self.copies.iter().map(|copy| (&copy.repository, &copy.proofs));
        let doubts = of_copies().filter_map(|(repository, proofs)| {
            proofs.doubt().filter(|doubt| kinds.contains(&doubt.proof.kind)).map(|doubt| (repository, doubt))
        });
        let newest = of_copies()
            .filter_map(|(repository, proofs)| proofs.newest_of(kinds).map(|newest| (repository, newest)));
        let last = |a: &(&String, &StoredProof)| a.1.store_time;
        let (repository, found) = doubts.max_by_key(last).or_else(|| newest.max_by_key(last))?;
        Some(CheckReport {
            kind: found.proof.kind,
            passed: found.proof.passed,
            at: found.store_time,
            repository: repository.clone(),
        })
    }
}
