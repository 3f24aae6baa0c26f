use proptest::prelude::*;

use super::*;
use crate::wal::{HEADER_LENGTH, SystemId, Xid};
use crate::wal_records::sample::{NEW_YEAR, PAGE, SIZE, Writer};
use crate::wal_records::{Event, Outcome, Transaction};

const START: u64 = 3 * SIZE;

struct Seen {
    records: Vec<Record>,
    last: Option<RecordSpan>,
    end: Option<LogEnd>,
}

fn read(segments: &[Vec<u8>]) -> Seen {
    let mut reader = RecordReader::new();
    let mut records = Vec::new();
    for segment in segments {
        reader.read(segment, &mut |record| records.push(record)).unwrap();
    }
    Seen { records, last: reader.last(), end: reader.end() }
}

fn xids(seen: &Seen) -> Vec<u32> {
    let xid = |record: &Record| match &record.event {
        Event::Transaction(transaction) => Some(transaction.xid.number()),
        _ => None,
    };
    seen.records.iter().filter_map(xid).collect()
}

#[test]
fn commits_are_read_with_their_places_and_times() {
    let mut log = Writer::at(1, START);
    let spans = [log.commit(700, 0), log.commit(701, 1_500_000)];
    let seen = read(&log.segments());
    let at = |text: &str| text.parse().unwrap();
    for ((record, span), (xid, at)) in seen
        .records
        .iter()
        .zip(spans)
        .zip([(700, at("2024-01-01T00:00:00Z")), (701, at("2024-01-01T00:00:01.5Z"))])
    {
        assert_eq!((record.span.start, record.span.end), span);
        let expected = Transaction {
            xid: Xid::new(xid),
            outcome: Outcome::Commit,
            prepared: false,
            at,
            subtransactions: vec![],
        };
        assert_eq!(record.event, Event::Transaction(expected));
    }
    assert_eq!(seen.end, Some(LogEnd { at: spans[1].1, flaw: Flaw::Nothing }));
}

#[test]
fn records_continue_over_pages_and_segments() {
    let mut log = Writer::at(1, START);
    log.filler(3 * PAGE as usize);
    log.commit(700, 0);
    log.filler(SIZE as usize * 2 + 100);
    let (start, end) = log.commit(701, 1);
    let seen = read(&log.segments());
    assert_eq!(log.segments().len(), 3);
    assert_eq!(xids(&seen), [700, 701]);
    assert_eq!(seen.last, Some(RecordSpan { start, end }));
}

#[test]
fn reading_may_begin_in_the_middle_of_a_record() {
    let mut log = Writer::at(1, START);
    log.commit(700, 0);
    log.filler(SIZE as usize * 2 + 100);
    log.commit(701, 1);
    let segments = log.segments();
    assert_eq!(
        xids(&read(&segments[1..])),
        [701],
        "the second segment is nothing but the middle of one record"
    );
    assert_eq!(xids(&read(&segments[2..])), [701]);
}

#[test]
fn a_switch_leaves_the_rest_of_its_segment_empty() {
    let mut log = Writer::at(1, START);
    log.commit(700, 0);
    let (start, end) = log.switch();
    let seen = read(&log.segments());
    assert_eq!((seen.last, seen.end), (Some(RecordSpan { start, end }), None));
    assert_eq!(end.bytes(), START + SIZE);
    log.commit(701, 1);
    assert_eq!(xids(&read(&log.segments())), [700, 701]);
}

#[test]
fn a_switch_may_lie_across_two_pages() {
    let mut log = Writer::at(1, START);
    // 40 bytes of header; each filler takes 24 + 5 and its length. 8 bytes are left on the page.
    log.filler(PAGE as usize - 40 - 29 - 8);
    let (_, end) = log.switch();
    assert_eq!(end.bytes(), START + SIZE);
    log.commit(701, 1);
    let seen = read(&log.segments());
    assert_eq!(xids(&seen), [701]);
    assert!(matches!(seen.records[0].event, Event::Switch));
}

