//! Attempts, deadlines and lost replies.

use std::error::Error as _;
use std::time::Duration;

use backstay_backup_core::fault::{ErrorKind, Mishap, Operation};
use backstay_backup_core::retry::RetryPolicy;
use backstay_backup_core::store::{Attributes, Multipart as _, ObjectStore as _, PartNumber, StoreError};
use bytes::Bytes;
use tokio::time::Instant;

use super::{create, key, keys, read, replace, stack};

const TEMPORARY: Mishap = Mishap::Error(ErrorKind::Temporary);

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_the_error_says_how_many_there_were() {
    let (_, fault, retry) = stack(RetryPolicy::default());
    fault.always(Operation::Head, TEMPORARY);
    let error = retry.head(&key("x")).await.unwrap_err();
    assert_eq!(fault.count(Operation::Head), 8);
    assert!(error.is_temporary());
    let why = error.source().unwrap();
    assert!(why.to_string().starts_with("gave up after 8 attempts in "), "{why}");
    assert_eq!(why.source().unwrap().to_string(), "injected");
}

#[tokio::test(start_paused = true)]
async fn the_total_time_is_bounded_however_many_attempts_are_left() {
    let total = Duration::from_secs(10);
    let policy = RetryPolicy::default().attempts(10_000).total(total).cap(Duration::from_secs(1));
    let (_, fault, retry) = stack(policy);
    fault.always(Operation::Head, TEMPORARY);
    let begin = Instant::now();
    assert!(retry.head(&key("x")).await.unwrap_err().is_temporary());
    assert!((Duration::from_secs(8)..=total).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert!(fault.count(Operation::Head) > 8);
}

#[tokio::test(start_paused = true)]
async fn delays_grow_with_jitter_and_depend_on_the_seed_alone() {
    let mut times = Vec::new();
    for _ in 0..2 {
        let (_, fault, retry) = stack(RetryPolicy::default());
        fault.always(Operation::Head, TEMPORARY);
        let begin = Instant::now();
        retry.head(&key("x")).await.unwrap_err();
        times.push(begin.elapsed());
    }
    assert_eq!(times[0], times[1]);
    // 0.2 + 0.4 + … + 12.8 s without jitter, at least half of it with.
    assert!((12.7..25.4).contains(&times[0].as_secs_f64()), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn the_store_is_given_the_time_it_asks_for() {
    let (_, fault, retry) = stack(RetryPolicy::default());
    fault.on(Operation::Head, 1, Mishap::Error(ErrorKind::Throttled(Duration::from_secs(45))));
    let begin = Instant::now();
    assert!(retry.head(&key("x")).await.unwrap_err().is_absent());
    assert!(begin.elapsed() >= Duration::from_secs(45));
}

#[tokio::test(start_paused = true)]
async fn asking_for_more_time_than_there_is_ends_at_once() {
    let (_, fault, retry) = stack(RetryPolicy::default());
    fault.on(Operation::Head, 1, Mishap::Error(ErrorKind::Throttled(Duration::from_secs(600))));
    let begin = Instant::now();
    assert!(retry.head(&key("x")).await.unwrap_err().is_temporary());
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_sat_out() {
    let (_, fault, retry) = stack(RetryPolicy::default());
    fault.storm(Duration::from_secs(6));
    create(&retry, "x", b"1").await.unwrap();
    assert_eq!(read(&retry, "x").await.unwrap(), b"1");
}

#[tokio::test(start_paused = true)]
async fn lasting_errors_are_not_repeated() {
    for kind in ErrorKind::ALL {
        let (_, fault, retry) = stack(RetryPolicy::default());
        fault.always(Operation::Delete, Mishap::Error(kind));
        let error = retry.delete(&key("x")).await.unwrap_err();
        let attempts = if error.is_temporary() { 8 } else { 1 };
        assert_eq!(fault.count(Operation::Delete), attempts, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_create_is_a_success() {
    let (memory, fault, retry) = stack(RetryPolicy::default());
    fault.on(Operation::Put, 1, Mishap::LostReply);
    let meta = create(&retry, "x", b"mine").await.unwrap();
    assert_eq!(meta, memory.head(&key("x")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_object_is_never_taken_for_a_lost_reply() {
    for other in [b"thei".as_slice(), b"longer than mine", b""] {
        let (memory, fault, retry) = stack(RetryPolicy::default());
        create(&*memory, "x", other).await.unwrap();
        fault.on(Operation::Put, 1, TEMPORARY);
        let error = create(&retry, "x", b"mine").await.unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
        assert_eq!(read(&*memory, "x").await.unwrap(), other);
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_earlier_failure_a_refusal_is_not_looked_into() {
    let (memory, fault, retry) = stack(RetryPolicy::default());
    create(&*memory, "x", b"same").await.unwrap();
    let error = create(&retry, "x", b"same").await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
    assert_eq!(fault.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_may_not_read_gets_the_refusal() {
    let (_, fault, retry) = stack(RetryPolicy::default());
    fault.on(Operation::Put, 1, Mishap::LostReply);
    fault.always(Operation::Get, Mishap::Error(ErrorKind::Denied));
    let error = create(&retry, "x", b"mine").await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_replacement_is_a_success_and_a_lost_race_is_not() {
    let (memory, fault, retry) = stack(RetryPolicy::default());
    let first = create(&*memory, "lease", b"1").await.unwrap().etag.unwrap();
    fault.on(Operation::Put, 1, Mishap::LostReply);
    let second = replace(&retry, "lease", b"2", &first).await.unwrap();
    assert_eq!(second, memory.head(&key("lease")).await.unwrap());
    replace(&*memory, "lease", b"3", &second.etag.clone().unwrap()).await.unwrap();
    fault.on(Operation::Put, 3, TEMPORARY);
    let error = replace(&retry, "lease", b"4", &second.etag.unwrap()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
    assert_eq!(read(&*memory, "lease").await.unwrap(), b"3");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_completion_is_a_success_if_the_size_is_right() {
    for other in [None, Some("elsewhere")] {
        let (memory, fault, retry) = stack(RetryPolicy::default());
        let name = key("x");
        let upload = retry.start_upload(&name, &Attributes::default()).await.unwrap();
        let part = PartNumber { number: 1, offset: 0 };
        let tag = retry.put_part(&name, &upload, part, Bytes::from_static(b"mine")).await.unwrap();
        match other {
            None => fault.on(Operation::CompleteUpload, 1, Mishap::LostReply),
            Some(text) => {
                create(&*memory, "x", text.as_bytes()).await.unwrap();
                fault.on(Operation::CompleteUpload, 1, TEMPORARY);
            }
        }
        match (retry.complete_upload(&name, &upload, &[tag]).await, other) {
            (Ok(meta), None) => assert_eq!(meta, memory.head(&name).await.unwrap()),
            (Err(StoreError::AlreadyExists { .. }), Some(_)) => {}
            (outcome, _) => panic!("{outcome:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_listing_goes_on_without_gaps_or_repetitions() {
    let (memory, fault, retry) = stack(RetryPolicy::default().attempts(2));
    for number in 0..20 {
        create(&*memory, &format!("k/{number:02}"), b"").await.unwrap();
    }
    let expected = keys(&*memory).await.unwrap();
    for attempt in 1..=9 {
        fault.on(Operation::List, attempt, Mishap::Cut { after: 2, loud: true });
    }
    // Each listing goes on behind the last one: nine times two, and the rest.
    assert_eq!(keys(&retry).await.unwrap(), expected);
    assert_eq!(fault.count(Operation::List), 10);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_stays_broken_ends_in_one_error() {
    let (memory, fault, retry) = stack(RetryPolicy::default());
    for name in ["a", "b", "c"] {
        create(&*memory, name, b"").await.unwrap();
    }
    fault.always(Operation::List, Mishap::Cut { after: 2, loud: true });
    assert!(keys(&retry).await.unwrap_err().is_temporary());
    // The second listing still brings something new; eight in a row that do not are the end.
    assert_eq!(fault.count(Operation::List), 9);
}
