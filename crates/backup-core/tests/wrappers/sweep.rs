//! Every kind of fault at every call of a scenario that uses the whole store.

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::fault::{ErrorKind, Mishap};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::retry::RetryPolicy;
use backstay_backup_core::store::{Attributes, Multipart as _, ObjectStore, SharedStore, StoreError};
use backstay_backup_core::upload::{UploadOptions, Uploader};
use bytes::Bytes;

use super::{create, key, keys, read, read_range, replace, stack};

const BIG: usize = 55;

/// Writes, replaces, reads, lists and deletes; everything it learned on the way.
async fn scenario(store: SharedStore) -> Result<Vec<String>, StoreError> {
    let mut seen = Vec::new();
    let lease = create(&*store, "lease", b"1").await?.etag.expect("memory stores have tags");
    let options = UploadOptions::default().part_size(10).parts_in_flight(1);
    let mut upload = Uploader::new(Arc::clone(&store), key("set/big"), Attributes::default(), options);
    upload.write(Bytes::from(big())).await?;
    seen.push(upload.finish().await?.size.to_string());
    replace(&*store, "lease", b"2", &lease).await?;
    create(&*store, "set/manifest", b"{}").await?;
    seen.extend(keys(&*store).await?);
    seen.push(format!("{:?}", read(&*store, "set/big").await?));
    seen.push(format!("{:?}", read_range(&*store, "set/big", Some(20..31)).await?));
    seen.push(store.head(&key("set/manifest")).await?.size.to_string());
    seen.push(store.list_uploads(&Prefix::parse("set").expect("a folder")).await?.len().to_string());
    store.delete(&key("lease")).await?;
    seen.extend(keys(&*store).await?);
    Ok(seen)
}

fn big() -> Vec<u8> {
    (0..BIG as u8).collect()
}

/// What must hold after any failure: objects are whole, whoever failed.
async fn check_whole(store: &dyn ObjectStore, when: &str) {
    for name in keys(store).await.unwrap() {
        let content = read(store, &name).await.unwrap();
        let right = match name.as_str() {
            "set/big" => content == big(),
            "set/manifest" => content == b"{}",
            "lease" => content == b"1" || content == b"2",
            _ => false,
        };
        assert!(right, "{when}: {name} is {content:?}");
    }
}

async fn undisturbed() -> (Vec<String>, u64) {
    let (_, fault, retry) = stack(RetryPolicy::default());
    let seen = scenario(Arc::new(retry)).await.unwrap();
    (seen, fault.calls().len() as u64)
}

#[tokio::test(start_paused = true)]
async fn any_passing_fault_at_any_call_changes_nothing() {
    let (expected, calls) = undisturbed().await;
    assert!(calls > 15, "{calls}");
    let mishaps = [
        Mishap::Error(ErrorKind::Temporary),
        Mishap::Error(ErrorKind::Throttled(Duration::from_secs(3))),
        Mishap::Error(ErrorKind::Checksum),
        Mishap::LostReply,
        Mishap::Slow(Duration::from_secs(30)),
        Mishap::Cut { after: 0, loud: true },
        Mishap::Cut { after: 1, loud: true },
    ];
    for mishap in mishaps {
        for number in 1..=calls {
            let (memory, fault, retry) = stack(RetryPolicy::default());
            fault.on_call(number, mishap);
            let when = format!("{mishap:?} at call {number}");
            let mut seen =
                scenario(Arc::new(retry)).await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
            // A lost reply to the begin of an upload leaves one that nobody knows.
            let litter = memory.list_uploads(&Prefix::root()).await.unwrap().len();
            assert!(litter == 0 || (litter == 1 && mishap == Mishap::LostReply), "{when}");
            let pending = seen.iter().position(|seen| seen == "1" || seen == "0").unwrap();
            seen[pending] = "0".to_owned();
            assert_eq!(seen, expected, "{when}");
            check_whole(&*memory, &when).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_lasting_fault_at_any_call_is_one_error_and_nothing_half_done() {
    let (expected, calls) = undisturbed().await;
    for kind in ErrorKind::ALL {
        for number in 1..=calls {
            let (memory, fault, retry) = stack(RetryPolicy::default().attempts(1));
            fault.on_call(number, Mishap::Error(kind));
            let when = format!("{kind:?} at call {number}");
            match scenario(Arc::new(retry)).await {
                Ok(seen) => assert_eq!(seen, expected, "{when}"),
                Err(error) => {
                    let told = kind.error("", "").to_string();
                    let same = std::mem::discriminant(&error) == std::mem::discriminant(&kind.error("", "x"));
                    assert!(same, "{when}: {error:?} instead of {told}");
                }
            }
            check_whole(&*memory, &when).await;
            let litter = memory.list_uploads(&Prefix::root()).await.unwrap();
            assert!(litter.is_empty(), "{when}: a failed upload aborts itself");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_faults_at_any_two_calls_change_nothing() {
    let (expected, calls) = undisturbed().await;
    for first in 1..=calls {
        for second in first + 1..=calls + 1 {
            let (memory, fault, retry) = stack(RetryPolicy::default());
            fault.on_call(first, Mishap::LostReply);
            fault.on_call(second, Mishap::Error(ErrorKind::Temporary));
            let mut seen = scenario(Arc::new(retry)).await.unwrap();
            let pending = seen.iter().position(|seen| seen == "1" || seen == "0").unwrap();
            seen[pending] = "0".to_owned();
            assert_eq!(seen, expected, "{first}, {second}");
            check_whole(&*memory, &format!("{first}, {second}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chaos_with_enough_patience_changes_nothing() {
    for seed in 0..50 {
        let (memory, _, _) = stack(RetryPolicy::default());
        let fault = Arc::new(backstay_backup_core::fault::Fault::new(memory.clone(), seed));
        let loud = Mishap::Cut { after: 1, loud: true };
        fault.chaos(0.3, vec![Mishap::Error(ErrorKind::Temporary), Mishap::LostReply, loud]);
        let policy = RetryPolicy::default().attempts(40).total(Duration::from_secs(3600));
        let retry = backstay_backup_core::retry::Retry::with_seed(fault, policy, seed);
        scenario(Arc::new(retry)).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        check_whole(&*memory, &format!("seed {seed}")).await;
    }
}
