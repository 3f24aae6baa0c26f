//! Reads the log where a plan depends on it.
//!
//! Costs: the last segment for every plan; one segment for a position; a handful for a time, found by halving; for a
//! transaction or a name everything from a base backup on. Memory: at most [`AHEAD`] bytes of segments, or two segments
//! where that is more.

mod scan;

use backstay_backup_core::Class;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::error::Classified;
use jiff::Timestamp;

use super::question::Commit;
use super::{
    Answer, BaseBackup, Landmark, LogFacts, LogRange, LogTail, Pending, Question, RecoveryPlan,
    RecoveryRequest, RecoveryTarget, Refusal, TimelinePath, choose,
};
use crate::wal::{Lsn, Timeline, TimelineHistory, Xid};
use crate::wal_archive::{WalArchive, WalArchiveError, WalSurvey};
use crate::wal_records::{Event, LogEnd, Outcome, Record, Transaction};
use scan::{Scan, Step};

/// Segments are fetched ahead up to so many bytes.
const AHEAD: u64 = 64 << 20;
/// A last commit that is further from the end than so many segments is called unknown.
pub(super) const TAIL: u64 = 8;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The target cannot be reached.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// The archive cannot be read, so nothing can be said.
    #[error(transparent)]
    Archive(#[from] WalArchiveError),
    /// What is archived breaks off where more should follow.
    #[error("the log breaks off at {}, although more of it is archived", .0.at)]
    Broken(LogEnd),
    /// A bug.
    #[error("internal error: {what}")]
    Internal {
        /// What happened.
        what: String,
    },
}

impl Classified for PlanError {
    fn class(&self) -> Class {
        match self {
            Self::Refused(refusal) => refusal.class(),
            Self::Archive(error) => error.class(),
            Self::Broken(_) => Class::Data,
            Self::Internal { .. } => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => refusal.hint(),
            Self::Archive(error) => error.hint(),
            _ => None,
        }
    }
}

/// Decides how to recover, and reads the log as far as that depends on it. Only reads.
///
/// # Errors
/// [`PlanError::Refused`] when the target cannot be reached, [`PlanError::Archive`] when that cannot be found out.
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn plan_recovery(
    archive: &WalArchive,
    identities: &Identities,
    request: &RecoveryRequest,
    sets: &[BaseBackup],
    survey: &WalSurvey,
) -> Result<RecoveryPlan, PlanError> {
    let log = Log { archive, identities, survey };
    let mut facts = LogFacts::default();
    loop {
        match choose(request, sets, survey, &facts) {
            Ok(plan) => return Ok(plan),
            Err(Pending::Refused(refusal)) => return Err(PlanError::Refused(refusal)),
            Err(Pending::Ask(question)) => {
                if facts.answer(&question).is_some() {
                    return Err(PlanError::Internal { what: format!("asked twice: {question:?}") });
                }
                let answer = log.answer(&question).await.map_err(|error| damaged(error, &request.target))?;
                facts.learn(*question, answer);
            }
        }
    }
}

/// The last record and the last commit of a part of the log.
///
/// # Errors
/// [`PlanError::Archive`].
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn read_tail(
    archive: &WalArchive,
    identities: &Identities,
    survey: &WalSurvey,
    range: &LogRange,
) -> Result<LogTail, PlanError> {
    Log { archive, identities, survey }.tail(range).await
}

fn damaged(error: PlanError, target: &RecoveryTarget) -> PlanError {
    match error {
        PlanError::Broken(end) => {
            let refusal = Refusal::Damaged { target: target.clone(), at: end.at, what: end.flaw.to_string() };
            PlanError::Refused(Box::new(refusal))
        }
        other => other,
    }
}

/// The log of one cluster.
#[derive(Clone, Copy)]
struct Log<'a> {
    archive: &'a WalArchive,
    identities: &'a Identities,
    survey: &'a WalSurvey,
}

