//! Uploads in parts.

use bytes::Bytes;
use futures::future::join_all;

use super::{Bench, Verdict, ensure, noise};
use crate::store::{Attributes, ObjectMeta, PartNumber, PartTag, StoreError, UploadId};
use crate::upload::{UploadOptions, Uploader};

/// Size of a part where the store does not ask for a larger one.
const PART: u64 = 64 << 10;

impl Bench {
    fn part_size(&self) -> usize {
        self.store.capabilities().min_part.max(PART) as usize
    }

    async fn start(&self, below: &str) -> Result<UploadId, String> {
        let started = self.store.start_upload(&self.key(below), &Attributes::default()).await;
        started.map_err(|error| format!("beginning {below}: {error:?}"))
    }

    async fn part(
        &self,
        below: &str,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        self.store.put_part(&self.key(below), upload, part, body).await
    }

    /// Begins an upload and stores the bytes as its parts.
    async fn uploaded(&self, below: &str, body: &Bytes) -> Result<(UploadId, Vec<PartTag>), String> {
        let upload = self.start(below).await?;
        let parts = cut(body, self.part_size());
        let stored = parts.into_iter().map(|(part, bytes)| self.part(below, &upload, part, bytes));
        let tags: Result<Vec<_>, _> = join_all(stored).await.into_iter().collect();
        Ok((upload, tags.map_err(|error| format!("storing parts of {below}: {error:?}"))?))
    }

    async fn complete(
        &self,
        below: &str,
        upload: &UploadId,
        tags: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        self.store.complete_upload(&self.key(below), upload, tags).await
    }

    async fn abort(&self, below: &str, upload: &UploadId) -> Verdict {
        let aborted = self.store.abort_upload(&self.key(below), upload).await;
        aborted.map_err(|error| format!("aborting {below}: {error:?}"))
    }

    async fn pending(&self, folder: &str) -> Result<Vec<(String, UploadId)>, String> {
        let folder = self.folder.folder(folder).expect("the suite uses valid folders");
        let uploads = self.store.list_uploads(&folder).await;
        let uploads = uploads.map_err(|error| format!("listing uploads: {error:?}"))?;
        Ok(uploads.into_iter().map(|found| (found.key.to_string(), found.upload)).collect())
    }

    async fn is_pending(&self, below: &str, upload: &UploadId) -> Result<bool, String> {
        let wanted = (self.key(below).to_string(), upload.clone());
        Ok(self.pending("").await?.contains(&wanted))
    }
}

fn cut(body: &Bytes, size: usize) -> Vec<(PartNumber, Bytes)> {
    let starts = (0..body.len()).step_by(size);
    let parts = (1..).zip(starts).map(|(number, start)| {
        let bytes = body.slice(start..body.len().min(start + size));
        (PartNumber { number, offset: start as u64 }, bytes)
    });
    parts.collect()
}

pub(super) async fn parts_join_in_order_whatever_order_they_came_in(bench: Bench) -> Verdict {
    let size = bench.part_size();
    let body = noise(4 * size + 11, 1);
    let upload = bench.start("a/x").await?;
    let mut tags = Vec::new();
    for index in [2, 0, 4, 3, 1] {
        let (part, bytes) = cut(&body, size).swap_remove(index);
        let stored = bench.part("a/x", &upload, part, bytes.clone()).await;
        let tag = stored.map_err(|error| format!("part {part:?}: {error:?}"))?;
        ensure!((tag.part, tag.len) == (part, bytes.len() as u64), "the receipt of {part:?} is {tag:?}");
        tags.push(tag);
    }
    tags.sort_by_key(|tag| tag.part);
    let meta = bench.complete("a/x", &upload, &tags).await.map_err(|error| format!("{error:?}"))?;
    ensure!(meta.size == body.len() as u64, "the object says {} of {} bytes", meta.size, body.len());
    ensure!(bench.read("a/x").await? == body, "the parts joined to other bytes");
    let (upload, tags) = bench.uploaded("a/side-by-side", &body).await?;
    bench.complete("a/side-by-side", &upload, &tags).await.map_err(|error| format!("{error:?}"))?;
    ensure!(bench.read("a/side-by-side").await? == body, "parts stored side by side joined to other bytes");
    let head = bench.head("a/x").await.map_err(|error| format!("{error:?}"))?;
    ensure!(meta.etag == head.etag, "completion has tag {:?}, head {:?}", meta.etag, head.etag);
    Ok(())
}

