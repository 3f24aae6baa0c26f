//! Which bytes of a history there are, as runs without a gap.

use serde::Serialize;

use super::name::Span;
use crate::Offset;

/// Spans that neither overlap nor touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Coverage(Vec<Span>);

impl Coverage {
    /// What these spans cover together, whatever their order and overlaps.
    #[must_use]
    pub fn of(spans: impl IntoIterator<Item = Span>) -> Self {
        let mut spans: Vec<_> = spans.into_iter().filter(|span| !span.is_empty()).collect();
        spans.sort_unstable();
        let mut runs: Vec<Span> = Vec::new();
        for span in spans {
            match runs.last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => runs.push(span),
            }
        }
        Self(runs)
    }

    /// The runs.
    #[must_use]
    pub fn runs(&self) -> &[Span] {
        &self.0
    }

    /// How far one gets from an offset without a gap; the offset itself when nothing follows it.
    #[must_use]
    pub fn reach(&self, from: Offset) -> Offset {
        let run = self.0.iter().find(|run| run.start <= from && from <= run.end);
        run.map_or(from, |run| run.end)
    }

    /// The part within a span.
    #[must_use]
    pub fn within(&self, span: Span) -> Self {
        Self(self.0.iter().map(|run| run.and(&span)).filter(|run| !run.is_empty()).collect())
    }

    /// Joins what lies elsewhere on the same axis.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(&other.0).copied())
    }

    /// The end of the last run.
    #[must_use]
    pub fn end(&self) -> Option<Offset> {
        self.0.last().map(|run| run.end)
    }

    /// Bytes covered.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(Span::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set of single bytes.
        #[test]
        fn runs_cover_just_what_the_spans_do(spans in prop::collection::vec((0u64..60, 0u64..12), 0..12), from in 0u64..70) {
            let covered = |at: u64| spans.iter().any(|(start, length)| (*start..start + length).contains(&at));
            let coverage = Coverage::of(spans.iter().map(|(start, length)| Span::new(*start, start + length)));
            for at in 0..80 {
                let inside = coverage.runs().iter().any(|run| run.start.0 <= at && at < run.end.0);
                prop_assert_eq!(inside, covered(at), "{}", at);
            }
            for pair in coverage.runs().windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            let reach = (from..).find(|at| !covered(*at)).unwrap();
            prop_assert_eq!(coverage.reach(Offset(from)), Offset(reach));
            let within = coverage.within(Span::new(10, 30));
            prop_assert_eq!(within.bytes(), (10..30).filter(|at| covered(*at)).count() as u64);
        }
    }
}