#[test]
fn restore_points_checkpoints_and_promotions_are_read() {
    let mut log = Writer::at(2, START);
    log.restore_point("before the sale", 5);
    let mut checkpoint = 0x2F_0000u64.to_le_bytes().to_vec();
    checkpoint.extend([2, 0, 0, 0, 1, 0, 0, 0]);
    checkpoint.resize(88, 0);
    log.data(0, 0x10, 0, &checkpoint);
    let mut promoted = NEW_YEAR.to_le_bytes().to_vec();
    promoted.extend([2, 0, 0, 0, 1, 0, 0, 0]);
    log.data(0, 0x90, 0, &promoted);
    log.data(0, 0x50, 0, &START.to_le_bytes());
    let (two, one) = (Timeline::new(2).unwrap(), Timeline::FIRST);
    let at = |text: &str| text.parse().unwrap();
    let events: Vec<_> = read(&log.segments()).records.into_iter().map(|record| record.event).collect();
    let point =
        Event::RestorePoint { name: "before the sale".to_owned(), at: at("2024-01-01T00:00:00.000005Z") };
    let checkpoint =
        Event::Checkpoint { redo: Lsn::new(0x2F_0000), timeline: two, previous: one, shutdown: false };
    let promoted = Event::EndOfRecovery { timeline: two, previous: one, at: at("2024-01-01T00:00:00Z") };
    assert_eq!(events, [point, checkpoint, promoted, Event::BackupEnd { start: Lsn::new(START) }]);
}

/// Every list there is, in front of the number of the prepared transaction.
fn long_end(major: u32, commit: bool) -> Vec<u8> {
    let mut data = NEW_YEAR.to_le_bytes().to_vec();
    data.extend((1u32 | 2 | 4 | 8 | 16 | 128 | 256).to_le_bytes());
    data.extend([1; 8]);
    data.extend([2, 0, 0, 0, 0xBD, 2, 0, 0, 0xBE, 2, 0, 0]);
    data.extend([1, 0, 0, 0]);
    data.extend([3; 12]);
    data.extend([2, 0, 0, 0]);
    data.resize(data.len() + 2 * if major < 18 { 12 } else { 16 }, 4);
    if commit {
        data.extend([1, 0, 0, 0]);
        data.extend([5; 16]);
    }
    data.extend(700u32.to_le_bytes());
    data.extend(b"name of it\0");
    data
}

#[test]
fn ends_of_prepared_transactions_are_found_behind_all_lists() {
    for (magic, major) in [(0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)] {
        let mut log = Writer::at(1, START);
        log.magic = magic;
        log.data(1, 0x80 | 0x30, 0, &long_end(major, true));
        log.data(1, 0x80 | 0x40, 0, &long_end(major, false));
        for (record, outcome) in read(&log.segments()).records.iter().zip([Outcome::Commit, Outcome::Abort]) {
            let Event::Transaction(end) = &record.event else { panic!("{record:?}") };
            assert_eq!((end.xid.number(), end.prepared, end.outcome), (700, true, outcome), "{major}");
            assert_eq!(end.subtransactions, [Xid::new(701), Xid::new(702)]);
        }
    }
}

#[test]
fn a_record_that_a_crash_cut_off_is_passed_over() {
    let mut log = Writer::at(1, START);
    log.commit(700, 0);
    let kept = log.clone();
    log.filler(PAGE as usize * 2);
    // The server found one page of it after the crash, and begins anew on the next.
    let mut anew = kept;
    anew.bytes.extend(&log.bytes[anew.bytes.len()..PAGE as usize]);
    anew.data(0, 0xD0, 0, &[0; 16]);
    anew.bytes[PAGE as usize + 2] = 8;
    let (_, end) = anew.commit(701, 1);
    let seen = read(&anew.segments());
    assert_eq!(xids(&seen), [700, 701]);
    assert_eq!(seen.end, Some(LogEnd { at: end, flaw: Flaw::Nothing }));
}

