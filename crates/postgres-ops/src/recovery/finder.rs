//! Finds the record that a target means, and the base backup from which recovery gets there.

use jiff::Timestamp;

use super::choose::{at_record, end_point, tail};
use super::{
    Answer, BaseBackup, Landmark, LogFacts, LogRange, LogTail, Pending, Point, Question, Reach, ReachEnd,
    RecoveryTarget, Refusal, StopPoint, TimelinePath,
};
use crate::wal::{Lsn, Timeline, Xid};
use crate::wal_records::Outcome;

/// A base backup that becomes consistent on the path.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) base: &'a BaseBackup,
    pub(super) reach: Reach,
}

impl Candidate<'_> {
    /// Everything that it can be recovered to.
    pub(super) fn range(&self, timeline: Timeline) -> LogRange {
        LogRange { timeline, from: self.base.stop, until: self.reach.to, end: self.reach.to }
    }
}

/// Where recovery will stop.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) candidate: Candidate<'a>,
    pub(super) stop: StopPoint,
    /// The end of the last record that is replayed.
    pub(super) end: Lsn,
    /// The end of the last record that is read.
    pub(super) read_to: Lsn,
    /// The last commit that is replayed, where it is known.
    pub(super) reached: Option<Timestamp>,
}

/// Finds what a target means. `candidates` are not empty and in the order of their positions.
pub(super) fn find<'a>(
    target: &RecoveryTarget,
    path: &TimelinePath,
    candidates: &[Candidate<'a>],
    facts: &LogFacts,
) -> Result<Found<'a>, Pending> {
    let finder = Finder { target, timeline: path.timeline(), candidates, facts };
    match target {
        RecoveryTarget::Latest => finder.latest(),
        RecoveryTarget::Immediate => finder.immediate(),
        RecoveryTarget::Lsn { at, inclusive } => finder.lsn(*at, *inclusive),
        RecoveryTarget::Time { at, inclusive } => finder.time(*at, *inclusive),
        RecoveryTarget::Xid { xid, inclusive } => finder.xid(*xid, *inclusive),
        RecoveryTarget::Name { name } => finder.name(name),
    }
}

struct Finder<'a, 'b> {
    target: &'b RecoveryTarget,
    timeline: Timeline,
    candidates: &'b [Candidate<'a>],
    facts: &'b LogFacts,
}

