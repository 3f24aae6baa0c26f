use std::io::Read;
use std::sync::Arc;

use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::manifest::{Codec, Manifest, ObjectEntry};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::layout;
use backstay_backup_core::store::{Attributes, PutMode, SharedStore};
use backstay_backup_core::{Class, Error};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::support::{content, identity, memory, read, repositories, stanza, write_set};

/// More than is verified before anything is delivered.
const LARGE: usize = 5 << 20;

struct Subject {
    repositories: Repositories,
    manifest: Manifest,
    entry: ObjectEntry,
    identities: Identities,
    plain: Vec<u8>,
}

impl Subject {
    async fn new(stores: &[SharedStore], codec: Codec, identities: Identities, len: usize) -> Self {
        let repositories = repositories(stores, stores.len()).await;
        let plain = content(len, 5);
        let receipt =
            write_set(&repositories, identities.recipients(), codec, &[("x", &plain)]).await.unwrap();
        let entry = receipt.manifest.objects[0].clone();
        Self { repositories, manifest: receipt.manifest, entry, identities, plain }
    }

    async fn read(&self) -> Result<Vec<u8>, Error> {
        read(&self.repositories, &self.manifest, &self.entry, &self.identities).await
    }

    async fn stored(&self, store: &SharedStore) -> Vec<u8> {
        let key = layout::object(&stanza(), &self.manifest.set, "x").unwrap();
        let chunks: Vec<_> = store.get(&key, None).await.unwrap().body.try_collect().await.unwrap();
        chunks.concat()
    }

    async fn replace(&self, store: &SharedStore, bytes: &[u8]) {
        let key = layout::object(&stanza(), &self.manifest.set, "x").unwrap();
        store.delete(&key).await.unwrap();
        let body = Bytes::copy_from_slice(bytes);
        store.put(&key, body, PutMode::Create, &Attributes::default()).await.unwrap();
    }
}

