//! From what is asked for to a place, on streams made by hand: one command in each segment, one a second.

use std::num::NonZeroU32;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::SealOptions;
use bytes::Bytes;

use super::*;
use crate::ReplicationId;
use crate::archive::{Boundary, HistoryRecord, Level, SegmentHead, SegmentName, Span, StreamId};
use crate::resp::StreamState;

/// Bytes of every command.
const LENGTH: u64 = 31;

fn id(digit: char) -> ReplicationId {
    String::from(digit).repeat(40).parse().unwrap()
}

fn millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_764_000_000_000 + millis).unwrap()
}

fn second(second: i64) -> Timestamp {
    millis(second * 1000)
}

/// Where the command of a number begins.
fn at(number: u64) -> Offset {
    Offset(number * LENGTH)
}

fn command(number: u64) -> Vec<u8> {
    let name = if number % 5 == 3 { "DEL" } else { "SET" };
    format!("*3\r\n$3\r\n{name}\r\n$4\r\nkey0\r\n$2\r\n{:02}\r\n", number % 100).into_bytes()
}

async fn archive() -> StreamArchive {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let repository = Repository::create("r", store, &*clock).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, clock).unwrap();
    StreamArchive::new(repositories, Stanza::parse("shop").unwrap(), StreamId::default())
}

/// Commands, each received at the second of its number.
async fn put(archive: &StreamArchive, digit: char, numbers: std::ops::Range<u64>) {
    let state = StreamState { database: Some(0), in_transaction: false };
    for number in numbers {
        let span = Span { start: at(number), end: at(number + 1) };
        let name = SegmentName { replication_id: id(digit), span, level: Level::Fresh };
        let received = second(number as i64);
        let mut head = SegmentHead::new(&name, received, received);
        (head.first, head.last) =
            (Some(Boundary::at(span.start, state)), Some(Boundary::at(span.end, state)));
        let content = Bytes::from(command(number));
        archive.store_segment(&name, &head, content, &SealOptions::default()).await.unwrap();
    }
}

async fn record(archive: &StreamArchive, digit: char, parent: Option<(char, u64)>) {
    let parent = parent.map(|(digit, number)| Position::new(id(digit), at(number)));
    let record = HistoryRecord::new(archive.stanza(), archive.stream(), id(digit), second(0), "test");
    archive.store_history(&record.parent(parent)).await.unwrap();
}

/// A snapshot of everything before the command of a number.
fn base(number: u64, taken: i64) -> Base {
    let set = SetId::parse(format!("20261122T221354Z-{number:010x}")).unwrap();
    Base::new(set, "main.rdb.zst", Position::new(id('a'), at(number)), second(taken), true)
}

async fn resolve(
    archive: &StreamArchive,
    bases: &[Base],
    target: RestoreTarget,
) -> Result<Point, RestoreError> {
    resolve_from(archive, bases, target, None).await
}

async fn resolve_from(
    archive: &StreamArchive,
    bases: &[Base],
    target: RestoreTarget,
    from: Option<&SetId>,
) -> Result<Point, RestoreError> {
    let (survey, none) = (archive.survey().await.unwrap(), Identities::none());
    Past::new(archive, survey, bases.to_vec(), &none).resolve(&target, from).await
}

/// What a snapshot of the tenth second holds may be of the eleventh: servers write whole seconds.
#[tokio::test]
async fn a_time_leads_to_nothing_younger_and_to_all_that_a_snapshot_of_then_holds() {
    let archive = archive().await;
    put(&archive, 'a', 0..30).await;
    let bases = [base(0, -5), base(14, 10)];
    let end = async |time| resolve(&archive, &bases, RestoreTarget::Time(time)).await.unwrap().end.offset;
    assert_eq!(end(millis(9_999)).await, at(10));
    assert_eq!(end(millis(10_500)).await, at(11));
    assert_eq!(end(millis(11_000)).await, at(14));
    assert_eq!(end(second(20)).await, at(21));
}

