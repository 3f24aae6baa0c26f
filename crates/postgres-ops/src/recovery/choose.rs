//! Chooses the base backup and the record to stop at. Pure; asks for what only the log can tell.

use super::finder::{Candidate, Found, find};
use super::plan::span_millis;
use super::{
    Answer, BaseBackup, LogFacts, LogRange, LogTail, Loss, Point, Question, ReachEnd, RecoveryPlan,
    RecoveryRequest, RecoveryTarget, Refusal, StopPoint, TimelineChoice, TimelinePath,
};
use crate::wal::{Lsn, Timeline};
use crate::wal_archive::{HistoryState, WalSurvey};

/// Commits behind the target are counted when that takes no more segments than this.
const COUNTED: u64 = 32;

/// Why there is no plan, or not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// The log must be read first.
    Ask(Box<Question>),
    /// There will be none.
    Refused(Box<Refusal>),
}

impl From<Refusal> for Pending {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Question> for Pending {
    fn from(question: Question) -> Self {
        Self::Ask(Box::new(question))
    }
}

/// Decides how to recover. The newest base backup that reaches the target is taken.
///
/// # Errors
/// [`Pending::Ask`] until everything is known, [`Pending::Refused`] when the target cannot be reached.
pub fn choose(
    request: &RecoveryRequest,
    sets: &[BaseBackup],
    survey: &WalSurvey,
    facts: &LogFacts,
) -> Result<RecoveryPlan, Pending> {
    let mut sets: Vec<_> = sets.iter().filter(|set| set.system == survey.system).collect();
    sets.sort_by_key(|set| (set.stop, set.set.clone()));
    let chooser = Chooser { target: &request.target, sets, survey, facts };
    let Some(newest) = chooser.sets.iter().max_by_key(|set| set.stop_time) else {
        return Err(Refusal::NoBase { system: survey.system }.into());
    };
    match request.timeline {
        TimelineChoice::Number(timeline) => chooser.along(timeline),
        TimelineChoice::Latest => {
            let known = survey.timelines.keys().copied().max();
            chooser.along(known.map_or(newest.timeline, |known| known.max(newest.timeline)))
        }
        TimelineChoice::Current => chooser.along_their_own(),
    }
}

struct Chooser<'a> {
    target: &'a RecoveryTarget,
    /// By position.
    sets: Vec<&'a BaseBackup>,
    survey: &'a WalSurvey,
    facts: &'a LogFacts,
}

impl Chooser<'_> {
    /// The first timeline of a base backup that leads to the target; those of newer sets come first.
    fn along_their_own(&self) -> Result<RecoveryPlan, Pending> {
        let mut newest_first: Vec<_> = self.sets.clone();
        newest_first.sort_by_key(|set| std::cmp::Reverse(set.stop_time));
        let mut timelines: Vec<Timeline> = Vec::new();
        for set in newest_first {
            if !timelines.contains(&set.timeline) {
                timelines.push(set.timeline);
            }
        }
        let mut first = None;
        for timeline in timelines {
            match self.along(timeline) {
                Err(refused @ Pending::Refused(_)) => first = first.or(Some(refused)),
                other => return other,
            }
        }
        Err(first.unwrap_or(Refusal::NoBase { system: self.survey.system }.into()))
    }

    fn along(&self, timeline: Timeline) -> Result<RecoveryPlan, Pending> {
        let history = self.survey.history(timeline).ok_or_else(|| self.no_history(timeline))?;
        let path = TimelinePath::new(history, self.survey.size);
        let on_path: Vec<_> = self.sets.iter().filter(|set| path.leads_on_from(set)).collect();
        let Some(newest) = on_path.last() else {
            let mut bases: Vec<_> = self.sets.iter().map(|set| set.timeline).collect();
            bases.sort_unstable();
            bases.dedup();
            return Err(Refusal::OtherTimeline { timeline, bases }.into());
        };
        let candidates: Vec<Candidate<'_>> = on_path
            .iter()
            .filter_map(|base| {
                let reach = path.reach(self.survey, path.number(base.start))?;
                (reach.to >= base.stop).then_some(Candidate { base, reach })
            })
            .collect();
        if candidates.is_empty() {
            let (set, from) = (newest.set.clone(), path.number(newest.start));
            let missing = path.first_missing(self.survey, from);
            return Err(Refusal::Inconsistent { timeline, set, missing }.into());
        }
        let found = find(self.target, &path, &candidates, self.facts)?;
        self.plan(&path, &found)
    }

    fn no_history(&self, timeline: Timeline) -> Refusal {
        let why = match self.survey.timelines.get(&timeline).map(|wal| &wal.history) {
            Some(HistoryState::Unreadable(why)) => why.clone(),
            _ => "no repository has it".to_owned(),
        };
        Refusal::NoHistory { timeline, why }
    }

    fn plan(&self, path: &TimelinePath, found: &Found<'_>) -> Result<RecoveryPlan, Pending> {
        let (base, reach) = (found.candidate.base, &found.candidate.reach);
        let first = path.number(base.start);
        let last = path.number_before(found.read_to.max(base.stop)).max(first);
        let range = found.candidate.range(path.timeline());
        let tail = tail(self.facts, range)?;
        Ok(RecoveryPlan {
            system: base.system,
            set: base.set.clone(),
            target: self.target.clone(),
            timeline: path.timeline(),
            stop: found.stop,
            path: path.stretches(base.start),
            segments: path.runs(first, last),
            histories: path.histories(base.start),
            consistent: base.stop,
            expected_end: found.end,
            reached: found.reached,
            loss: self.loss(path, found, &tail, matches!(reach.end, ReachEnd::Gap { .. }))?,
        })
    }

    fn loss(
        &self,
        path: &TimelinePath,
        found: &Found<'_>,
        tail: &LogTail,
        more_behind_gap: bool,
    ) -> Result<Loss, Pending> {
        let to = found.candidate.reach.to;
        let end = tail.last.map_or(found.end, |last| last.end);
        let bytes = end.since(found.end);
        let segments = path.number_before(to).saturating_sub(path.number(found.end));
        let transactions = if bytes == 0 {
            Some(0)
        } else if segments < COUNTED {
            let range = LogRange { timeline: path.timeline(), from: found.end, until: to, end: to };
            Some(commits(self.facts, range)?)
        } else {
            None
        };
        let until = tail.commit.map(|commit| commit.at);
        let millis = if transactions == Some(0) { Some(0) } else { span_millis(found.reached, until) };
        Ok(Loss { bytes, transactions, until, millis, more_behind_gap })
    }
}

/// What is known of the end of the log, or the question.
pub(super) fn tail(facts: &LogFacts, range: LogRange) -> Result<LogTail, Pending> {
    let question = Question::Tail(range);
    match facts.answer(&question) {
        Some(Answer::Tail(tail)) => Ok(tail.clone()),
        _ => Err(question.into()),
    }
}

fn commits(facts: &LogFacts, range: LogRange) -> Result<u64, Pending> {
    let question = Question::Commits(range);
    match facts.answer(&question) {
        Some(Answer::Commits(count)) => Ok(*count),
        _ => Err(question.into()),
    }
}

/// The last point of a log that ends like this.
pub(super) fn end_point(tail: &LogTail, fallback: Lsn) -> Point {
    Point { lsn: tail.last.map_or(fallback, |last| last.end), at: tail.commit.map(|commit| commit.at) }
}

/// What is armed to stop at a record.
pub(super) const fn at_record(lsn: Lsn, inclusive: bool) -> StopPoint {
    StopPoint::Record { lsn, inclusive }
}
