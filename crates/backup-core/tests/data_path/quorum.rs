use std::sync::Arc;

use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::error::{Classified, describe};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::manifest::{Codec, Manifest};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::layout;
use backstay_backup_core::retry::{Retry, RetryPolicy};
use backstay_backup_core::set_writer::{SetContents, SetReceipt, SetWriter};
use backstay_backup_core::store::SharedStore;
use backstay_backup_core::{Class, Error};
use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::Timestamp;

use crate::support::{
    chunks, content, manifests, memory, read, repositories, small_path, spec, stanza, write_set,
};

/// A store and the faults in front of it.
struct Shaky {
    inner: SharedStore,
    fault: Arc<Fault>,
    store: SharedStore,
}

impl Shaky {
    fn new(retry: bool) -> Self {
        let inner = memory();
        let fault = Arc::new(Fault::new(inner.clone(), 7));
        let store: SharedStore = match retry {
            true => Arc::new(Retry::new(fault.clone(), RetryPolicy::default())),
            false => fault.clone(),
        };
        Self { inner, fault, store }
    }
}

fn objects() -> [Vec<u8>; 3] {
    [content(9_000, 1), content(40, 2), Vec::new()]
}

async fn write(repositories: &Repositories) -> Result<SetReceipt, Error> {
    let objects = objects();
    let named = [("a", &*objects[0]), ("b", &*objects[1]), ("c", &*objects[2])];
    write_set(repositories, Recipients::none(), Codec::Zstd, &named).await
}

/// P1: whatever is visible as a set is whole. Returns how many sets there are.
async fn check_sets(store: &SharedStore, what: &str) -> usize {
    let repositories = repositories(std::slice::from_ref(store), 1).await;
    let found = manifests(store).await;
    for key in &found {
        let set = key.split('/').nth(2).unwrap().parse().unwrap();
        let manifest = repositories.manifest(&stanza(), &set).await.unwrap();
        check_set(&repositories, &manifest, what).await;
    }
    found.len()
}

async fn check_set(repositories: &Repositories, manifest: &Manifest, what: &str) {
    assert_eq!(manifest.objects.len(), 3, "{what}");
    for (entry, plain) in manifest.objects.iter().zip(objects()) {
        let stored = read(repositories, manifest, entry, &Identities::none()).await;
        assert!(stored.unwrap() == plain, "{what}: {}", entry.name);
    }
}

fn mishaps() -> Vec<Mishap> {
    let kinds = [
        ErrorKind::Temporary,
        ErrorKind::Denied,
        ErrorKind::Full,
        ErrorKind::Missing,
        ErrorKind::Checksum,
        ErrorKind::Failed,
    ];
    kinds.into_iter().map(Mishap::Error).chain([Mishap::LostReply]).collect()
}

async fn calls_of_a_write() -> u64 {
    let shaky = Shaky::new(false);
    let repositories = repositories(&[shaky.store], 1).await;
    let before = shaky.fault.calls().len();
    write(&repositories).await.unwrap();
    (shaky.fault.calls().len() - before) as u64
}

