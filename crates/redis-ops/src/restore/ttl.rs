//! What becomes of expiry times: Redis keeps them absolute, so yesterday's session would be gone the moment it is back.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What to do with the expiry times of keys and of fields of hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TtlPolicy {
    /// Leaves them as they were. What has expired since the target is gone.
    #[default]
    Keep,
    /// Moves them by the time that went by, so that everything that lived at the target has its remaining time again.
    Shift,
    /// Removes them: what lived at the target never expires.
    Strip,
}

impl FromStr for TtlPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keep" => Ok(Self::Keep),
            "shift" => Ok(Self::Shift),
            "strip" => Ok(Self::Strip),
            _ => Err("a policy for expiry times is keep, shift or strip".to_owned()),
        }
    }
}

impl fmt::Display for TtlPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Shift => "shift",
            Self::Strip => "strip",
        })
    }
}

/// An expiry time after a policy was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Expires then, in milliseconds since 1970.
    At(i64),
    /// Does not expire.
    Never,
}

/// A policy with the moments it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlChange {
    policy: TtlPolicy,
    /// The moment restored to, in milliseconds since 1970.
    target: i64,
    /// By how much expiry times move.
    shift: i64,
}

impl TtlChange {
    /// Leaves expiry times as they are.
    pub const KEEP: Self = Self { policy: TtlPolicy::Keep, target: 0, shift: 0 };

    /// Of a restore to `target` whose server is there again at `back`. A target in the future moves nothing.
    #[must_use]
    pub fn new(policy: TtlPolicy, target: Timestamp, back: Timestamp) -> Self {
        let (target, back) = (target.as_millisecond(), back.as_millisecond());
        Self { policy, target, shift: back.saturating_sub(target).max(0) }
    }

    /// The policy.
    #[must_use]
    pub fn policy(self) -> TtlPolicy {
        self.policy
    }

    /// By how much expiry times move, in milliseconds.
    #[must_use]
    pub fn shift_millis(self) -> i64 {
        if self.policy == TtlPolicy::Shift { self.shift } else { 0 }
    }

    /// The moment restored to, in milliseconds since 1970.
    #[must_use]
    pub fn target_millis(self) -> i64 {
        self.target
    }

    /// What becomes of an expiry time. One that had passed at the target stays in the past under every policy: the source
    /// had not come to remove the key yet, and nobody could see it.
    #[must_use]
    pub fn apply(self, at: i64) -> Expiry {
        match self.policy {
            TtlPolicy::Keep => Expiry::At(at),
            TtlPolicy::Shift => Expiry::At(at.saturating_add(self.shift)),
            TtlPolicy::Strip if at > self.target => Expiry::Never,
            TtlPolicy::Strip => Expiry::At(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn remaining_time_is_kept_by_a_shift() {
        let change = TtlChange::new(TtlPolicy::Shift, at(1_000), at(61_000));
        assert_eq!(change.apply(1_500), Expiry::At(61_500));
        assert_eq!(change.apply(900), Expiry::At(60_900), "what had expired stays expired");
        assert_eq!(change.apply(i64::MAX), Expiry::At(i64::MAX));
        assert_eq!(change.shift_millis(), 60_000);
    }

    #[test]
    fn only_what_lived_at_the_target_loses_its_expiry() {
        let change = TtlChange::new(TtlPolicy::Strip, at(1_000), at(61_000));
        assert_eq!(change.apply(1_001), Expiry::Never);
        assert_eq!(change.apply(1_000), Expiry::At(1_000));
        assert_eq!(change.shift_millis(), 0);
    }

    #[test]
    fn a_clock_that_is_behind_takes_no_time_away() {
        let change = TtlChange::new(TtlPolicy::Shift, at(61_000), at(1_000));
        assert_eq!(change.apply(70_000), Expiry::At(70_000));
    }
}
