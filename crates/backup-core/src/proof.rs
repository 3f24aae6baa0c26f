//! Proofs: what was checked of a set, when, and with which result, kept beside it for good.
//!
//! A proof lies in the repository whose copy it is about, under a key of its own, and is never replaced; the newest of
//! each kind counts, by the store's clock. It is sealed like a manifest, so damage to it is noticed. It is not signed:
//! whoever may write to the repository may write proofs, which is why retention does not believe bad ones
//! (see [`crate::retention`]) and a drill restores instead of reading old proofs.

use std::collections::BTreeMap;
use std::fmt;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, describe};
use crate::id::{SetId, Stanza};
use crate::key::{Key, Prefix};
use crate::manifest::FORMAT_MAJOR;
use crate::repository::{ReadError, Repository, layout, record};
use crate::store::ObjectMeta;

/// Problems that a proof lists; the rest is only counted.
const MAX_PROBLEMS: usize = 1000;
/// Records read at the same time.
pub(crate) const READS: usize = 16;

/// What was done to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProofKind {
    /// Existence and size of every object.
    VerifyQuick,
    /// Every stored byte.
    VerifyFull,
    /// A restore, and a comparison of what came out.
    RestoreTest,
}

impl ProofKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::VerifyQuick, Self::VerifyFull, Self::RestoreTest];

    /// Its name in keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VerifyQuick => "verify-quick",
            Self::VerifyFull => "verify-full",
            Self::RestoreTest => "restore-test",
        }
    }

    /// Whether a good result of this kind refutes an earlier bad one of the other.
    fn refutes(self, other: Self) -> bool {
        self == other || (self, other) == (Self::VerifyFull, Self::VerifyQuick)
    }
}

impl fmt::Display for ProofKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Receipt of one check of one set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Proof {
    /// Major version of the format.
    pub format: u32,
    /// What was done.
    pub kind: ProofKind,
    /// The protected system.
    pub stanza: Stanza,
    /// The set.
    pub set: SetId,
    /// Name and version of the checking program.
    pub tool: String,
    /// End of the check, by the checker's clock.
    pub at: Timestamp,
    /// Whether everything was as it should be.
    pub passed: bool,
    /// What was not, at most 1,000 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// How much was checked, for the kinds that read objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
    /// What the restore did, for a restore test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreTest>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Something wrong with one object of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    /// Name below the set's folder; a whole key for objects elsewhere.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Problem {
    /// Such a problem.
    #[must_use]
    pub fn new(object: &str, problem: impl Into<String>) -> Self {
        Self { object: object.to_owned(), problem: problem.into() }
    }
}

/// How much a check looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Checked {
    /// Objects, the manifest included.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Time it took, in milliseconds.
    pub millis: u64,
}

/// What a restore test did and found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct RestoreTest {
    /// Clock time from the first request to the usable target, in milliseconds.
    pub rto_millis: u64,
    /// Where that time went, in order.
    pub phases: Vec<Phase>,
    /// Facts of the manifest that were compared with the restored target.
    pub facts_compared: u64,
    /// Facts that differ, in words.
    pub differences: Vec<String>,
    /// The operator's own checks.
    pub checks: Vec<Check>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A part of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Time it took, in milliseconds.
    pub millis: u64,
}

/// A check that the operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// Its name or text, such as an SQL query.
    pub check: String,
    /// Whether it passed.
    pub passed: bool,
    /// The answer, in words.
    pub answer: String,
}

impl Proof {
    /// The receipt of a check that ended at `at`.
    #[must_use]
    pub fn new(kind: ProofKind, stanza: Stanza, set: SetId, tool: &str, at: Timestamp, passed: bool) -> Self {
        Self {
            format: FORMAT_MAJOR,
            kind,
            stanza,
            set,
            tool: tool.to_owned(),
            at,
            passed,
            problems: Vec::new(),
            checked: None,
            restore: None,
            unknown: Map::new(),
        }
    }

    /// Sets the problems; from the 1,000th on they are only counted.
    #[must_use]
    pub fn problems(mut self, mut problems: Vec<Problem>) -> Self {
        if problems.len() > MAX_PROBLEMS {
            let more = problems.len() - (MAX_PROBLEMS - 1);
            problems.truncate(MAX_PROBLEMS - 1);
            problems.push(Problem::new("…", format!("{more} more problems")));
        }
        self.problems = problems;
        self
    }