#[tokio::test(start_paused = true)]
async fn a_fault_at_any_call_leaves_a_whole_set_or_one_clear_error() {
    let calls = calls_of_a_write().await;
    assert!(calls > 10);
    for retry in [false, true] {
        for mishap in mishaps() {
            for call in 1..=calls {
                let what = format!("call {call}: {mishap:?}, retry: {retry}");
                let shaky = Shaky::new(retry);
                let repositories = repositories(std::slice::from_ref(&shaky.store), 1).await;
                let before = shaky.fault.calls().len() as u64;
                shaky.fault.on_call(before + call, mishap);
                let result = write(&repositories).await;
                shaky.fault.calm();
                let sets = check_sets(&shaky.inner, &what).await;
                match result {
                    Ok(_) => assert_eq!(sets, 1, "{what}"),
                    Err(error) => {
                        assert_eq!(sets, 0, "{what}: {error}");
                        assert!(!matches!(error.class(), Class::Internal), "{what}: {error}");
                        let hopeless = [ErrorKind::Temporary, ErrorKind::Checksum].map(Mishap::Error);
                        assert!(!retry || !hopeless.contains(&mishap), "{what}: not retried: {error}");
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_repository_is_left_out_while_the_quorum_holds() {
    let calls = calls_of_a_write().await;
    for mishap in [Mishap::Error(ErrorKind::Denied), Mishap::Error(ErrorKind::Temporary), Mishap::LostReply] {
        for call in 1..=calls {
            let what = format!("call {call}: {mishap:?}");
            let (good, shaky) = (memory(), Shaky::new(false));
            let repositories = repositories(&[shaky.store.clone(), good.clone()], 1).await;
            let before = shaky.fault.calls().len() as u64;
            shaky.fault.on_call(before + call, mishap);
            let receipt = write(&repositories).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            shaky.fault.calm();
            assert!(receipt.stored_in.contains(&"r1".to_owned()), "{what}: {receipt:?}");
            assert_eq!(check_sets(&good, &what).await, 1, "{what}");
            let in_shaky = check_sets(&shaky.inner, &what).await;
            assert_eq!(in_shaky, receipt.stored_in.len() - 1, "{what}: {receipt:?}");
            assert_eq!(in_shaky + receipt.missing_in.len(), 1, "{what}: {receipt:?}");
            assert!(
                receipt.missing_in.iter().all(|(name, why)| name == "r0" && why.contains(": ")),
                "{what}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_quorum_no_manifest_is_written() {
    for operation in [Operation::StartUpload, Operation::PutPart, Operation::CompleteUpload, Operation::Head]
    {
        let (good, shaky) = (memory(), Shaky::new(false));
        let repositories = repositories(&[shaky.store.clone(), good.clone()], 2).await;
        shaky.fault.always(operation, Mishap::Error(ErrorKind::Full));
        let error = write(&repositories).await.unwrap_err();
        let Error::Quorum { reached: 1, needed: 2, source } = error.failure() else {
            panic!("{operation:?}: {error:?}")
        };
        assert!(source.to_string().contains("r0"), "{source}");
        assert_eq!(error.class(), Class::Temporary);
        assert_eq!(manifests(&good).await.len() + manifests(&shaky.inner).await.len(), 0, "{operation:?}");
        let uploads = good.list_uploads(&layout::stanza(&stanza())).await.unwrap();
        assert!(uploads.is_empty(), "{operation:?}: the healthy repository's upload was aborted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_objects_at_once_each_says_why_the_set_was_given_up() {
    // One repository, two of which one fails, and two that fail one after the other.
    for (quorum, failing) in [(1, 1), (2, 1), (2, 2)] {
        let shaky = [Shaky::new(false), Shaky::new(false)];
        let stores = [shaky[0].store.clone(), shaky[1].store.clone()];
        let repositories = repositories(&stores[..quorum], quorum).await;
        let writer = SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
        assert!(writer.given_up().is_none());
        for shaky in &shaky[..failing] {
            shaky.fault.always(Operation::PutPart, Mishap::Error(ErrorKind::Full));
        }
        let plain = content(100_000, 4);
        let names: Vec<_> = (0..4).map(|n| format!("object-{n}")).collect();
        let writes = names.iter().map(|name| writer.object(name, Codec::None, chunks(&plain, 1000)));
        let told: Vec<_> =
            futures::future::join_all(writes).await.into_iter().map(Result::unwrap_err).collect();
        let why = describe(&writer.given_up().unwrap());
        for error in told {
            assert!(error.is_full() && error.hint().is_some(), "{error:?}");
            assert_eq!(describe(&error), why);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_objects_at_once_all_leave_the_failed_repository() {
    let (good, shaky) = (memory(), Shaky::new(false));
    let repositories = repositories(&[shaky.store.clone(), good.clone()], 1).await;
    let writer = SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
    shaky.fault.on(Operation::PutPart, 3, Mishap::Error(ErrorKind::Full));
    let plain = content(100_000, 4);
    let names: Vec<_> = (0..4).map(|n| format!("object-{n}")).collect();
    let writes = names.iter().map(|name| writer.object(name, Codec::None, chunks(&plain, 1000)));
    let entries = futures::future::try_join_all(writes).await.unwrap();
    let receipt = writer.commit(SetContents::new(Timestamp::UNIX_EPOCH, entries)).await.unwrap();
    assert_eq!(receipt.stored_in, ["r1"]);
    assert_eq!(receipt.missing_in[0].0, "r0");
    for entry in &receipt.manifest.objects {
        assert!(read(&repositories, &receipt.manifest, entry, &Identities::none()).await.unwrap() == plain);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_vanished_or_changed_its_size_stops_the_commit() {
    let store = memory();
    let repositories = repositories(std::slice::from_ref(&store), 1).await;
    let writer = SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
    let entry = writer.object("x", Codec::None, chunks(b"abc", 3)).await.unwrap();
    let key = layout::object(&stanza(), writer.id(), "x").unwrap();
    store.delete(&key).await.unwrap();
    let error = writer.commit(SetContents::new(Timestamp::UNIX_EPOCH, vec![entry])).await.unwrap_err();
    assert!(matches!(error.failure(), Error::Damaged { object, .. } if object == "x"), "{error}");
    assert!(manifests(&store).await.is_empty());
}

#[tokio::test]
async fn a_failing_source_is_named_and_nothing_of_it_stays() {
    for good_chunks in [0, 1, 10] {
        let store = memory();
        let repositories = repositories(std::slice::from_ref(&store), 1).await;
        let writer = SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
        let broken = stream::iter([Err(std::io::Error::other("the dump died"))]);
        let good = stream::iter((0..good_chunks).map(|n| Ok(Bytes::from(content(1700, n)))));
        let error = writer.object("x", Codec::Zstd, good.chain(broken)).await.unwrap_err();
        let Error::Source { object, source } = error else { panic!("{error}") };
        assert_eq!((&*object, &*source.to_string()), ("x", "the dump died"));
        let below = layout::stanza(&stanza());
        assert!(store.list_uploads(&below).await.unwrap().is_empty());
        assert!(store.list(&below).next().await.is_none());
    }
}
