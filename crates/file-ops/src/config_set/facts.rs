//! What a manifest says of a set of configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::walk::{Problem, ProblemKind};

/// Numbers, and no name: a manifest is not encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ConfigFacts {
    /// Files with content of their own.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links, and further names of files.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Names that differ in upper and lower case only.
    #[serde(default)]
    pub case_collisions: u64,
    /// Digest of what the system said of every file; absent when it was not settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// What went otherwise than wanted; which files, the object `problems.jsonl` says.
    pub problems: ProblemCounts,
    /// Whether root read it. Others do not see every extended attribute, and cannot read every file.
    pub privileged: bool,
    /// Secrets kept elsewhere; which versions of them were in use, the object `secrets.json` says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub secrets: u64,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many problems there were of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProblemCounts(pub BTreeMap<String, u64>);

impl ProblemCounts {
    pub(crate) fn of(problems: &[Problem]) -> Self {
        let mut counts = BTreeMap::new();
        for problem in problems {
            *counts.entry(word(problem.kind).to_owned()).or_default() += 1;
        }
        Self(counts)
    }
}

fn word(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Missing => "missing",
        ProblemKind::Unreadable => "unreadable",
        ProblemKind::Changed => "changed",
        ProblemKind::Withheld => "withheld",
        ProblemKind::Grew => "grew",
        ProblemKind::Vanished => "vanished",
        ProblemKind::Special => "special",
    }
}
