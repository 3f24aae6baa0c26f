//! The faults themselves: a test tool that does nothing proves nothing.

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::fault::{Call, ErrorKind, Fault, Mishap, Operation, Spot};
use backstay_backup_core::store::{Attributes, Multipart as _, ObjectStore as _, PartNumber, StoreError};
use bytes::Bytes;
use tokio::time::Instant;

use super::{SEED, create, key, keys, memory, read, read_range};

fn faulty() -> Arc<Fault> {
    Arc::new(Fault::new(memory(), SEED))
}

#[tokio::test]
async fn every_kind_of_error_is_the_one_asked_for() {
    for kind in ErrorKind::ALL {
        let fault = faulty();
        fault.on(Operation::Head, 2, Mishap::Error(kind));
        assert!(fault.head(&key("x")).await.unwrap_err().is_absent());
        let error = fault.head(&key("x")).await.unwrap_err();
        let name = format!("{error:?}");
        let wanted = format!("{kind:?}").replace("Throttled", "Temporary");
        assert!(name.starts_with(wanted.split('(').next().unwrap()), "{name} for {kind:?}");
    }
}

#[tokio::test]
async fn calls_are_recorded_in_order() {
    let fault = faulty();
    create(&*fault, "a/x", b"1").await.unwrap();
    read(&*fault, "a/x").await.unwrap();
    keys(&*fault).await.unwrap();
    let call = |operation, what: &str| Call { operation, what: what.to_owned(), mishap: None };
    let expected = [call(Operation::Put, "a/x"), call(Operation::Get, "a/x"), call(Operation::List, "")];
    assert_eq!(fault.calls(), expected);
    assert_eq!(fault.count(Operation::Get), 1);
}

#[tokio::test]
async fn a_spot_is_met_whatever_comes_between() {
    let fault = faulty();
    for name in ["sets/1/data", "sets/1/more/data", "sets/2/data", "sets/3/data"] {
        create(&*fault, name, b"1").await.unwrap();
    }
    let spot = Spot { operation: Operation::Get, like: "sets/*/data".to_owned(), number: 2 };
    fault.at(spot, 2, Mishap::Error(ErrorKind::Temporary));
    assert!(read(&*fault, "sets/1/data").await.is_ok(), "the first");
    assert!(read(&*fault, "sets/1/more/data").await.is_ok(), "two segments are not one");
    assert!(fault.head(&key("sets/2/data")).await.is_ok(), "another operation");
    assert!(read(&*fault, "sets/2/data").await.is_err(), "the second");
    assert!(fault.head(&key("sets/3/data")).await.is_err(), "whatever comes next");
    assert!(read(&*fault, "sets/3/data").await.is_ok(), "two calls and no more");
    assert_eq!(fault.injected(), 2);
    let met: Vec<_> = fault.calls().into_iter().filter(|call| call.mishap.is_some()).collect();
    assert_eq!((met[0].what.as_str(), met[1].operation), ("sets/2/data", Operation::Head));
}

#[tokio::test]
async fn a_lost_reply_has_done_its_work() {
    let fault = faulty();
    fault.on(Operation::Put, 1, Mishap::LostReply);
    fault.on(Operation::Delete, 1, Mishap::LostReply);
    assert!(create(&*fault, "x", b"1").await.unwrap_err().is_temporary());
    assert_eq!(read(&*fault, "x").await.unwrap(), b"1");
    assert!(fault.delete(&key("x")).await.unwrap_err().is_temporary());
    assert!(fault.head(&key("x")).await.unwrap_err().is_absent());
}

#[tokio::test]
async fn a_flipped_bit_is_exactly_one_bit() {
    let content = vec![0_u8; 3 << 20];
    let bits = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let fault = faulty();
    create(&*fault, "x", &content).await.unwrap();
    fault.always(Operation::Get, Mishap::Flip);
    for _ in 0..20 {
        let spoiled = read(&*fault, "x").await.unwrap();
        assert_eq!((spoiled.len(), bits(&spoiled)), (content.len(), 1));
        assert_eq!(bits(&read_range(&*fault, "x", Some(7..9)).await.unwrap()), 1);
    }
    fault.calm();
    fault.on(Operation::Put, 2, Mishap::Flip);
    create(&*fault, "y", &content).await.unwrap();
    assert_eq!(bits(&read(&*fault, "y").await.unwrap()), 1, "what is stored is spoiled for good");
}

#[tokio::test]
async fn bodies_and_listings_are_cut_where_asked() {
    let fault = faulty();
    for name in ["a", "b", "c"] {
        create(&*fault, name, b"0123456789").await.unwrap();
    }
    fault.on(Operation::Get, 1, Mishap::Cut { after: 4, loud: false });
    assert_eq!(read(&*fault, "a").await.unwrap(), b"0123");
    fault.on(Operation::Get, 2, Mishap::Cut { after: 4, loud: true });
    assert!(read(&*fault, "a").await.unwrap_err().is_temporary());
    fault.on(Operation::List, 1, Mishap::Cut { after: 2, loud: false });
    assert_eq!(keys(&*fault).await.unwrap(), ["a", "b"]);
    fault.on(Operation::List, 2, Mishap::Cut { after: 2, loud: true });
    assert!(keys(&*fault).await.unwrap_err().is_temporary());
}

#[tokio::test]
async fn a_full_store_takes_what_fits_and_no_more() {
    let fault = faulty();
    fault.full_after(10);
    create(&*fault, "a", b"12345678").await.unwrap();
    for name in ["b", "c"] {
        let error = create(&*fault, name, b"123").await.unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    }
    let upload = fault.start_upload(&key("d"), &Attributes::default()).await.unwrap();
    let part = PartNumber { number: 1, offset: 0 };
    let error = fault.put_part(&key("d"), &upload, part, Bytes::from_static(b"1")).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(keys(&*fault).await.unwrap(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn slowness_and_storms_take_their_time() {
    let fault = faulty();
    fault.on(Operation::Head, 1, Mishap::Slow(Duration::from_secs(7)));
    let begin = Instant::now();
    assert!(fault.head(&key("x")).await.unwrap_err().is_absent());
    assert_eq!(begin.elapsed(), Duration::from_secs(7));
    fault.storm(Duration::from_secs(5));
    for _ in 0..5 {
        assert!(fault.head(&key("x")).await.unwrap_err().is_temporary());
        assert!(create(&*fault, "y", b"").await.unwrap_err().is_temporary());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(fault.head(&key("x")).await.unwrap_err().is_absent());
}

#[tokio::test]
async fn chaos_follows_its_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let fault = faulty();
        fault.chaos(0.5, vec![Mishap::Error(ErrorKind::Temporary)]);
        let mut failed = Vec::new();
        for _ in 0..64 {
            failed.push(fault.head(&key("x")).await.unwrap_err().is_temporary());
        }
        assert!(failed.contains(&true) && failed.contains(&false));
        runs.push(failed);
    }
    assert_eq!(runs[0], runs[1]);
}
