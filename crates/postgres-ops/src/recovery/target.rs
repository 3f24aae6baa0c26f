use std::fmt;
use std::str::FromStr;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;
use jiff::civil::DateTime;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use crate::wal::{Lsn, Timeline, WalError, Xid};

/// Longest name of a restore point, in bytes.
const LONGEST_NAME: usize = 63;

/// Where recovery shall end, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum RecoveryTarget {
    /// A moment: everything that was committed until then.
    Time {
        /// By the clock of the server that wrote the log.
        at: Timestamp,
        /// Whether what was committed at this very microsecond belongs to it.
        inclusive: bool,
    },
    /// A position in the log.
    Lsn {
        /// The position.
        at: Lsn,
        /// Whether the record that begins there belongs to it.
        inclusive: bool,
    },
    /// The end of a transaction.
    Xid {
        /// The transaction.
        xid: Xid,
        /// Whether its own changes belong to it.
        inclusive: bool,
    },
    /// A point made with `pg_create_restore_point`.
    Name {
        /// Its name.
        name: String,
    },
    /// As soon as the base backup is consistent.
    Immediate,
    /// Everything that is in the archive.
    Latest,
}

/// Which timeline recovery shall follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimelineChoice {
    /// The newest that there is.
    #[default]
    Latest,
    /// The one that the base backup was taken on.
    Current,
    /// This one.
    Number(Timeline),
}

/// What is wanted of recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryRequest {
    /// Where it shall end.
    pub target: RecoveryTarget,
    /// Along which timeline.
    pub timeline: TimelineChoice,
}

/// A text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A time that means another moment in every place of the world.
    #[error("{text:?} is a time without a zone")]
    NoZone {
        /// The text.
        text: String,
    },
    /// Not a time.
    #[error("{text:?} is not a time")]
    Time {
        /// The text.
        text: String,
    },
    /// Not a position or a transaction.
    #[error(transparent)]
    Place(#[from] WalError),
    /// No name that a restore point can have.
    #[error("{text:?} is not the name of a restore point: it has 1 to 63 bytes")]
    Name {
        /// The text.
        text: String,
    },
    /// Not a timeline.
    #[error("{text:?} is not a timeline: a number, latest or current")]
    Timeline {
        /// The text.
        text: String,
    },
}

impl Classified for TargetError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoZone { text } => Some(format!("add an offset: {text}Z for UTC, or {text}+02:00")),
            Self::Time { .. } => Some("write 2026-11-22T22:13:54Z or 2026-11-22 23:13:54+01:00".to_owned()),
            _ => None,
        }
    }
}

impl RecoveryTarget {
    /// A time such as `2026-11-22T22:13:54Z`, `2026-11-22 23:13:54.5+01:00` or `2026-11-22 23:13[Europe/Berlin]`.
    ///
    /// # Errors
    /// [`TargetError::NoZone`] where the zone is left out, [`TargetError::Time`].
    pub fn time(text: &str, inclusive: bool) -> Result<Self, TargetError> {
        let trimmed = text.trim();
        // As PostgreSQL and `date` print it.
        let utc =
            trimmed.strip_suffix(" UTC").or_else(|| trimmed.strip_suffix(" GMT")).map(|it| format!("{it}Z"));
        let time = utc.as_deref().unwrap_or(trimmed);
        let at = time.parse::<Timestamp>().or_else(|_| time.parse::<Zoned>().map(|zoned| zoned.timestamp()));
        let text = trimmed.to_owned();
        match (at, trimmed.parse::<DateTime>()) {
            (Ok(at), _) => Ok(Self::Time { at, inclusive }),
            (Err(_), Ok(_)) => Err(TargetError::NoZone { text }),
            (Err(_), Err(_)) => Err(TargetError::Time { text }),
        }
    }

    /// A position such as `16/B374D848`.
    ///
    /// # Errors
    /// [`TargetError::Place`].
    pub fn lsn(text: &str, inclusive: bool) -> Result<Self, TargetError> {
        Ok(Self::Lsn { at: text.trim().parse()?, inclusive })
    }

