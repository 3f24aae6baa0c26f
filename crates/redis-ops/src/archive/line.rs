//! Lines of histories, and from where to where recovery is possible on each. All of it pure.
//!
//! A history that goes on from another one counts on with the same offsets, so a history and its ancestors are one *line* with
//! one axis:
//!
//! ```text
//! offset   0        1000            1700
//! A        ├─ base ──┼──── … ────────┤ (the old primary wrote on: only A's own line has that)
//! B                  └───────────────┼──────── …       line of B: A up to 1000, then B
//! ```
//!
//! A *window* begins with a base and goes on as far as there are bytes without a gap; other bases may lie in it. What is
//! missing between two windows of a line is a *gap*. It heals where the next base lies.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::coverage::Coverage;
use super::history::HistoryRecord;
use super::name::{Position, Span};
use backstay_backup_core::id::SetId;

use crate::{Offset, ReplicationId};

/// A snapshot that a restore can begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Base {
    /// The set it is in.
    pub set: SetId,
    /// The object of the set.
    pub object: String,
    /// Where in the stream it was taken: the first byte to follow it is the next one.
    pub position: Position,
    /// The moment whose state it is, by the server's clock.
    pub taken: Timestamp,
    /// Whether the set is good.
    pub good: bool,
}

impl Base {
    /// A base.
    #[must_use]
    pub fn new(set: SetId, object: &str, position: Position, taken: Timestamp, good: bool) -> Self {
        Self { set, object: object.to_owned(), position, taken, good }
    }
}

/// What there is of one history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryFacts {
    /// Which bytes there are.
    pub coverage: Coverage,
    /// What is known of its beginning. Without a record it is taken for one without a past.
    pub record: Option<HistoryRecord>,
    /// Why the record cannot be read, when that is so.
    pub problem: Option<String>,
}

/// A history with its ancestors, from the first on: which one has the bytes of which span. The spans touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(Vec<(ReplicationId, Span)>);

impl Line {
    /// The line of a history.
    #[must_use]
    pub fn of(id: ReplicationId, histories: &BTreeMap<ReplicationId, HistoryFacts>) -> Self {
        let mut pieces = Vec::new();
        let mut seen = BTreeSet::from([id]);
        let (mut id, mut end) = (id, Offset(u64::MAX));
        loop {
            let record = histories.get(&id).and_then(|facts| facts.record.as_ref());
            // A history that descends from itself was made up.
            let parent = record
                .and_then(|record| record.parent)
                .filter(|parent| parent.offset <= end && seen.insert(parent.replication_id));
            let start = parent.map_or(Offset(0), |parent| parent.offset);
            pieces.push((id, Span { start, end }));
            let Some(parent) = parent else { break };
            (id, end) = (parent.replication_id, parent.offset);
        }
        pieces.reverse();
        Self(pieces)
    }

    /// The history that the line is called after: its last one.
    #[must_use]
    pub fn id(&self) -> ReplicationId {
        self.0.last().expect("a line has a history").0
    }

    /// Which history has which span.
    #[must_use]
    pub fn pieces(&self) -> &[(ReplicationId, Span)] {
        &self.0
    }

    /// Whether a place lies on it.
    #[must_use]
    pub fn has(&self, position: Position) -> bool {
        let is_there = |(id, span): &(ReplicationId, Span)| {
            *id == position.replication_id && span.start <= position.offset && position.offset <= span.end
        };
        self.0.iter().any(is_there)
    }

    /// The place of an offset, in the history that has the byte before it.
    #[must_use]
    pub fn position(&self, offset: Offset) -> Position {
        let piece = self.0.iter().find(|(_, span)| offset <= span.end);
        Position::new(piece.map_or_else(|| self.id(), |(id, _)| *id), offset)
    }

    /// The bytes there are on it.
    #[must_use]
    pub fn coverage(&self, histories: &BTreeMap<ReplicationId, HistoryFacts>) -> Coverage {
        let of = |(id, span): &(ReplicationId, Span)| {
            histories.get(id).map(|facts| facts.coverage.within(*span)).unwrap_or_default()
        };
        self.0.iter().map(of).fold(Coverage::default(), |all, piece| all.and(&piece))
    }
}

