//! Decides which sets of a repository are kept: a pure function of what the repository holds.
//!
//! Whoever can write sets must not be able to make retention remove good ones. Therefore:
//!
//! - Every time is a **store time**: when the manifest arrived, by the store's clock. What a manifest says about time is
//!   not read. Ages are distances between store times in the same repository, counted from its newest set, so no other
//!   clock, the caller's included, takes part; a host whose clock is a year off decides the same. A silence longer than
//!   [`Rules::max_silence`] counts as no time, so neither a pause nor a jump of the store's own clock ages the history.
//!   (In a local directory the store's clock is that of the host which wrote the file.)
//! - Rules count only **good** sets. Incomplete, unreadable and failed ones use up no place.
//! - Rules count only **settled** sets, older than [`Rules::min_age`]. Younger ones are all kept and change nothing for the
//!   rest: a flood of good-looking sets has no effect before it was there to be noticed for that long. After that,
//!   `last` alone can be steered by a flood; `within` and the calendar rules only by as much time as really passes.
//! - A calendar rule keeps the **oldest** set of each hour, day, week, month, year: once stored it stays that, so nothing
//!   written later takes its place, and the oldest of a month is also the oldest of its day, which saves space.
//! - A failed check is a claim that any writer can make. A set with one does not count for the rules, but it is kept where
//!   it would be kept if it were good.
//!
//! Always kept: held sets, the newest good set (and the newest settled good set) of each kind and database, every set
//! that a kept one needs to be restored, manifests that cannot be read, everything where no
//! good set has settled.

mod rules;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

pub use rules::Rules;
pub(crate) use rules::length;

use crate::id::SetId;
use timeline::{Timeline, Unit};

/// What retention knows of one set in one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The set.
    pub set: SetId,
    /// Sets of one group are counted together: the kind and the database.
    pub group: String,
    /// Arrival of the manifest by the store's clock.
    pub store_time: Timestamp,
    /// Whether it counts.
    pub health: Health,
    /// The set it cannot be restored without.
    pub parent: Parent,
    /// Whether the operator keeps it.
    pub hold: Hold,
}

/// What is known of a set's worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Health {
    /// Complete, readable, and no check failed since the last good one.
    Good,
    /// Complete and readable, but a check failed or a set it needs is not good.
    Doubtful,
    /// The source could not be read completely.
    Incomplete,
    /// The manifest cannot be read, so nothing is known.
    Unreadable,
}

/// The set that another cannot be restored without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parent {
    /// It stands alone.
    #[default]
    None,
    /// This one.
    Set(SetId),
    /// Its manifest cannot be read, so nobody knows. Where sets have parents at all, everything stored before it stays.
    Unknown,
}

impl Parent {
    /// The parent, when there is one and it is known.
    #[must_use]
    pub fn set(&self) -> Option<&SetId> {
        match self {
            Self::Set(set) => Some(set),
            Self::None | Self::Unknown => None,
        }
    }
}

/// Whether a set is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Never held.
    #[default]
    None,
    /// Held.
    Held,
    /// Released at that moment by the store's clock. Counts as held until the release has settled, so that a
    /// stolen credential cannot release and wait for the next prune.
    Released(Timestamp),
}

/// What happens to a set, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Decision {
    /// The set.
    pub set: SetId,
    /// Arrival of its manifest by the store's clock.
    pub store_time: Timestamp,
    /// What is known of its worth.
    pub health: Health,
    /// Why it is kept; empty when it is to be removed.
    pub keep: Vec<Reason>,
}

impl Decision {
    /// Whether the set is to be removed.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        self.keep.is_empty()
    }
}

