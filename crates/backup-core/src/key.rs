//! Names of objects in a store.
//!
//! A [`Key`] is a relative path of one or more segments from a small portable alphabet, so the same key is a
//! valid S3 key and a valid file name on every file system. Nothing that came from disk or network becomes a key
//! without passing [`Key::parse`], which is why no store has to defend itself against `..` or absolute paths.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest accepted key in bytes; S3 allows 1,024, a repository prefix needs the rest.
pub const MAX_KEY_LEN: usize = 768;
/// Longest accepted segment in bytes; common file systems allow 255, temporary siblings need the rest.
pub const MAX_SEGMENT_LEN: usize = 200;

/// Name of one object: segments of `[A-Za-z0-9._=+-]` joined by `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

/// A text that is no valid [`Key`] or [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid object key {text:?}: {reason}")]
pub struct KeyError {
    /// The refused text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Key {
    /// Parses a key.
    ///
    /// # Errors
    /// Empty or overlong keys and segments, `.` and `..`, a leading dot, and characters outside the alphabet.
    pub fn parse(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        match fault(&text) {
            None => Ok(Self(text)),
            Some(reason) => Err(KeyError { text, reason }),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The key one or more segments below this one.
    ///
    /// # Errors
    /// As [`Key::parse`].
    pub fn join(&self, below: &str) -> Result<Self, KeyError> {
        Self::parse(format!("{}/{below}", self.0))
    }
}

/// Everything below a folder: empty (the whole store) or a key followed by `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// The whole store.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a folder name, with or without its final `/`; the empty text is the root.
    ///
    /// # Errors
    /// As [`Key::parse`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let folder = text.strip_suffix('/').unwrap_or(text);
        if folder.is_empty() {
            return Ok(Self::root());
        }
        Key::parse(folder).map(|key| Self(format!("{}/", key.0)))
    }

    /// The prefix as text: empty, or ending in `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key lies below this folder.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }

    /// The key of that name below this folder.
    ///
    /// # Errors
    /// As [`Key::parse`].
    pub fn key(&self, below: &str) -> Result<Key, KeyError> {
        Key::parse(format!("{}{below}", self.0))
    }

    /// The folder of that name below this one.
    ///
    /// # Errors
    /// As [`Key::parse`].
    pub fn folder(&self, below: &str) -> Result<Self, KeyError> {
        Self::parse(&format!("{}{below}", self.0))
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > MAX_KEY_LEN {
        return Some("it is too long");
    }
    text.split('/').find_map(|segment| match segment {
        "" => Some("it has an empty segment"),
        _ if segment.starts_with('.') => Some("a segment begins with a dot"),
        _ if segment.len() > MAX_SEGMENT_LEN => Some("a segment is too long"),
        _ if !segment.bytes().all(allowed) => Some("only letters, digits and . _ = + - are allowed"),
        _ => None,
    })
}

fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'=' | b'+' | b'-')
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_odd_names_are_refused() {
        for text in ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a b", "a\\b", "ä", "a\0b"] {
            assert!(Key::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let folder = Prefix::parse("main/sets").unwrap();
        assert!(folder.contains(&Key::parse("main/sets/x").unwrap()));
        assert!(!folder.contains(&Key::parse("main/sets2/x").unwrap()));
        assert_eq!(folder.key("a/b").unwrap().as_str(), "main/sets/a/b");
    }
}
