//! Random histories of timelines, gaps and base backups, and a slow and obvious way to tell where recovery can end.

use std::collections::BTreeSet;

use backstay_backup_core::id::SetId;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::question::Commit;
use super::{
    Answer, BaseBackup, Landmark, LogFacts, LogRange, LogTail, Pending, Question, RecoveryPlan,
    RecoveryRequest, RecoveryTarget, Refusal, StopPoint, TimelineChoice, choose,
};
use crate::wal::{Lsn, SegmentSize, SystemId, Timeline, TimelineHistory, Xid};
use crate::wal_archive::{HistoryState, WalSurvey};
use crate::wal_records::{Outcome, RecordSpan};

const SIZE: u64 = 1 << 20;
const SYSTEM: SystemId = SystemId::new(7);

#[derive(Clone, Debug, PartialEq)]
enum What {
    End(Xid, Outcome, Timestamp),
    Point(String),
    Other,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    id: u32,
    start: u64,
    end: u64,
    what: What,
}

/// One timeline: everything that leads to its end, and where it left which one.
#[derive(Clone, Debug, Default)]
struct Line {
    log: Vec<Entry>,
    /// Timeline and position, oldest first.
    branches: Vec<(u32, u64)>,
}

struct World {
    lines: Vec<Line>,
    files: BTreeSet<(u32, u64)>,
    sets: Vec<(BaseBackup, u32)>,
    survey: WalSurvey,
}

fn line(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

fn second(number: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + number).unwrap()
}

