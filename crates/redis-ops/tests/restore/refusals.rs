//! What cannot be restored is refused by name, and nothing is touched.

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;
use backstay_backup_core::proof::{Proof, ProofKind};
use backstay_redis_ops::Offset;
use backstay_redis_ops::archive::Position;
use backstay_redis_ops::restore::{LiveFacts, RestoreError, RestoreRequest, RestoreTarget, TtlPolicy};
use backstay_testkit::TestRedis;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::recorder::Recorder;
use crate::world::{World, ask, connect, facts, offset, options, server};

struct Archived {
    world: World,
    recorder: Recorder,
    end: Offset,
    target: TestRedis,
}

/// Fifty keys behind a snapshot, and a server whose own key must survive every refusal.
async fn archived(lengths: impl IntoIterator<Item = usize>, drop_from: Option<usize>) -> Archived {
    let world = World::new().await;
    let source = server(&[]).await;
    let mut connection = connect(&source).await;
    // A server counts from its first replica on.
    let _first = Recorder::attach(&source);
    let _: redis::Value = ask(&mut connection, "SET earlier 1").await;
    let recorder = Recorder::attach(&source);
    for number in 0..50 {
        let _: redis::Value = ask(&mut connection, &format!("SET key:{number} {number}")).await;
    }
    let end = offset(&mut connection).await;
    world.set(&recorder).await;
    let (bytes, times) = recorder.until(end);
    match drop_from {
        None => world.segments(recorder.id, recorder.start, (bytes, times), lengths).await,
        Some(at) => {
            let (before, after) = (bytes[..at].to_vec(), bytes[at + 10..].to_vec());
            world.segments(recorder.id, recorder.start, (before, times.clone()), lengths).await;
            // Its head does not matter: nothing behind a gap is read.
            let start = recorder.start.plus(at as u64 + 10);
            world.raw_segment(recorder.id, start, after).await;
        }
    }
    let mut target = server(&[("appendonly", "yes")]).await;
    let mut connection = connect(&target).await;
    let _: redis::Value = ask(&mut connection, "SET mine 1").await;
    drop(connection);
    target.stop().unwrap();
    Archived { world, recorder, end, target }
}

impl Archived {
    async fn refused(&mut self, target: RestoreTarget) -> RestoreError {
        let options = options(&self.target, TtlPolicy::Keep).await;
        let before = names(&self.target);
        let error = self.world.restore(target, &options).await.unwrap_err();
        assert_eq!(names(&self.target), before, "{error}");
        error
    }

    async fn still_has_its_own(&mut self) {
        self.target.restart().unwrap();
        let mut connection = connect(&self.target).await;
        LiveFacts::ask(&mut connection).await.unwrap();
        assert_eq!(ask::<i64>(&mut connection, "EXISTS mine").await, 1);
        assert_eq!(ask::<i64>(&mut connection, "DBSIZE").await, 1);
    }
}

