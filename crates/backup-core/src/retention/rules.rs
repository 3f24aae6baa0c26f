//! What an operator wants to keep.

use std::num::NonZeroU32;

use jiff::SignedDuration;
use serde::Serialize;

use crate::config::{RetentionConfig, TimeSpan};

/// Which sets of one repository are kept. A set stays when any rule keeps it; without any keep rule nothing is ever
/// removed.
///
/// The counts look only at *settled good* sets, see [`Rules::min_age`]. Each kind and database of a stanza is counted
/// on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Rules {
    /// Keeps the newest so many sets. 0: no such rule.
    pub last: u32,
    /// Keeps everything at most this much older than the newest set.
    pub within: Option<TimeSpan>,
    /// Keeps one set of each of the newest so many hours that have one. 0: no such rule.
    pub hourly: u32,
    /// The same for days, in UTC.
    pub daily: u32,
    /// The same for weeks, Monday to Sunday in UTC.
    pub weekly: u32,
    /// The same for months, in UTC.
    pub monthly: u32,
    /// The same for years, in UTC.
    pub yearly: u32,
    /// Sets younger than this are kept and do not count for any rule, so that whatever is written, a burst of
    /// good-looking sets included, cannot push out anything before somebody had this long to notice. Default one day;
    /// the cost is the sets of one day more than the rules ask for.
    pub min_age: TimeSpan,
    /// How long sets whose source could not be read completely are kept for a look. Default seven days.
    pub keep_incomplete: TimeSpan,
    /// A longer silence between two neighbouring sets counts as no time at all: after a pause, or when a clock jumped,
    /// the history from before is as old as it was. Must be longer than the pause between two backups. Default 45 days.
    pub max_silence: TimeSpan,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            last: 0,
            within: None,
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            min_age: days(1),
            keep_incomplete: days(7),
            max_silence: days(45),
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = |$value:ident| $stored:expr;)*) => {
        impl Rules {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $value: $type) -> Self {
                self.$name = $stored;
                self
            })*
        }
    };
}

setters! {
    /// Sets [`Rules::last`].
    last: u32 = |count| count;
    /// Sets [`Rules::within`].
    within: TimeSpan = |length| Some(length);
    /// Sets [`Rules::hourly`].
    hourly: u32 = |count| count;
    /// Sets [`Rules::daily`].
    daily: u32 = |count| count;
    /// Sets [`Rules::weekly`].
    weekly: u32 = |count| count;
    /// Sets [`Rules::monthly`].
    monthly: u32 = |count| count;
    /// Sets [`Rules::yearly`].
    yearly: u32 = |count| count;
    /// Sets [`Rules::min_age`].
    min_age: TimeSpan = |length| length;
    /// Sets [`Rules::keep_incomplete`].
    keep_incomplete: TimeSpan = |length| length;
    /// Sets [`Rules::max_silence`].
    max_silence: TimeSpan = |length| length;
}

impl Rules {
    /// Whether no rule keeps anything, which means that everything is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        self.within.is_none() && counts.iter().all(|count| *count == 0)
    }
}

impl From<&RetentionConfig> for Rules {
    fn from(config: &RetentionConfig) -> Self {
        let count = |count: Option<NonZeroU32>| count.map_or(0, NonZeroU32::get);
        let default = Self::default();
        Self {
            last: count(config.keep_last),
            within: config.keep_within,
            hourly: count(config.keep_hourly),
            daily: count(config.keep_daily),
            weekly: count(config.keep_weekly),
            monthly: count(config.keep_monthly),
            yearly: count(config.keep_yearly),
            min_age: config.min_age.unwrap_or(default.min_age),
            keep_incomplete: config.keep_incomplete.unwrap_or(default.keep_incomplete),
            max_silence: config.max_silence.unwrap_or(default.max_silence),
        }
    }
}

fn days(count: u64) -> TimeSpan {
    TimeSpan::from_secs(count * 86_400)
}

/// The span as a difference of timestamps.
pub(crate) fn length(span: TimeSpan) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}