    /// Sets how much was checked.
    #[must_use]
    pub fn checked(mut self, checked: Checked) -> Self {
        self.checked = Some(checked);
        self
    }

    /// Sets what the restore did.
    #[must_use]
    pub fn restore(mut self, restore: RestoreTest) -> Self {
        self.restore = Some(restore);
        self
    }

    /// Keeps the proof in a repository that holds the set. Nothing is replaced; a repetition is one more proof.
    ///
    /// # Errors
    /// [`Error::Store`] when the repository does not take it.
    pub async fn store(&self, repository: &Repository) -> Result<Key, Error> {
        let key = |at| {
            layout::proof(&self.stanza, &self.set, at, self.kind.name())
                .map_err(|error| Error::Internal { what: error.to_string() })
        };
        Ok(record::append(repository, self.at, key, self).await?.key)
    }
}

/// A proof and when the store received it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredProof {
    /// The proof.
    pub proof: Proof,
    /// Its arrival by the store's clock.
    pub store_time: Timestamp,
}

/// The newest readable proof of each kind for one copy of a set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proofs {
    /// By kind.
    pub newest: BTreeMap<ProofKind, StoredProof>,
    /// Proofs that cannot be read.
    pub damaged: Vec<Problem>,
}

impl Proofs {
    /// The newest bad result that no later good one refutes.
    #[must_use]
    pub fn doubt(&self) -> Option<&StoredProof> {
        let refuted = |bad: &StoredProof| {
            self.newest.values().any(|good| {
                good.proof.passed
                    && good.proof.kind.refutes(bad.proof.kind)
                    && good.store_time > bad.store_time
            })
        };
        let doubts = self.newest.values().filter(|proof| !proof.proof.passed && !refuted(proof));
        doubts.max_by_key(|proof| proof.store_time)
    }

    /// The newest proof of these kinds.
    #[must_use]
    pub fn newest_of(&self, kinds: &[ProofKind]) -> Option<&StoredProof> {
        let fitting = kinds.iter().filter_map(|kind| self.newest.get(kind));
        fitting.max_by_key(|proof| proof.store_time)
    }
}

/// Proofs of the sets below a prefix, newest of each kind. Lists every proof, remembers at most four of each kind and
/// set, and reads one of them (more only where the newest is damaged).
pub(crate) async fn load(
    repository: &Repository,
    stanza: &Stanza,
    below: &Prefix,
) -> Result<BTreeMap<SetId, Proofs>, Error> {
    let mut found: BTreeMap<(SetId, ProofKind), Vec<ObjectMeta>> = BTreeMap::new();
    let mut listing = repository.store().list(below);
    let all = layout::all_proofs(stanza);
    while let Some(meta) =
        listing.try_next().await.map_err(|source| repository.failed("list proofs", source))?
    {
        let Some((set, name)) = layout::split(&all, &meta.key) else { continue };
        if let Some(kind) = kind_of(&name) {
            keep_newest(found.entry((set, kind)).or_default(), meta);
        }
    }
    let newest = stream::iter(found)
        .map(|((set, kind), metas)| async move {
            let (proof, damaged) = newest_readable(repository, stanza, &set, kind, metas).await?;
            Ok::<_, Error>((set, kind, proof, damaged))
        })
        .buffer_unordered(READS);
    let mut proofs: BTreeMap<SetId, Proofs> = BTreeMap::new();
    let mut newest = std::pin::pin!(newest);
    while let Some((set, kind, proof, damaged)) = newest.try_next().await? {
        let of_set = proofs.entry(set).or_default();
        of_set.damaged.extend(damaged);
        if let Some(proof) = proof {
            of_set.newest.insert(kind, proof);
        }
    }
    Ok(proofs)
}

/// Keeps so many of the newest that a few damaged ones do not hide an older good one, however many proofs there are.
fn keep_newest(metas: &mut Vec<ObjectMeta>, meta: ObjectMeta) {
    const SPARE: usize = 4;
    metas.push(meta);
    metas.sort_by(|a, b| (b.modified, &b.key).cmp(&(a.modified, &a.key)));
    metas.truncate(SPARE);
}

