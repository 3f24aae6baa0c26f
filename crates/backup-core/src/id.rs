//! Identifiers of the repository: stanzas, sets, repositories.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// A text that is no valid identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {kind} {text:?}: {rule}")]
pub struct IdError {
    /// Which identifier was expected.
    pub kind: &'static str,
    /// The refused text.
    pub text: String,
    /// The rule it broke.
    pub rule: &'static str,
}

/// One protected system: its sets, WAL, leases and proofs live below this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stanza(String);

impl Stanza {
    /// Parses a stanza name.
    ///
    /// # Errors
    /// Anything but 1 to 64 letters, digits, `_`, `-` and `.` that begin with a letter or digit.
    pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if good {
            Ok(Self(text))
        } else {
            let rule = "use 1 to 64 letters, digits, '_', '-' and '.', beginning with a letter or digit";
            Err(IdError { kind: "stanza", text, rule })
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of a backup set: UTC start time and 40 random bits, as in `20261122T221354Z-3f9a2c01d7`.
///
/// The time makes listings readable; no decision relies on it, because a writer's clock may be wrong (P4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SetId(String);

const SET_ID_LEN: usize = 27;

impl SetId {
    /// A new id for a set that starts now.
    pub fn generate(started: Timestamp, rng: &mut impl Rng) -> Self {
        let time = started.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
        let random = rng.random::<u64>() & 0xFF_FFFF_FFFF;
        Self(format!("{time}-{random:010x}"))
    }

    /// Parses an id.
    ///
    /// # Errors
    /// Anything not of the form `YYYYMMDDTHHMMSSZ-xxxxxxxxxx`.
    pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        if Self::well_formed(&text) {
            Ok(Self(text))
        } else {
            Err(IdError {
                kind: "set id",
                text,
                rule: "expected YYYYMMDDTHHMMSSZ and ten hexadecimal digits",
            })
        }
    }

    fn well_formed(text: &str) -> bool {
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let bytes = text.as_bytes();
        text.is_ascii()
            && bytes.len() == SET_ID_LEN
            && digits(&text[0..8])
            && bytes[8] == b'T'
            && digits(&text[9..15])
            && &text[15..17] == "Z-"
            && bytes[17..].iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_identifier {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

text_identifier!(Stanza);
text_identifier!(SetId);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn generated_ids_parse_and_sort_by_time() {
        let mut rng = StdRng::seed_from_u64(7);
        let early = SetId::generate("2026-11-22T22:13:54Z".parse().unwrap(), &mut rng);
        let late = SetId::generate("2026-11-22T22:13:55Z".parse().unwrap(), &mut rng);
        assert!(early < late);
        assert_eq!(SetId::parse(early.as_str()).unwrap(), early);
        assert!(early.as_str().starts_with("20261122T221354Z-"));
    }

    #[test]
    fn foreign_texts_are_refused() {
        for text in ["", "latest", "20261122T221354Z-3f9a2c01dG", "20261122T221354Z_3f9a2c01d7"] {
            assert!(SetId::parse(text).is_err(), "{text}");
        }
        for text in ["", "-x", "a/b", "ä", "a b"] {
            assert!(Stanza::parse(text).is_err(), "{text}");
        }
    }
}
