//! A length of time as operators write it: `30d`, `12h`, `1y 6mo`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A non-negative length of time.
///
/// Read from `90min`, `12h`, `30d`, `4w`, `6mo`, `1y`, sums of them (`1y 6mo`) and ISO 8601 (`P30D`). Lengths are fixed, so
/// that a decision does not depend on a calendar: a day is 24 hours, a month 30 days, a year 365 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(SignedDuration);

/// A text that is no [`Period`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid length of time {text:?}: use a number and a unit, as in 90min, 12h, 30d, 4w, 6mo or 1y")]
pub struct PeriodError {
    /// The refused text.
    pub text: String,
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

impl Period {
    /// No time at all.
    pub const ZERO: Self = Self(SignedDuration::ZERO);

    /// That many minutes.
    #[must_use]
    pub const fn minutes(count: u32) -> Self {
        Self(SignedDuration::from_secs(count as i64 * 60))
    }

    /// That many hours.
    #[must_use]
    pub const fn hours(count: u32) -> Self {
        Self(SignedDuration::from_secs(count as i64 * HOUR))
    }

    /// That many days of 24 hours.
    #[must_use]
    pub const fn days(count: u32) -> Self {
        Self(SignedDuration::from_secs(count as i64 * DAY))
    }

    /// The length between two moments; zero when they are in the other order.
    #[must_use]
    pub(crate) fn of(length: SignedDuration) -> Self {
        Self(length.max(SignedDuration::ZERO))
    }

    /// The length.
    #[must_use]
    pub const fn duration(self) -> SignedDuration {
        self.0
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let refused = || PeriodError { text: text.to_owned() };
        let span: Span = text.trim().parse().map_err(|_| refused())?;
        let days = i64::from(span.get_years()) * 365
            + i64::from(span.get_months()) * 30
            + i64::from(span.get_weeks()) * 7
            + i64::from(span.get_days());
        let seconds =
            days * DAY + i64::from(span.get_hours()) * HOUR + span.get_minutes() * 60 + span.get_seconds();
        if span.is_negative() { Err(refused()) } else { Ok(Self(SignedDuration::from_secs(seconds))) }
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(DAY, "d"), (HOUR, "h"), (60, "min"), (1, "s")];
        let mut rest = seconds;
        let mut gap = "";
        for (unit, name) in units {
            if rest >= unit {
                write!(f, "{gap}{}{name}", rest / unit)?;
                rest %= unit;
                gap = " ";
            }
        }
        if seconds == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A length of time: 90min, 12h, 30d, 4w, 6mo, 1y." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_spellings_are_understood() {
        for (text, canonical) in [
            ("30d", "30d"),
            ("12h", "12h"),
            ("90min", "1h 30min"),
            ("4w", "28d"),
            ("6mo", "180d"),
            ("1y 6mo", "545d"),
            ("P30D", "30d"),
            ("0d", "0s"),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse::<Period>().unwrap(), period);
        }
    }

    #[test]
    fn nonsense_and_negative_lengths_are_refused() {
        for text in ["", "30", "-3d", "3 apples", "1d ago", "d"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
