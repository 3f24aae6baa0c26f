//! Finds out whether the copies of a set still are what the manifest says.
//!
//! - *Quick*: every object exists and has its size. One listing of the set's folder, nothing is read.
//! - *Full*: every stored byte is read and hashed, and so is every record about the set: manifest, proofs, holds. With
//!   [`VerifyOptions::content`] the objects are decrypted and decompressed as well, and their plain length compared.
//!
//! Every copy in every repository is checked on its own, because redundancy that is only assumed is none. What could not
//! be read for the moment is *unchecked*, which is neither good nor bad; damage is reported by repository, set and
//! object. Nothing is written: the caller keeps the result with [`VerifyReport::store_proofs`].
//!
//! Memory: `workers` times a few chunks of the store, plus one entry for each object of the manifest. The default of two
//! workers reads from one object while another is hashed; hashing runs on blocking threads.

mod copy;
mod object;
#[cfg(test)]
mod tests;

use futures::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::{SetCopy, SetSummary};
use crate::config::TimeSpan;
use crate::encryption::Identities;
use crate::error::Error;
use crate::id::{SetId, Stanza};
use crate::progress::Progress;
use crate::proof::{Checked, Problem, Proof, ProofKind};
use crate::replicas::Repositories;
use crate::retention::length;

/// How much is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Existence and size.
    #[default]
    Quick,
    /// Every byte.
    Full,
}

impl Depth {
    /// The kind of proof it gives.
    #[must_use]
    pub fn proof(self) -> ProofKind {
        match self {
            Self::Quick => ProofKind::VerifyQuick,
            Self::Full => ProofKind::VerifyFull,
        }
    }
}

/// How to verify.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// How much is looked at.
    pub depth: Depth,
    /// Objects read at the same time in one repository; 2 by default. Each costs a few chunks of memory and up to one
    /// core.
    pub workers: usize,
    /// Decrypts (with these keys) and decompresses every object of a full verification; costs the time of a restore
    /// without its target. `None` by default.
    pub content: Option<Identities>,
    /// Skips copies that passed such a verification at most this long ago, by the store's clock.
    pub recheck_after: Option<TimeSpan>,
    /// Counts bytes read and objects checked.
    pub progress: Progress,
}

impl VerifyOptions {
    /// The defaults for a depth.
    #[must_use]
    pub fn new(depth: Depth) -> Self {
        Self { depth, workers: 2, content: None, recheck_after: None, progress: Progress::default() }
    }

    /// Sets the number of objects read at the same time.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Decrypts and decompresses as well.
    #[must_use]
    pub fn content(mut self, identities: Identities) -> Self {
        self.content = Some(identities);
        self
    }

    /// Skips what was verified lately.
    #[must_use]
    pub fn recheck_after(mut self, span: TimeSpan) -> Self {
        self.recheck_after = Some(span);
        self
    }

    /// Counts into these counters.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }
}

/// What a verification of one set found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct VerifyReport {
    /// The stanza.
    pub stanza: Stanza,
    /// The set.
    pub set: SetId,
    /// How much was looked at.
    pub depth: Depth,
    /// Each copy.
    pub copies: Vec<VerifiedCopy>,
}

/// What a verification of one copy found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct VerifiedCopy {
    /// Name of the repository.
    pub repository: String,
    /// The result for the set's data.
    pub outcome: Outcome,
    /// How much was looked at.
    pub checked: Checked,
    /// What is wrong with the set's data, the manifest included.
    pub problems: Vec<Problem>,
    /// Proofs and holds of the set that are damaged. They do not make its data bad.
    pub damaged_records: Vec<Problem>,
    /// What could not be checked, and why.
    pub unchecked: Vec<Problem>,
    /// Whether content was left unread because no key given opens it.
    pub locked: bool,
    /// Whether it was left alone because a newer version of this program wrote it.
    pub newer: bool,
    /// Objects in the set's folder that its manifest does not name: remains of an interrupted upload.
    pub strays: u64,
}

/// The result for one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Everything is as it should be.
    Passed,
    /// Something is missing or wrong.
    Failed,
    /// Nothing wrong was found, but not everything could be checked.
    Unchecked,
    /// It passed lately.
    Skipped,
}

/// Verifies the copies of a set, all repositories at the same time.
///
/// # Cancel safety
/// Nothing is written; a dropped call ends its threads after the chunk in hand.
pub async fn verify_set(
    repositories: &Repositories,
    stanza: &Stanza,
    set: &SetSummary,
    options: &VerifyOptions,
) -> VerifyReport {
    let now = repositories.clock().now();
    let copies = set.copies.iter().map(|found| verify_copy(repositories, stanza, set, found, options, now));
    let copies: Vec<_> = copies.collect();
    let copies = join_all(copies).await;
    VerifyReport { stanza: stanza.clone(), set: set.id.clone(), depth: options.depth, copies }
}

