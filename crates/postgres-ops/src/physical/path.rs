use std::fmt;

use serde::{Deserialize, Serialize};

/// Path of a file below a data directory, such as `base/1/1259`.
///
/// Never absolute, never with `.` or `..` or an empty part, so it cannot lead out of the directory. In JSON it is a
/// string, or `{"hex":"…"}` when it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "PathText", try_from = "PathText")]
pub struct ClusterPath(Vec<u8>);

/// Why bytes are no path below a data directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is not a path below a data directory")]
pub struct ClusterPathError {
    /// The bytes, as far as they are text.
    pub path: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathText {
    Text(String),
    Hex { hex: String },
}

impl ClusterPath {
    /// Longest path in bytes that is taken.
    pub const LONGEST: usize = 4096;

    /// Checks a path.
    ///
    /// # Errors
    /// Absolute, empty, too long, with a NUL byte, or with a part that is empty, `.` or `..`.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, ClusterPathError> {
        let bytes = bytes.into();
        let fits = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        if bytes.len() <= Self::LONGEST && bytes.split(|b| *b == b'/').all(fits) {
            return Ok(Self(bytes));
        }
        Err(ClusterPathError { path: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the operating system has it.
    #[must_use]
    pub fn as_path(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt;
        std::path::Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for ClusterPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl From<ClusterPath> for PathText {
    fn from(path: ClusterPath) -> Self {
        match String::from_utf8(path.0) {
            Ok(text) => Self::Text(text),
            Err(error) => {
                Self::Hex { hex: error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect() }
            }
        }
    }
}

impl TryFrom<PathText> for ClusterPath {
    type Error = ClusterPathError;

    fn try_from(text: PathText) -> Result<Self, ClusterPathError> {
        match text {
            PathText::Text(text) => Self::parse(text),
            PathText::Hex { hex } => Self::parse(bytes(&hex).ok_or(ClusterPathError { path: hex })?),
        }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    hex.as_bytes().chunks(2).map(|pair| if pair.len() == 2 { byte(pair) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_below_the_directory_are_taken() {
        for good in ["PG_VERSION", "base/1/1259_fsm", "pg_tblspc/16385/PG_15_202209061/5/1", "a..b/...c"] {
            assert!(ClusterPath::parse(good).is_ok(), "{good}");
        }
        for wrong in ["", "/", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b"] {
            assert!(ClusterPath::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(ClusterPath::parse(vec![b'a'; ClusterPath::LONGEST + 1]).is_err());
    }

    #[test]
    fn paths_survive_json_also_when_they_are_no_text() {
        for bytes in [b"base/1".to_vec(), b"odd\xff/\xfe".to_vec()] {
            let path = ClusterPath::parse(bytes).unwrap();
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<ClusterPath>(&json).unwrap(), path, "{json}");
        }
        for hostile in [r#""../x""#, r#"{"hex":"2e2e"}"#, r#"{"hex":"2"}"#, r#"{"hex":"zz"}"#] {
            assert!(serde_json::from_str::<ClusterPath>(hostile).is_err(), "{hostile}");
        }
    }
}
