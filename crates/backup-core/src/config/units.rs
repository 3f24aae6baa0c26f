//! Sizes and spans of time the way people write them: `64MiB`, `90m`, `30d`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// A text that is no size or span; the message says how to write one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// A number of bytes, written `64MiB`, `1GB` or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A span of time in whole seconds, written `90m`, `1h30m` or `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(u64);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const TIME_UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let factor = match unit {
            "" => Some(1),
            _ => {
                BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)
            }
        };
        match (number.parse::<u64>(), factor) {
            (Ok(number), Some(factor)) => number
                .checked_mul(factor)
                .map(Self)
                .ok_or_else(|| UnitError(format!("{text:?} is more than a machine can count"))),
            (Ok(number), None) if matches!(unit, "k" | "K" | "M" | "G" | "T") => {
                let unit = unit.to_ascii_uppercase();
                let decimal = if unit == "K" { "k" } else { &unit };
                Err(UnitError(format!(
                    "{text:?} is ambiguous: write {number}{unit}iB (powers of 1024) or {number}{decimal}B (of 1000)"
                )))
            }
            _ => Err(UnitError(format!(
                "{text:?} is no size: write a whole number and a unit, such as 64MiB or 1GB"
            ))),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, factor): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*factor);
        match BYTE_UNITS.iter().find(exact) {
            Some((unit, factor)) if *factor > 1 => write!(f, "{}{unit}", self.0 / factor),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl TimeSpan {
    /// A span of whole seconds.
    #[must_use]
    pub fn from_secs(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Its length in seconds.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0
    }

    /// The span as a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for TimeSpan {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let no_span = || {
            UnitError(format!(
                "{text:?} is no span of time: write whole numbers with s, m, h, d or w, such as 90m or 30d"
            ))
        };
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(UnitError(format!(
                "{text:?} has no unit: write {text}s, {text}m, {text}h or {text}d"
            )));
        }
        let mut seconds: u64 = 0;
        let mut smallest = u64::MAX;
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(no_span)?;
            let number: u64 = rest[..end].parse().map_err(|_| no_span())?;
            let unit = rest[end..].chars().next().ok_or_else(no_span)?;
            let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(no_span)?;
            if *factor >= smallest {
                return Err(no_span());
            }
            smallest = *factor;
            seconds = number
                .checked_mul(*factor)
                .and_then(|more| seconds.checked_add(more))
                .filter(|total| *total <= MAX_SPAN)
                .ok_or_else(|| UnitError(format!("{text:?} is longer than 1000 years")))?;
            rest = &rest[end + unit.len_utf8()..];
        }
        if smallest == u64::MAX { Err(no_span()) } else { Ok(Self(seconds)) }
    }
}

/// Longest accepted span, 1000 years in seconds: arithmetic with timestamps stays far from its limits.
const MAX_SPAN: u64 = 365_250 * 86_400;

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        // Weeks are read but not written: "30d" should come back as it went in.
        let mut rest = self.0;
        for (unit, factor) in TIME_UNITS.iter().skip(1) {
            if rest >= *factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

macro_rules! written_as_text {
    ($name:ident, $title:literal, $schema:tt) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

written_as_text!(ByteSize, "ByteSize", {
    "description": "A number of bytes: \"64MiB\", \"1GB\" or a plain number.",
    "type": ["string", "integer"],
    "pattern": "^[0-9]+ ?([kKmMgGtT]i?)?[bB]?$",
    "minimum": 0
});

written_as_text!(TimeSpan, "TimeSpan", {
    "description": "A span of time: \"90m\", \"1h30m\" or \"30d\".",
    "type": "string",
    "pattern": "^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
    "minLength": 2
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64MiB", 64 << 20), ("64 mib", 64 << 20), ("1kB", 1000)]
        {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "64X", "1 MiB x", "18446744073709551615KiB", "٣MiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        let ambiguous = "64M".parse::<ByteSize>().unwrap_err().to_string();
        assert_eq!(ambiguous, "\"64M\" is ambiguous: write 64MiB (powers of 1024) or 64MB (of 1000)");
    }

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, seconds) in
            [("90m", 5400), ("1h30m", 5400), ("30d", 2_592_000), ("2w", 1_209_600), ("0s", 0)]
        {
            assert_eq!(text.parse::<TimeSpan>().unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "d", "1y", "30 d", "1m1h", "1h1h", "-1d", "1.5h", "99999999999999999999d", "400000d"]
        {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
        let bare = "90".parse::<TimeSpan>().unwrap_err().to_string();
        assert_eq!(bare, "\"90\" has no unit: write 90s, 90m, 90h or 90d");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bytes: u64, seconds in 0..=MAX_SPAN) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>().unwrap(), ByteSize(bytes));
            prop_assert_eq!(TimeSpan(seconds).to_string().parse::<TimeSpan>().unwrap(), TimeSpan(seconds));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<TimeSpan>();
        }
    }
}
