//! Listings.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Bench, Verdict, ensure};
use crate::store::ObjectMeta;

/// More than any page, of 1,000 objects for S3.
const MANY: usize = 1005;
/// Calls at the same time while the many are made.
const PARALLEL: usize = 32;

/// Names whose order differs if a `/` is treated as anything but a byte.
const TRICKY: [&str; 12] =
    ["a-b", "a.b", "a/x", "a/y/z", "a0", "a=b", "aA", "a_b", "ab/c", "A/x", "a+b", "a.b.c/d"];

fn names(bench: &Bench, listing: &[ObjectMeta]) -> Vec<String> {
    let prefix = bench.folder.as_str();
    listing
        .iter()
        .map(|meta| meta.key.as_str().strip_prefix(prefix).unwrap_or("(outside)").to_owned())
        .collect()
}

pub(super) async fn listings_are_sorted_and_complete(bench: Bench) -> Verdict {
    for name in TRICKY {
        bench.given(name, name).await?;
    }
    let listing = bench.list("").await?;
    let sorted: BTreeSet<_> = TRICKY.into_iter().map(str::to_owned).collect();
    let found = names(&bench, &listing);
    ensure!(found == sorted.into_iter().collect::<Vec<_>>(), "the order is {found:?}");
    for (meta, name) in listing.iter().zip(found) {
        ensure!(meta.size == name.len() as u64, "{name} is listed with {} bytes", meta.size);
    }
    Ok(())
}

pub(super) async fn listings_begin_behind_a_key(bench: Bench) -> Verdict {
    for name in TRICKY {
        bench.given(name, name).await?;
    }
    let mut sorted = TRICKY.to_vec();
    sorted.sort_unstable();
    // Keys that exist, and keys between, before and behind them.
    for after in TRICKY.into_iter().chain(["0", "a/", "a/y", "a/y/zz", "a/z", "a.b.c", "a.b.c/e", "zzz"]) {
        let after = after.trim_end_matches('/');
        let listing = bench.store.list_after(&bench.folder, Some(&bench.key(after)));
        let listing: Vec<_> = listing.try_collect().await.map_err(|error| format!("{error:?}"))?;
        let wanted: Vec<_> = sorted.iter().filter(|name| **name > after).collect();
        let found = names(&bench, &listing);
        ensure!(found.iter().eq(wanted.iter().copied()), "behind {after} there are {found:?}");
    }
    Ok(())
}

pub(super) async fn listings_stay_in_their_folder(bench: Bench) -> Verdict {
    for name in ["a/x", "a/y/z", "ab/x", "a-/x", "b"] {
        bench.given(name, "").await?;
    }
    let found = names(&bench, &bench.list("a").await?);
    ensure!(found == ["a/x", "a/y/z"], "below a/ there are {found:?}");
    let found = names(&bench, &bench.list("a/y").await?);
    ensure!(found == ["a/y/z"], "below a/y/ there are {found:?}");
    let found = names(&bench, &bench.list("b").await?);
    ensure!(found.is_empty(), "below b/, which is an object, there are {found:?}");
    Ok(())
}

pub(super) async fn listings_show_every_change_at_once(bench: Bench) -> Verdict {
    for round in 0..10 {
        let name = format!("a/{round}");
        bench.given(&name, "").await?;
        ensure!(names(&bench, &bench.list("a").await?) == [name.as_str()], "{name} is not listed");
        bench.store.delete(&bench.key(&name)).await.map_err(|error| format!("{error:?}"))?;
        ensure!(bench.list("a").await?.is_empty(), "{name} is still listed");
    }
    Ok(())
}

pub(super) async fn long_listings_have_neither_gaps_nor_repetitions(bench: Bench) -> Verdict {
    let wanted: Vec<_> = (0..MANY).map(|number| format!("many/{}/{:04}", number / 400, number)).collect();
    let made = stream::iter(wanted.clone()).map(|name| {
        let bench = &bench;
        async move { bench.given(&name, "").await }
    });
    made.buffer_unordered(PARALLEL).try_collect::<Vec<_>>().await?;
    let found = names(&bench, &bench.list("many").await?);
    ensure!(found.len() == MANY, "of {MANY} objects {} are listed", found.len());
    ensure!(found == wanted, "the listing has the right number of wrong objects");
    // A reader that stops early must not upset the store.
    let folder = bench.folder.folder("many").expect("a valid folder");
    let first: Vec<_> =
        bench.store.list(&folder).take(3).try_collect().await.map_err(|error| format!("{error:?}"))?;
    ensure!(names(&bench, &first) == wanted[..3], "the first three are {first:?}");
    let removed = stream::iter(wanted).map(|name| {
        let bench = &bench;
        async move { bench.store.delete(&bench.key(&name)).await }
    });
    removed.buffer_unordered(PARALLEL).try_collect::<Vec<_>>().await.map_err(|error| format!("{error:?}"))?;
    ensure!(bench.list("").await?.is_empty(), "deleted objects are listed");
    Ok(())
}

pub(super) async fn an_empty_folder_is_an_empty_listing(bench: Bench) -> Verdict {
    ensure!(bench.list("").await?.is_empty(), "a folder never used has objects");
    ensure!(bench.list("never/used").await?.is_empty(), "a folder never used has objects");
    let uploads = bench.store.list_uploads(&bench.folder).await.map_err(|error| format!("{error:?}"))?;
    ensure!(uploads.is_empty(), "a folder never used has the uploads {uploads:?}");
    Ok(())
}
