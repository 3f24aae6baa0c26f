use proptest::prelude::*;

use super::*;

fn id(digit: char) -> ReplicationId {
    String::from(digit).repeat(40).parse().unwrap()
}

fn at(digit: char, offset: u64) -> Position {
    Position::new(id(digit), Offset(offset))
}

fn open(start: u64, boundary: u64, end: u64, age: Option<u64>) -> OpenFacts {
    OpenFacts {
        start: Offset(start),
        boundary: Offset(boundary),
        end: Offset(end),
        oldest_write: age.map(Duration::from_millis),
    }
}

#[test]
fn a_segment_ends_a_second_after_its_first_write_and_never_for_filler() {
    let policy = CutPolicy::default();
    assert_eq!(cut(&open(10, 90, 90, None), &policy), Cut::Wait);
    assert_eq!(cut(&open(10, 90, 95, Some(0)), &policy), Cut::In(Duration::from_secs(1)));
    assert_eq!(cut(&open(10, 90, 95, Some(400)), &policy), Cut::In(Duration::from_millis(600)));
    assert_eq!(cut(&open(10, 90, 95, Some(1000)), &policy), Cut::At(Offset(90)));
    // The only command has not ended yet.
    assert_eq!(cut(&open(10, 10, 95, Some(5000)), &policy), Cut::Wait);
}

proptest! {
    #[test]
    fn cuts_lie_within_and_segments_are_never_longer_than_allowed(
        start in 0u64..1 << 40, boundary in 0u64..30 << 20, more in 0u64..30 << 20, age: Option<u16>,
    ) {
        let policy = CutPolicy::default();
        let facts = open(start, start + boundary, start + boundary + more, age.map(u64::from));
        match cut(&facts, &policy) {
            Cut::At(offset) => {
                prop_assert!(offset > facts.start && offset <= facts.end);
                prop_assert!(offset == facts.boundary || facts.end.since(facts.start) >= policy.at_most);
            }
            Cut::In(pause) => prop_assert!(pause <= policy.interval && age.is_some()),
            Cut::Wait => prop_assert!(facts.end.since(facts.start) < policy.at_most),
        }
    }

    #[test]
    fn nothing_is_acknowledged_that_could_be_lost(durable: Option<u32>, last_write: u32, received: u32) {
        let durable = durable.map(|offset| Offset(offset.into()));
        let (last_write, received) = (Offset(last_write.into()), Offset(received.into()));
        let offset = acknowledged(durable, last_write, received.max(last_write));
        prop_assert!(offset <= durable.unwrap_or_default() || durable.unwrap_or_default() >= last_write);
        prop_assert!(durable.is_none() || offset >= durable.unwrap());
    }

    #[test]
    fn what_is_stored_together_is_contiguous_and_not_too_long(lengths in prop::collection::vec(1u64..100, 0..20), jumps: u32) {
        let mut at = 0;
        let waiting: Vec<_> = lengths.iter().enumerate().map(|(number, length)| {
            at += if jumps >> (number % 32) & 1 == 1 && number % 3 == 0 { 1 } else { 0 };
            let span = Span::new(at, at + length);
            at += length;
            (id('a'), span)
        }).collect();
        let count = together(&waiting, 150);
        prop_assert_eq!(count == 0, waiting.is_empty());
        for pair in waiting[..count].windows(2) {
            prop_assert_eq!(pair[0].1.end, pair[1].1.start);
        }
        let bytes: u64 = waiting[..count].iter().map(|(_, span)| span.len()).sum();
        prop_assert!(count <= 1 || bytes <= 150);
    }

    /// Whatever arrives, merging takes everything in the end, and objects are as large as they should be.
    #[test]
    fn merging_takes_everything_and_makes_few_objects(lengths in prop::collection::vec(1u64..200, 0..200)) {
        let policy = MergePolicy { bytes: 1000, age: Duration::from_secs(10) };
        let received = Timestamp::UNIX_EPOCH;
        let mut at = 0;
        let mut stored: Vec<_> = lengths.iter().map(|length| {
            let span = Span::new(at, at + length);
            at += length;
            Stored { id: id('a'), span, received }
        }).collect();
        let (total, mut objects) = (at, 0);
        let late = Timestamp::from_second(11).unwrap();
        while !stored.is_empty() {
            match merge(&stored, late, &policy, false) {
                Merge::Wait => prop_assert!(false, "it is old"),
                Merge::Join(count) => {
                    prop_assert!(count >= 2);
                    objects += 1;
                    stored.drain(..count);
                }
                Merge::Drop(count) => _ = stored.drain(..count),
            }
        }
        prop_assert!(objects <= total / 800 + 1, "{} objects for {} bytes", objects, total);
    }
}

