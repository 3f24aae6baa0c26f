//! What may go of archived streams, and what never does.

use backstay_backup_core::fault::{ErrorKind, Mishap, Operation};
use backstay_backup_core::id::SetId;

use super::*;
use crate::Offset;
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
