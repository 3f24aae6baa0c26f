//! Bodies that break.

use std::time::Duration;

use backstay_backup_core::fault::{ErrorKind, Mishap, Operation};
use backstay_backup_core::retry::RetryPolicy;
use backstay_backup_core::store::{ObjectStore as _, StoreError};
use futures::TryStreamExt as _;
use proptest::prelude::{ProptestConfig, prop, proptest};

use super::{create, key, read, read_range, replace, stack};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_a_range_read_is_that_slice(
        len in 0_u64..300,
        range in prop::option::of((0_u64..400, 0_u64..400)),
        breaks in prop::collection::vec((0_u64..60, prop::bool::ANY), 0..6),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (memory, fault, retry) = stack(RetryPolicy::default());
            let content: Vec<u8> = (0..len).map(|at| at as u8).collect();
            create(&*memory, "x", &content).await.unwrap();
            for (number, (after, loud)) in (1..).zip(breaks) {
                fault.on(Operation::Get, number, Mishap::Cut { after, loud });
            }
            let range = range.map(|(from, to)| from.min(to)..from.max(to));
            let all = range.clone().unwrap_or(0..len);
            let slice = &content[all.start.min(len) as usize..all.end.min(len) as usize];
            assert_eq!(read_range(&retry, "x", range).await.unwrap(), slice);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn progress_begins_the_attempts_anew() {
    let (memory, fault, retry) = stack(RetryPolicy::default().attempts(2));
    let content = [7; 100];
    create(&*memory, "x", &content).await.unwrap();
    for number in 1..=40 {
        fault.on(Operation::Get, number, Mishap::Cut { after: 2, loud: number % 2 == 0 });
    }
    assert_eq!(read(&retry, "x").await.unwrap(), content);
    assert_eq!(fault.count(Operation::Get), 41);
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_does_not_use_up_the_deadline() {
    let (memory, fault, retry) = stack(RetryPolicy::default());
    create(&*memory, "x", b"0123456789").await.unwrap();
    fault.on(Operation::Get, 1, Mishap::Cut { after: 3, loud: true });
    let mut body = retry.get(&key("x"), None).await.unwrap().body;
    assert_eq!(body.try_next().await.unwrap().unwrap(), "012");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(body.try_next().await.unwrap().unwrap(), "3456789");
    assert!(body.try_next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_gets_on_ends_in_one_error() {
    for loud in [true, false] {
        let (memory, fault, retry) = stack(RetryPolicy::default());
        create(&*memory, "x", b"0123456789").await.unwrap();
        fault.always(Operation::Get, Mishap::Cut { after: 0, loud });
        let mut body = retry.get(&key("x"), None).await.unwrap().body;
        assert!(body.try_next().await.unwrap_err().is_temporary());
        assert!(body.try_next().await.unwrap().is_none(), "the stream ends after its error");
        assert_eq!(fault.count(Operation::Get), 8);
    }
}

#[tokio::test(start_paused = true)]
async fn another_version_is_not_spliced_in() {
    for (longer, name) in [(false, "same size"), (true, "other size")] {
        let (memory, fault, retry) = stack(RetryPolicy::default());
        let tag = create(&*memory, "x", b"0123456789").await.unwrap().etag.unwrap();
        fault.on(Operation::Get, 1, Mishap::Cut { after: 3, loud: true });
        let mut body = retry.get(&key("x"), None).await.unwrap().body;
        assert_eq!(body.try_next().await.unwrap().unwrap(), "012");
        let other: &[u8] = if longer { b"abcdefghijklm" } else { b"abcdefghij" };
        replace(&*memory, "x", other, &tag).await.unwrap();
        let error = body.try_next().await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{name}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lasting_errors_of_reopening_are_passed_on() {
    let (memory, fault, retry) = stack(RetryPolicy::default());
    create(&*memory, "x", b"0123456789").await.unwrap();
    fault.on(Operation::Get, 1, Mishap::Cut { after: 3, loud: true });
    fault.on(Operation::Get, 2, Mishap::Error(ErrorKind::Denied));
    let error = read(&retry, "x").await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}
