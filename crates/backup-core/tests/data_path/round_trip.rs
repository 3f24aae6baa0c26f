use std::io::Read;

use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::manifest::{Codec, Sha256Hex};
use backstay_backup_core::repository::layout;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetWriter};
use futures::TryStreamExt;
use jiff::Timestamp;
use proptest::prelude::*;

use crate::support::{chunks, content, identity, memory, read, repositories, small_path, spec, stanza};

#[derive(Debug)]
struct Case {
    codec: Codec,
    encrypted: bool,
    stores: usize,
    len: usize,
    chunk: usize,
    path: DataPath,
}

fn cases() -> impl Strategy<Value = Case> {
    let codecs = prop_oneof![Just(Codec::None), Just(Codec::Zstd), Just(Codec::Gzip)];
    let sizes = (0_usize..300_000, 1_usize..40_000, 1_usize..50_000, 1_u64..50_000);
    (codecs, any::<bool>(), 1_usize..3, sizes, 1_usize..4, 1_usize..4).prop_map(
        |(codec, encrypted, stores, (len, chunk, frame, part), workers, parts)| {
            // Not more than some hundred frames and parts a case, or the run takes minutes.
            let frame = frame.max(len / 200);
            let part = part.max(len as u64 / 200);
            let path =
                DataPath::default().frame(frame).part_size(part).workers(workers).parts_in_flight(parts);
            Case { codec, encrypted, stores, len, chunk: chunk.max(len / 500), path }
        },
    )
}