impl Log<'_> {
    async fn answer(&self, question: &Question) -> Result<Answer, PlanError> {
        match question {
            Question::Tail(range) => Ok(Answer::Tail(self.tail(range).await?)),
            Question::RecordAt(range, at) => Ok(Answer::Record(self.record_at(range, *at).await?)),
            Question::After { range, at, inclusive } => {
                Ok(Answer::Record(self.after(range, *at, *inclusive).await?))
            }
            Question::Transaction(range, xid) => self.transaction(range, *xid).await,
            Question::RestorePoints(range, name) => self.restore_points(range, name).await,
            Question::Commits(range) => {
                let mut count = 0;
                self.each(range, |record| {
                    count += u64::from(is_commit(record));
                    true
                })
                .await?;
                Ok(Answer::Commits(count))
            }
        }
    }

    fn path(&self, timeline: Timeline) -> TimelinePath {
        let history = self.survey.history(timeline).unwrap_or_else(TimelineHistory::first);
        TimelinePath::new(history, self.survey.size)
    }

    async fn tail(&self, range: &LogRange) -> Result<LogTail, PlanError> {
        let path = self.path(range.timeline);
        let (first, end) = (path.number(range.from), path.number_before(range.end));
        let mut tail = LogTail::default();
        for number in (first..=end).rev() {
            if tail.last.is_some() && (tail.commit.is_some() || end - number > TAIL) {
                break;
            }
            // Until a record ends, what was read belongs to one that began before.
            let to = if tail.last.is_some() { number } else { end };
            let mut scan = Scan::new(*self, &path, number, to);
            while let Some(step) = scan.next(None).await? {
                if tail.last.is_none() || number == end {
                    tail.damage = step.end.or(tail.damage);
                }
                note_commits(&mut tail, &step, number < end && to == number);
            }
            if tail.last.is_none() {
                tail.last = scan.last();
            }
        }
        Ok(tail)
    }

    async fn record_at(&self, range: &LogRange, at: Lsn) -> Result<Option<Landmark>, PlanError> {
        let path = self.path(range.timeline);
        let at = at.max(range.from);
        let (first, end) = (path.number(at), path.number_before(range.end));
        let mut scan = Scan::new(*self, &path, first, end);
        let mut before = None;
        while let Some(step) = scan.next(Some(at)).await? {
            let earlier = step.events.iter().filter(|record| record.span.start < at);
            before = earlier.filter_map(commit).next_back().map(|commit| commit.at).or(before);
            if let Some(span) = step.at {
                let event = step.events.iter().find(|record| record.span == span);
                let mark = Landmark { span, at: None, transaction: None, before };
                return Ok(Some(event.map_or(mark, |record| landmark(record, before))));
            }
            // Whether something is wrong with the end of the log is another question.
            if step.end.is_some() {
                break;
            }
        }
        Ok(None)
    }

    async fn after(
        &self,
        range: &LogRange,
        at: Timestamp,
        inclusive: bool,
    ) -> Result<Option<Landmark>, PlanError> {
        let is_late = |time: Timestamp| if inclusive { time > at } else { time >= at };
        let path = self.path(range.timeline);
        let (mut low, mut high) = (path.number(range.from), path.number_before(range.end));
        while low < high {
            let middle = low + (high - low) / 2;
            // Without any transaction from the middle on, what is wanted can only be before.
            let newest = self.newest_from(&path, middle, high).await?;
            match newest {
                Some((_, time)) if is_late(time) => high = middle,
                Some((seen, _)) => low = seen + 1,
                None => high = middle,
            }
        }
        // Times of concurrent transactions may not ascend, so the search begins a segment earlier.
        let first = low.saturating_sub(1).max(path.number(range.from));
        let from = LogRange { from: range.from.max(path.start(first)), ..*range };
        let (mut found, mut before) = (None, None);
        self.each(&from, |record| {
            match transaction(record) {
                Some(end) if is_late(end.at) => found = Some(landmark(record, before)),
                _ => before = commit(record).map(|commit| commit.at).or(before),
            }
            found.is_none()
        })
        .await?;
        Ok(found)
    }

    /// The latest time of a transaction in the first segment from `first` to `last` that has any, and which that is.
    async fn newest_from(
        &self,
        path: &TimelinePath,
        first: u64,
        last: u64,
    ) -> Result<Option<(u64, Timestamp)>, PlanError> {
        for number in first..=last {
            let mut scan = Scan::new(*self, path, number, number);
            let mut newest = None;
            while let Some(step) = scan.next(None).await? {
                let times = step.events.iter().filter_map(transaction).map(|end| end.at);
                newest = times.max().max(newest);
            }
            if let Some(newest) = newest {
                return Ok(Some((number, newest)));
            }
        }
        Ok(None)
    }

    async fn transaction(&self, range: &LogRange, xid: Xid) -> Result<Answer, PlanError> {
        let (mut found, mut part_of, mut before) = (None, None, None);
        self.each(range, |record| {
            match transaction(record) {
                Some(end) if end.xid == xid => found = Some(landmark(record, before)),
                Some(end) if end.subtransactions.contains(&xid) => part_of = Some(end.xid),
                _ => {}
            }
            before = commit(record).map(|commit| commit.at).or(before);
            found.is_none()
        })
        .await?;
        Ok(Answer::Transaction { found, part_of })
    }

    async fn restore_points(&self, range: &LogRange, wanted: &str) -> Result<Answer, PlanError> {
        let (mut points, mut before) = (Vec::new(), None);
        self.each(range, |record| {
            if matches!(&record.event, Event::RestorePoint { name, .. } if name == wanted) {
                points.push(landmark(record, before));
            }
            before = commit(record).map(|commit| commit.at).or(before);
            true
        })
        .await?;
        Ok(Answer::RestorePoints(points))
    }

    /// Every record of a range that says something, until the callback answers `false`.
    async fn each(
        &self,
        range: &LogRange,
        mut visit: impl FnMut(&Record) -> bool + Send,
    ) -> Result<(), PlanError> {
        let path = self.path(range.timeline);
        let mut scan = Scan::new(*self, &path, path.number(range.from), path.number_before(range.end));
        while let Some(step) = scan.next(None).await? {
            let inside = |record: &&Record| (range.from..range.until).contains(&record.span.start);
            if !step.events.iter().filter(inside).all(&mut visit) {
                return Ok(());
            }
            if let Some(end) = step.end {
                return Err(PlanError::Broken(end));
            }
            if scan.last().is_some_and(|last| last.end >= range.until) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Notes the last commit of a step; an older segment than those seen before only where they had none.
fn note_commits(tail: &mut LogTail, step: &Step, older: bool) {
    let newest = step.events.iter().filter_map(commit).next_back();
    if !older || tail.commit.is_none() {
        tail.commit = newest.or(tail.commit);
    }
}

fn transaction(record: &Record) -> Option<&Transaction> {
    match &record.event {
        Event::Transaction(transaction) => Some(transaction),
        _ => None,
    }
}

fn is_commit(record: &Record) -> bool {
    transaction(record).is_some_and(|end| end.outcome == Outcome::Commit)
}

fn commit(record: &Record) -> Option<Commit> {
    let end = transaction(record).filter(|end| end.outcome == Outcome::Commit)?;
    Some(Commit { xid: end.xid, at: end.at, end: record.span.end })
}

fn landmark(record: &Record, before: Option<Timestamp>) -> Landmark {
    let (at, transaction) = match &record.event {
        Event::Transaction(end) => (Some(end.at), Some((end.xid, end.outcome))),
        Event::RestorePoint { at, .. } => (Some(*at), None),
        _ => (None, None),
    };
    Landmark { span: record.span, at, transaction, before }
}

#[cfg(test)]
mod tests;