async fn verify_copy(
    repositories: &Repositories,
    stanza: &Stanza,
    set: &SetSummary,
    found: &SetCopy,
    options: &VerifyOptions,
    now: Timestamp,
) -> VerifiedCopy {
    if !is_due(found, options, now) {
        return VerifiedCopy::new(&found.repository, Outcome::Skipped);
    }
    match repositories.only(&found.repository) {
        Some(only) => copy::verify(&only, stanza, &set.id, options).await,
        None => {
            let mut copy = VerifiedCopy::new(&found.repository, Outcome::Unchecked);
            copy.unchecked.push(Problem::new("*", "the repository is not among those given"));
            copy
        }
    }
}

/// Whether a copy has to be looked at: it was not verified so deeply lately, or something is wrong with it.
#[must_use]
pub fn is_due(copy: &SetCopy, options: &VerifyOptions, now: Timestamp) -> bool {
    let Some(recheck_after) = options.recheck_after else { return true };
    let kinds: &[ProofKind] = match options.depth {
        Depth::Quick => &[ProofKind::VerifyQuick, ProofKind::VerifyFull],
        Depth::Full => &[ProofKind::VerifyFull],
    };
    if copy.manifest.is_none() || copy.proofs.doubt().is_some() || !copy.proofs.damaged.is_empty() {
        return true;
    }
    copy.proofs.newest_of(kinds).is_none_or(|newest| {
        let age = now.duration_since(newest.store_time);
        // A proof from the future says that one of the clocks is wrong; looking again does no harm.
        !newest.proof.passed || age.is_negative() || age > length(recheck_after)
    })
}

impl VerifiedCopy {
    fn new(repository: &str, outcome: Outcome) -> Self {
        Self {
            repository: repository.to_owned(),
            outcome,
            checked: Checked::default(),
            problems: Vec::new(),
            damaged_records: Vec::new(),
            unchecked: Vec::new(),
            locked: false,
            newer: false,
            strays: 0,
        }
    }

    fn conclude(&mut self) {
        self.problems.sort();
        self.unchecked.sort();
        self.damaged_records.sort();
        self.outcome = match (self.problems.is_empty(), self.unchecked.is_empty()) {
            (false, _) => Outcome::Failed,
            (true, false) => Outcome::Unchecked,
            (true, true) => Outcome::Passed,
        };
    }
}

impl VerifyReport {
    /// Adds what was found of something outside of the set that it is worth nothing without, such as archived WAL. Counts
    /// for every copy that was looked at.
    pub fn add_problems(&mut self, problems: &[Problem], unchecked: &[Problem]) {
        for copy in self.copies.iter_mut().filter(|copy| copy.outcome != Outcome::Skipped) {
            copy.problems.extend_from_slice(problems);
            copy.unchecked.extend_from_slice(unchecked);
            copy.conclude();
        }
    }

    /// Whether no copy failed and no record is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.copies.iter().all(|copy| copy.outcome != Outcome::Failed && copy.damaged_records.is_empty())
    }

    /// Whether everything could be checked (or was lately).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.copies.iter().all(|copy| copy.outcome != Outcome::Unchecked)
    }

    /// The proof of one copy's verification; none for a copy that was skipped or only partly checked.
    #[must_use]
    pub fn proof(&self, copy: &VerifiedCopy, tool: &str, at: Timestamp) -> Option<Proof> {
        let passed = match copy.outcome {
            Outcome::Passed => true,
            Outcome::Failed => false,
            Outcome::Unchecked | Outcome::Skipped => return None,
        };
        let proof = Proof::new(self.depth.proof(), self.stanza.clone(), self.set.clone(), tool, at, passed);
        Some(proof.problems(copy.problems.clone()).checked(copy.checked))
    }

    /// Keeps the result of each copy beside it.
    ///
    /// # Errors
    /// The first failure; the other proofs are kept all the same.
    pub async fn store_proofs(&self, repositories: &Repositories, tool: &str) -> Result<(), Error> {
        let at = repositories.clock().now();
        let mut first = Ok(());
        for copy in &self.copies {
            let proof = self.proof(copy, tool, at);
            if let (Some(proof), Some(repository)) = (proof, repositories.member(&copy.repository)) {
                first = first.and(proof.store(repository).await.map(|_| ()));
            }
        }
        first
    }
}
