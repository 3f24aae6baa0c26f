use backstay_backup_core::id::Stanza;
use proptest::prelude::*;

use super::*;
use crate::archive::StreamId;

fn id(digit: char) -> ReplicationId {
    String::from(digit).repeat(40).parse().unwrap()
}

fn base(digit: char, offset: u64) -> Base {
    let set = SetId::parse(format!("20261122T221354Z-{offset:010x}")).unwrap();
    Base::new(set, "dump.rdb.zst", Position::new(id(digit), Offset(offset)), Timestamp::UNIX_EPOCH, true)
}

fn facts(spans: &[(u64, u64)], parent: Option<(char, u64)>) -> HistoryFacts {
    let (stanza, stream) = (Stanza::parse("main").unwrap(), StreamId::default());
    let record = HistoryRecord::new(&stanza, &stream, id('0'), Timestamp::UNIX_EPOCH, "test")
        .parent(parent.map(|(digit, offset)| Position::new(id(digit), Offset(offset))));
    let coverage = Coverage::of(spans.iter().map(|(start, end)| Span::new(*start, *end)));
    HistoryFacts { coverage, record: Some(record), problem: None }
}

fn windows(line: &LineFacts) -> Vec<(u64, u64, usize)> {
    line.windows.iter().map(|it| (it.from.offset.0, it.to.offset.0, it.bases.len())).collect()
}

fn gaps(line: &LineFacts) -> Vec<(u64, u64, bool)> {
    line.gaps.iter().map(|gap| (gap.from.offset.0, gap.to.offset.0, gap.healed)).collect()
}

#[test]
fn a_promotion_that_was_followed_is_one_line() {
    let histories = BTreeMap::from([
        (id('a'), facts(&[(100, 1000)], None)),
        (id('b'), facts(&[(1000, 1700)], Some(('a', 1000)))),
    ]);
    let lines = lines(&histories);
    assert_eq!(lines.len(), 1);
    let line = line_facts(&lines[0], &histories, &[base('a', 100)]);
    assert_eq!(line.replication_id, id('b'));
    assert_eq!(windows(&line), [(100, 1700, 1)]);
    assert_eq!(line.windows[0].to, Position::new(id('b'), Offset(1700)));
    assert!(line.gaps.is_empty() && line.unreachable.is_empty());
    assert_eq!(lines[0].position(Offset(1000)), Position::new(id('a'), Offset(1000)));
}

#[test]
fn what_an_old_primary_wrote_on_its_own_is_a_line_of_its_own() {
    let histories = BTreeMap::from([
        (id('a'), facts(&[(0, 1200)], None)),
        (id('b'), facts(&[(1000, 1700)], Some(('a', 1000)))),
    ]);
    let lines = lines(&histories);
    assert_eq!(lines.len(), 2);
    let all: Vec<_> =
        lines.iter().map(|line| windows(&line_facts(line, &histories, &[base('a', 0)]))).collect();
    assert_eq!(all, [vec![(0, 1200, 1)], vec![(0, 1700, 1)]]);
    // A base of A from behind the branch is none of B's.
    let b = line_facts(&lines[1], &histories, &[base('a', 1100)]);
    assert!(b.windows.is_empty());
    assert_eq!(b.unreachable, [Span::new(0, 1700)]);
}

#[test]
fn a_gap_is_named_by_offsets_and_healed_by_a_base() {
    let histories = BTreeMap::from([(id('a'), facts(&[(0, 100), (150, 300), (400, 500)], None))]);
    let line = Line::of(id('a'), &histories);
    let found = line_facts(&line, &histories, &[base('a', 0), base('a', 150), base('a', 200)]);
    assert_eq!(windows(&found), [(0, 100, 1), (150, 300, 2)]);
    assert_eq!(gaps(&found), [(100, 150, true), (300, 400, false)]);
    assert_eq!(found.unreachable, [Span::new(400, 500)]);
}