async fn round_trip(case: Case) {
    let stores: Vec<_> = (0..case.stores).map(|_| memory()).collect();
    let repositories = repositories(&stores, case.stores).await;
    let identities = if case.encrypted { identity().1 } else { Identities::none() };
    let writer =
        SetWriter::begin(&repositories, spec(identities.recipients()), case.path.clone()).await.unwrap();
    let plain = content(case.len, case.len as u64);
    let entry = writer.object("a/b.bin", case.codec, chunks(&plain, case.chunk)).await.unwrap();
    let contents = SetContents::new(Timestamp::UNIX_EPOCH, vec![entry.clone()]);
    let manifest = writer.commit(contents).await.unwrap().manifest;

    assert_eq!(entry.plain, plain.len() as u64);
    assert_eq!(repositories.manifest(&stanza(), &manifest.set).await.unwrap(), manifest);
    for member in repositories.members() {
        let key = layout::object(&stanza(), &manifest.set, "a/b.bin").unwrap();
        let stored: Vec<_> = member.store().get(&key, None).await.unwrap().body.try_collect().await.unwrap();
        let stored = stored.concat();
        assert_eq!((stored.len() as u64, Sha256Hex::of(&stored)), (entry.stored, entry.sha256));
        let only = repositories.only(member.name()).unwrap();
        assert!(read(&only, &manifest, &entry, &identities).await.unwrap() == plain);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn what_is_written_is_what_is_read(case in cases()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(round_trip(case));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_written_at_the_same_time_do_not_mix() {
    let repositories = repositories(&[memory(), memory()], 2).await;
    let writer = SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
    let plain: Vec<_> = (0..6).map(|n| content(30_000 + n * 1_111, n as u64)).collect();
    let names: Vec<_> = (0..6).map(|n| format!("object-{n}")).collect();
    let writes =
        plain.iter().zip(&names).map(|(plain, name)| writer.object(name, Codec::Zstd, chunks(plain, 999)));
    let entries = futures::future::try_join_all(writes).await.unwrap();
    let contents = SetContents::new(Timestamp::UNIX_EPOCH, entries.clone());
    let manifest = writer.commit(contents).await.unwrap().manifest;
    for (entry, plain) in entries.iter().zip(plain) {
        assert!(read(&repositories, &manifest, entry, &Identities::none()).await.unwrap() == plain);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_whose_sources_wait_for_each_other_all_finish() {
    const OBJECTS: usize = 8;
    let repositories = repositories(&[memory()], 1).await;
    let path = small_path().parts_in_flight(1).workers(1);
    let writer = SetWriter::begin(&repositories, spec(Recipients::none()), path).await.unwrap();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..OBJECTS).map(|_| tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1)).unzip();
    let names: Vec<_> = (0..OBJECTS).map(|n| format!("object-{n}")).collect();
    let writes = names.iter().zip(receivers).map(|(name, receiver)| {
        let input = futures::stream::unfold(receiver, async |mut receiver| {
            let item = receiver.recv().await?;
            Some((item, receiver))
        });
        writer.object(name, Codec::None, input)
    });
    // One source feeds all in turn, so each depends on every other.
    let feed = async move {
        for _ in 0..50 {
            for sender in &senders {
                sender.send(Ok(content(400, 1).into())).await.unwrap();
            }
        }
    };
    let (entries, ()) = tokio::join!(futures::future::join_all(writes), feed);
    assert!(entries.into_iter().all(|entry| entry.unwrap().plain == 20_000));
}

#[tokio::test]
async fn only_own_objects_can_be_committed() {
    let repositories = repositories(&[memory()], 1).await;
    let begin =
        async || SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
    let (one, other) = (begin().await, begin().await);
    let entry = one.object("x", Codec::None, chunks(b"x", 1)).await.unwrap();
    let error = other.commit(SetContents::new(Timestamp::UNIX_EPOCH, vec![entry])).await.unwrap_err();
    assert!(error.to_string().contains("not written by this set"), "{error}");
    for name in ["manifest.json", "../x", "", "a b"] {
        assert!(one.object(name, Codec::None, chunks(b"", 1)).await.is_err(), "{name:?}");
    }
    one.object("x", Codec::None, chunks(b"y", 1)).await.unwrap_err();
}

#[tokio::test]
async fn a_reader_dropped_early_ends_its_task() {
    let repositories = repositories(&[memory()], 1).await;
    let plain = content(20 << 20, 3);
    let receipt = {
        let writer =
            SetWriter::begin(&repositories, spec(Recipients::none()), DataPath::default()).await.unwrap();
        let entry = writer.object("x", Codec::None, chunks(&plain, 1 << 20)).await.unwrap();
        writer.commit(SetContents::new(Timestamp::UNIX_EPOCH, vec![entry])).await.unwrap()
    };
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let mut reader = repositories
        .open_object(&receipt.manifest, &receipt.manifest.objects[0], &Identities::none())
        .unwrap();
    let mut start = vec![0; 100];
    let (reader, start) = tokio::task::spawn_blocking(move || {
        reader.read_exact(&mut start).unwrap();
        (reader, start)
    })
    .await
    .unwrap();
    assert_eq!(start, plain[..100]);
    drop(reader);
    while metrics.num_alive_tasks() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_is_found_by_the_lengths_of_those_before_it() {
    let store = memory();
    let repositories = repositories(std::slice::from_ref(&store), 1).await;
    let writer = SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
    let plain = content(10_500, 7);
    let object = writer.framed_object("a", Codec::Zstd, chunks(&plain, 777)).await.unwrap();
    assert_eq!(object.frames.len(), 11, "frames of 1000 plain bytes");
    let key = layout::object(&stanza(), writer.id(), "a").unwrap();
    let stored: Vec<_> = store.get(&key, None).await.unwrap().body.try_collect().await.unwrap();
    let mut rest = &stored.concat()[..];
    for (frame, expected) in object.frames.iter().zip(plain.chunks(1000)) {
        let (bytes, after) = rest.split_at(*frame as usize);
        assert_eq!(zstd::bulk::decompress(bytes, 1000).unwrap(), expected);
        rest = after;
    }
    assert!(rest.is_empty());
    let recipients = identity().1.recipients();
    let writer = SetWriter::begin(&repositories, spec(recipients), small_path()).await.unwrap();
    let sealed = writer.framed_object("a", Codec::Zstd, chunks(&plain, 777)).await.unwrap();
    assert_eq!(sealed.frames, object.frames, "counted before encryption");
}
