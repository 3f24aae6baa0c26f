//! How a timeline came about: the file `TTTTTTTT.history`.
//!
//! A line per ancestor, oldest first: its number, where the next one left it, and why, with tabs between. Recovery reads
//! a log along these branches, so a wrong one replays the wrong past.

use super::{Lsn, Timeline, WalError};

/// Where a timeline was left for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The timeline that was left.
    pub timeline: Timeline,
    /// The first position that is no longer its.
    pub end: Lsn,
    /// What PostgreSQL says about it, such as `no recovery target specified`.
    pub reason: String,
}

/// The ancestors of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: Timeline,
    branches: Vec<Branch>,
}

impl TimelineHistory {
    /// Reads the content of the history file of `timeline`.
    ///
    /// # Errors
    /// [`WalError::History`]: lines that are no branches, or branches that do not follow one another.
    pub fn parse(timeline: Timeline, content: &str) -> Result<Self, WalError> {
        let mut branches: Vec<Branch> = Vec::new();
        for (number, line) in content.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| WalError::History { timeline, line: number + 1, what };
            let branch = parse_branch(line).ok_or(wrong("not a timeline and a position"))?;
            let before = branches.last();
            if before.is_some_and(|before| before.timeline >= branch.timeline) || branch.timeline >= timeline
            {
                return Err(wrong("timelines do not ascend"));
            }
            if before.is_some_and(|before| before.end > branch.end) {
                return Err(wrong("positions do not ascend"));
            }
            branches.push(branch);
        }
        if branches.is_empty() {
            return Err(WalError::History { timeline, line: 1, what: "there is no line" });
        }
        Ok(Self { timeline, branches })
    }

    /// The timeline that never had an ancestor, and so has no file.
    #[must_use]
    pub const fn first() -> Self {
        Self { timeline: Timeline::FIRST, branches: Vec::new() }
    }

    /// Whose history it is.
    #[must_use]
    pub const fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Its ancestors, oldest first.
    #[must_use]
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// The timeline on which the log of this history runs at a position. A branch point is of the newer one.
    #[must_use]
    pub fn timeline_at(&self, position: Lsn) -> Timeline {
        let past = self.branches.iter().find(|branch| position < branch.end);
        past.map_or(self.timeline, |branch| branch.timeline)
    }

    /// Whether something on `timeline` at `position` is part of this history.
    #[must_use]
    pub fn contains(&self, timeline: Timeline, position: Lsn) -> bool {
        if timeline == self.timeline {
            return self.branches.last().is_none_or(|branch| position >= branch.end);
        }
        let at = self.branches.iter().position(|branch| branch.timeline == timeline);
        at.is_some_and(|at| {
            let begins = if at == 0 { Lsn::default() } else { self.branches[at - 1].end };
            // The end itself belongs to both: the record there is written on the newer timeline.
            (begins..=self.branches[at].end).contains(&position)
        })
    }
}

fn parse_branch(line: &str) -> Option<Branch> {
    let (number, rest) = line.split_once(|c: char| c.is_ascii_whitespace())?;
    let rest = rest.trim_start();
    let (end, reason) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    let timeline = number.parse().ok().and_then(Timeline::new)?;
    Some(Branch { timeline, end: end.parse().ok()?, reason: reason.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    fn at(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    #[test]
    fn a_history_of_two_switches_is_read() {
        let content =
            "1\t0/3000000\tno recovery target specified\n\n2\t0/5000148\tbefore 2024-01-01 10:00:00+00\n";
        let history = TimelineHistory::parse(line(3), content).unwrap();
        assert_eq!(history.branches().len(), 2);
        assert_eq!(history.branches()[1].reason, "before 2024-01-01 10:00:00+00");
        assert_eq!(history.timeline_at(at("0/2FFFFFF")), line(1));
        assert_eq!(history.timeline_at(at("0/3000000")), line(2));
        assert_eq!(history.timeline_at(at("0/5000148")), line(3));
        assert!(history.contains(line(1), at("0/3000000")));
        assert!(!history.contains(line(1), at("0/3000001")), "written after the branch");
        assert!(!history.contains(line(2), at("0/2FFFFFF")) && history.contains(line(2), at("0/4000000")));
        assert!(!history.contains(line(3), at("0/5000147")) && history.contains(line(3), at("9/0")));
        assert!(!history.contains(line(4), at("9/0")), "not an ancestor");
    }

    #[test]
    fn the_first_timeline_has_no_past() {
        let history = TimelineHistory::first();
        assert_eq!(history.timeline_at(at("0/0")), Timeline::FIRST);
        assert!(history.contains(Timeline::FIRST, at("0/1")));
    }

    #[test]
    fn histories_that_contradict_themselves_are_refused() {
        for (content, line_number) in [
            ("", 1),
            ("\n# only a remark\n", 1),
            ("1\n", 1),
            ("0\t0/3000000\tx", 1),
            ("1\tzero\tx", 1),
            ("3\t0/3000000\tx", 1),
            ("4\t0/3000000\tx", 1),
            ("1\t0/3000000\tx\n1\t0/4000000\tx", 2),
            ("2\t0/3000000\tx\n1\t0/4000000\tx", 2),
            ("1\t0/3000000\tx\n2\t0/2000000\tx", 2),
        ] {
            let read = TimelineHistory::parse(line(3), content);
            assert!(
                matches!(read, Err(WalError::History { line, .. }) if line == line_number),
                "{content:?}: {read:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_position_is_on_the_timeline_that_contains_it(ends in prop::collection::btree_set(1u64..1 << 40, 1..6), bytes in 0u64..1 << 41) {
            let content: String = (1..).zip(&ends).map(|(n, end)| format!("{n}\t{}\tx\n", Lsn::new(*end))).collect();
            let history = TimelineHistory::parse(line(100), &content).unwrap();
            let position = Lsn::new(bytes);
            prop_assert!(history.contains(history.timeline_at(position), position));
        }

        #[test]
        fn no_text_is_too_strange(content: String) {
            let _ = TimelineHistory::parse(line(7), &content);
        }
    }
}
