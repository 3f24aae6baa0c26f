//! The manifest: the one object whose existence makes a backup set exist (P1).
//!
//! On disk a manifest is one line of JSON, `{"manifest":{…},"sha256":"…"}`, where the digest covers the exact bytes
//! of the inner object. [`Manifest::decode`] accepts only the canonical envelope, so every flipped bit is noticed.
//! Fields that this version does not know are kept and written back; a newer major format is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::id::{SetId, Stanza};

/// Major version of the repository format that this library writes and reads.
pub const FORMAT_MAJOR: u32 = 1;
/// Largest manifest in bytes that is read.
pub const MAX_MANIFEST: u64 = 256 << 20;

/// What a backup set contains and how to prove it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Manifest {
    /// Major version of the format.
    pub format: u32,
    /// Which tool makes and restores such a set.
    pub kind: SetKind,
    /// The protected system.
    pub stanza: Stanza,
    /// The set.
    pub set: SetId,
    /// Name and version of the writing program.
    pub tool: String,
    /// What was backed up.
    pub source: Source,
    /// Begin, by the writer's clock.
    pub started: Timestamp,
    /// End, by the writer's clock.
    pub finished: Timestamp,
    /// The moment whose state the set holds (for a dump: when its snapshot was taken), by the source's clock.
    pub recovery_point: Timestamp,
    /// Set this one cannot be restored without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SetId>,
    /// False when the source could not be read completely; such a set is never "good".
    pub complete: bool,
    /// The data, in the order in which it was written.
    pub objects: Vec<ObjectEntry>,
    /// Facts that a restore test compares; their shape belongs to the kind.
    pub facts: Value,
    /// The operator's own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// What a manifest says of one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ObjectEntry {
    /// Name below the set's folder.
    pub name: String,
    /// Length as stored, in bytes.
    pub stored: u64,
    /// Length of the plain content, in bytes.
    pub plain: u64,
    /// Digest of the stored bytes.
    pub sha256: Sha256Hex,
    /// How the plain content was compressed.
    pub codec: Codec,
    /// Recipients that can decrypt it (`age1…`), empty when it is not encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Kind of a set; open, because each domain crate names its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetKind(pub String);

impl SetKind {
    /// A logical PostgreSQL backup.
    pub const POSTGRES_LOGICAL: &'static str = "postgres-logical";
    /// The files of a whole PostgreSQL cluster.
    pub const POSTGRES_PHYSICAL: &'static str = "postgres-physical";
    /// Snapshots of every part of a Redis.
    pub const REDIS_SNAPSHOT: &'static str = "redis-snapshot";

    /// The kind of that name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Source {
    /// Host as the writer knew it; never credentials.
    pub host: String,
    /// Version of the server, in its own words.
    pub server_version: String,
    /// Identity of the server's data, where it has one.
    pub system_identifier: String,
    /// Database, or what the kind has in its place.
    pub database: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Compression of an object. All are standard formats (P5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Codec {
    /// Stored as it is.
    None,
    /// zstd frames, one after another.
    Zstd,
    /// gzip members, one after another.
    Gzip,
}

impl Codec {
    /// Suffix of file names, with its dot.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

/// A SHA-256 digest, printed in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hex(pub [u8; 32]);

impl Sha256Hex {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Hex {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut digest = [0; 32];
        let canonical = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match hex::decode_to_slice(text, &mut digest) {
            Ok(()) if canonical => Ok(Self(digest)),
            _ => Err("a SHA-256 digest is 64 lower-case hexadecimal digits".to_owned()),
        }
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Sha256Hex> for String {
    fn from(digest: Sha256Hex) -> Self {
        digest.to_string()
    }
}

/// Why bytes are no manifest of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the canonical envelope: truncated, edited or something else altogether.
    #[error("it is damaged: {problem}")]
    Damaged {
        /// What is wrong.
        problem: String,
    },
    /// Written by a newer Backstay.
    #[error("it has format {found}, this program reads up to {FORMAT_MAJOR}")]
    TooNew {
        /// The version found.
        found: u32,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    manifest: &'a RawValue,
    sha256: Sha256Hex,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

fn envelope(inner: &str, digest: Sha256Hex) -> Vec<u8> {
    format!("{{\"manifest\":{inner},\"sha256\":\"{digest}\"}}\n").into_bytes()
}

/// Wraps any document in the digest-carrying envelope of the repository format.
///
/// # Errors
/// A value that JSON cannot express.
pub fn seal<T: Serialize>(document: &T) -> Result<Vec<u8>, serde_json::Error> {
    let inner = serde_json::to_string(document)?;
    let digest = Sha256Hex::of(inner.as_bytes());
    Ok(envelope(&inner, digest))
}

/// Opens an envelope made by [`seal`], checking every byte of it.
///
/// # Errors
/// [`ManifestError::Damaged`] for any difference to what [`seal`] wrote, [`ManifestError::TooNew`] for a format
/// that this version cannot read.
pub fn unseal<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, ManifestError> {
    let damaged = |problem: String| ManifestError::Damaged { problem };
    let parsed: Envelope<'de> =
        serde_json::from_slice(bytes).map_err(|error| damaged(format!("not valid JSON ({error})")))?;
    let inner: &'de str = parsed.manifest.get();
    if Sha256Hex::of(inner.as_bytes()) != parsed.sha256 {
        return Err(damaged("its content does not match its digest".to_owned()));
    }
    if envelope(inner, parsed.sha256) != bytes {
        return Err(damaged("its envelope was changed".to_owned()));
    }
    let FormatOnly { format } =
        serde_json::from_str(inner).map_err(|error| damaged(format!("no format version ({error})")))?;
    if format > FORMAT_MAJOR {
        return Err(ManifestError::TooNew { found: format });
    }
    serde_json::from_str(inner).map_err(|error| damaged(error.to_string()))
}

impl Manifest {
    /// The bytes that are stored.
    ///
    /// # Errors
    /// Facts that JSON cannot express.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        seal(self)
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// As [`unseal`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        unseal(bytes)
    }

    /// Stored length of all objects in bytes.
    #[must_use]
    pub fn stored_size(&self) -> u64 {
        self.objects.iter().map(|object| object.stored).sum()
    }

    /// Plain length of all objects in bytes.
    #[must_use]
    pub fn plain_size(&self) -> u64 {
        self.objects.iter().map(|object| object.plain).sum()
    }

    /// The object of that name.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<&ObjectEntry> {
        self.objects.iter().find(|object| object.name == name)
    }
}