fn assert_damaged(result: Result<Vec<u8>, Error>, what: &str) {
    match result {
        Err(error @ Error::Damaged { .. }) => assert_eq!(error.class(), Class::Data),
        Err(other) => panic!("{what}: {other:?}"),
        Ok(_) => panic!("{what}: not noticed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_of_a_small_object_is_noticed() {
    for codec in [Codec::None, Codec::Zstd, Codec::Gzip] {
        for identities in [Identities::none(), identity().1] {
            let store = memory();
            let subject = Subject::new(std::slice::from_ref(&store), codec, identities, 900).await;
            let good = subject.stored(&store).await;
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                subject.replace(&store, &bad).await;
                assert_damaged(subject.read().await, &format!("{codec:?}, byte {at}"));
            }
            subject.replace(&store, &good).await;
            assert!(subject.read().await.unwrap() == subject.plain);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_of_a_large_object_are_noticed_before_its_end() {
    for codec in [Codec::None, Codec::Zstd, Codec::Gzip] {
        for identities in [Identities::none(), identity().1] {
            let store = memory();
            let subject = Subject::new(std::slice::from_ref(&store), codec, identities, 2 * LARGE).await;
            let good = subject.stored(&store).await;
            assert!(good.len() > 4 << 20, "large enough to be delivered while it is checked");
            for step in 0..5 {
                let at = (good.len() - 1) * step / 4;
                let mut bad = good.clone();
                bad[at] ^= 1 << step;
                subject.replace(&store, &bad).await;
                assert_damaged(subject.read().await, &format!("{codec:?}, byte {at}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_lengths_are_noticed() {
    for len in [900, 2 * LARGE] {
        let store = memory();
        let subject = Subject::new(std::slice::from_ref(&store), Codec::Zstd, Identities::none(), len).await;
        let good = subject.stored(&store).await;
        for bad in [&good[..0], &good[..good.len() - 1], &[&*good, &[0]].concat(), &[&*good, &*good].concat()]
        {
            subject.replace(&store, bad).await;
            assert_damaged(subject.read().await, &format!("{} of {} bytes", bad.len(), good.len()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_promised_plain_bytes_are_delivered() {
    for (codec, identities) in [(Codec::None, Identities::none()), (Codec::Zstd, identity().1)] {
        let mut subject = Subject::new(&[memory()], codec, identities, 50_000).await;
        for promised in [0, 1, 49_999, 50_001] {
            subject.entry.plain = promised;
            let mut reader = subject
                .repositories
                .open_object(&subject.manifest, &subject.entry, &subject.identities)
                .unwrap();
            let (delivered, outcome) = tokio::task::spawn_blocking(move || {
                let mut plain = Vec::new();
                let outcome = reader.read_to_end(&mut plain);
                assert!(reader.read(&mut [0]).is_err(), "a failed reader does not end");
                (plain.len() as u64, outcome)
            })
            .await
            .unwrap();
            assert!(outcome.is_err(), "{promised}");
            assert!(delivered <= promised, "{delivered} of {promised}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_reads_just_the_known_length_sees_the_damage() {
    let store = memory();
    let subject = Subject::new(std::slice::from_ref(&store), Codec::None, Identities::none(), LARGE).await;
    let mut bad = subject.stored(&store).await;
    bad[LARGE - 1] ^= 1;
    subject.replace(&store, &bad).await;
    let mut reader =
        subject.repositories.open_object(&subject.manifest, &subject.entry, &subject.identities).unwrap();
    let exact = move || reader.read_exact(&mut vec![0; LARGE]);
    tokio::task::spawn_blocking(exact).await.unwrap().unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_damaged_copy_is_replaced_by_another() {
    let stores = [memory(), memory()];
    let subject = Subject::new(&stores, Codec::Zstd, Identities::none(), 10_000).await;
    let mut bad = subject.stored(&stores[0]).await;
    bad[100] ^= 4;
    subject.replace(&stores[0], &bad).await;
    assert!(subject.read().await.unwrap() == subject.plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_damaged_copy_is_an_error_once_and_then_avoided() {
    let stores = [memory(), memory()];
    let subject = Subject::new(&stores, Codec::None, Identities::none(), LARGE).await;
    let mut bad = subject.stored(&stores[0]).await;
    bad[100] ^= 4;
    subject.replace(&stores[0], &bad).await;
    let error = subject.read().await.unwrap_err();
    assert!(error.to_string().contains("repository r0"), "{error}");
    assert!(subject.read().await.unwrap() == subject.plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_breaks_off_is_continued_from_another() {
    for loud in [true, false] {
        for after in [0, 1, 1 << 20, (LARGE - 1) as u64] {
            let inner = memory();
            let fault = Arc::new(Fault::new(inner, 1));
            let stores: [SharedStore; 2] = [fault.clone(), memory()];
            for len in [3_000, LARGE] {
                let subject = Subject::new(&stores, Codec::None, Identities::none(), len).await;
                fault.always(Operation::Get, Mishap::Cut { after, loud });
                assert!(subject.read().await.unwrap() == subject.plain, "{len} bytes, cut after {after}");
                fault.calm();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_everywhere_is_damage_and_unreachable_is_temporary() {
    let faults = [Arc::new(Fault::new(memory(), 1)), Arc::new(Fault::new(memory(), 2))];
    let stores: [SharedStore; 2] = [faults[0].clone(), faults[1].clone()];
    let subject = Subject::new(&stores, Codec::Zstd, Identities::none(), 1000).await;
    faults[0].always(Operation::Get, Mishap::Error(ErrorKind::Absent));
    assert!(subject.read().await.unwrap() == subject.plain);
    faults[1].always(Operation::Get, Mishap::Error(ErrorKind::Temporary));
    let error = subject.read().await.unwrap_err();
    assert_eq!(error.class(), Class::Temporary, "{error}");
    faults[1].calm();
    faults[1].always(Operation::Get, Mishap::Error(ErrorKind::Absent));
    let error = subject.read().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Damaged { .. }), "{text}");
    assert!(text.contains("missing in repository r0") && text.contains("missing in repository r1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_key_nothing_is_read() {
    let mut subject = Subject::new(&[memory()], Codec::Zstd, identity().1, 1000).await;
    for identities in [Identities::none(), identity().1] {
        subject.identities = identities;
        let error = subject.read().await.unwrap_err();
        assert!(matches!(error, Error::Key { .. }), "{error}");
        assert_eq!(error.class(), Class::Usage);
    }
    // A manifest that lies about the recipients is found out by the file itself.
    let (_, other) = identity();
    subject.entry.recipients = other.recipients().texts();
    subject.identities = other;
    let error = subject.read().await.unwrap_err();
    assert!(matches!(error, Error::Key { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_fall_back_too() {
    let stores = [memory(), memory()];
    let repositories = repositories(&stores, 2).await;
    let receipt = write_set(&repositories, Recipients::none(), Codec::Zstd, &[("x", b"x")]).await.unwrap();
    let key = layout::manifest(&stanza(), &receipt.manifest.set);
    let good = receipt.manifest.encode().unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        stores[0].delete(&key).await.unwrap();
        stores[0].put(&key, bad.into(), PutMode::Create, &Attributes::default()).await.unwrap();
        assert!(repositories.only("r0").unwrap().manifest(&stanza(), &receipt.manifest.set).await.is_err());
        assert_eq!(repositories.manifest(&stanza(), &receipt.manifest.set).await.unwrap(), receipt.manifest);
    }
}