/// Why a set is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "rule")]
#[non_exhaustive]
pub enum Reason {
    /// No keep rule is set.
    NoRules,
    /// The operator holds it.
    Held,
    /// A hold was taken off less than the minimum age ago.
    ReleasedLately,
    /// It is younger than the minimum age.
    Young,
    /// It is the newest good set, or the newest good one that has settled.
    LastGood,
    /// Rule `last`.
    Last,
    /// Rule `within`.
    Within,
    /// Rule `hourly`.
    Hourly,
    /// Rule `daily`.
    Daily,
    /// Rule `weekly`.
    Weekly,
    /// Rule `monthly`.
    Monthly,
    /// Rule `yearly`.
    Yearly,
    /// No good set of its kind and database has settled, so even this may be all there is.
    NoGoodSet,
    /// It is incomplete, and kept for a look.
    Incomplete,
    /// Its manifest cannot be read: a human decides.
    Unreadable,
    /// A kept set cannot be restored without it.
    NeededBy {
        /// That set.
        set: SetId,
    },
    /// A later set, whose manifest cannot be read, may need it.
    MaybeNeededBy {
        /// That set.
        set: SetId,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRules => "no rules",
            Self::Held => "held",
            Self::ReleasedLately => "released lately",
            Self::Young => "young",
            Self::LastGood => "newest good set",
            Self::Last => "last",
            Self::Within => "within",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::NoGoodSet => "no good set",
            Self::Incomplete => "incomplete",
            Self::Unreadable => "unreadable",
            Self::NeededBy { set } => return write!(f, "needed by {set}"),
            Self::MaybeNeededBy { set } => return write!(f, "maybe needed by {set}"),
        })
    }
}

/// Decides about all sets of one repository, in the order given.
///
/// `candidates` must be all sets of the stanza in that repository: what is missing cannot be taken into account.
#[must_use]
pub fn decide(candidates: &[Candidate], rules: &Rules) -> Vec<Decision> {
    let mut decider = Decider::new(candidates, rules);
    if rules.is_empty() {
        decider.keep.iter_mut().for_each(|reasons| _ = reasons.insert(Reason::NoRules));
    } else {
        decider.keep_by_state();
        let groups: BTreeSet<_> = candidates.iter().map(|candidate| candidate.group.as_str()).collect();
        groups.into_iter().for_each(|group| decider.keep_in_group(group));
        decider.keep_parents();
        decider.keep_possible_parents();
    }
    let decision = |(candidate, keep): (&Candidate, BTreeSet<Reason>)| Decision {
        set: candidate.set.clone(),
        store_time: candidate.store_time,
        health: candidate.health,
        keep: keep.into_iter().collect(),
    };
    candidates.iter().zip(decider.keep).map(decision).collect()
}

struct Decider<'a> {
    candidates: &'a [Candidate],
    rules: &'a Rules,
    timeline: Timeline,
    keep: Vec<BTreeSet<Reason>>,
}

impl<'a> Decider<'a> {
    fn new(candidates: &'a [Candidate], rules: &'a Rules) -> Self {
        let releases = candidates.iter().filter_map(|candidate| match candidate.hold {
            Hold::Released(at) => Some(at),
            _ => None,
        });
        let times = candidates.iter().map(|candidate| candidate.store_time).chain(releases);
        let timeline = Timeline::new(times, length(rules.max_silence));
        Self { candidates, rules, timeline, keep: vec![BTreeSet::new(); candidates.len()] }
    }

    fn is_young(&self, index: usize) -> bool {
        self.timeline.age(self.candidates[index].store_time) < length(self.rules.min_age)
    }

