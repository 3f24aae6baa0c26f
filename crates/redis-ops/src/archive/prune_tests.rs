//! What may go of archived streams, and what never does.

use std::sync::Arc;

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::fault::{ErrorKind, Mishap, Operation};
use backstay_backup_core::id::SetId;
use backstay_backup_core::key::Key;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::store::{Attributes, PutMode, SharedStore};
use bytes::Bytes;

use super::*;
use crate::Offset;
use crate::archive::name::history_key;
use crate::archive::tests::{World, id, named, world};
use crate::archive::{Position, StreamArchive};

const NO_GRACE: SignedDuration = SignedDuration::ZERO;

fn base(digit: char, offset: u64, good: bool) -> Base {
    let set = SetId::parse(format!("20261122T221354Z-{offset:010x}")).unwrap();
    let position = Position::new(id(digit), Offset(offset));
    Base::new(set, "main.rdb.zst", position, Timestamp::UNIX_EPOCH, good)
}

/// Segments of ten bytes each.
async fn fresh(world: &World, digit: char, start: u64, end: u64) {
    for start in (start..end).step_by(10) {
        world.put(Level::Fresh, digit, start, start + 10).await;
    }
}

/// Beginnings of the segments that would go, by repository.
async fn doomed(archive: &StreamArchive, bases: &[Base], grace: SignedDuration) -> Vec<Vec<u64>> {
    let survey = archive.survey().await.unwrap();
    let plan = plan_one(&survey, bases, Timestamp::now(), grace);
    let of = |repository: &crate::archive::RepositoryStream| {
        let plans = plan.repositories.iter().filter(|it| it.repository == repository.repository);
        plans.flat_map(|it| it.names.iter().map(|name| name.span.start.0)).collect()
    };
    survey.repositories.iter().map(of).collect()
}

#[tokio::test]
async fn what_lies_before_the_first_base_that_stays_goes_and_nothing_else() {
    let world = world(1, 1).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 100).await;
    let bases = [base('a', 35, true), base('a', 70, true)];
    assert_eq!(doomed(&world.archive, &bases, NO_GRACE).await, [vec![0, 10, 20]]);
    // The base stands at the very beginning of a segment.
    assert_eq!(doomed(&world.archive, &[base('a', 40, true)], NO_GRACE).await, [vec![0, 10, 20, 30]]);
    // Nobody knows yet what came a moment ago.
    let grace = SignedDuration::from_hours(1);
    assert_eq!(doomed(&world.archive, &bases, grace).await, [Vec::<u64>::new()]);
}

#[tokio::test]
async fn a_line_keeps_what_its_ancestors_hold_of_it_and_the_last_one_what_has_no_base_yet() {
    let world = world(1, 1).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 60).await;
    world.record('b', Some(('a', 40))).await;
    fresh(&world, 'b', 40, 80).await;
    let bases = [base('a', 20, true)];
    assert_eq!(doomed(&world.archive, &bases, NO_GRACE).await, [vec![0, 10]]);
    // A base of the new line alone: what the old primary wrote on its own leads nowhere, what the line holds of it neither.
    let bases = [base('b', 60, true)];
    assert_eq!(doomed(&world.archive, &bases, NO_GRACE).await, [vec![0, 10, 20, 30, 40, 50, 40, 50]]);
    // A history that came last: its base is still on its way.
    world.record('c', None).await;
    fresh(&world, 'c', 0, 20).await;
    let going = doomed(&world.archive, &bases, NO_GRACE).await;
    assert_eq!(going, [vec![0, 10, 20, 30, 40, 50, 40, 50]], "nothing of the last one");
}

#[tokio::test]
async fn fresh_segments_go_only_beside_merged_ones_with_times_in_the_same_repository() {
    let world = world(2, 1).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 40).await;
    let bases = [base('a', 0, true)];
    let merged = named(Level::Merged, 'a', 0, 30);
    world.put(Level::Merged, 'a', 0, 30).await;
    let nothing = [Vec::<u64>::new(), Vec::new()];
    assert_eq!(doomed(&world.archive, &bases, NO_GRACE).await, nothing, "without times a second is lost");
    let mut times = crate::archive::TimeIndex::default();
    times.push(Offset(30), Timestamp::UNIX_EPOCH);
    world.archive.store_times(&merged, &times).await.unwrap();
    assert_eq!(doomed(&world.archive, &bases, NO_GRACE).await, [vec![0, 10, 20], vec![0, 10, 20]]);
    let key = segment_key(world.archive.stanza(), world.archive.stream(), &merged);
    world.stores[1].delete(&key).await.unwrap();
    assert_eq!(doomed(&world.archive, &bases, NO_GRACE).await, [vec![0, 10, 20], vec![]]);
}

#[tokio::test]
async fn nothing_goes_while_anything_is_uncertain() {
    let (world, faults) = World::with_faults(2).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 40).await;
    let (repositories, stanza) = (world.archive.repositories(), world.archive.stanza());
    let catalog = Catalog::load(repositories, stanza).await.unwrap();
    let none = TimeSpan::from_secs(0);
    let plan = plan_stream_prune(repositories, &catalog, &[], None, none).await.unwrap();
    assert_eq!((plan.is_empty(), plan.kept_because.as_deref()), (true, Some("there is no good base")));
    faults[1].always(Operation::List, Mishap::Error(ErrorKind::Denied));
    let plan = plan_stream_prune(repositories, &catalog, &[], None, none).await.unwrap();
    let why = plan.kept_because.clone().unwrap();
    assert!(
        plan.is_empty() && why.starts_with("repository r1, which may hold bases, cannot be read"),
        "{why}"
    );
}