#[test]
fn a_base_without_bytes_behind_it_is_a_window_of_one_moment() {
    let histories = BTreeMap::from([(id('a'), facts(&[(0, 100)], None))]);
    let found = line_facts(&Line::of(id('a'), &histories), &histories, &[base('a', 0), base('a', 170)]);
    assert_eq!(windows(&found), [(0, 100, 1), (170, 170, 1)]);
    assert_eq!(gaps(&found), [(100, 170, true)]);
    // One that is not good leads nowhere.
    let mut bad = base('a', 0);
    bad.good = false;
    assert!(line_facts(&Line::of(id('a'), &histories), &histories, &[bad]).windows.is_empty());
}

/// Nothing is missing between them, so whoever restores from the first one reads through the second.
#[test]
fn a_base_where_a_window_ends_lies_in_it() {
    let histories = BTreeMap::from([(id('a'), facts(&[(0, 100)], None))]);
    let found = line_facts(&Line::of(id('a'), &histories), &histories, &[base('a', 0), base('a', 100)]);
    assert_eq!((windows(&found), gaps(&found)), (vec![(0, 100, 2)], vec![]));
}

/// Two replicas were promoted, one after the other had failed: what the last one took over is no line of the old primary's own.
#[test]
fn what_any_descendant_shares_is_no_line_of_its_own() {
    let histories = BTreeMap::from([
        (id('a'), facts(&[(0, 1000)], None)),
        (id('b'), facts(&[(500, 800)], Some(('a', 500)))),
        (id('c'), facts(&[(1000, 1200)], Some(('a', 1000)))),
    ]);
    let ids: Vec<_> = lines(&histories).iter().map(Line::id).collect();
    assert_eq!(ids, [id('b'), id('c')]);
}

#[test]
fn histories_that_descend_from_themselves_end_somewhere() {
    let histories = BTreeMap::from([
        (id('a'), facts(&[(0, 10)], Some(('b', 5)))),
        (id('b'), facts(&[(0, 10)], Some(('a', 7)))),
    ]);
    for line in lines(&histories) {
        assert!(line.pieces().len() <= 2);
        _ = line_facts(&line, &histories, &[base('a', 0)]);
    }
    _ = Line::of(id('a'), &histories);
}

proptest! {
    /// Against single bytes: a byte is within a window just when some base reaches it without a gap.
    #[test]
    fn windows_hold_just_what_a_base_reaches(
        spans in prop::collection::vec((0u64..80, 1u64..15), 0..10),
        branch in 20u64..60,
        bases in prop::collection::vec((any::<bool>(), 0u64..90), 0..4),
    ) {
        let split = |low: bool| -> Vec<(u64, u64)> {
            spans.iter().enumerate().filter(|(at, _)| (at % 2 == 0) == low).map(|(_, (s, l))| (*s, s + l)).collect()
        };
        let (of_a, of_b) = (split(true), split(false));
        let histories = BTreeMap::from([
            (id('a'), facts(&of_a, None)), (id('b'), facts(&of_b, Some(('a', branch))))]);
        let bases: Vec<_> = bases.iter().map(|(a, at)| base(if *a { 'a' } else { 'b' }, *at)).collect();
        let line = Line::of(id('b'), &histories);
        let found = line_facts(&line, &histories, &bases);
        let there = |at: u64| {
            let of = if at < branch { &of_a } else { &of_b };
            of.iter().any(|(start, end)| (*start..*end).contains(&at))
        };
        let mine: Vec<u64> = bases.iter().filter(|base| {
            let at = base.position.offset.0;
            if base.position.replication_id == id('a') { at <= branch } else { at >= branch }
        }).map(|base| base.position.offset.0).collect();
        for at in 0..110 {
            let reached = mine.iter().any(|base| *base <= at && (*base..=at).all(there));
            let inside = found.windows.iter().any(|it| it.from.offset.0 <= at && at < it.to.offset.0);
            prop_assert_eq!(inside, reached, "byte {} of {:?}", at, found);
        }
        let counted: usize = found.windows.iter().map(|window| window.bases.len()).sum();
        prop_assert_eq!(counted, mine.len());
        for gap in &found.gaps {
            prop_assert!((gap.from.offset.0..gap.to.offset.0).all(|at| !there(at)), "{:?}", gap);
        }
    }
}