    /// A transaction, with or without its epoch.
    ///
    /// # Errors
    /// [`TargetError::Place`].
    pub fn xid(text: &str, inclusive: bool) -> Result<Self, TargetError> {
        Ok(Self::Xid { xid: text.trim().parse()?, inclusive })
    }

    /// A restore point.
    ///
    /// # Errors
    /// [`TargetError::Name`].
    pub fn name(text: &str) -> Result<Self, TargetError> {
        let fits = (1..=LONGEST_NAME).contains(&text.len()) && !text.contains('\0');
        if fits {
            Ok(Self::Name { name: text.to_owned() })
        } else {
            Err(TargetError::Name { text: text.to_owned() })
        }
    }
}

impl FromStr for TimelineChoice {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let number = || match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        match text {
            "latest" => Ok(Self::Latest),
            "current" => Ok(Self::Current),
            _ => match number().and_then(Timeline::new) {
                Some(timeline) => Ok(Self::Number(timeline)),
                None => Err(TargetError::Timeline { text: text.to_owned() }),
            },
        }
    }
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = |inclusive: &bool| if *inclusive { "" } else { "just before " };
        match self {
            Self::Time { at, inclusive } => write!(f, "{}{at}", before(inclusive)),
            Self::Lsn { at, inclusive } => write!(f, "{}position {at}", before(inclusive)),
            Self::Xid { xid, inclusive } => write!(f, "{}transaction {xid}", before(inclusive)),
            Self::Name { name } => write!(f, "restore point {name:?}"),
            Self::Immediate => f.write_str("the end of the base backup"),
            Self::Latest => f.write_str("the end of the log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Result<String, TargetError> {
        RecoveryTarget::time(text, true).map(|target| target.to_string())
    }

    #[test]
    fn times_are_read_with_any_zone_and_refused_without() {
        for text in [
            "2026-11-22T22:13:54Z",
            "2026-11-22 22:13:54Z",
            "2026-11-22 22:13:54 UTC",
            "2026-11-22 23:13:54+01:00",
            "2026-11-22 23:13:54+01",
            " 2026-11-22T17:13:54-05:00 ",
            "2026-11-22T23:13:54[Europe/Berlin]",
        ] {
            assert_eq!(time(text), Ok("2026-11-22T22:13:54Z".to_owned()), "{text}");
        }
        for text in ["2026-11-22T22:13:54", "2026-11-22 22:13", "2026-11-22 22:13:54.5"] {
            let error = time(text).unwrap_err();
            assert_eq!(error, TargetError::NoZone { text: text.to_owned() });
            assert!(error.hint().is_some_and(|hint| hint.contains(&format!("{text}Z"))), "{text}");
        }
        for text in ["", "yesterday", "22:13", "2026-13-01T00:00:00Z", "latest"] {
            assert_eq!(time(text), Err(TargetError::Time { text: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn positions_transactions_names_and_timelines_are_read() {
        assert_eq!(RecoveryTarget::lsn("0/3000028", true).unwrap().to_string(), "position 0/3000028");
        assert_eq!(RecoveryTarget::xid("734", false).unwrap().to_string(), "just before transaction 734");
        assert!(RecoveryTarget::lsn("3000028", true).is_err() && RecoveryTarget::xid("x", true).is_err());
        assert!(
            RecoveryTarget::name(&"x".repeat(63)).is_ok() && RecoveryTarget::name(&"x".repeat(64)).is_err()
        );
        let number = |number| Ok(TimelineChoice::Number(Timeline::new(number).unwrap()));
        for (text, choice) in [
            ("latest", Ok(TimelineChoice::Latest)),
            ("current", Ok(TimelineChoice::Current)),
            ("10", number(10)),
            ("0x10", number(16)),
            ("0", Err(TargetError::Timeline { text: "0".to_owned() })),
            ("newest", Err(TargetError::Timeline { text: "newest".to_owned() })),
        ] {
            assert_eq!(text.parse(), choice);
        }
    }
}
