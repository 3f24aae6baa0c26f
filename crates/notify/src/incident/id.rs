//! Identifiers of incidents.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Name of an incident: the UTC second it was opened, and chance: `20261122T221354Z-3f9a2c01`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IncidentId(String);

/// A text that is no [`IncidentId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no incident: they look like 20261122T221354Z-3f9a2c01")]
pub struct InvalidIncidentId(String);

impl IncidentId {
    /// A new one.
    #[must_use]
    pub fn generate(at: Timestamp, rng: &mut impl Rng) -> Self {
        let time = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
        Self(format!("{time}-{:08x}", rng.random::<u32>()))
    }

    /// Parses one.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidIncidentId> {
        let invalid = || InvalidIncidentId(text.chars().take(80).collect());
        let (time, chance) = text.split_once('-').ok_or_else(invalid)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_time = time.len() == 16
            && time.is_ascii()
            && digits(&time[..8])
            && &time[8..9] == "T"
            && digits(&time[9..15])
            && time.ends_with('Z');
        let is_chance = chance.len() == 8
            && chance.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if is_time && is_chance { Ok(Self(text.to_owned())) } else { Err(invalid()) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IncidentId {
    type Err = InvalidIncidentId;

    fn from_str(text: &str) -> Result<Self, InvalidIncidentId> {
        Self::parse(text)
    }
}

impl TryFrom<String> for IncidentId {
    type Error = InvalidIncidentId;

    fn try_from(text: String) -> Result<Self, InvalidIncidentId> {
        Self::parse(&text)
    }
}

impl From<IncidentId> for String {
    fn from(id: IncidentId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_went_and_others_are_refused() {
        let at = "2026-11-22T22:13:54Z".parse().unwrap();
        let id = IncidentId::generate(at, &mut rand::rng());
        assert_eq!(IncidentId::parse(id.as_str()), Ok(id.clone()));
        assert!(id.as_str().starts_with("20261122T221354Z-"));
        for text in
            ["", "-", "20261122T221354Z-", "20261122T221354Z-3F9A2C01", "20261122T221354Z-3f9a2c01x", "ä-b"]
        {
            assert!(IncidentId::parse(text).is_err(), "{text}");
        }
    }
}