impl World {
    fn random(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut lines, mut next, mut clock): (Vec<Line>, u32, i64) = (vec![], 0, 0);
        for number in 1..=rng.random_range(1..5u32) {
            let mut line = if number == 1 { Line::default() } else { fork(&mut rng, &lines) };
            let mut at = line.log.last().map_or(SIZE, |entry| entry.end);
            for _ in 0..rng.random_range(1..30) {
                let length =
                    if rng.random_bool(0.05) { 3 * SIZE } else { rng.random_range(3..SIZE / 16) * 8 };
                clock += rng.random_range(0..3);
                let what = match rng.random_range(0..10) {
                    0..5 => What::End(Xid::new(next + 3), Outcome::Commit, second(clock)),
                    5 => What::End(Xid::new(next + 3), Outcome::Abort, second(clock)),
                    6 => What::Point(format!("point {}", rng.random_range(0..6))),
                    _ => What::Other,
                };
                line.log.push(Entry { id: next, start: at, end: at + length, what });
                at += length;
                next += 1;
            }
            lines.push(line);
        }
        let files = files(&mut rng, &lines);
        let survey = survey(&lines, &files);
        let sets = sets(&mut rng, &lines);
        Self { lines, files, sets, survey }
    }

    fn line(&self, timeline: u32) -> &Line {
        &self.lines[timeline as usize - 1]
    }

    /// The timeline whose file is read for a segment on the way to `timeline`.
    fn owner(&self, timeline: u32, number: u64) -> u32 {
        let branches = &self.line(timeline).branches;
        let mut owner = branches.first().map_or(timeline, |(first, _)| *first);
        for (at, (_, end)) in branches.iter().enumerate() {
            if end / SIZE <= number {
                owner = branches.get(at + 1).map_or(timeline, |(next, _)| *next);
            }
        }
        owner
    }

    fn has(&self, timeline: u32, from: u64, to: u64) -> bool {
        (from / SIZE..=(to - 1) / SIZE)
            .all(|number| self.files.contains(&(self.owner(timeline, number), number)))
    }

    /// Base backups that recovery towards `timeline` can begin with, and that become consistent.
    fn usable(&self, timeline: u32) -> Vec<&BaseBackup> {
        let log = &self.line(timeline).log;
        let sets = self.sets.iter().filter(|(base, last)| {
            log.iter().any(|entry| entry.id == *last)
                && self.has(timeline, base.start.bytes(), base.stop.bytes())
        });
        sets.map(|(base, _)| base).collect()
    }

    /// Records that recovery with a base backup can replay behind its end.
    fn replayable(&self, timeline: u32, base: &BaseBackup) -> Vec<&Entry> {
        let behind = self.line(timeline).log.iter().filter(|entry| entry.start >= base.stop.bytes());
        behind.take_while(|entry| self.has(timeline, base.start.bytes(), entry.end)).collect()
    }

    /// Where recovery shall end, with the newest base backup that leads there.
    fn expected(&self, target: &RecoveryTarget, timeline: u32) -> Option<(SetId, u64)> {
        let mut best: Option<(&BaseBackup, u64)> = None;
        let mut points = BTreeSet::new();
        for base in self.usable(timeline) {
            let log = self.replayable(timeline, base);
            if let RecoveryTarget::Name { name } = target {
                let named = log.iter().filter(|entry| entry.what == What::Point(name.clone()));
                points.extend(named.map(|entry| entry.id));
            }
            let end = self.end(target, timeline, base, &log);
            let newest = match (target, best, end) {
                // As far as possible comes first.
                (RecoveryTarget::Latest, Some((before, to)), Some(end)) => {
                    (to, before.stop) < (end, base.stop)
                }
                (_, Some((before, _)), _) => before.stop < base.stop,
                (_, None, _) => true,
            };
            if let (Some(end), true) = (end, newest) {
                best = Some((base, end));
            }
        }
        let unique = !matches!(target, RecoveryTarget::Name { .. }) || points.len() == 1;
        best.filter(|_| unique).map(|(base, end)| (base.set.clone(), end))
    }

    fn end(&self, target: &RecoveryTarget, timeline: u32, base: &BaseBackup, log: &[&Entry]) -> Option<u64> {
        let reached = log.last().map_or(base.stop.bytes(), |entry| entry.end);
        let stop = |found: Option<&&Entry>, inclusive: bool| {
            found.map(|entry| if inclusive { entry.end } else { entry.start })
        };
        match target {
            RecoveryTarget::Immediate => Some(base.stop.bytes()),
            RecoveryTarget::Latest => {
                let next = (reached - 1) / SIZE..reached / SIZE + 1000;
                let mut missing =
                    next.skip_while(|number| self.files.contains(&(self.owner(timeline, *number), *number)));
                let resumes =
                    missing.any(|number| self.files.contains(&(self.owner(timeline, number), number)));
                if resumes { None } else { Some(reached) }
            }
            RecoveryTarget::Lsn { at, inclusive } => {
                if *at < base.stop {
                    return None;
                }
                let found = stop(log.iter().find(|entry| entry.start >= at.bytes()), *inclusive);
                found.or((at.bytes() <= reached).then_some(reached))
            }
            RecoveryTarget::Time { at, inclusive } => {
                let late = |time: &Timestamp| if *inclusive { time > at } else { time >= at };
                let found =
                    log.iter().find(|entry| matches!(&entry.what, What::End(_, _, time) if late(time)));
                if late(&base.stop_time) { None } else { stop(found, false) }
            }
            RecoveryTarget::Xid { xid, inclusive } => {
                stop(log.iter().find(|entry| matches!(&entry.what, What::End(x, ..) if x == xid)), *inclusive)
            }
            RecoveryTarget::Name { name } => {
                stop(log.iter().find(|entry| entry.what == What::Point(name.clone())), true)
            }
        }
    }

    /// Where PostgreSQL ends that gets exactly the segments of a plan; `None` when it fails.
    fn replay(&self, plan: &RecoveryPlan) -> Option<u64> {
        let base = &self.sets.iter().find(|(base, _)| base.set == plan.set)?.0;
        let timeline = plan.timeline.number();
        let size = self.survey.size;
        let given: BTreeSet<_> = plan
            .segments
            .iter()
            .flat_map(|run| {
                let first = run.first.number(size);
                (first..first + run.count).map(|number| (run.first.timeline().number(), number))
            })
            .collect();
        assert!(given.is_subset(&self.files), "a plan names what is not there");
        let mut end = base.start.bytes();
        for entry in self.line(timeline).log.iter().filter(|entry| entry.start >= base.start.bytes()) {
            let needed = entry.start / SIZE..=(entry.end - 1) / SIZE;
            for number in needed {
                if !given.contains(&(self.owner(timeline, number), number)) {
                    return None;
                }
            }
            let consistent = |end: u64| end >= base.stop.bytes();
            match plan.stop {
                StopPoint::Record { lsn, inclusive: false } if entry.start >= lsn.bytes() => {
                    return consistent(end).then_some(end);
                }
                StopPoint::Record { lsn, inclusive: true } if entry.start >= lsn.bytes() => {
                    return consistent(entry.end).then_some(entry.end);
                }
                StopPoint::Immediate if consistent(entry.end) => return Some(entry.end),
                _ => end = entry.end,
            }
        }
        None
    }

    fn answer(&self, question: &Question) -> Answer {
        let whole = |range: &LogRange| {
            let range = *range;
            let log = self.line(range.timeline.number()).log.iter();
            log.filter(move |entry| entry.end <= range.end.bytes())
        };
        let inside = |range: &LogRange| {
            let range = *range;
            whole(&range).filter(move |it| it.start >= range.from.bytes() && it.start < range.until.bytes())
        };
        match question {
            Question::Tail(range) => {
                let last = whole(range).next_back().map(span);
                let mut commits = whole(range).filter_map(|entry| match entry.what {
                    What::End(xid, Outcome::Commit, at) => Some(Commit { xid, at, end: Lsn::new(entry.end) }),
                    _ => None,
                });
                Answer::Tail(LogTail { last, commit: commits.next_back(), damage: None })
            }
            Question::RecordAt(range, at) => {
                Answer::Record(inside(range).find(|entry| entry.start >= at.bytes()).map(landmark))
            }
            Question::After { range, at, inclusive } => Answer::Record(
                inside(range)
                    .find(|entry| match &entry.what {
                        What::End(_, _, time) => {
                            if *inclusive {
                                time > at
                            } else {
                                time >= at
                            }
                        }
                        _ => false,
                    })
                    .map(landmark),
            ),
            Question::Transaction(range, xid) => Answer::Transaction {
                found: inside(range)
                    .find(|entry| matches!(&entry.what, What::End(x, ..) if x == xid))
                    .map(landmark),
                part_of: None,
            },
            Question::RestorePoints(range, name) => Answer::RestorePoints(
                inside(range).filter(|entry| entry.what == What::Point(name.clone())).map(landmark).collect(),
            ),
            Question::Commits(range) => Answer::Commits(
                inside(range).filter(|it| matches!(it.what, What::End(_, Outcome::Commit, _))).count() as u64,
            ),
        }
    }

    fn decide(&self, request: &RecoveryRequest) -> Result<RecoveryPlan, Refusal> {
        let sets: Vec<_> = self.sets.iter().map(|(base, _)| base.clone()).collect();
        let mut facts = LogFacts::default();
        for _ in 0..100 {
            match choose(request, &sets, &self.survey, &facts) {
                Ok(plan) => return Ok(plan),
                Err(Pending::Refused(refusal)) => return Err(*refusal),
                Err(Pending::Ask(question)) => {
                    let answer = self.answer(&question);
                    facts.learn(*question, answer);
                }
            }
        }
        panic!("it never stops to ask");
    }
}