fn names(target: &TestRedis) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(target.data_directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_outside_of_every_window_are_refused_with_the_nearest_points() {
    let mut archived = archived([300; 10], None).await;
    let (start, end, taken) = (archived.recorder.start, archived.end, archived.recorder.taken);
    let offset = |at: u64| RestoreTarget::Offset { history: None, offset: Offset(at) };
    let error = archived.refused(offset(start.0 - 1)).await;
    assert_eq!(error.class(), Class::Absent);
    assert!(
        error.to_string().contains(&format!("before the first snapshot, which is at offset {start}")),
        "{error}"
    );
    assert!(error.hint().unwrap().contains(&format!("offsets {start} to {end}")), "{:?}", error.hint());
    let error = archived.refused(offset(end.0 + 1)).await;
    assert!(error.to_string().contains("not in the archive"), "{error}");
    let early = taken - SignedDuration::from_mins(5);
    let error = archived.refused(RestoreTarget::Time(early)).await;
    assert!(matches!(error, RestoreError::Unreachable { .. }) && error.hint().is_some(), "{error}");
    // Nobody knows what was written after the end of the archive.
    let late = taken + SignedDuration::from_hours(1);
    let error = archived.refused(RestoreTarget::Time(late)).await;
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    archived.still_has_its_own().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_refused_by_its_offsets() {
    let mut archived = archived([300; 10], Some(700)).await;
    let gap = archived.recorder.start.plus(700);
    let wanted = RestoreTarget::Offset { history: None, offset: gap.plus(5) };
    let error = archived.refused(wanted).await;
    assert!(error.to_string().contains(&format!("a gap from {gap} to {}", gap.plus(10))), "{error}");
    // Behind it there is no snapshot, so nothing can be reached there either.
    let wanted = RestoreTarget::Offset { history: None, offset: archived.end };
    let error = archived.refused(wanted).await;
    assert_eq!(error.class(), Class::Absent, "{error}");
    // The newest moment is the one before the gap, and what lies behind is named.
    let options = options(&archived.target, TtlPolicy::Keep).await;
    let plan = archived.world.plan(&RestoreRequest::new(RestoreTarget::Newest), &options).await.unwrap();
    assert!(plan.end.offset <= gap && plan.missing.more_behind_gap);
    archived.still_has_its_own().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_and_a_second_restore_are_in_the_way() {
    let mut archived = archived([300; 10], None).await;
    archived.target.restart().unwrap();
    let error = archived.refused(RestoreTarget::Newest).await;
    assert_eq!(error.class(), Class::Conflict);
    assert!(error.to_string().contains("redis-server"), "{error}");
    archived.target.stop().unwrap();
    let directory = std::fs::File::open(archived.target.data_directory()).unwrap();
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let error = archived.refused(RestoreTarget::Newest).await;
    assert!(error.to_string().contains("another process"), "{error}");
    drop(directory);
    archived.still_has_its_own().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_too_old_are_refused_before_anything_is_touched() {
    let mut archived = archived([300; 10], None).await;
    let recorder = &archived.recorder;
    let mut newer = facts(&recorder.snapshot);
    newer.version = 12;
    newer.aux.insert("redis-ver".to_owned(), "8.0.2".to_owned());
    let position = Position::new(recorder.id, archived.end);
    let taken = recorder.taken + SignedDuration::from_secs(60);
    newer.aux.insert("ctime".to_owned(), taken.as_second().to_string());
    archived.world.set_of(recorder.snapshot.clone(), newer, position, taken).await;
    let error = archived.refused(RestoreTarget::Newest).await;
    assert_eq!(error.class(), Class::Usage);
    let said = error.to_string();
    assert!(said.contains("redis 8.0.2") && said.contains("redis 7.0.15"), "{said}");
    archived.still_has_its_own().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_noticed_and_the_old_data_stays() {
    let mut archived = archived([300; 10], None).await;
    let options = options(&archived.target, TtlPolicy::Keep).await;
    let request = RestoreRequest::new(RestoreTarget::Newest);
    let mut plan = archived.world.plan(&request, &options).await.unwrap();
    plan.needed_bytes = u64::MAX;
    let error = archived.world.apply(&plan).await.unwrap_err();
    assert_eq!(error.class(), Class::Temporary);
    assert!(error.hint().unwrap().contains("make room"), "{error}");
    archived.still_has_its_own().await;
}

/// A newer snapshot that failed its verification is passed over, with and without a stream that leads there.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_moment_is_the_newest_good_one() {
    let mut archived = archived([300; 10], None).await;
    let options = options(&archived.target, TtlPolicy::Keep).await;
    let (world, recorder) = (&archived.world, &archived.recorder);
    let good = world.plan(&RestoreRequest::new(RestoreTarget::Newest), &options).await.unwrap();
    let position = Position::new(recorder.id, archived.end.plus(1_000));
    let taken = recorder.taken + SignedDuration::from_mins(5);
    let mut later = facts(&recorder.snapshot);
    later.aux.insert("ctime".to_owned(), taken.as_second().to_string());
    let bad = world.set_of(recorder.snapshot.clone(), later, position, taken).await.set;
    let request = RestoreRequest::new(RestoreTarget::Newest);
    assert_eq!(world.plan(&request, &options).await.unwrap().set, bad, "nobody knows that it is bad");
    let proof = Proof::new(ProofKind::VerifyFull, world.stanza.clone(), bad, "test", Timestamp::now(), false);
    proof.store(&world.repositories.members()[0]).await.unwrap();
    let plan = world.plan(&request, &options).await.unwrap();
    assert_eq!((plan.set, plan.end), (good.set, good.end));
    archived.still_has_its_own().await;
}

/// What was written must end where it was planned to, or it is not put in the place of the old data.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_not_the_planned_one_is_refused() {
    let mut archived = archived([300; 10], None).await;
    let options = options(&archived.target, TtlPolicy::Keep).await;
    let request = RestoreRequest::new(RestoreTarget::Newest);
    let mut plan = archived.world.plan(&request, &options).await.unwrap();
    plan.end.offset = Offset(plan.end.offset.0 - 1);
    let error = archived.world.apply(&plan).await.unwrap_err();
    assert_eq!(error.class(), Class::Data, "{error}");
    assert!(format!("{error:?}").contains("was planned to end at"), "{error:?}");
    archived.still_has_its_own().await;
}

/// One bit at a time, in everything that a restore reads.
#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_is_refused() {
    let mut archived = archived([300; 10], None).await;
    let rounds = if std::env::var("BACKSTAY_SOAK").is_ok_and(|value| value == "1") { 1000 } else { 60 };
    let mut files = Vec::new();
    collect(&archived.world.store(), &mut files);
    files.retain(|path| {
        let text = path.to_string_lossy();
        text.contains("/segments/") || text.ends_with("main.rdb.zst")
    });
    assert!(files.len() > 5, "{files:?}");
    let mut rng = StdRng::seed_from_u64(11);
    let options = options(&archived.target, TtlPolicy::Keep).await;
    let whole = RestoreTarget::Offset { history: None, offset: archived.end };
    for _ in 0..rounds {
        let path = &files[rng.random_range(0..files.len())];
        let good = std::fs::read(path).unwrap();
        let mut bad = good.clone();
        let at = rng.random_range(0..bad.len() * 8);
        bad[at / 8] ^= 1 << (at % 8);
        std::fs::write(path, &bad).unwrap();
        let refused = archived.world.restore(whole.clone(), &options).await;
        let error = refused.expect_err(&format!("bit {at} of {}", path.display()));
        assert_eq!(error.class(), Class::Data, "bit {at} of {}: {error}", path.display());
        std::fs::write(path, &good).unwrap();
    }
    println!("{rounds} of {rounds} flipped bits were refused");
    archived.still_has_its_own().await;
}

fn collect(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