#[test]
fn what_is_young_and_little_is_not_merged() {
    let policy = MergePolicy::default();
    let stored =
        |start, end| Stored { id: id('a'), span: Span::new(start, end), received: Timestamp::UNIX_EPOCH };
    let soon = Timestamp::from_second(60).unwrap();
    assert_eq!(merge(&[], soon, &policy, false), Merge::Wait);
    assert_eq!(merge(&[stored(0, 10), stored(10, 20)], soon, &policy, false), Merge::Wait);
    assert_eq!(merge(&[stored(0, 10), stored(10, 20)], soon, &policy, true), Merge::Join(2));
    let late = Timestamp::from_second(3600).unwrap();
    assert_eq!(merge(&[stored(0, 10), stored(10, 20)], late, &policy, false), Merge::Join(2));
    assert_eq!(merge(&[stored(0, 10)], late, &policy, false), Merge::Drop(1));
    // Behind a gap nothing is joined any more.
    assert_eq!(merge(&[stored(0, 10), stored(10, 20), stored(30, 40)], soon, &policy, false), Merge::Join(2));
    assert_eq!(merge(&[stored(0, 9 << 20), stored(9 << 20, 10 << 20)], soon, &policy, false), Merge::Drop(1));
}

#[test]
fn an_answer_means_what_it_means() {
    use Meaning::{Beginning, GapInHistory, NewHistory, Promotion, Rewound, SameHistory};
    let known = Some(at('a', 100));
    for (known, answer, expected) in [
        (known, Answer::Continue(id('a')), Some(SameHistory)),
        (known, Answer::Continue(id('b')), Some(Promotion { parent: at('a', 100) })),
        (None, Answer::Full(at('a', 7)), Some(Beginning { at: at('a', 7) })),
        (known, Answer::Full(at('a', 100)), Some(SameHistory)),
        (known, Answer::Full(at('a', 150)), Some(GapInHistory { from: at('a', 100), to: at('a', 150) })),
        (known, Answer::Full(at('a', 50)), Some(Rewound { from: at('a', 100), to: at('a', 50) })),
        (known, Answer::Full(at('b', 50)), Some(Rewound { from: at('a', 100), to: at('b', 50) })),
        (known, Answer::Full(at('b', 150)), Some(NewHistory { from: at('a', 100), to: at('b', 150) })),
        (None, Answer::Continue(id('a')), None),
    ] {
        assert_eq!(meaning(known, answer), expected, "{known:?} {answer:?}");
    }
    let loss = GapInHistory { from: at('a', 100), to: at('a', 150) }.loss().unwrap();
    assert!(loss.contains("50 bytes") && loss.contains(&at('a', 100).to_string()), "{loss}");
}

#[test]
fn a_base_is_due_by_age_or_bytes_and_never_without_a_change() {
    let policy = BasePolicy { every: Duration::from_secs(100), bytes: 1000 };
    let due = |age, bytes| base_is_due(Duration::from_secs(age), bytes, &policy);
    assert!(!due(99, 999) && due(100, 1) && !due(1000, 0) && due(0, 1000));
    let never = BasePolicy { every: Duration::ZERO, bytes: 0 };
    assert!(!base_is_due(Duration::MAX, u64::MAX, &never));
}

#[test]
fn the_alarm_comes_before_the_spool_is_full() {
    assert_eq!(
        [0, 49, 50, 99, 100, 200].map(|bytes| fill(bytes, 100)),
        [Fill::Room, Fill::Room, Fill::Alarm, Fill::Alarm, Fill::Full, Fill::Full]
    );
}

#[test]
fn pauses_grow_and_end_growing() {
    let pauses: Vec<_> = [1, 2, 3, 7, 8, 100].map(|failures| pause(failures).as_millis()).into();
    assert_eq!(pauses, [100, 200, 400, 6400, 6400, 6400]);
}

/// Half a command at the end of a segment can only be restored with the next one.
#[test]
fn a_segment_that_is_long_enough_ends_with_a_whole_command_wherever_there_is_one() {
    let policy = CutPolicy::default();
    let (bytes, most) = (policy.bytes, policy.at_most);
    assert_eq!(cut(&open(10, 10 + bytes, 10 + most, None), &policy), Cut::At(Offset(10 + bytes)));
    assert_eq!(cut(&open(10, 10 + bytes, 10 + most + 5, Some(1)), &policy), Cut::At(Offset(10 + bytes)));
    // Most of it is one command.
    assert_eq!(cut(&open(10, 9 + bytes, 10 + most, None), &policy), Cut::At(Offset(10 + most)));
}

/// They go on with the same offsets, and an object belongs to one of them.
#[test]
fn segments_of_two_histories_never_become_one_object() {
    let waiting = [(id('a'), Span::new(0, 10)), (id('a'), Span::new(10, 20)), (id('b'), Span::new(20, 30))];
    assert_eq!(together(&waiting, 1000), 2);
    assert_eq!(together(&waiting[1..], 1000), 1);
    let stored = waiting.map(|(id, span)| Stored { id, span, received: Timestamp::UNIX_EPOCH });
    let policy = MergePolicy::default();
    assert_eq!(merge(&stored, Timestamp::UNIX_EPOCH, &policy, false), Merge::Join(2));
    assert_eq!(merge(&stored[1..], Timestamp::UNIX_EPOCH, &policy, false), Merge::Drop(1));
}