fn span(entry: &Entry) -> RecordSpan {
    RecordSpan { start: Lsn::new(entry.start), end: Lsn::new(entry.end) }
}

fn landmark(entry: &Entry) -> Landmark {
    let (at, transaction) = match &entry.what {
        What::End(xid, outcome, at) => (Some(*at), Some((*xid, *outcome))),
        _ => (None, None),
    };
    Landmark { span: span(entry), at, transaction, before: None }
}

/// A timeline that leaves another one behind one of its records.
fn fork(rng: &mut StdRng, lines: &[Line]) -> Line {
    let parent = rng.random_range(0..lines.len());
    let from = &lines[parent];
    let own = from.branches.last().map_or(0, |(_, end)| *end);
    let kept = rng.random_range(1..=from.log.len());
    let log: Vec<_> = from.log[..kept].to_vec();
    let end = log.last().unwrap().end;
    let mut branches: Vec<_> = from.branches.iter().copied().filter(|(_, before)| *before < end).collect();
    // Left behind a record of an ancestor, it is a child of that one.
    let number = from.branches.iter().find(|(_, before)| *before >= end).map_or(parent as u32 + 1, |it| it.0);
    assert!(end > own || number != parent as u32 + 1);
    branches.push((number, end));
    Line { log, branches }
}