pub(super) async fn an_upload_is_invisible_until_it_is_complete(bench: Bench) -> Verdict {
    let body = noise(bench.part_size() + 1, 2);
    let (upload, tags) = bench.uploaded("a/x", &body).await?;
    ensure!(bench.find("a/x").await?.is_none(), "a begun upload can be read");
    let head = bench.head("a/x").await;
    ensure!(matches!(head, Err(StoreError::Absent { .. })), "head of a begun upload said {head:?}");
    let listed = bench.list("").await?;
    ensure!(listed.is_empty(), "a begun upload is listed as {listed:?}");
    ensure!(bench.is_pending("a/x", &upload).await?, "a begun upload is not listed as pending");
    bench.complete("a/x", &upload, &tags).await.map_err(|error| format!("{error:?}"))?;
    ensure!(bench.read("a/x").await? == body, "the completed object is another one");
    ensure!(bench.list("").await?.len() == 1, "the completed object is not listed");
    ensure!(!bench.is_pending("a/x", &upload).await?, "a completed upload is listed as pending");
    Ok(())
}

pub(super) async fn a_part_can_be_stored_again(bench: Bench) -> Verdict {
    let body = noise(bench.part_size() + 100, 3);
    let upload = bench.start("a/x").await?;
    let mut tags = Vec::new();
    for (part, bytes) in cut(&body, bench.part_size()) {
        let first = bench.part("a/x", &upload, part, bytes.clone()).await;
        first.map_err(|error| format!("{part:?}: {error:?}"))?;
        let again = bench.part("a/x", &upload, part, bytes).await;
        tags.push(again.map_err(|error| format!("{part:?} again: {error:?}"))?);
    }
    bench.complete("a/x", &upload, &tags).await.map_err(|error| format!("{error:?}"))?;
    ensure!(bench.read("a/x").await? == body, "the object is another one");
    Ok(())
}

pub(super) async fn an_aborted_upload_leaves_nothing(bench: Bench) -> Verdict {
    let body = noise(bench.part_size() + 1, 4);
    let (upload, tags) = bench.uploaded("a/x", &body).await?;
    bench.abort("a/x", &upload).await?;
    ensure!(!bench.is_pending("a/x", &upload).await?, "an aborted upload is listed as pending");
    let (part, bytes) = cut(&body, body.len()).remove(0);
    let late = bench.part("a/x", &upload, part, bytes).await;
    ensure!(late.is_err(), "an aborted upload took a part: {late:?}");
    let late = bench.complete("a/x", &upload, &tags).await;
    let refused = late.as_ref().is_err_and(|error| !error.is_temporary());
    ensure!(refused, "completing an aborted upload said {late:?}");
    ensure!(bench.find("a/x").await?.is_none(), "an aborted upload became an object");
    bench.abort("a/x", &upload).await
}

pub(super) async fn an_unknown_upload_is_refused_and_its_abort_is_fine(bench: Bench) -> Verdict {
    // Made and aborted, because a store may refuse an id that it never could have given.
    let upload = bench.start("a/x").await?;
    bench.abort("a/x", &upload).await?;
    bench.abort("a/x", &upload).await?;
    bench.abort("a/never", &upload).await?;
    let outcome = bench.complete("a/x", &upload, &[]).await;
    ensure!(outcome.is_err(), "an unknown upload was completed: {outcome:?}");
    ensure!(bench.list("").await?.is_empty(), "an unknown upload became an object");
    Ok(())
}

