//! Along which files recovery reads.
//!
//! A child timeline begins with a copy of the segment that it left its parent in, so the file of the child is read there:
//! of every segment the newest timeline of the path that had begun by then.

use serde::Serialize;

use crate::recovery::BaseBackup;
use crate::wal::{Lsn, Segment, SegmentSize, Timeline, TimelineHistory};
use crate::wal_archive::{Run, WalSurvey};

/// The way to a timeline through its ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelinePath {
    history: TimelineHistory,
    size: SegmentSize,
}

/// A part of the log on one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stretch {
    /// The timeline.
    pub timeline: Timeline,
    /// Where recovery begins on it.
    pub from: Lsn,
    /// Where it goes on to the next; `None` on the last.
    pub until: Option<Lsn>,
}

/// How far the log reaches from a base backup on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Number of the last segment before the first that is missing.
    pub last: u64,
    /// The byte after it.
    pub to: Lsn,
    /// What comes then.
    pub end: ReachEnd,
}

/// Why the log ends somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "because")]
pub enum ReachEnd {
    /// Nothing later is archived on this path.
    EndOfLog,
    /// Segments are missing, and later ones are there.
    Gap {
        /// The first that is missing.
        missing: Segment,
        /// The first that is there again.
        resumes: Segment,
    },
}

impl TimelinePath {
    /// The way that this history tells.
    #[must_use]
    pub const fn new(history: TimelineHistory, size: SegmentSize) -> Self {
        Self { history, size }
    }

    /// The timeline at its end.
    #[must_use]
    pub const fn timeline(&self) -> Timeline {
        self.history.timeline()
    }

    /// Whether recovery of a base backup can follow it.
    #[must_use]
    pub fn leads_on_from(&self, base: &BaseBackup) -> bool {
        self.history.contains(base.timeline, base.stop)
    }

    /// The file of a segment by its number.
    #[must_use]
    pub fn segment(&self, number: u64) -> Segment {
        let branches = self.history.branches();
        // The timeline after the last branch that lies in this segment or before it.
        let left = branches.iter().rposition(|branch| branch.end.bytes() / self.size.bytes() <= number);
        let timeline = match left {
            None => branches.first().map_or(self.timeline(), |branch| branch.timeline),
            Some(at) => branches.get(at + 1).map_or(self.timeline(), |branch| branch.timeline),
        };
        Segment::numbered(timeline, number, self.size)
    }

    /// The number of the segment that holds a position.
    #[must_use]
    pub fn number(&self, at: Lsn) -> u64 {
        at.bytes() / self.size.bytes()
    }

    /// The number of the segment that holds the byte before a position.
    #[must_use]
    pub fn number_before(&self, at: Lsn) -> u64 {
        self.number(Lsn::new(at.bytes().saturating_sub(1)))
    }

    /// Where a segment begins.
    #[must_use]
    pub fn start(&self, number: u64) -> Lsn {
        Lsn::new(number.saturating_mul(self.size.bytes()))
    }

