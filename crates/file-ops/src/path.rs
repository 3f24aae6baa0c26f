//! Names inside an archive.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Longest path in bytes that Linux takes, without its final NUL.
const LONGEST: usize = 4095;
/// Longest name in bytes.
const LONGEST_NAME: usize = 255;

/// A relative path without `.`, `..`, empty names and NUL: it cannot lead out of the folder it is joined to, as long as
/// no link is followed. Any other bytes are allowed, text or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchivePath(Box<[u8]>);

/// Why bytes are no such path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// Nothing at all.
    #[error("its path is empty")]
    Empty,
    /// It begins with a slash.
    #[error("its path is absolute")]
    Absolute,
    /// It has `..` in it.
    #[error("its path leads upwards")]
    Parent,
    /// It has `.` or an empty name in it.
    #[error("its path has an empty name or a dot in it")]
    NotCanonical,
    /// It has a NUL in it.
    #[error("its path has a zero byte in it")]
    Nul,
    /// No system could have such a file.
    #[error("its path is too long")]
    TooLong,
}

impl ArchivePath {
    /// Takes the bytes of a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathProblem> {
        if bytes.is_empty() {
            return Err(PathProblem::Empty);
        }
        if bytes[0] == b'/' {
            return Err(PathProblem::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathProblem::Nul);
        }
        if bytes.len() > LONGEST {
            return Err(PathProblem::TooLong);
        }
        for name in bytes.split(|byte| *byte == b'/') {
            match name {
                b".." => return Err(PathProblem::Parent),
                b"" | b"." => return Err(PathProblem::NotCanonical),
                name if name.len() > LONGEST_NAME => return Err(PathProblem::TooLong),
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// Takes an absolute path of the system, relative to `/`. `None` for `/` itself and for paths that are not canonical.
    #[must_use]
    pub fn of_absolute(path: &Path) -> Option<Self> {
        Self::parse(path.as_os_str().as_bytes().strip_prefix(b"/")?).ok()
    }

    /// The path of something inside this folder.
    ///
    /// # Errors
    /// As [`ArchivePath::parse`].
    pub fn join(&self, name: &[u8]) -> Result<Self, PathProblem> {
        Self::parse(&[&self.0, b"/".as_slice(), name].concat())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the system takes it.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The last name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// The folder it lies in, `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// All folders it lies in, innermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// Whether it is `folder` or lies in it.
    #[must_use]
    pub fn is_within(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(&*folder.0);
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl fmt::Display for ArchivePath {
    /// Bytes that are no printable text are escaped, so that a name cannot play tricks with a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for ArchivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", printable(&self.0))
    }
}

impl serde::Serialize for ArchivePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&printable(&self.0))
    }
}

/// Bytes as text: control characters and what is no UTF-8 as `\x1b`.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() {
                letter.escape_default().for_each(|escaped| text.push(escaped));
            } else {
                text.push(letter);
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// The same for paths of the system.
pub(crate) fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_below_are_taken() {
        for (bytes, problem) in [
            (b"".as_slice(), PathProblem::Empty),
            (b"/etc/passwd", PathProblem::Absolute),
            (b"..", PathProblem::Parent),
            (b"etc/../../x", PathProblem::Parent),
            (b"./x", PathProblem::NotCanonical),
            (b"a//b", PathProblem::NotCanonical),
            (b"a/", PathProblem::NotCanonical),
            (b"a\0b", PathProblem::Nul),
            (&[b'x'; 256], PathProblem::TooLong),
            (&[b"x/".repeat(2100), b"x".to_vec()].concat(), PathProblem::TooLong),
        ] {
            assert_eq!(ArchivePath::parse(bytes), Err(problem), "{}", printable(bytes));
        }
        for bytes in [b"etc".as_slice(), b"etc/...", b"a/..b", b"\xff\xfe/x", b"new\nline"] {
            assert_eq!(ArchivePath::parse(bytes).unwrap().as_bytes(), bytes);
        }
    }

    #[test]
    fn names_are_printed_without_tricks() {
        let path = ArchivePath::parse(b"a\x1b[31m/\xff/\xc3\xa4").unwrap();
        assert_eq!(path.to_string(), "a\\u{1b}[31m/\\xff/ä");
        assert_eq!(path.name(), "ä".as_bytes());
        assert_eq!(path.ancestors().count(), 2);
        assert!(path.is_within(&ArchivePath::parse(b"a\x1b[31m").unwrap()));
        assert!(!path.is_within(&ArchivePath::parse(b"a").unwrap()));
    }
}
