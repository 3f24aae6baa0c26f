//! Concurrency and byte rate.

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::fault::{Fault, Mishap, Operation};
use backstay_backup_core::limit::{Limit, LimitHandle, Limits};
use backstay_backup_core::store::{Attributes, Multipart as _, ObjectStore as _, PartNumber};
use futures::TryStreamExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{SEED, create, key, keys, memory, read};

const SECOND: Duration = Duration::from_secs(1);

/// A store whose every `head` takes a second, and the handle of its limits.
fn slow(limits: Limits) -> (Arc<Limit>, LimitHandle) {
    let fault = Fault::new(memory(), SEED);
    fault.always(Operation::Head, Mishap::Slow(SECOND));
    let limit = Limit::new(Arc::new(fault), limits);
    let handle = limit.handle();
    (Arc::new(limit), handle)
}

fn heads(limit: &Arc<Limit>, number: usize) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..number {
        let limit = Arc::clone(limit);
        tasks.spawn(async move {
            limit.head(&key("x")).await.unwrap_err();
        });
    }
    tasks
}

fn about(time: Duration, seconds: f64) -> bool {
    (time.as_secs_f64() - seconds).abs() < 0.15 * seconds + 0.05
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_than_allowed_run_at_the_same_time() {
    let (limit, _) = slow(Limits::default().concurrency(3));
    let begin = Instant::now();
    heads(&limit, 9).join_all().await;
    assert_eq!(begin.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn raising_and_lowering_take_effect_while_calls_wait() {
    let (limit, handle) = slow(Limits::default().concurrency(1));
    let begin = Instant::now();
    let waiting = heads(&limit, 9);
    sleep(SECOND + SECOND / 2).await;
    // One call is done and one under way; seven more at the same time.
    handle.set_concurrency(8);
    waiting.join_all().await;
    assert_eq!(begin.elapsed(), 2 * SECOND + SECOND / 2);

    let begin = Instant::now();
    let waiting = heads(&limit, 10);
    sleep(SECOND / 2).await;
    // Eight are under way and are let finish; the other two go one by one.
    handle.set_concurrency(1);
    waiting.join_all().await;
    assert_eq!(begin.elapsed(), 3 * SECOND);

    handle.set_concurrency(0);
    assert_eq!(handle.limits().concurrency, 1);
    let begin = Instant::now();
    let waiting = heads(&limit, 4);
    sleep(SECOND / 2).await;
    handle.set_concurrency(3);
    handle.set_concurrency(2);
    waiting.join_all().await;
    assert_eq!(begin.elapsed(), 2 * SECOND + SECOND / 2);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_gives_its_place_back() {
    let (limit, handle) = slow(Limits::default().concurrency(2));
    for _ in 0..10 {
        let dropped = timeout(SECOND / 2, heads(&limit, 4).join_all()).await;
        assert!(dropped.is_err());
        handle.set_concurrency(1);
        handle.set_concurrency(2);
    }
    // Tasks of a dropped set end at their next moment.
    sleep(SECOND).await;
    let begin = Instant::now();
    heads(&limit, 4).join_all().await;
    assert_eq!(begin.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_at_the_rate_in_both_directions() {
    let limits = Limits::default().bytes_per_second(Some(1000));
    let limit = Limit::new(memory(), limits);
    let begin = Instant::now();
    create(&limit, "a", &[0; 5000]).await.unwrap();
    assert!(about(begin.elapsed(), 5.0), "{:?}", begin.elapsed());
    read(&limit, "a").await.unwrap();
    assert!(about(begin.elapsed(), 10.0), "{:?}", begin.elapsed());
    let upload = limit.start_upload(&key("b"), &Attributes::default()).await.unwrap();
    let part = PartNumber { number: 1, offset: 0 };
    limit.put_part(&key("b"), &upload, part, vec![0; 2000].into()).await.unwrap();
    assert!(about(begin.elapsed(), 12.0), "{:?}", begin.elapsed());
    keys(&limit).await.unwrap();
    assert!(about(begin.elapsed(), 12.0), "facts cost nothing");
}

#[tokio::test(start_paused = true)]
async fn several_together_share_the_rate() {
    let limits = Limits::default().bytes_per_second(Some(10_000));
    let limit = Arc::new(Limit::new(memory(), limits));
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..10 {
        let limit = Arc::clone(&limit);
        tasks.spawn(async move {
            create(&*limit, &format!("k{number}"), &[0; 5000]).await.unwrap();
            Instant::now()
        });
    }
    let ends = tasks.join_all().await;
    assert!(about(begin.elapsed(), 5.0), "{:?}", begin.elapsed());
    // Slices are paid in turn, so nobody is served much earlier than the others.
    let first = ends.into_iter().min().unwrap() - begin;
    assert!(first > 3 * SECOND, "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn a_small_call_is_not_stuck_behind_a_large_body() {
    let limits = Limits::default().concurrency(1).bytes_per_second(Some(1000));
    let limit = Arc::new(Limit::new(memory(), limits));
    let large = {
        let limit = Arc::clone(&limit);
        tokio::spawn(async move { create(&*limit, "large", &[0; 60_000]).await.map(drop) })
    };
    sleep(SECOND).await;
    let begin = Instant::now();
    create(&*limit, "lease", &[0; 50]).await.unwrap();
    assert!(begin.elapsed() < SECOND / 2, "{:?}", begin.elapsed());
    assert!(!large.is_finished());
    large.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_rate_changes_for_those_already_waiting() {
    let limits = Limits::default().bytes_per_second(Some(10));
    let limit = Arc::new(Limit::new(memory(), limits));
    let handle = limit.handle();
    let begin = Instant::now();
    let waiting = {
        let limit = Arc::clone(&limit);
        tokio::spawn(async move { create(&*limit, "a", &[0; 100_000]).await.map(drop) })
    };
    sleep(5 * SECOND).await;
    handle.set_bytes_per_second(Some(20_000));
    sleep(SECOND).await;
    handle.set_bytes_per_second(Some(1));
    sleep(10 * SECOND).await;
    assert!(!waiting.is_finished());
    handle.set_bytes_per_second(None);
    waiting.await.unwrap().unwrap();
    assert_eq!(begin.elapsed(), 16 * SECOND);
    assert_eq!(handle.limits().bytes_per_second, None);
}

#[tokio::test(start_paused = true)]
async fn copying_within_one_store_needs_no_second_place() {
    let limit = Limit::new(memory(), Limits::default().concurrency(1));
    create(&limit, "a", &vec![1; 3 << 20]).await.unwrap();
    let copy = async {
        let mut body = limit.get(&key("a"), None).await.unwrap().body;
        let mut number = 0;
        while let Some(chunk) = body.try_next().await.unwrap() {
            create(&limit, &format!("b/{number}"), &chunk).await.unwrap();
            number += 1;
        }
        let mut listing = limit.list(&backstay_backup_core::key::Prefix::root());
        while let Some(meta) = listing.try_next().await.unwrap() {
            limit.head(&meta.key).await.unwrap();
        }
        number
    };
    assert_eq!(timeout(SECOND, copy).await.unwrap(), 3);
}
