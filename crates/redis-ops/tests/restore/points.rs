//! Any offset can be restored, and the data there is what it was.

use backstay_redis_ops::Offset;
use backstay_redis_ops::restore::{CommandSearch, LiveFacts, Outcome, RestoreTarget, TtlPolicy};
use backstay_testkit::TestRedis;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::recorder::Recorder;
use crate::workload::{Mark, Workload};
use crate::world::{World, ask, connect, digest, offset, options, server};

fn soak() -> bool {
    std::env::var("BACKSTAY_SOAK").is_ok_and(|value| value == "1")
}

/// The data at an offset is that of the last command or transaction that ended by then.
fn at(marks: &[Mark], offset: Offset) -> &Mark {
    marks.iter().rev().find(|mark| mark.offset <= offset).unwrap()
}

async fn load(target: &mut TestRedis) -> (String, LiveFacts) {
    target.restart().unwrap();
    let mut connection = connect(target).await;
    let live = LiveFacts::ask(&mut connection).await.unwrap();
    (digest(&mut connection).await, live)
}

/// A workload, archived in segments of random lengths with a second snapshot on the way.
async fn archived(world: &World, seed: u64, steps: usize) -> (Vec<Mark>, Offset, Offset) {
    let source = server(&[]).await;
    let mut workload = Workload::new(seed, connect(&source).await).await;
    for _ in 0..30 {
        workload.step().await;
    }
    let first = Recorder::attach(&source);
    let mut marks = vec![workload.mark().await];
    let mut second = None;
    for number in 0..steps {
        marks.push(workload.step().await);
        if number == steps / 2 {
            second = Some(Recorder::attach(&source));
        }
    }
    let end = marks.last().unwrap().offset;
    world.set(&first).await;
    world.set(&second.unwrap()).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let lengths = std::iter::repeat_with(move || rng.random_range(1..4000));
    world.segments(first.id, first.start, first.until(end), lengths).await;
    (marks, first.start, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_offset_holds_the_data_that_was_there() {
    let (seed, steps, points) = if soak() { (rand::random(), 600, 150) } else { (17, 120, 12) };
    println!("seed {seed}");
    let world = World::new().await;
    let (marks, start, end) = archived(&world, seed, steps).await;
    let mut target = server(&[("appendonly", "yes")]).await;
    let options = options(&target, TtlPolicy::Keep).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut equal = 0;
    for number in 0..points {
        let wanted = Offset(if number == 0 { start.0 } else { rng.random_range(start.0..=end.0) });
        target.stop().unwrap();
        let request = RestoreTarget::Offset { history: None, offset: wanted };
        let mut receipt = world.restore(request, &options).await.unwrap();
        let mark = at(&marks, wanted);
        assert!(receipt.reached.offset <= wanted && receipt.reached.offset >= mark.offset, "{wanted}");
        let (found, live) = load(&mut target).await;
        assert_eq!(found, mark.digest, "offset {wanted}, reached {}", receipt.reached.offset);
        assert_eq!(live.functions.as_deref(), Some(&["counters".to_owned()][..]));
        receipt.judge(live);
        assert_eq!(receipt.outcome, Outcome::Loaded, "{:?}", receipt.comparison);
        equal += 1;
    }
    println!("{equal} of {points} offsets with an equal digest");
    // The newest moment, and a set alone.
    target.stop().unwrap();
    world.restore(RestoreTarget::Newest, &options).await.unwrap();
    assert_eq!(load(&mut target).await.0, marks.last().unwrap().digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_load_snapshots_get_one_of_the_very_offset() {
    let world = World::new().await;
    let (marks, start, end) = archived(&world, 29, 60).await;
    let mut target = server(&[("appendonly", "no")]).await;
    let options = options(&target, TtlPolicy::Keep).await;
    let mut rng = StdRng::seed_from_u64(29);
    for _ in 0..if soak() { 40 } else { 3 } {
        let wanted = Offset(rng.random_range(start.0..=end.0));
        target.stop().unwrap();
        let request = RestoreTarget::Offset { history: None, offset: wanted };
        let mut receipt = world.restore(request, &options).await.unwrap();
        let (found, live) = load(&mut target).await;
        assert_eq!(found, at(&marks, wanted).digest, "offset {wanted}");
        receipt.judge(live);
        assert_eq!(receipt.outcome, Outcome::Loaded, "{:?}", receipt.comparison);
        assert!(receipt.comparison.compared > 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushall_is_undone() {
    let world = World::new().await;
    let source = server(&[]).await;
    let mut workload = Workload::new(5, connect(&source).await).await;
    let recorder = Recorder::attach(&source);
    for _ in 0..40 {
        workload.step().await;
    }
    let before = workload.mark().await;
    let mut connection = connect(&source).await;
    // As the accident of a script, so that it lies in a transaction.
    let code = "redis.call('SET', 'a', 1) redis.call('FLUSHALL') redis.call('SET', 'b', 1)";
    let accident = redis::cmd("EVAL").arg(code).arg(0).to_owned();
    let _: redis::Value = accident.query_async(&mut connection).await.unwrap();
    for number in 0..20 {
        let _: redis::Value = ask(&mut connection, &format!("SET after:{number} x")).await;
    }
    let _: redis::Value = ask(&mut connection, "UNLINK after:7").await;
    world.set(&recorder).await;
    let end = offset(&mut connection).await;
    world.segments(recorder.id, recorder.start, recorder.until(end), std::iter::repeat(700)).await;

    let mut target = server(&[("appendonly", "yes")]).await;
    target.stop().unwrap();
    let options = options(&target, TtlPolicy::Keep).await;
    let search = CommandSearch::new("flushall").unwrap();
    let receipt = world.restore(RestoreTarget::Before(search), &options).await.unwrap();
    assert!(receipt.missing.bytes > 0 && receipt.missing.until.is_some());
    assert_eq!(load(&mut target).await.0, before.digest);

    // A key that was deleted, found by its pattern.
    target.stop().unwrap();
    let search = CommandSearch::new("unlink").unwrap().key(Some("after:*".to_owned()));
    world.restore(RestoreTarget::Before(search), &options).await.unwrap();
    load(&mut target).await;
    let mut restored = connect(&target).await;
    assert_eq!(ask::<u64>(&mut restored, "DBSIZE").await, 21);
    let missing = CommandSearch::new("flushdb").unwrap().key(Some("nothing".to_owned()));
    target.stop().unwrap();
    let error = world.restore(RestoreTarget::Before(missing), &options).await.unwrap_err();
    assert!(error.to_string().contains("was not found"), "{error}");
}