pub(super) async fn pending_uploads_are_listed_by_folder(bench: Bench) -> Verdict {
    let mut begun = Vec::new();
    // The same key twice: a crashed writer and its successor.
    for name in ["a/x", "a/x", "a/b/y", "ab/z", "c"] {
        begun.push((bench.key(name).to_string(), bench.start(name).await?));
    }
    let found = bench.pending("a").await?;
    for (at, upload) in begun.iter().enumerate() {
        let below = at < 3;
        ensure!(found.contains(upload) == below, "of {upload:?} the listing of a/ says {}", !below);
    }
    let found = bench.pending("").await?;
    ensure!(begun.iter().all(|upload| found.contains(upload)), "the listing is {found:?}");
    Ok(())
}

pub(super) async fn the_uploader_stores_streams_of_any_length(bench: Bench) -> Verdict {
    let size = bench.part_size();
    for len in [0, 1, size, size + 1, 3 * size + 77] {
        let name = format!("a/{len}");
        let body = noise(len, 5);
        let options = UploadOptions::default().part_size(size as u64).parts_in_flight(3);
        let key = bench.key(&name);
        let mut uploader = Uploader::new(bench.store.clone(), key, Attributes::default(), options);
        for chunk in body.chunks(size / 3 + 1) {
            let written = uploader.write(body.slice_ref(chunk)).await;
            written.map_err(|error| format!("writing {len} bytes: {error:?}"))?;
        }
        let meta = uploader.finish().await.map_err(|error| format!("finishing {len} bytes: {error:?}"))?;
        ensure!(meta.size == len as u64, "{len} bytes became {}", meta.size);
        ensure!(bench.read(&name).await? == body, "{len} bytes became others");
    }
    Ok(())
}

pub(super) async fn a_completion_never_overwrites(bench: Bench) -> Verdict {
    let (upload, tags) = bench.uploaded("a/x", &noise(bench.part_size() + 1, 6)).await?;
    bench.given("a/x", "there before").await?;
    let outcome = bench.complete("a/x", &upload, &tags).await;
    let refused = matches!(&outcome, Err(StoreError::AlreadyExists { key }) if *key == bench.key("a/x"));
    ensure!(refused, "completing onto an object said {outcome:?}");
    ensure!(bench.read("a/x").await? == "there before", "the object changed");
    bench.abort("a/x", &upload).await?;
    ensure!(!bench.is_pending("a/x", &upload).await?, "the refused upload cannot be aborted");
    ensure!(bench.read("a/x").await? == "there before", "the abort changed the object");
    Ok(())
}

pub(super) async fn completing_twice_says_that_the_object_exists(bench: Bench) -> Verdict {
    let body = noise(bench.part_size() + 1, 7);
    let (upload, tags) = bench.uploaded("a/x", &body).await?;
    bench.complete("a/x", &upload, &tags).await.map_err(|error| format!("{error:?}"))?;
    let again = bench.complete("a/x", &upload, &tags).await;
    ensure!(matches!(again, Err(StoreError::AlreadyExists { .. })), "completing again said {again:?}");
    bench.abort("a/x", &upload).await?;
    ensure!(bench.read("a/x").await? == body, "repeating the end of an upload changed its object");
    Ok(())
}

pub(super) async fn of_concurrent_completions_exactly_one_wins(bench: Bench) -> Verdict {
    for round in 0..3 {
        let name = format!("a/{round}");
        // Sizes differ, so that a lost reply could not be taken for somebody else's success.
        let bodies: Vec<_> = (0..4).map(|writer| noise(bench.part_size() + 1 + writer, 8)).collect();
        let mut uploads = Vec::new();
        for body in &bodies {
            uploads.push(bench.uploaded(&name, body).await?);
        }
        let completions = uploads.iter().map(|(upload, tags)| bench.complete(&name, upload, tags));
        let mut winners = Vec::new();
        for (body, outcome) in bodies.iter().zip(join_all(completions).await) {
            match outcome {
                Ok(_) => winners.push(body),
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(format!("a loser was told {error:?}")),
            }
        }
        ensure!(winners.len() == 1, "round {round} has {} winners", winners.len());
        ensure!(bench.read(&name).await? == *winners[0], "the object is that of a loser");
    }
    Ok(())
}