    /// The parts that recovery from a position on goes through, oldest first.
    #[must_use]
    pub fn stretches(&self, from: Lsn) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        let mut begin = from;
        for branch in self.history.branches().iter().filter(|branch| branch.end > from) {
            stretches.push(Stretch { timeline: branch.timeline, from: begin, until: Some(branch.end) });
            begin = branch.end;
        }
        stretches.push(Stretch { timeline: self.timeline(), from: begin, until: None });
        stretches
    }

    /// Parts of the path by number of segment: timeline, first, and last where there is a next part.
    fn parts(&self, from: u64) -> impl Iterator<Item = (Timeline, u64, u64)> + '_ {
        let branches = self.history.branches();
        let ends = branches.iter().map(|branch| (branch.timeline, branch.end.bytes() / self.size.bytes()));
        let mut begin = from;
        ends.chain([(self.timeline(), u64::MAX)]).filter_map(move |(timeline, end)| {
            let first = begin;
            begin = begin.max(end);
            // Two branches in one segment leave nothing for the timeline between.
            if first < end { Some((timeline, first, end - 1)) } else { None }
        })
    }

    /// How far the log reaches from a segment on; `None` when not even that one is there.
    #[must_use]
    pub fn reach(&self, survey: &WalSurvey, from: u64) -> Option<Reach> {
        let mut last = None;
        for (timeline, first, end) in self.parts(from) {
            let unbroken = survey.timelines.get(&timeline).and_then(|wal| wal.segments.unbroken_from(first));
            let Some(unbroken) = unbroken else { break };
            last = Some(unbroken.min(end));
            if unbroken < end {
                break;
            }
        }
        let last = last?;
        let end = match self.next_there(survey, last + 1) {
            None => ReachEnd::EndOfLog,
            Some(resumes) => {
                ReachEnd::Gap { missing: self.segment(last + 1), resumes: self.segment(resumes) }
            }
        };
        Some(Reach { last, to: self.start(last + 1), end })
    }

    /// The first segment that is there, at this number or later.
    fn next_there(&self, survey: &WalSurvey, from: u64) -> Option<u64> {
        let there = |(timeline, first, end): (Timeline, u64, u64)| {
            let segments = &survey.timelines.get(&timeline)?.segments;
            let range = segments.ranges().find(|(_, last)| *last >= first)?;
            Some(range.0.max(first)).filter(|number| *number <= end)
        };
        self.parts(from).find_map(there)
    }

    /// The first segment that is missing, at this number or later.
    #[must_use]
    pub fn first_missing(&self, survey: &WalSurvey, from: u64) -> Segment {
        self.segment(self.reach(survey, from).map_or(from, |reach| reach.last + 1))
    }

    /// The files from one segment to another, as runs by timeline.
    #[must_use]
    pub fn runs(&self, from: u64, to: u64) -> Vec<Run> {
        let parts = self.parts(from).take_while(|(_, first, _)| *first <= to);
        let run = |(timeline, first, last): (Timeline, u64, u64)| {
            let named = |number| Segment::numbered(timeline, number, self.size);
            let last = last.min(to);
            Run { first: named(first), last: named(last), count: last - first + 1 }
        };
        parts.map(run).collect()
    }

    /// Timelines whose histories recovery from a position on reads, oldest first.
    #[must_use]
    pub fn histories(&self, from: Lsn) -> Vec<Timeline> {
        let timelines = self.stretches(from).into_iter().map(|stretch| stretch.timeline);
        timelines.filter(|timeline| *timeline != Timeline::FIRST).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::SystemId;

    const MIB: u64 = 1 << 20;

    fn line(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    /// 1 until segment 5, 2 until segment 8, 3 from there on.
    fn path() -> TimelinePath {
        let content = format!("1\t{}\tx\n2\t{}\tx\n", Lsn::new(5 * MIB + 100), Lsn::new(8 * MIB));
        let history = TimelineHistory::parse(line(3), &content).unwrap();
        TimelinePath::new(history, SegmentSize::new(MIB).unwrap())
    }

    fn survey(held: &[(u32, u64, u64)]) -> WalSurvey {
        let mut survey = WalSurvey::empty(SystemId::new(1), SegmentSize::new(MIB).unwrap());
        for (timeline, first, last) in held {
            let segments = &mut survey.timeline_mut(line(*timeline)).segments;
            (*first..=*last).for_each(|number| segments.insert(number));
        }
        survey
    }

    #[test]
    fn the_file_of_a_segment_is_that_of_the_newest_timeline() {
        let timelines: Vec<_> = (3..10).map(|number| path().segment(number).timeline().number()).collect();
        assert_eq!(timelines, [1, 1, 2, 2, 2, 3, 3], "a child begins in the segment of its branch");
        let runs: Vec<_> =
            path().runs(4, 9).iter().map(|run| format!("{}+{}", run.first, run.count)).collect();
        assert_eq!(
            runs,
            ["000000010000000000000004+1", "000000020000000000000005+3", "000000030000000000000008+2"]
        );
        assert_eq!(path().histories(Lsn::new(6 * MIB)), [line(2), line(3)]);
    }

    #[test]
    fn the_log_reaches_over_branches_up_to_the_first_gap() {
        let whole = survey(&[(1, 1, 5), (2, 5, 7), (3, 8, 12)]);
        let reach = path().reach(&whole, 2).unwrap();
        assert_eq!((reach.last, reach.end), (12, ReachEnd::EndOfLog));
        let torn = survey(&[(1, 1, 9), (2, 6, 7), (3, 8, 12)]);
        let reach = path().reach(&torn, 2).unwrap();
        let gap = ReachEnd::Gap { missing: path().segment(5), resumes: path().segment(6) };
        assert_eq!(
            (reach.last, reach.end),
            (4, gap),
            "what the parent wrote after the branch does not count"
        );
        assert_eq!(path().reach(&torn, 5), None);
        assert_eq!(path().first_missing(&torn, 5).to_string(), "000000020000000000000005");
    }
}