impl<'a> Finder<'a, '_> {
    fn latest(&self) -> Result<Found<'a>, Pending> {
        let furthest =
            self.candidates.iter().max_by_key(|candidate| (candidate.reach.to, candidate.base.stop));
        let candidate = furthest.ok_or_else(|| self.before_all())?;
        let tail = tail(self.facts, candidate.range(self.timeline))?;
        if let ReachEnd::Gap { .. } = candidate.reach.end {
            return Err(self.beyond(candidate, &tail));
        }
        self.whole(candidate, &tail)
    }

    /// Everything up to the last record there is.
    fn whole(&self, candidate: &Candidate<'a>, tail: &LogTail) -> Result<Found<'a>, Pending> {
        if let Some(damage) = tail.damage {
            let what = damage.flaw.to_string();
            return Err(Refusal::Damaged { target: self.target.clone(), at: damage.at, what }.into());
        }
        let last =
            tail.last.filter(|last| last.end >= candidate.base.stop).ok_or_else(|| self.before_all())?;
        let reached = tail.commit.map(|commit| commit.at).or(Some(candidate.base.stop_time));
        let stop = at_record(last.start, true);
        Ok(Found { candidate: candidate.clone(), stop, end: last.end, read_to: last.end, reached })
    }

    fn immediate(&self) -> Result<Found<'a>, Pending> {
        let candidate = self.candidates.last().ok_or_else(|| self.before_all())?;
        let end = candidate.base.stop;
        let reached = Some(candidate.base.stop_time);
        Ok(Found { candidate: candidate.clone(), stop: StopPoint::Immediate, end, read_to: end, reached })
    }

    fn lsn(&self, at: Lsn, inclusive: bool) -> Result<Found<'a>, Pending> {
        let before = self.candidates.iter().rfind(|candidate| candidate.base.stop <= at);
        let candidate = before.ok_or_else(|| self.before_all())?;
        let range = candidate.range(self.timeline);
        if let Some(record) = self.record(Question::RecordAt(range, at))? {
            return Ok(self.at(candidate, &record, inclusive));
        }
        let tail = tail(self.facts, range)?;
        // No record begins there or later, but everything before it is there.
        if tail.last.is_some_and(|last| at <= last.end) && tail.damage.is_none() {
            return self.whole(candidate, &tail);
        }
        Err(self.beyond(candidate, &tail))
    }

    fn time(&self, at: Timestamp, inclusive: bool) -> Result<Found<'a>, Pending> {
        // What a base backup holds was committed until it ended.
        let fits = |base: &BaseBackup| if inclusive { base.stop_time <= at } else { base.stop_time < at };
        let before = self.candidates.iter().rfind(|candidate| fits(candidate.base));
        let candidate = before.ok_or_else(|| self.before_all())?;
        let range = candidate.range(self.timeline);
        match self.record(Question::After { range, at, inclusive })? {
            // Just before the first transaction that comes too late.
            Some(record) => Ok(self.at(candidate, &record, false)),
            None => Err(self.beyond(candidate, &tail(self.facts, range)?)),
        }
    }

    fn xid(&self, xid: Xid, inclusive: bool) -> Result<Found<'a>, Pending> {
        let mut parent = None;
        let mut until = None;
        // The newest one of that number; every part of the log is searched once.
        for candidate in self.candidates.iter().rev() {
            let mut range = candidate.range(self.timeline);
            range.until = until.unwrap_or(range.until).min(range.until);
            until = Some(range.from);
            if range.from >= range.until {
                continue;
            }
            let question = Question::Transaction(range, xid);
            let Some(Answer::Transaction { found, part_of }) = self.facts.answer(&question) else {
                return Err(question.into());
            };
            if let Some(record) = found {
                return Ok(self.at(candidate, record, inclusive));
            }
            parent = parent.or(*part_of);
        }
        Err(self.not_found(parent))
    }

    fn name(&self, name: &str) -> Result<Found<'a>, Pending> {
        let mut points: Vec<(&Candidate<'a>, Landmark)> = Vec::new();
        let mut until = None;
        for candidate in self.candidates.iter().rev() {
            let mut range = candidate.range(self.timeline);
            range.until = until.unwrap_or(range.until).min(range.until);
            until = Some(range.from);
            if range.from >= range.until {
                continue;
            }
            let question = Question::RestorePoints(range, name.to_owned());
            let Some(Answer::RestorePoints(found)) = self.facts.answer(&question) else {
                return Err(question.into());
            };
            points.extend(found.iter().rev().map(|point| (candidate, point.clone())));
        }
        match points.as_slice() {
            [] => Err(self.not_found(None)),
            [(candidate, point)] => Ok(self.at(candidate, point, true)),
            several => {
                // Positions at which a target by position would stop.
                let point = |(_, mark): &(_, Landmark)| Point { lsn: mark.span.start, at: mark.at };
                let candidates = several.iter().rev().map(point).collect();
                Err(Refusal::Ambiguous { target: self.target.clone(), candidates }.into())
            }
        }
    }

    /// Stops at a record.
    fn at(&self, candidate: &Candidate<'a>, record: &Landmark, inclusive: bool) -> Found<'a> {
        let end = if inclusive { record.span.end } else { record.span.start };
        let commits = inclusive && matches!(record.transaction, Some((_, Outcome::Commit)));
        let own = if commits { record.at } else { None };
        let reached = own.or(record.before);
        let stop = at_record(record.span.start, inclusive);
        Found { candidate: candidate.clone(), stop, end, read_to: record.span.end, reached }
    }

    fn record(&self, question: Question) -> Result<Option<Landmark>, Pending> {
        match self.facts.answer(&question) {
            Some(Answer::Record(record)) => Ok(record.clone()),
            _ => Err(question.into()),
        }
    }

    /// The target comes after what a candidate reaches.
    fn beyond(&self, candidate: &Candidate<'_>, tail: &LogTail) -> Pending {
        let target = self.target.clone();
        let last = end_point(tail, candidate.base.stop);
        let refusal = match (tail.damage, candidate.reach.end) {
            (Some(damage), _) => Refusal::Damaged { target, at: damage.at, what: damage.flaw.to_string() },
            (None, ReachEnd::EndOfLog) => Refusal::AfterEnd { target, last },
            (None, ReachEnd::Gap { missing, resumes }) => {
                let next = self.candidates.iter().find(|other| other.base.start >= candidate.reach.to);
                let after = next.map(|next| Point { lsn: next.base.stop, at: Some(next.base.stop_time) });
                Refusal::InGap { target, missing, resumes, before: last, after }
            }
        };
        refusal.into()
    }

    /// The target comes before what the first candidate reaches.
    fn before_all(&self) -> Refusal {
        let base = self.candidates[0].base;
        let earliest = Point { lsn: base.stop, at: Some(base.stop_time) };
        Refusal::BeforeConsistency { target: self.target.clone(), earliest, set: base.set.clone() }
    }

    fn not_found(&self, part_of: Option<Xid>) -> Pending {
        let from = self.candidates[0].base.stop;
        let to = self.candidates.iter().map(|candidate| candidate.reach.to).max().unwrap_or(from);
        let mut gaps = self.candidates.iter().filter_map(|candidate| match candidate.reach.end {
            ReachEnd::Gap { missing, .. } => Some(missing),
            ReachEnd::EndOfLog => None,
        });
        let unread = gaps.next();
        Refusal::NotFound { target: self.target.clone(), from, to, part_of, unread }.into()
    }
}
