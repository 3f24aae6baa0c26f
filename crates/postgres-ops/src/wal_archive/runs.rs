//! Sets of segments of one timeline, kept as runs: a million segments without a gap take sixteen bytes. Pure.

use serde::Serialize;

use crate::wal::{Segment, SegmentSize, Timeline};

/// Segments of one timeline, as runs in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    timeline: Timeline,
    size: SegmentSize,
    /// First and last number of each; never touching one another.
    runs: Vec<(u64, u64)>,
}

/// Segments that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The first.
    pub first: Segment,
    /// The last.
    pub last: Segment,
    /// How many.
    pub count: u64,
}

impl Runs {
    /// No segments.
    #[must_use]
    pub const fn new(timeline: Timeline, size: SegmentSize) -> Self {
        Self { timeline, size, runs: Vec::new() }
    }

    /// Their timeline.
    #[must_use]
    pub const fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Adds a segment by its number. Cheap in ascending order, which is that of listings.
    pub fn insert(&mut self, number: u64) {
        let after = self.runs.partition_point(|(first, _)| *first <= number);
        if let Some(before) = after.checked_sub(1).map(|at| &mut self.runs[at]) {
            if number <= before.1 {
                return;
            }
            if before.1 + 1 == number {
                before.1 = number;
                self.join(after);
                return;
            }
        }
        self.runs.insert(after, (number, number));
        self.join(after + 1);
    }

    /// Adds all from one number to another.
    pub(crate) fn add(&mut self, range: (u64, u64)) {
        self.extend(&Self { runs: vec![range], ..*self });
    }

    /// Joins the run at `at` to the one before it where they touch.
    fn join(&mut self, at: usize) {
        if at < self.runs.len() && self.runs[at - 1].1 + 1 == self.runs[at].0 {
            self.runs[at - 1].1 = self.runs[at].1;
            self.runs.remove(at);
        }
    }

    /// Adds everything that another set has.
    pub fn extend(&mut self, other: &Self) {
        let mut all: Vec<_> = self.runs.iter().chain(&other.runs).copied().collect();
        all.sort_unstable();
        self.runs.clear();
        for (first, last) in all {
            match self.runs.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => self.runs.push((first, last)),
            }
        }
    }

    /// What `other` has and this one has not.
    #[must_use]
    pub fn missing_of(&self, other: &Self) -> Self {
        let mut missing = Vec::new();
        for &(first, last) in &other.runs {
            let mut next = first;
            let from = self.runs.partition_point(|(_, end)| *end < first);
            for &(start, end) in self.runs[from..].iter().take_while(|(start, _)| *start <= last) {
                if next < start {
                    missing.push((next, start - 1));
                }
                next = end + 1;
            }
            if next <= last {
                missing.push((next, last));
            }
        }
        Self { runs: missing, ..*self }
    }

    /// Whether it has this one.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.run_with(number).is_some()
    }

    /// The last number of the run that holds `number`.
    #[must_use]
    pub fn unbroken_from(&self, number: u64) -> Option<u64> {
        self.run_with(number).map(|(_, last)| last)
    }

    fn run_with(&self, number: u64) -> Option<(u64, u64)> {
        let at = self.runs.partition_point(|(_, last)| *last < number);
        self.runs.get(at).copied().filter(|(first, _)| *first <= number)
    }

    /// How many segments.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// First and last number of each run.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + Clone + '_ {
        self.runs.iter().copied()
    }

    /// The runs.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Run> + '_ {
        self.ranges().map(|range| self.run(range))
    }

    /// What is missing between the runs.
    pub fn gaps(&self) -> impl Iterator<Item = Run> + '_ {
        self.runs.windows(2).map(|pair| self.run((pair[0].1 + 1, pair[1].0 - 1)))
    }

    fn run(&self, (first, last): (u64, u64)) -> Run {
        let named = |number| Segment::numbered(self.timeline, number, self.size);
        Run { first: named(first), last: named(last), count: last - first + 1 }
    }
}

impl Serialize for Runs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn runs(numbers: &[u64]) -> Runs {
        let mut runs = Runs::new(Timeline::FIRST, SegmentSize::DEFAULT);
        numbers.iter().for_each(|number| runs.insert(*number));
        runs
    }

    fn all(runs: &Runs) -> BTreeSet<u64> {
        runs.ranges().flat_map(|(first, last)| first..=last).collect()
    }

    #[test]
    fn gaps_are_named_by_their_segments() {
        let runs = runs(&[3, 4, 7, 8, 9, 256]);
        let gaps: Vec<_> = runs.gaps().map(|gap| format!("{}-{}", gap.first, gap.last)).collect();
        assert_eq!(
            gaps,
            [
                "000000010000000000000005-000000010000000000000006",
                "00000001000000000000000A-0000000100000000000000FF"
            ]
        );
        assert_eq!((runs.count(), runs.gaps().map(|gap| gap.count).sum::<u64>()), (6, 248));
    }

    proptest! {
        #[test]
        fn runs_are_sets(
            one in prop::collection::vec(0u64..60, 0..60),
            two in prop::collection::vec(0u64..60, 0..60),
            probe in 0u64..60,
        ) {
            let (a, b) = (runs(&one), runs(&two));
            let (x, y): (BTreeSet<_>, BTreeSet<_>) = (one.into_iter().collect(), two.into_iter().collect());
            prop_assert_eq!(all(&a), x.clone());
            prop_assert_eq!(a.count(), x.len() as u64);
            let canonical = |runs: &Runs| runs.ranges().zip(runs.ranges().skip(1)).all(|(a, b)| a.1 + 1 < b.0);
            let mut both = a.clone();
            both.extend(&b);
            prop_assert_eq!(all(&both), x.union(&y).copied().collect());
            prop_assert_eq!(all(&a.missing_of(&b)), y.difference(&x).copied().collect());
            prop_assert!(canonical(&a) && canonical(&both) && canonical(&a.missing_of(&b)));
            let unbroken = (probe..).take_while(|number| x.contains(number)).last();
            prop_assert_eq!(a.unbroken_from(probe), unbroken);
            let gaps: BTreeSet<u64> = a.gaps().flat_map(|gap| {
                let first = gap.first.number(SegmentSize::DEFAULT);
                first..=gap.last.number(SegmentSize::DEFAULT)
            }).collect();
            let range = x.first().zip(x.last()).map_or(0..0, |(first, last)| *first..*last);
            prop_assert_eq!(gaps, range.filter(|number| !x.contains(number)).collect());
        }
    }
}