/// A set that is not good today may be so tomorrow, from another copy; what follows it cannot be had again.
#[tokio::test]
async fn a_snapshot_that_is_not_good_keeps_what_follows_it_all_the_same() {
    let world = world(1, 1).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 100).await;
    let bases = [base('a', 15, false), base('a', 70, true)];
    assert_eq!(doomed(&world.archive, &bases, NO_GRACE).await, [vec![0]]);
}

async fn merged(world: &World, start: u64, end: u64) {
    let mut times = crate::archive::TimeIndex::default();
    times.push(Offset(end), Timestamp::UNIX_EPOCH);
    let name = named(Level::Merged, 'a', start, end);
    world.archive.store_times(&name, &times).await.unwrap();
    world.put(Level::Merged, 'a', start, end).await;
}

async fn planned(world: &World, bases: &[Base]) -> StreamPrunePlan {
    let survey = world.archive.survey().await.unwrap();
    StreamPrunePlan {
        stanza: world.archive.stanza().clone(),
        streams: vec![plan_one(&survey, bases, Timestamp::now(), NO_GRACE)],
        kept_because: None,
        grace: TimeSpan::from_secs(0),
        staying: bases.to_vec(),
    }
}

/// Beginnings of the fresh segments that are there.
async fn left(world: &World) -> Vec<u64> {
    let survey = world.archive.survey().await.unwrap();
    let fresh = survey.all_segments().filter(|object| object.name.level == Level::Fresh);
    fresh.map(|object| object.name.span.start.0).collect()
}

async fn apply(world: &World, plan: &StreamPrunePlan) -> StreamPruneReport {
    let (repositories, never) = (world.archive.repositories(), CancellationToken::new());
    plan.apply(repositories, TimeSpan::from_secs(60), &never).await.unwrap()
}

/// The plan was shown to somebody: what might go since waits for the next one, and what is needed since stays.
#[tokio::test]
async fn what_is_removed_was_planned_and_still_is_needed_by_nobody() {
    let world = world(1, 1).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 90).await;
    merged(&world, 0, 30).await;
    merged(&world, 30, 60).await;
    let plan = planned(&world, &[base('a', 0, true)]).await;
    let gone = named(Level::Merged, 'a', 30, 60);
    let key = segment_key(world.archive.stanza(), world.archive.stream(), &gone);
    world.stores[0].delete(&key).await.unwrap();
    merged(&world, 60, 90).await;
    let report = apply(&world, &plan).await;
    assert_eq!((report.segments, report.failed.len(), report.blocked.len()), (3, 0, 0), "{report:?}");
    assert_eq!(left(&world).await, [30, 40, 50, 60, 70, 80]);
    assert_eq!(apply(&world, &plan).await.segments, 0, "running it again is harmless");
}

#[tokio::test]
async fn nothing_goes_from_where_a_listing_fails_or_the_clock_is_another() {
    let (world, faults) = World::with_faults(2).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 30).await;
    let bases = [base('a', 20, true)];
    let plan = planned(&world, &bases).await;
    faults[1].always(Operation::List, Mishap::Error(ErrorKind::Denied));
    let report = apply(&world, &plan).await;
    assert_eq!((report.segments, report.blocked.len()), (0, 1), "{report:?}");
    faults[1].calm();
    assert_eq!(left(&world).await, [0, 10, 20]);
    assert_eq!(apply(&world, &plan).await.segments, 4);

    let late = ManualClock::at(Timestamp::now() - SignedDuration::from_hours(2));
    let store: SharedStore = Arc::new(MemoryStore::new(Arc::new(late)));
    let world = World::on(vec![store], 1).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 30).await;
    let plan = planned(&world, &bases).await;
    assert!(!plan.is_empty());
    let report = apply(&world, &plan).await;
    assert_eq!((report.segments, report.blocked.len()), (0, 1), "{report:?}");
    assert!(report.blocked[0].1.contains("clock"), "{report:?}");
}

#[tokio::test]
async fn nothing_goes_while_a_set_or_a_beginning_cannot_be_read() {
    let world = world(1, 1).await;
    world.record('a', None).await;
    fresh(&world, 'a', 0, 40).await;
    let (repositories, stanza) = (world.archive.repositories(), world.archive.stanza());
    let why = async || {
        let catalog = Catalog::load(repositories, stanza).await.unwrap();
        let surveys = survey_streams(repositories, stanza).await.unwrap();
        uncertain(&catalog, None, &surveys, &[base('a', 30, true)])
    };
    let put = async |key: Key| {
        let body = Bytes::from_static(b"{}");
        world.stores[0].put(&key, body, PutMode::Create, &Attributes::default()).await.unwrap();
        key
    };
    assert_eq!(why().await, None);
    let set = put(Key::parse("shop/sets/20261122T221354Z-3f9a2c01d7/manifest.json").unwrap()).await;
    let said = why().await.unwrap();
    assert!(said.contains("may be a base, and its manifest cannot be read"), "{said}");
    world.stores[0].delete(&set).await.unwrap();
    assert_eq!(why().await, None);
    put(history_key(stanza, world.archive.stream(), id('b'))).await;
    let said = why().await.unwrap();
    assert!(said.starts_with("where history bbbb"), "{said}");
}
