//! Cuts the data of a set into units that can be loaded at the same time. Pure.
//!
//! A large table is a unit. Small tables go together, as many as lie in one object or a few: an object is read from its
//! beginning, so units that share one would read it twice. A unit names the byte ranges of its blocks within the
//! archive, in archive order, because `pg_restore` reads a pipe only forwards.

use std::collections::HashSet;
use std::ops::Range;

use crate::archive::DumpId;
use crate::facts::StoredArchive;

/// Small tables that have at least this many bytes end a unit where an object ends.
const TOGETHER: u64 = 64 << 20;
/// Every unit begins with the table of contents, which must stay a small part of what is fed.
const TABLES_OF_CONTENTS: u64 = 16;

/// Data that one `pg_restore` loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Which archive of the set.
    pub archive: usize,
    /// Entries to load.
    pub ids: Vec<DumpId>,
    /// Bytes to feed after the table of contents.
    pub spans: Vec<Range<u64>>,
    /// Whether it is a single large table, whose indexes can be built as soon as it is loaded.
    pub single: bool,
}

impl Unit {
    /// How many bytes will be fed.
    pub(crate) fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.end - span.start).sum()
    }
}

/// Plans the units, the largest first: blocks of at least `large` bytes each alone, the others together. `lengths` are
/// those of the objects of each archive; `wanted` limits its entries.
pub(crate) fn plan_units(
    archives: &[StoredArchive],
    lengths: &[Vec<u64>],
    large: u64,
    wanted: impl Fn(usize, DumpId) -> bool,
) -> Vec<Unit> {
    let mut units = Vec::new();
    for (archive, stored) in archives.iter().enumerate() {
        let ends = lengths.get(archive).map(|lengths| ends(lengths)).unwrap_or_default();
        let enough = TOGETHER.max(TABLES_OF_CONTENTS * stored.toc_length);
        let none = || Unit { archive, ids: Vec::new(), spans: Vec::new(), single: false };
        let mut rest = none();
        for block in &stored.blocks {
            let Some(id) = DumpId::new(block.id).filter(|id| wanted(archive, *id)) else { continue };
            let span = block.start..block.end;
            if span.end.saturating_sub(span.start) >= large {
                units.push(Unit { archive, ids: vec![id], spans: vec![span], single: true });
            } else {
                let is_apart = rest.spans.last().is_some_and(|last| is_between(&ends, last.end, span.start));
                if is_apart && rest.bytes() >= enough {
                    units.push(std::mem::replace(&mut rest, none()));
                }
                rest.ids.push(id);
                push_span(&mut rest.spans, span);
            }
        }
        if !rest.ids.is_empty() {
            units.push(rest);
        }
    }
    units.sort_by_key(|unit| std::cmp::Reverse(unit.bytes()));
    units
}

/// Where each object ends within its archive.
fn ends(lengths: &[u64]) -> Vec<u64> {
    let mut end = 0;
    let sum = |length: &u64| {
        end += length;
        end
    };
    lengths.iter().map(sum).collect()
}

/// Whether an object ends between two blocks, of which the first ends at `before` and the second begins at `after`.
fn is_between(ends: &[u64], before: u64, after: u64) -> bool {
    let at = ends.partition_point(|end| *end < before);
    ends.get(at).is_some_and(|end| *end <= after)
}

fn push_span(spans: &mut Vec<Range<u64>>, span: Range<u64>) {
    match spans.last_mut() {
        Some(last) if last.end == span.start => last.end = span.end,
        _ => spans.push(span),
    }
}

/// Which parts of which objects hold the spans: object index and range within its plain bytes.
pub(crate) fn locate(spans: &[Range<u64>], lengths: &[u64]) -> Vec<(usize, Range<u64>)> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (object, length) in lengths.iter().enumerate() {
        let end = start + length;
        for span in spans {
            let (from, to) = (span.start.max(start), span.end.min(end));
            if from < to {
                pieces.push((object, from - start..to - start));
            }
        }
        start = end;
    }
    pieces
}

/// Whether blocks lie in order, without overlap, behind the table of contents and within the stored bytes.
pub(crate) fn is_consistent(archive: &StoredArchive, total: u64) -> bool {
    let mut at = archive.toc_length;
    let mut seen = HashSet::new();
    archive.blocks.iter().all(|block| {
        let fits = block.start >= at && block.end >= block.start && block.end <= total;
        at = block.end;
        fits && seen.insert(block.id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::StoredBlock;

    fn archive(sizes: &[u64]) -> StoredArchive {
        let mut at = 100;
        let blocks = sizes.iter().zip(1..).map(|(size, id)| {
            let start = at;
            at += size;
            StoredBlock { id, start, end: at }
        });
        StoredArchive { name: "main".into(), objects: Vec::new(), toc_length: 100, blocks: blocks.collect() }
    }

    #[test]
    fn large_tables_stand_alone_and_small_ones_go_together() {
        let units = plan_units(&[archive(&[5, 20 << 20, 7, 9])], &[], 16 << 20, |_, _| true);
        assert_eq!(units.len(), 2);
        assert!(units[0].single && units[0].ids.len() == 1);
        assert_eq!(units[1].spans, [100..105, 105 + (20 << 20)..121 + (20 << 20)]);
    }

    #[test]
    fn many_small_tables_are_cut_where_an_object_ends() {
        let mib = |n: u64| n << 20;
        // Two tables in the first object after the table of contents, three in the second, one in the third.
        let stored = archive(&[mib(40), mib(40), mib(30), mib(30), mib(30), mib(9)]);
        let objects = vec![100 + mib(80), mib(90), mib(9)];
        let ids = |large| {
            let units =
                plan_units(std::slice::from_ref(&stored), std::slice::from_ref(&objects), large, |_, _| true);
            units.iter().map(|unit| unit.ids.len()).collect::<Vec<_>>()
        };
        assert_eq!(ids(mib(50)), [3, 2, 1], "the largest first");
        assert_eq!(ids(mib(40)), [3, 1, 1, 1], "large tables stand alone");
        let whole = plan_units(std::slice::from_ref(&stored), &[vec![100 + mib(179)]], mib(50), |_, _| true);
        assert_eq!(whole.len(), 1, "one object is read once");
    }

    #[test]
    fn spans_are_found_across_objects() {
        assert_eq!(locate(&[5..25, 40..41], &[10, 10, 30]), [(0, 5..10), (1, 0..10), (2, 0..5), (2, 20..21)]);
    }

    #[test]
    fn overlapping_blocks_are_noticed() {
        let mut stored = archive(&[10, 10]);
        assert!(is_consistent(&stored, 120));
        assert!(!is_consistent(&stored, 119));
        stored.blocks[1].start -= 1;
        assert!(!is_consistent(&stored, 120));
    }
}
