use std::pin::pin;
use std::task::Poll;

use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::repository::layout;
use backstay_backup_core::set_writer::{SetContents, SetWriter};
use futures::future::poll_fn;
use jiff::Timestamp;

use crate::support::{
    chunks, content, listing, manifests, memory, read, repositories, small_path, spec, stanza,
};

/// Runs a future until it was polled so often, then drops it.
async fn polled<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_write_leaves_no_set_and_no_partial_object() {
    let plain = content(60_000, 8);
    let mut dropped = 0;
    let mut pending_seen = 0;
    for polls in 0..400 {
        let stores = [memory(), memory()];
        let repositories = repositories(&stores, 2).await;
        let writer = SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
        let write = writer.object("x", Codec::None, chunks(&plain, 1000));
        let finished = polled(write, polls / 2).await.is_some();
        dropped += usize::from(!finished);
        for store in &stores {
            assert!(manifests(store).await.is_empty());
            let below = layout::set(&stanza(), writer.id());
            let visible: Vec<_> =
                listing(store).await.into_iter().filter(|meta| below.contains(&meta.key)).collect();
            assert!(visible.iter().all(|meta| meta.size == plain.len() as u64), "{visible:?}");
            pending_seen += store.list_uploads(&below).await.unwrap().len();
        }
        let below = layout::set(&stanza(), writer.id());
        writer.abort().await;
        for store in &stores {
            assert!(store.list_uploads(&below).await.unwrap().is_empty(), "abort removes what was pending");
        }
    }
    assert!(dropped > 50, "only {dropped} writes were dropped before their end");
    assert!(pending_seen > 0, "no drop happened in the middle of an upload");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_commit_leaves_a_whole_set_or_none() {
    let plain = content(5_000, 8);
    let (mut none, mut whole) = (0, 0);
    for polls in 0..30 {
        let store = memory();
        let repositories = repositories(std::slice::from_ref(&store), 1).await;
        let writer = SetWriter::begin(&repositories, spec(Recipients::none()), small_path()).await.unwrap();
        let id = writer.id().clone();
        let entry = writer.object("x", Codec::Zstd, chunks(&plain, 1000)).await.unwrap();
        polled(writer.commit(SetContents::new(Timestamp::UNIX_EPOCH, vec![entry])), polls).await;
        if manifests(&store).await.is_empty() {
            none += 1;
            continue;
        }
        whole += 1;
        let manifest = repositories.manifest(&stanza(), &id).await.unwrap();
        let entry = &manifest.objects[0];
        assert!(read(&repositories, &manifest, entry, &Identities::none()).await.unwrap() == plain);
    }
    assert!(none > 0 && whole > 0, "{none} without and {whole} with a set");
}
