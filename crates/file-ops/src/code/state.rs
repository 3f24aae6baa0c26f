//! What a repository is at one moment, besides its objects: stored as `state.json`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::path::printable;

/// Bytes that are usually text: names of refs and files. In JSON a string, or `{"hex": …}` where they are no UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Name(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { hex: String },
}

impl From<Written> for Name {
    fn from(written: Written) -> Self {
        match written {
            Written::Text(text) => Self(text.into_bytes()),
            // What is no hexadecimal number is no name either, and is refused where names are used.
            Written::Bytes { hex } => Self(hex::decode(hex).unwrap_or_default()),
        }
    }
}

impl From<Name> for Written {
    fn from(name: Name) -> Self {
        match String::from_utf8(name.0) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes { hex: hex::encode(error.into_bytes()) },
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Name of an object: 40 or 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Oid(String);

impl Oid {
    /// Takes its digits.
    ///
    /// # Errors
    /// It has none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if digits && [40, 64].contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("{:?} names no object", printable(text.as_bytes())))
    }

    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Oid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Oid> for String {
    fn from(oid: Oid) -> Self {
        oid.0
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a working tree is: on a branch, which may have no commit yet, or on a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Head {
    /// The full name of the branch; absent when it is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Name>,
    /// The commit; absent on a branch without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Oid>,
}

/// A ref.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Ref {
    /// Its full name.
    pub name: Name,
    /// The object that it stands for.
    pub id: Oid,
    /// The ref that it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Name>,
}

/// A further working tree of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct WorkTree {
    /// Its name; `main` for the first one.
    pub name: Name,
    /// Its HEAD.
    pub head: Head,
}

/// A submodule of the commit that is checked out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Submodule {
    /// Where.
    pub path: Name,
    /// Its commit, as recorded.
    pub commit: Oid,
}

/// An object of Git LFS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct LfsObject {
    /// SHA-256 of its content, which is its name.
    pub id: Oid,
    /// Bytes.
    pub size: u64,
}

/// What is not committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Dirty {
    /// Files that differ between the commit and the index.
    pub staged: u64,
    /// Files that differ between the index and the working tree.
    pub unstaged: u64,
    /// Files that git does not know and does not ignore.
    pub untracked: u64,
    /// Files that a merge left in conflict.
    pub unmerged: u64,
    /// Submodules that are at another commit than the one recorded.
    pub moved_submodules: u64,
}

impl Dirty {
    /// Whether there is anything.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        *self != Self::default()
    }
}

/// A repository at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct State {
    /// Major version of this document.
    pub format: u32,
    /// `sha1` or `sha256`.
    pub object_format: String,
    /// Whether there is no working tree.
    pub bare: bool,
    /// HEAD.
    pub head: Head,
    /// All refs, by name.
    pub refs: Vec<Ref>,
    /// Further working trees.
    #[serde(default)]
    pub worktrees: Vec<WorkTree>,
    /// Submodules.
    #[serde(default)]
    pub submodules: Vec<Submodule>,
    /// LFS objects, by name.
    #[serde(default)]
    pub lfs: Vec<LfsObject>,
    /// What is not committed; absent without a working tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<Dirty>,
    /// Settings that say how files in the working tree look.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl State {
    /// Objects that refs and HEAD stand for, each once.
    #[must_use]
    pub fn tips(&self) -> Vec<Oid> {
        let ids = self.refs.iter().map(|reference| &reference.id).chain(&self.head.commit);
        let unique: std::collections::BTreeSet<_> = ids.collect();
        unique.into_iter().cloned().collect()
    }

    /// What two moments have in common when nothing was done between them: everything but marks of our own.
    pub(super) fn settled(&self) -> Self {
        let mut settled = self.clone();
        settled.refs.retain(|reference| !reference.name.0.starts_with(super::MARKS.as_bytes()));
        settled.dirty = None;
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_as_text_or_as_bytes() {
        for (bytes, json) in
            [(b"refs/heads/\xc3\xa4".as_slice(), "\"refs/heads/ä\""), (b"\xff", r#"{"hex":"ff"}"#)]
        {
            let name = Name(bytes.to_vec());
            assert_eq!(serde_json::to_string(&name).unwrap(), json);
            assert_eq!(serde_json::from_str::<Name>(json).unwrap(), name);
        }
    }

    #[test]
    fn only_digits_of_the_right_number_name_an_object() {
        assert!(Oid::parse(&"a0".repeat(20)).is_ok() && Oid::parse(&"a0".repeat(32)).is_ok());
        for wrong in ["", "HEAD", &"A0".repeat(20), &"a0".repeat(21), &format!("{}\n", "a".repeat(39))] {
            assert!(Oid::parse(wrong).is_err(), "{wrong}");
        }
    }
}