fn files(rng: &mut StdRng, lines: &[Line]) -> BTreeSet<(u32, u64)> {
    let loss = if rng.random_bool(0.5) { 0.0 } else { 0.06 };
    let mut files = BTreeSet::new();
    for (line, number) in lines.iter().zip(1..) {
        let first = line.branches.last().map_or(1, |(_, end)| end / SIZE);
        // Only segments that are full are archived.
        let full = line.log.last().unwrap().end / SIZE;
        files.extend((first..full).filter(|_| !rng.random_bool(loss)).map(|segment| (number, segment)));
    }
    files
}

fn survey(lines: &[Line], files: &BTreeSet<(u32, u64)>) -> WalSurvey {
    let mut survey = WalSurvey::empty(SYSTEM, SegmentSize::new(SIZE).unwrap());
    for (timeline, number) in files {
        survey.timeline_mut(line(*timeline)).segments.insert(*number);
    }
    for (one, number) in lines.iter().zip(1..).filter(|(one, _)| !one.branches.is_empty()) {
        let text: String =
            one.branches.iter().map(|(parent, end)| format!("{parent}\t{}\tx\n", Lsn::new(*end))).collect();
        let history = TimelineHistory::parse(line(number), &text).unwrap();
        survey.timeline_mut(line(number)).history = HistoryState::Known(history);
    }
    survey
}

fn sets(rng: &mut StdRng, lines: &[Line]) -> Vec<(BaseBackup, u32)> {
    let mut sets = Vec::new();
    for index in 0..rng.random_range(0..5u32) {
        let number = rng.random_range(0..lines.len());
        let one = &lines[number];
        let inherited = one.branches.last().map_or(0, |(_, end)| *end);
        let own: Vec<_> = (0..one.log.len()).filter(|at| one.log[*at].end > inherited).collect();
        let last = own[rng.random_range(0..own.len())];
        let first = last.saturating_sub(rng.random_range(0..4));
        let times = one.log[..=last].iter().filter_map(|entry| match entry.what {
            What::End(_, _, at) => Some(at),
            _ => None,
        });
        let base = BaseBackup {
            set: SetId::parse(format!("20260101T000000Z-{index:010x}")).unwrap(),
            system: SYSTEM,
            timeline: line(number as u32 + 1),
            start: Lsn::new(one.log[first].start),
            stop: Lsn::new(one.log[last].end),
            stop_time: times.max().unwrap_or(second(-1)),
            wal: vec![],
        };
        sets.push((base, one.log[last].id));
    }
    // Two that end at the same place would both be right.
    let mut seen = BTreeSet::new();
    sets.retain(|(base, _)| seen.insert(base.stop));
    sets
}

fn target(rng: &mut StdRng, world: &World, timeline: u32) -> RecoveryTarget {
    let any = |rng: &mut StdRng, line: &Line| line.log[rng.random_range(0..line.log.len())].clone();
    let source = if rng.random_bool(0.9) { timeline } else { rng.random_range(1..=world.lines.len() as u32) };
    let entry = any(rng, world.line(source));
    let inclusive = rng.random_bool(0.5);
    match rng.random_range(0..6) {
        0 => RecoveryTarget::Latest,
        1 => RecoveryTarget::Immediate,
        2 => {
            let near =
                [entry.start, entry.end, entry.start + 1, entry.end - 8, entry.start.saturating_sub(8)];
            RecoveryTarget::Lsn { at: Lsn::new(near[rng.random_range(0..near.len())]), inclusive }
        }
        3 => RecoveryTarget::Time { at: second(rng.random_range(-1..100)), inclusive },
        4 => RecoveryTarget::Xid { xid: Xid::new(entry.id + 3), inclusive },
        _ => RecoveryTarget::Name { name: format!("point {}", rng.random_range(0..6)) },
    }
}

