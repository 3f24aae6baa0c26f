//! What a manifest says of a set of code.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::state::Oid;
use crate::config_set::ProblemCounts;

/// Numbers and digests, and no name: a manifest is not encrypted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct CodeFacts {
    /// `sha1` or `sha256`.
    pub object_format: String,
    /// Whether there is no working tree.
    pub bare: bool,
    /// Sets that this one builds on; 0 for a full one.
    pub builds_on: u64,
    /// Refs.
    pub refs: u64,
    /// Objects that refs stand for, each once: what an increment leaves out.
    pub tips: Vec<Oid>,
    /// Whether the set has a bundle; without new objects there is none.
    pub bundle: bool,
    /// Digest of the state, for the next run; absent when something could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Whether anything was not committed; absent without a working tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
    /// Submodules: their commits are recorded, their repositories are not in the set.
    pub submodules: u64,
    /// Objects of Git LFS.
    pub lfs: LfsFacts,
    /// What is not committed, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncommitted: Option<UncommittedFacts>,
    /// What went otherwise than wanted; what, the object `problems.jsonl` says.
    pub problems: ProblemCounts,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Objects of Git LFS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct LfsFacts {
    /// All that belong to the set, those of the sets that it builds on included.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that this set itself has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<Oid>,
}

/// What is not committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct UncommittedFacts {
    /// Bytes of the patch from the commit to the index.
    pub staged_bytes: u64,
    /// Bytes of the patch from the index to the working tree.
    pub unstaged_bytes: u64,
    /// Files that git does not know.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}