/// Behind the end of the archive nobody knows what was written, but for a snapshot that shows that nothing was.
#[tokio::test]
async fn a_time_behind_the_end_takes_a_snapshot_that_proves_it() {
    let archive = archive().await;
    put(&archive, 'a', 0..30).await;
    let mut bases = vec![base(0, -5)];
    let resolved =
        async |bases: &[Base], time| resolve(&archive, bases, RestoreTarget::Time(second(time))).await;
    assert_eq!(resolved(&bases, 29).await.unwrap().end.offset, at(30));
    let refused = resolved(&bases, 30).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Unreachable { .. }), "{refused}");
    bases.push(base(30, 40));
    let proven = resolved(&bases, 35).await.unwrap();
    assert_eq!((proven.end.offset, proven.time), (at(30), second(35)));
    assert!(resolved(&bases, 41).await.is_err());
}

#[tokio::test]
async fn an_offset_is_that_of_the_history_that_was_named_or_of_the_one_that_lives() {
    let archive = archive().await;
    record(&archive, 'a', None).await;
    put(&archive, 'a', 0..10).await;
    record(&archive, 'b', Some(('a', 5))).await;
    put(&archive, 'b', 5..10).await;
    let bases = [base(0, -5)];
    for (history, expected) in [(None, 'b'), (Some('b'), 'b'), (Some('a'), 'a')] {
        let target = RestoreTarget::Offset { history: history.map(id), offset: at(8) };
        let point = resolve(&archive, &bases, target).await.unwrap();
        assert_eq!(point.end, Position::new(id(expected), at(8)), "{history:?}");
    }
    let target = RestoreTarget::Offset { history: Some(id('c')), offset: at(8) };
    assert!(resolve(&archive, &bases, target).await.is_err());
}

/// The least is replayed; and from another snapshot only when it is asked for and leads there.
#[tokio::test]
async fn the_last_snapshot_before_the_target_is_the_one_to_begin_with() {
    let archive = archive().await;
    put(&archive, 'a', 0..10).await;
    let bases = [base(0, -5), base(5, 4), base(8, 7)];
    let target = || RestoreTarget::Offset { history: None, offset: at(7) };
    let point = resolve(&archive, &bases, target()).await.unwrap();
    assert_eq!((point.base.set, point.end.offset), (bases[1].set.clone(), at(7)));
    let path = point.path.unwrap();
    assert_eq!(path.span, Span { start: at(5), end: at(7) });
    let point = resolve_from(&archive, &bases, target(), Some(&bases[0].set)).await.unwrap();
    assert_eq!((point.base.set, point.end.offset), (bases[0].set.clone(), at(7)));
    let refused = resolve_from(&archive, &bases, target(), Some(&bases[2].set)).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be reached"), "{refused}");
}

#[tokio::test]
async fn what_is_archived_behind_the_target_is_named() {
    let archive = archive().await;
    put(&archive, 'a', 0..10).await;
    let mut bases = vec![base(0, -5)];
    let target = || RestoreTarget::Offset { history: None, offset: at(7) };
    let missing = resolve(&archive, &bases, target()).await.unwrap().missing;
    let expected = Missing { bytes: 3 * LENGTH, until: Some(second(9)), more_behind_gap: false };
    assert_eq!(missing, expected);
    let all = RestoreTarget::Offset { history: None, offset: at(10) };
    assert_eq!(resolve(&archive, &bases, all).await.unwrap().missing, Missing::default());
    put(&archive, 'a', 12..13).await;
    bases.push(base(12, 11));
    let missing = resolve(&archive, &bases, target()).await.unwrap().missing;
    assert_eq!(missing, Missing { more_behind_gap: true, ..expected });
}

#[tokio::test]
async fn the_last_command_is_found_or_an_earlier_one_or_the_last_before_a_time() {
    let archive = archive().await;
    put(&archive, 'a', 0..12).await;
    let bases = [base(0, -5)];
    let search = CommandSearch::new("del").unwrap();
    let two = NonZeroU32::new(2).unwrap();
    for (search, expected) in [
        (search.clone(), 8),
        (search.clone().occurrence(two), 3),
        (search.clone().not_after(Some(second(8))), 8),
        (search.clone().not_after(Some(millis(7_999))), 3),
    ] {
        let point = resolve(&archive, &bases, RestoreTarget::Before(search.clone())).await.unwrap();
        assert_eq!((point.end.offset, point.time), (at(expected), second(expected as i64)), "{search}");
        assert_eq!(point.found.unwrap().offset, at(expected));
    }
    for search in [search.clone().not_after(Some(second(2))), search.occurrence(NonZeroU32::new(3).unwrap())]
    {
        let refused = resolve(&archive, &bases, RestoreTarget::Before(search)).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Absent { .. }), "{refused}");
    }
}