#[test]
fn plans_of_random_histories_are_those_of_the_slow_model() {
    let (mut plans, mut refusals) = (0, 0);
    for seed in 0..12_000 {
        let world = World::random(seed);
        let mut rng = StdRng::seed_from_u64(!seed);
        for _ in 0..6 {
            let newest = world.lines.len() as u32;
            let timeline = rng.random_range(1..=newest);
            let target = target(&mut rng, &world, timeline);
            let choice = TimelineChoice::Number(line(timeline));
            let decided = world.decide(&RecoveryRequest { target: target.clone(), timeline: choice });
            let expected = world.expected(&target, timeline);
            let found = decided.as_ref().ok().map(|plan| (plan.set.clone(), plan.expected_end.bytes()));
            assert_eq!(found, expected, "seed {seed}, timeline {timeline}, {target:?}: {decided:?}");
            match decided {
                Ok(plan) => {
                    assert_eq!(world.replay(&plan), Some(plan.expected_end.bytes()), "seed {seed}: {plan:?}");
                    plans += 1;
                }
                Err(_) => refusals += 1,
            }
        }
    }
    assert!(plans > 10_000 && refusals > 10_000, "{plans} plans, {refusals} refusals");
}

#[test]
fn the_newest_timeline_and_that_of_a_base_backup_are_found() {
    for seed in 0..2_000 {
        let world = World::random(seed);
        let mut rng = StdRng::seed_from_u64(!seed);
        let target = target(&mut rng, &world, 1);
        let decide = |timeline| world.decide(&RecoveryRequest { target: target.clone(), timeline });
        let newest = Timeline::new(world.lines.len() as u32).unwrap();
        if let (Some(newest_known), false) = (world.survey.timelines.keys().max(), world.sets.is_empty()) {
            let newest =
                newest.min((*newest_known).max(world.sets.iter().map(|it| it.0.timeline).max().unwrap()));
            assert_eq!(decide(TimelineChoice::Latest), decide(TimelineChoice::Number(newest)), "seed {seed}");
        }
        if let Ok(plan) = decide(TimelineChoice::Current) {
            let base = &world.sets.iter().find(|(base, _)| base.set == plan.set).unwrap().0;
            let timelines: BTreeSet<_> = world.sets.iter().map(|(base, _)| base.timeline).collect();
            assert!(timelines.contains(&plan.timeline) && plan.timeline >= base.timeline, "seed {seed}");
        }
    }
}

#[test]
fn everything_in_a_window_can_be_reached_and_nothing_else() {
    for seed in 0..4_000 {
        let world = World::random(seed);
        let sets: Vec<_> = world.sets.iter().map(|(base, _)| base.clone()).collect();
        let windows = super::windows(&sets, &world.survey);
        for timeline in 1..=world.lines.len() as u32 {
            let mut usable: Vec<_> = world.usable(timeline).iter().map(|base| base.set.clone()).collect();
            let here = windows.windows.iter().filter(|window| window.timeline.number() == timeline);
            let mut found: Vec<_> = here.clone().map(|window| window.set.clone()).collect();
            usable.sort();
            found.sort();
            // A timeline of which nothing at all is archived is not known.
            if world.survey.history(line(timeline)).is_some() {
                assert_eq!(found, usable, "seed {seed}, timeline {timeline}");
            }
            for window in here {
                let base = sets.iter().find(|base| base.set == window.set).unwrap();
                let reached = world.replayable(timeline, base);
                assert!(reached.iter().all(|entry| entry.end <= window.to.bytes()), "seed {seed}");
                let next = world.line(timeline).log.iter().find(|entry| entry.end > window.to.bytes());
                assert!(next.is_none_or(|next| !reached.contains(&next)), "seed {seed}");
                assert!(world.has(timeline, base.start.bytes(), window.to.bytes()), "seed {seed}");
            }
        }
        for span in windows.spans(&world.survey) {
            assert!(!span.sets.is_empty() && span.from <= span.to, "seed {seed}");
        }
    }
}
