//! Where one is in a replication stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of one history of writes: 40 hexadecimal digits that a server draws when it becomes a primary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicationId([u8; 40]);

/// A text that is no replication id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no replication id: expected 40 lower-case hexadecimal digits")]
pub struct ParseIdError {
    text: String,
}

impl ReplicationId {
    /// Parses an id.
    ///
    /// # Errors
    /// Anything but 40 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        let digits = <[u8; 40]>::try_from(text.as_bytes()).ok();
        let canonical = digits.filter(|digits| {
            digits.iter().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit))
        });
        canonical.map(Self).ok_or_else(|| ParseIdError { text: text.chars().take(60).collect() })
    }

    /// The 40 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id holds hexadecimal digits only")
    }
}

impl fmt::Display for ReplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReplicationId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ReplicationId {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        Self::parse(&text)
    }
}

impl From<ReplicationId> for String {
    fn from(id: ReplicationId) -> Self {
        id.as_str().to_owned()
    }
}

/// Position in a replication stream: how many bytes of it lie before.
///
/// The same number as `master_repl_offset` and the offset of `+FULLRESYNC`: a snapshot at offset 1000 holds the first
/// 1000 bytes, and the next byte of the stream lies between offsets 1000 and 1001. (`PSYNC` alone asks for the *number*
/// of the next byte, which is one more; only [`crate::psync`] knows that.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset that many bytes further on. Offsets end where a signed 64-bit number ends, which no server reaches.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to here; 0 when it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Offset {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn ids_are_forty_lower_case_digits() {
        assert_eq!(ReplicationId::parse(ID).unwrap().to_string(), ID);
        for bad in ["", "0123", &ID.to_uppercase(), &ID.replace('a', "g"), &format!("{ID}0"), &"ä".repeat(20)]
        {
            assert!(ReplicationId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_and_offsets_are_plain_in_json() {
        let both = (ReplicationId::parse(ID).unwrap(), Offset(17));
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(text, format!("[\"{ID}\",17]"));
        assert_eq!(serde_json::from_str::<(ReplicationId, Offset)>(&text).unwrap(), both);
        assert!(serde_json::from_str::<ReplicationId>("\"x\"").is_err());
    }

    #[test]
    fn distances_never_wrap() {
        assert_eq!(Offset(10).since(Offset(4)), 6);
        assert_eq!(Offset(4).since(Offset(10)), 0);
        assert_eq!(Offset(u64::MAX).plus(1), Offset(u64::MAX));
    }
}
