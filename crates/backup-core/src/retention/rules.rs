//! What an operator wants to keep.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;

/// Which sets of one repository are kept. A set stays when any rule keeps it; without any keep rule nothing is ever
/// removed.
///
/// The counts look only at *settled good* sets, see [`Rules::min_age`]. Each kind and database of a stanza is counted
/// on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Rules {
    /// Keeps the newest so many sets. 0: no such rule.
    pub last: u32,
    /// Keeps everything at most this much older than the newest set.
    pub within: Option<Period>,
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
    pub min_age: Period,
    /// How long sets whose source could not be read completely are kept for a look. Default seven days.
    pub keep_incomplete: Period,
    /// A longer silence between two neighbouring sets counts as no time at all: after a pause, or when a clock jumped,
    /// the history from before is as old as it was. Must be longer than the pause between two backups. Default 45 days.
    pub max_silence: Period,
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
            min_age: Period::days(1),
            keep_incomplete: Period::days(7),
            max_silence: Period::days(45),
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
    within: Period = |length| Some(length);
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
    min_age: Period = |length| length;
    /// Sets [`Rules::keep_incomplete`].
    keep_incomplete: Period = |length| length;
    /// Sets [`Rules::max_silence`].
    max_silence: Period = |length| length;
}

impl Rules {
    /// Whether no rule keeps anything, which means that everything is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        self.within.is_none() && counts.iter().all(|count| *count == 0)
    }
}