/// From where to where recovery is possible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Window {
    /// Its first base.
    pub from: Position,
    /// The last offset that can be reached.
    pub to: Position,
    /// The bases in it, oldest first.
    pub bases: Vec<Base>,
}

/// Bytes that are missing between what there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Gap {
    /// The last offset before it.
    pub from: Position,
    /// The first offset after it. In another history than `from` when a server began anew: the number of bytes is unknown then.
    pub to: Position,
    /// Whether a base lies where it ends, so that recovery is possible from there on.
    pub healed: bool,
}

/// What a line is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct LineFacts {
    /// The history it is called after.
    pub replication_id: ReplicationId,
    /// Windows, oldest first.
    pub windows: Vec<Window>,
    /// What is missing between them, and before the first one when something was archived before.
    pub gaps: Vec<Gap>,
    /// Bytes that there are and that no base leads to.
    pub unreachable: Vec<Span>,
}

/// Windows and gaps of a line.
#[must_use]
pub fn line_facts(
    line: &Line,
    histories: &BTreeMap<ReplicationId, HistoryFacts>,
    bases: &[Base],
) -> LineFacts {
    let coverage = line.coverage(histories);
    let mut mine: Vec<&Base> = bases.iter().filter(|base| base.good && line.has(base.position)).collect();
    mine.sort_by_key(|base| (base.position.offset, base.set.clone()));
    let mut windows: Vec<Window> = Vec::new();
    for base in mine {
        let at = base.position.offset;
        match windows.last_mut() {
            Some(last) if at <= last.to.offset => last.bases.push(base.clone()),
            _ => windows.push(Window {
                from: base.position,
                to: line.position(coverage.reach(at)),
                bases: vec![base.clone()],
            }),
        }
    }
    let reached =
        Coverage::of(windows.iter().map(|window| Span { start: window.from.offset, end: window.to.offset }));
    let unreachable = coverage.runs().iter().filter_map(|run| before_any_base(*run, &reached)).collect();
    LineFacts { replication_id: line.id(), gaps: gaps(line, &coverage, &windows), windows, unreachable }
}

/// The beginning of a run that lies before the first base in it.
fn before_any_base(run: Span, reached: &Coverage) -> Option<Span> {
    let first = reached.within(run).runs().first().map_or(run.end, |reached| reached.start);
    Some(Span { start: run.start, end: first }).filter(|span| !span.is_empty())
}

/// What is missing between runs and bases.
fn gaps(line: &Line, coverage: &Coverage, windows: &[Window]) -> Vec<Gap> {
    // A base is a place that is there, with or without bytes behind it.
    let mut there: Vec<Span> = coverage.runs().to_vec();
    there.extend(windows.iter().map(|window| Span { start: window.from.offset, end: window.to.offset }));
    there.sort_unstable();
    let mut gaps = Vec::new();
    let mut end: Option<Offset> = None;
    for span in there {
        if let Some(end) = end.filter(|end| *end < span.start) {
            let healed = windows.iter().any(|window| window.from.offset == span.start);
            gaps.push(Gap { from: line.position(end), to: line.position(span.start), healed });
        }
        end = Some(end.map_or(span.end, |end| end.max(span.end)));
    }
    gaps
}

/// The lines worth a look, by their last history: every history that is nobody's parent, and every parent that has bytes its
/// children do not share.
#[must_use]
pub fn lines(histories: &BTreeMap<ReplicationId, HistoryFacts>) -> Vec<Line> {
    let mut shared: BTreeMap<ReplicationId, Offset> = BTreeMap::new();
    for parent in histories.values().filter_map(|facts| facts.record.as_ref()?.parent) {
        let last = shared.entry(parent.replication_id).or_default();
        *last = (*last).max(parent.offset);
    }
    let own = |(id, facts): &(&ReplicationId, &HistoryFacts)| match (shared.get(id), facts.coverage.end()) {
        (None, _) => true,
        (Some(shared), Some(end)) => end > *shared,
        (Some(_), None) => false,
    };
    histories.iter().filter(own).map(|(id, _)| Line::of(*id, histories)).collect()
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
