//! Compare-and-swap.

use bytes::Bytes;
use futures::future::join_all;

use super::{Bench, Verdict, drain, ensure};
use crate::store::{Attributes, ETag, ObjectMeta, PutMode, StoreError};

/// Tasks and rounds of the counter; enough for every store to collide.
const TASKS: usize = 6;
const ROUNDS: usize = 5;

async fn replace(bench: &Bench, below: &str, body: &str, tag: &ETag) -> Result<ObjectMeta, StoreError> {
    let mode = PutMode::Replace(tag.clone());
    bench.store.put(&bench.key(below), Bytes::from(body.to_owned()), mode, &Attributes::default()).await
}

fn tag_of(meta: ObjectMeta) -> Result<ETag, String> {
    meta.etag.ok_or_else(|| "a store that compares and swaps gives no tag".to_owned())
}

pub(super) async fn replacing_needs_the_current_tag(bench: Bench) -> Verdict {
    let first = tag_of(bench.given("lease", "first").await?)?;
    let head = bench.head("lease").await.map_err(|error| format!("{error:?}"))?;
    ensure!(tag_of(head)? == first, "the tag of the new object is not its tag");
    let second = replace(&bench, "lease", "second", &first).await.map_err(|error| format!("{error:?}"))?;
    let second = tag_of(second)?;
    ensure!(second != first, "two contents have one tag");
    for stale in [&first, &ETag("0123456789abcdef0123456789abcdef".to_owned())] {
        let outcome = replace(&bench, "lease", "third", stale).await;
        let refused = matches!(&outcome, Err(StoreError::Conflict { key }) if *key == bench.key("lease"));
        ensure!(refused, "a stale tag was answered with {outcome:?}");
    }
    ensure!(bench.read("lease").await? == "second", "a refused replacement changed the content");
    // The tag of a reader is as good as that of the writer.
    let read = bench.store.get(&bench.key("lease"), None).await.map_err(|error| format!("{error:?}"))?;
    let read = tag_of(read.meta)?;
    let third = replace(&bench, "lease", "third", &read).await.map_err(|error| format!("{error:?}"))?;
    ensure!(third.size == 5, "the replaced object says {} bytes", third.size);
    ensure!(bench.read("lease").await? == "third", "a replacement did not change the content");
    let again = bench.create("lease", "created").await;
    ensure!(
        !bench.store.capabilities().create_only || matches!(again, Err(StoreError::AlreadyExists { .. })),
        "creating a replaced object said {again:?}"
    );
    Ok(())
}

pub(super) async fn an_absent_key_is_not_replaced(bench: Bench) -> Verdict {
    let tag = tag_of(bench.given("other/lease", "here").await?)?;
    let outcome = replace(&bench, "lease", "new", &tag).await;
    ensure!(
        matches!(outcome, Err(StoreError::Conflict { .. })),
        "an absent key was answered with {outcome:?}"
    );
    ensure!(bench.find("lease").await?.is_none(), "replacing created an object");
    bench.store.delete(&bench.key("other/lease")).await.map_err(|error| format!("{error:?}"))?;
    let outcome = replace(&bench, "other/lease", "new", &tag).await;
    ensure!(
        matches!(outcome, Err(StoreError::Conflict { .. })),
        "a deleted key was answered with {outcome:?}"
    );
    Ok(())
}

pub(super) async fn of_concurrent_replacements_exactly_one_wins(bench: Bench) -> Verdict {
    let mut tag = tag_of(bench.given("lease", "none").await?)?;
    for round in 0..5 {
        let bodies: Vec<_> = (0..8).map(|writer| format!("round {round}, writer {writer}")).collect();
        let outcomes = join_all(bodies.iter().map(|body| replace(&bench, "lease", body, &tag))).await;
        let mut winners = Vec::new();
        for (body, outcome) in bodies.iter().zip(outcomes) {
            match outcome {
                Ok(meta) => winners.push((body, tag_of(meta)?)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(format!("a loser was told {error:?}")),
            }
        }
        ensure!(winners.len() == 1, "round {round} has the winners {winners:?}");
        let (body, next) = winners.remove(0);
        ensure!(bench.read("lease").await? == *body, "the object is that of a loser");
        tag = next;
    }
    Ok(())
}

pub(super) async fn increments_are_never_lost(bench: Bench) -> Verdict {
    bench.given("counter", "0").await?;
    let increments = (0..TASKS).map(|_| async {
        for _ in 0..ROUNDS {
            increment(&bench).await?;
        }
        Ok::<_, String>(())
    });
    for outcome in join_all(increments).await {
        outcome?;
    }
    let total = bench.read("counter").await?;
    ensure!(total == (TASKS * ROUNDS).to_string(), "{} increments counted to {total:?}", TASKS * ROUNDS);
    Ok(())
}

async fn increment(bench: &Bench) -> Verdict {
    loop {
        let opened =
            bench.store.get(&bench.key("counter"), None).await.map_err(|error| format!("{error:?}"))?;
        let tag = tag_of(opened.meta.clone())?;
        // Some stores open and read in two steps, but what is read belongs to the tag or the swap fails.
        let content = drain(opened).await.map_err(|error| format!("{error:?}"))?;
        let number: usize = std::str::from_utf8(&content)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| format!("the counter is {content:?}"))?;
        match replace(bench, "counter", &(number + 1).to_string(), &tag).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(format!("an increment was told {error:?}")),
        }
    }
}
