//! How bad an incident is, and how far its handling has come.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Severity of an incident; P0 is the worst. Not to be confused with the tiers T1 to T3 of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Everything stands still, or data is being lost.
    P0,
    /// An important part stands still.
    P1,
    /// Something is broken and somebody must look today.
    P2,
    /// To be done some time.
    P3,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 4] = [Self::P0, Self::P1, Self::P2, Self::P3];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P0 => "P0",
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
        }
    }
}

/// How far the handling of an incident has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nobody knows yet what it is.
    Investigating,
    /// The cause is known.
    Identified,
    /// It is repaired, and watched.
    Monitoring,
    /// It is over.
    Resolved,
}

impl Status {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Investigating, Self::Identified, Self::Monitoring, Self::Resolved];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Investigating => "investigating",
            Self::Identified => "identified",
            Self::Monitoring => "monitoring",
            Self::Resolved => "resolved",
        }
    }
}

/// A text that is none of the known words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of {known}")]
pub struct WordError {
    text: String,
    known: String,
}

fn word<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, WordError> {
    let same = |item: &&T| name(**item).eq_ignore_ascii_case(text.trim());
    let known = || all.iter().map(|item| name(*item)).collect::<Vec<_>>().join(", ");
    all.iter().find(same).copied().ok_or_else(|| WordError { text: text.to_owned(), known: known() })
}

impl FromStr for Severity {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        word(text, &Self::ALL, Self::name)
    }
}

impl FromStr for Status {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        word(text, &Self::ALL, Self::name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