#[test]
fn another_segment_than_the_next_is_refused() {
    let mut log = Writer::at(1, START);
    log.filler(SIZE as usize * 3);
    let segments = log.segments();
    let second = |segment: &[u8]| {
        let mut reader = RecordReader::new();
        reader.read(&segments[0], &mut |_| {}).unwrap();
        reader.read(segment, &mut |_| {})
    };
    assert_eq!(second(&segments[1]), Ok(Progress::More));
    assert!(matches!(second(&segments[2]), Err(WalError::OtherSegment { .. })));
    let mut other = segments[1].clone();
    other[24] ^= 1;
    assert!(matches!(second(&other), Err(WalError::OtherCluster { found, .. }) if found != SystemId::new(0)));
    assert!(matches!(second(&other[..30]), Err(WalError::NotWal { .. })));
}

#[test]
fn a_segment_that_is_cut_off_ends_the_log() {
    let mut log = Writer::at(1, START);
    let (_, end) = log.commit(700, 0);
    log.filler(100_000);
    let segment = &log.segments()[0];
    for length in [30_000, PAGE as usize * 4, PAGE as usize * 4 + 3] {
        let seen = read(&[segment[..length].to_vec()]);
        assert_eq!((xids(&seen), seen.end.unwrap().at), (vec![700], end), "{length}");
    }
}

fn sample_log() -> (Writer, usize) {
    let mut log = Writer::at(1, START);
    for number in 0..60 {
        log.commit(700 + number, i64::from(number));
        log.filler(number as usize * 97 % 9000);
    }
    let used = log.bytes.len();
    (log, used)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_flipped_bit_of_the_log_ends_it_there(position: prop::sample::Index, bit in 0u8..8) {
        let (log, used) = sample_log();
        let whole = read(&log.segments());
        let mut segments = log.segments();
        let at = position.index(used);
        segments[0][at] ^= 1 << bit;
        let mut reader = RecordReader::new();
        let mut records = Vec::new();
        let result = reader.read(&segments[0], &mut |record| records.push(record));
        // The timeline on a page has no checksum: the name and the digest of the segment vouch for it.
        let on_timeline = at % PAGE as usize / 4 == 1;
        let same = |(seen, known): (&Record, &Record)| {
            (seen.span, &seen.event) == (known.span, &known.event)
                && (on_timeline || seen.timeline == known.timeline)
        };
        let real = records.len() <= whole.records.len() && records.iter().zip(&whole.records).all(same);
        prop_assert!(real || result.is_err(), "nothing is made up, with bit {} of byte {}", bit, at);
        let flipped = Lsn::new(START + at as u64);
        let before = whole.records.iter().filter(|record| record.span.end <= flipped);
        if result.is_ok() {
            prop_assert!(records.len() >= before.count(), "what comes before the bit is read");
        }
        // Padding between records and the fields of a page that nobody reads are not covered.
        if let (Ok(_), Some(last)) = (result, reader.last()) {
            prop_assert!(Some(last) <= whole.last);
        }
    }

    #[test]
    fn no_bytes_are_too_strange(
        (start, magic) in (0u64..1 << 44, prop::sample::select(vec![0xD10Du16, 0xD110, 0xD113, 0xD116, 0xD118])),
        noise in prop::collection::vec((HEADER_LENGTH..20_000, any::<u8>()), 0..200),
        header in prop::collection::vec((0..HEADER_LENGTH, any::<u8>()), 0..2),
    ) {
        let mut log = Writer::at(1, start / SIZE * SIZE);
        log.magic = magic;
        log.commit(700, 0);
        log.filler(12_000);
        log.commit(701, i64::MAX - NEW_YEAR);
        let mut segment = log.segments().remove(0);
        for (at, byte) in noise {
            segment[at] = byte;
        }
        let mut reader = RecordReader::new();
        if let Ok(Progress::End(end)) = reader.read(&segment, &mut |_| {}) {
            prop_assert!(end.at.bytes() >= log.start && end.at.bytes() <= log.start + SIZE);
        }
        header.into_iter().for_each(|(at, byte)| segment[at] = byte);
        let _ = RecordReader::new().read(&segment, &mut |_| {});
    }
}
