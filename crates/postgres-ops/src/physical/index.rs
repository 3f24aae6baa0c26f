//! Where each file of a physical set lies, and a digest of each of its blocks: the lines of `index.zst`.
//!
//! One JSON object a line, in any order, the last one an [`IndexEnd`], without which the index is cut off:
//!
//! ```text
//! {"pack":{"number":1,"object":"pack-00001.tar.zst","frame":2097152,"plain":…,"stored":[…]}}
//! {"directory":{"path":"pg_notify","mode":448}}
//! {"file":{"path":"base/1/1259","pack":1,"at":1536,"size":106496,"mode":384,"modified":1760000000,"blocks":["…"]}}
//! {"end":{"files":1,"directories":1,"packs":1}}
//! ```
//!
//! The index is trusted because the manifest has its SHA-256; block digests then vouch for what is fetched as a part of
//! a pack, whose own SHA-256 covers only the whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ClusterPath;

/// Bytes of a block that has a digest; the last one of a file is shorter.
pub const BLOCK: u64 = 1 << 20;

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexLine {
    /// A pack.
    Pack(IndexPack),
    /// A directory, whether it is empty or not.
    Directory(IndexDirectory),
    /// A file.
    File(IndexFile),
    /// The end of the index.
    End(IndexEnd),
}

/// A tar stream and its frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IndexPack {
    /// What files call it; from 1 on.
    pub number: u32,
    /// Its object in the set.
    pub object: String,
    /// Plain bytes of a frame; the last one is shorter.
    pub frame: u64,
    /// Plain bytes of all frames.
    pub plain: u64,
    /// Stored bytes of each frame before encryption; their sums are the frames' offsets.
    pub stored: Vec<u32>,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IndexDirectory {
    /// Its path.
    pub path: ClusterPath,
    /// Its permissions.
    pub mode: u32,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IndexFile {
    /// Its path.
    pub path: ClusterPath,
    /// Number of its pack.
    pub pack: u32,
    /// Offset of its content in the plain bytes of the pack; its tar header lies before.
    pub at: u64,
    /// Its bytes.
    pub size: u64,
    /// Its permissions.
    pub mode: u32,
    /// Its modification in seconds since 1970, as in the tar header.
    pub modified: i64,
    /// Digest of every [`BLOCK`] bytes.
    pub blocks: Vec<BlockDigest>,
}

/// What the index holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IndexEnd {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Packs.
    pub packs: u32,
}

/// XXH3-128 of a block, in hexadecimal; proof against accidents, not against an adversary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BlockDigest(pub u128);

impl BlockDigest {
    /// The digest of a block.
    #[must_use]
    pub fn of(block: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(block))
    }
}

impl fmt::Display for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BlockDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(digest) if canonical => Ok(Self(digest)),
            _ => Err("a block's digest is 32 lower-case hexadecimal digits".to_owned()),
        }
    }
}

impl TryFrom<String> for BlockDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BlockDigest> for String {
    fn from(digest: BlockDigest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_the_format_says() {
        let path = |text: &str| ClusterPath::parse(text).unwrap();
        let lines = [
            (
                IndexLine::Pack(IndexPack {
                    number: 1,
                    object: "pack-00001.tar.zst".to_owned(),
                    frame: 4,
                    plain: 6,
                    stored: vec![9, 8],
                }),
                r#"{"pack":{"number":1,"object":"pack-00001.tar.zst","frame":4,"plain":6,"stored":[9,8]}}"#,
            ),
            (
                IndexLine::Directory(IndexDirectory { path: path("pg_notify"), mode: 0o700 }),
                r#"{"directory":{"path":"pg_notify","mode":448}}"#,
            ),
            (
                IndexLine::File(IndexFile {
                    path: path("base/1/2"),
                    pack: 1,
                    at: 512,
                    size: 3,
                    mode: 0o600,
                    modified: -1,
                    blocks: vec![BlockDigest::of(b"abc")],
                }),
                r#"{"file":{"path":"base/1/2","pack":1,"at":512,"size":3,"mode":384,"modified":-1,"blocks":["06b05ab6733a618578af5f94892f3950"]}}"#,
            ),
            (
                IndexLine::End(IndexEnd { files: 1, directories: 1, packs: 1 }),
                r#"{"end":{"files":1,"directories":1,"packs":1}}"#,
            ),
        ];
        for (line, text) in lines {
            assert_eq!(serde_json::to_string(&line).unwrap(), text);
            assert_eq!(serde_json::from_str::<IndexLine>(text).unwrap(), line);
        }
    }

    #[test]
    fn digests_have_one_spelling() {
        for wrong in ["", "06B05AB6733A618578AF5F94892F3950", "+6b05ab6733a618578af5f94892f3950", "06"] {
            assert!(wrong.parse::<BlockDigest>().is_err(), "{wrong}");
        }
    }
}