/// The kind in the name of a proof.
pub(crate) fn kind_of(name: &str) -> Option<ProofKind> {
    let stem = name.strip_suffix(".json")?;
    layout::parse_time(stem)?;
    let (_, kind) = stem.split_once("Z-")?;
    ProofKind::ALL.into_iter().find(|known| known.name() == kind)
}

async fn newest_readable(
    repository: &Repository,
    stanza: &Stanza,
    set: &SetId,
    kind: ProofKind,
    metas: Vec<ObjectMeta>,
) -> Result<(Option<StoredProof>, Vec<Problem>), Error> {
    let mut damaged = Vec::new();
    for meta in metas {
        match read(repository, stanza, set, kind, &meta.key).await {
            Ok(proof) => return Ok((Some(StoredProof { proof, store_time: meta.modified }), damaged)),
            Err(ReadError::Content(error)) => {
                damaged.push(Problem::new(meta.key.as_str(), error.to_string()));
            }
            Err(ReadError::Store(error)) if error.is_absent() => {
                let problem = repository.why_absent(&meta.key).await?;
                damaged.extend(problem.map(|problem| Problem::new(meta.key.as_str(), problem)));
            }
            Err(ReadError::Store(error)) if error.is_temporary() => {
                return Err(repository.failed("read proof", error));
            }
            Err(ReadError::Store(error)) => damaged.push(Problem::new(meta.key.as_str(), describe(&error))),
        }
    }
    Ok((None, damaged))
}

/// Reads a proof and checks that it belongs where it lies.
pub(crate) async fn read(
    repository: &Repository,
    stanza: &Stanza,
    set: &SetId,
    kind: ProofKind,
    key: &Key,
) -> Result<Proof, ReadError> {
    let proof: Proof = record::read(repository, key).await?;
    if proof.stanza == *stanza && proof.set == *set && proof.kind == kind {
        return Ok(proof);
    }
    let found = format!("it is a proof ({}) of set {} of stanza {}", proof.kind, proof.set, proof.stanza);
    Err(ReadError::Content(crate::manifest::ManifestError::Damaged { problem: found }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(kind: ProofKind, passed: bool, second: i64) -> StoredProof {
        let stanza = Stanza::parse("main").unwrap();
        let set = SetId::parse("20261122T221354Z-3f9a2c01d7").unwrap();
        let at = Timestamp::from_second(second).unwrap();
        StoredProof { proof: Proof::new(kind, stanza, set, "test", at, passed), store_time: at }
    }

    fn doubt(proofs: &[StoredProof]) -> Option<ProofKind> {
        let newest = proofs.iter().map(|proof| (proof.proof.kind, proof.clone())).collect();
        Proofs { newest, damaged: Vec::new() }.doubt().map(|proof| proof.proof.kind)
    }

    #[test]
    fn a_quick_look_does_not_refute_a_full_one() {
        use ProofKind::{RestoreTest, VerifyFull, VerifyQuick};
        assert_eq!(doubt(&[proof(VerifyFull, false, 1), proof(VerifyQuick, true, 2)]), Some(VerifyFull));
        assert_eq!(doubt(&[proof(VerifyQuick, false, 1), proof(VerifyFull, true, 2)]), None);
        assert_eq!(doubt(&[proof(VerifyQuick, false, 3), proof(VerifyFull, true, 2)]), Some(VerifyQuick));
        assert_eq!(doubt(&[proof(RestoreTest, false, 1), proof(VerifyFull, true, 2)]), Some(RestoreTest));
        assert_eq!(doubt(&[proof(VerifyFull, false, 1), proof(RestoreTest, true, 2)]), Some(VerifyFull));
        assert_eq!(doubt(&[proof(VerifyFull, true, 1)]), None);
    }

    #[test]
    fn only_names_of_proofs_are_proofs() {
        assert_eq!(kind_of("20261122T221354.000123Z-verify-full.json"), Some(ProofKind::VerifyFull));
        for name in ["verify-full.json", "20261122T221354.000123Z-other.json", "20261122T221354.000123Z.json"]
        {
            assert_eq!(kind_of(name), None, "{name}");
        }
    }

    #[test]
    fn problems_beyond_the_limit_are_counted() {
        let many = (0..1500).map(|n| Problem::new(&n.to_string(), "gone")).collect();
        let problems = proof(ProofKind::VerifyFull, false, 1).proof.problems(many).problems;
        assert_eq!(problems.len(), 1000);
        assert_eq!(problems[999].problem, "501 more problems");
    }
}
