use std::fmt;
use std::str::FromStr;

use super::timeline::hex;
use super::{Segment, Timeline, WalError};

/// A file that PostgreSQL gives to `archive_command` or asks of `restore_command`, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFile {
    /// A whole segment.
    Segment(Segment),
    /// The beginning of a segment that a promotion cut off (`….partial`). Recovery never asks for it.
    Partial(Segment),
    /// How a timeline came about (`….history`).
    History(Timeline),
    /// Where a base backup began (a segment, eight hexadecimal digits, `.backup`), in the segment at this offset.
    Backup(Segment, u32),
}

impl WalFile {
    /// The timeline that the file belongs to.
    #[must_use]
    pub const fn timeline(self) -> Timeline {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::Backup(segment, _) => segment.timeline(),
            Self::History(timeline) => timeline,
        }
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::History(timeline) => write!(f, "{timeline}.history"),
            Self::Backup(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFile {
    type Err = WalError;

    fn from_str(name: &str) -> Result<Self, WalError> {
        let unknown = || WalError::Name { name: name.to_owned() };
        if let Some(stem) = name.strip_suffix(".partial") {
            return stem.parse().map(Self::Partial).map_err(|_| unknown());
        }
        if let Some(stem) = name.strip_suffix(".history") {
            return Timeline::from_digits(stem).map(Self::History).ok_or_else(unknown);
        }
        if let Some(stem) = name.strip_suffix(".backup") {
            let parts = stem.split_once('.');
            let parsed = parts.and_then(|(segment, at)| Some((segment.parse().ok()?, hex(at)?)));
            return parsed.map(|(segment, offset)| Self::Backup(segment, offset)).ok_or_else(unknown);
        }
        name.parse().map(Self::Segment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_name_is_known() {
        let segment: Segment = "00000002000000010000000A".parse().unwrap();
        let timeline = Timeline::new(2).unwrap();
        for (name, file) in [
            ("00000002000000010000000A", WalFile::Segment(segment)),
            ("00000002000000010000000A.partial", WalFile::Partial(segment)),
            ("00000002.history", WalFile::History(timeline)),
            ("00000002000000010000000A.00000028.backup", WalFile::Backup(segment, 0x28)),
        ] {
            assert_eq!(name.parse(), Ok(file));
            assert_eq!(file.to_string(), name);
            assert_eq!(file.timeline(), timeline);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for wrong in [
            "",
            "RECOVERYXLOG",
            "archive_status",
            "../000000020000000100000001",
            "00000002000000010000000A.gz",
            "00000000.history",
            "2.history",
            "00000002000000010000000A.28.backup",
            "00000002000000010000000A.backup",
            "00000002.partial",
            ".partial",
            "00000002000000010000000A.partial.partial",
        ] {
            assert_eq!(wrong.parse::<WalFile>(), Err(WalError::Name { name: wrong.to_owned() }));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_prints_as_it_was(name in "[0-9A-F]{8}([0-9A-F]{16})?(\\.(partial|history|[0-9A-F]{8}\\.backup))?") {
            if let Ok(file) = name.parse::<WalFile>() {
                prop_assert_eq!(file.to_string(), name);
            }
        }

        #[test]
        fn no_text_is_too_strange(name: String) {
            let _ = name.parse::<WalFile>();
        }
    }
}
