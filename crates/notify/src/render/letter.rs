//! The words of a message.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::notice::Notice;

/// What a message says, in plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Letter {
    /// One line.
    pub subject: String,
    /// Lines of plain text.
    pub body: String,
    /// The notices that it tells besides the first one.
    pub merged: usize,
}

impl Letter {
    /// Such words.
    #[must_use]
    pub fn new(subject: &str, body: &str) -> Self {
        Self { subject: super::clean_line(subject), body: super::clean_text(body), merged: 0 }
    }
}

/// A moment in words: `2026-11-22 22:13 UTC`.
#[must_use]
pub fn stamp(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The words of later notices that are told together with the first one.
pub(super) fn merged_lines(group: &[&Notice]) -> Vec<String> {
    let told = group.iter().filter(|notice| !notice.kind.is_passing());
    told.map(|notice| format!("{}  {}", stamp(notice.created), super::clean_line(words(notice)))).collect()
}

/// The words of a notice alone.
pub(super) fn words(notice: &Notice) -> &str {
    if notice.text.is_empty() { &notice.title } else { &notice.text }
}