    /// What a set is kept for whatever else is there.
    fn keep_by_state(&mut self) {
        for (index, candidate) in self.candidates.iter().enumerate() {
            let age = self.timeline.age(candidate.store_time);
            let lately = |released| self.timeline.age(released) < length(self.rules.min_age);
            let states = [
                (candidate.hold == Hold::Held, Reason::Held),
                (matches!(candidate.hold, Hold::Released(at) if lately(at)), Reason::ReleasedLately),
                (age < length(self.rules.min_age), Reason::Young),
                (candidate.health == Health::Unreadable, Reason::Unreadable),
                (
                    candidate.health == Health::Incomplete && age < length(self.rules.keep_incomplete),
                    Reason::Incomplete,
                ),
            ];
            self.keep[index].extend(states.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason));
        }
    }

    /// Members of a group with one of these states, newest first.
    fn members(&self, group: &str, healths: &[Health]) -> Vec<usize> {
        let fits = |index: &usize| {
            let candidate = &self.candidates[*index];
            candidate.group == group && healths.contains(&candidate.health)
        };
        let mut members: Vec<usize> = (0..self.candidates.len()).filter(fits).collect();
        members.sort_by_key(|index| {
            std::cmp::Reverse((self.candidates[*index].store_time, &self.candidates[*index].set))
        });
        members
    }

    fn keep_in_group(&mut self, group: &str) {
        let good = self.members(group, &[Health::Good]);
        if let Some(newest) = good.first() {
            self.because(*newest, Reason::LastGood);
        }
        let settled: Vec<_> = good.into_iter().filter(|index| !self.is_young(*index)).collect();
        let Some(newest) = settled.first() else {
            let all = self.members(group, &[Health::Doubtful, Health::Incomplete, Health::Unreadable]);
            all.into_iter().for_each(|index| self.because(index, Reason::NoGoodSet));
            return;
        };
        self.because(*newest, Reason::LastGood);
        self.keep_by_rules(&settled);
        // Kept as if no check had failed: a failed check must not cost a set its place.
        let mut claimed = self.members(group, &[Health::Good, Health::Doubtful]);
        claimed.retain(|index| !self.is_young(*index));
        self.keep_by_rules(&claimed);
    }

    /// Applies the rules to sets, newest first.
    fn keep_by_rules(&mut self, sets: &[usize]) {
        let last = usize::try_from(self.rules.last).unwrap_or(usize::MAX);
        sets.iter().take(last).for_each(|index| self.because(*index, Reason::Last));
        if let (Some(within), Some(newest)) = (self.rules.within, sets.first()) {
            let newest = self.candidates[*newest].store_time;
            for index in sets {
                if self.timeline.between(self.candidates[*index].store_time, newest) <= length(within) {
                    self.because(*index, Reason::Within);
                }
            }
        }
        let calendar = [
            (Unit::Hour, self.rules.hourly, Reason::Hourly),
            (Unit::Day, self.rules.daily, Reason::Daily),
            (Unit::Week, self.rules.weekly, Reason::Weekly),
            (Unit::Month, self.rules.monthly, Reason::Monthly),
            (Unit::Year, self.rules.yearly, Reason::Yearly),
        ];
        for (unit, count, reason) in calendar {
            for index in self.oldest_of_each(sets, unit, count) {
                self.because(index, reason.clone());
            }
        }
    }

    /// The oldest set of each of the newest `count` units that have one.
    fn oldest_of_each(&self, newest_first: &[usize], unit: Unit, count: u32) -> Vec<usize> {
        let mut oldest = BTreeMap::new();
        for index in newest_first {
            oldest.insert(unit.of(self.candidates[*index].store_time), *index);
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        oldest.into_values().rev().take(count).collect()
    }

    fn keep_parents(&mut self) {
        let known: BTreeMap<_, _> = self.candidates.iter().enumerate().map(|(i, c)| (&c.set, i)).collect();
        let mut todo: Vec<usize> =
            (0..self.keep.len()).filter(|index| !self.keep[*index].is_empty()).collect();
        while let Some(index) = todo.pop() {
            let child = &self.candidates[index];
            let Some(parent) = child.parent.set().and_then(|parent| known.get(parent)).copied() else {
                continue;
            };
            if self.keep[parent].is_empty() {
                todo.push(parent);
            }
            self.because(parent, Reason::NeededBy { set: child.set.clone() });
        }
    }

    /// What an unreadable set needs is unknown; where sets have parents, it may be anything stored before it.
    fn keep_possible_parents(&mut self) {
        let kept = || self.candidates.iter().zip(&self.keep).filter(|(_, keep)| !keep.is_empty());
        let parents_in_use = kept().any(|(candidate, _)| candidate.parent.set().is_some());
        let unknown = kept().map(|(candidate, _)| candidate).filter(|set| set.parent == Parent::Unknown);
        let Some(newest) = unknown.max_by_key(|set| set.store_time).filter(|_| parents_in_use) else {
            return;
        };
        for (index, candidate) in self.candidates.iter().enumerate() {
            if candidate.store_time <= newest.store_time && candidate.set != newest.set {
                self.keep[index].insert(Reason::MaybeNeededBy { set: newest.set.clone() });
            }
        }
        self.keep_parents();
    }

    fn because(&mut self, index: usize, reason: Reason) {
        self.keep[index].insert(reason);
    }
}
