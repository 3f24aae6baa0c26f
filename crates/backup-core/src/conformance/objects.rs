//! Creating, reading and deleting single objects.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;

use super::{Bench, Verdict, drain, ensure, noise};
use crate::key::{MAX_KEY_LEN, MAX_SEGMENT_LEN};
use crate::store::{StoreError, cut_range};

/// Longer than any chunk a store is likely to read at a time.
const LARGE: usize = (3 << 20) + 7;

pub(super) async fn objects_are_read_back_as_they_were_stored(bench: Bench) -> Verdict {
    for len in [0, 1, 4096, LARGE] {
        let name = format!("a/{len}");
        let body = noise(len, 1);
        bench.given(&name, body.clone()).await?;
        ensure!(bench.read(&name).await? == body, "{len} bytes came back as others");
    }
    Ok(())
}

pub(super) async fn facts_are_the_same_wherever_they_come_from(bench: Bench) -> Verdict {
    let put = bench.given("a/x", noise(1000, 1)).await?;
    let head = bench.head("a/x").await.map_err(|error| format!("{error:?}"))?;
    let get = bench.store.get(&bench.key("a/x"), None).await.map_err(|error| format!("{error:?}"))?;
    let list = bench.list("a").await?;
    ensure!(list.len() == 1, "the listing has {} objects", list.len());
    for (from, meta) in [("put", &put), ("head", &head), ("get", &get.meta), ("list", &list[0])] {
        ensure!(meta.key == bench.key("a/x"), "{from} names {}", meta.key);
        ensure!(meta.size == 1000, "{from} says {} bytes", meta.size);
        // Some answers have fractions of a second and others have not.
        let apart = meta.modified.duration_since(head.modified).abs().unsigned_abs();
        ensure!(apart <= Duration::from_secs(1), "{from} says {}, head {}", meta.modified, head.modified);
        ensure!(
            from == "list" && meta.etag.is_none() || meta.etag == head.etag,
            "{from} has tag {:?}, head {:?}",
            meta.etag,
            head.etag
        );
    }
    Ok(())
}

pub(super) async fn ranges_are_cut_at_the_end(bench: Bench) -> Verdict {
    let size = LARGE as u64;
    let body = noise(LARGE, 2);
    bench.given("a/x", body.clone()).await?;
    bench.given("a/empty", "").await?;
    #[expect(clippy::reversed_empty_ranges, reason = "a range the wrong way round must be harmless, too")]
    let ranges = [
        0..0,
        0..1,
        0..size,
        0..size + 1,
        5..6,
        7..7,
        1000..2_500_000,
        size - 1..size,
        size - 1..u64::MAX,
        size..size + 10,
        size + 5..size + 10,
        9..3,
        0..u64::MAX,
    ];
    for range in ranges {
        for (name, whole) in [("a/x", body.as_ref()), ("a/empty", b"")] {
            let opened = bench.store.get(&bench.key(name), Some(range.clone())).await;
            let opened = opened.map_err(|error| format!("{name} {range:?}: {error:?}"))?;
            let right = cut_range(Some(range.clone()), whole.len() as u64);
            ensure!(
                opened.meta.size == whole.len() as u64,
                "{range:?}: the size is that of the whole object"
            );
            if !right.is_empty() {
                ensure!(opened.range == right, "{range:?} of {name} became {:?}", opened.range);
            }
            let found = drain(opened).await.map_err(|error| format!("{name} {range:?}: {error:?}"))?;
            let wanted = &whole[right.start as usize..right.end as usize];
            ensure!(found == wanted, "{range:?} of {name} has the wrong {} bytes", found.len());
        }
    }
    Ok(())
}

pub(super) async fn absence_is_told_apart_from_failure(bench: Bench) -> Verdict {
    bench.given("a/b/x", "1").await?;
    // A folder is no object, nor is anything below or beside one.
    for name in ["a", "a/b", "a/b/x/y", "a/b/x2", "none", "none/at/all"] {
        let key = bench.key(name);
        for (call, error) in [
            ("head", bench.store.head(&key).await.err()),
            ("get", bench.store.get(&key, None).await.err()),
            ("range", bench.store.get(&key, Some(0..1)).await.err()),
        ] {
            let right = matches!(&error, Some(StoreError::Absent { key: told }) if *told == key);
            ensure!(right, "{call} of {name} said {error:?}");
        }
        let deleted = bench.store.delete(&key).await;
        ensure!(deleted.is_ok(), "deleting absent {name} said {deleted:?}");
    }
    ensure!(bench.read("a/b/x").await? == "1", "a neighbour was deleted");
    Ok(())
}

pub(super) async fn deleted_objects_are_gone_and_their_keys_free(bench: Bench) -> Verdict {
    for round in ["first", "second"] {
        bench.given("a/x", round).await?;
        ensure!(bench.read("a/x").await? == round, "the {round} object is another one");
        bench.store.delete(&bench.key("a/x")).await.map_err(|error| format!("{error:?}"))?;
        ensure!(bench.find("a/x").await?.is_none(), "the {round} object is still there");
    }
    Ok(())
}

pub(super) async fn every_valid_key_is_an_object_of_its_own(bench: Bench) -> Verdict {
    let longest_name = "n".repeat(MAX_SEGMENT_LEN);
    let mut longest = String::new();
    let room = MAX_KEY_LEN - bench.folder.as_str().len();
    while longest.len() < room {
        let segment = (room - longest.len()).min(MAX_SEGMENT_LEN);
        longest.push_str(&"k".repeat(segment));
        // A slash needs a segment behind it.
        if longest.len() + 2 <= room {
            longest.push('/');
        } else {
            break;
        }
    }
    let mut names =
        vec!["p+q", "p=q", "x.y", "x-y", "x_y", "X.Y", "0", "-", "_", "a..b", "c.", "d.part", "+20"];
    names.extend([longest_name.as_str(), longest.as_str()]);
    for name in &names {
        bench.given(name, (*name).to_owned()).await?;
    }
    for name in &names {
        ensure!(bench.read(name).await? == *name, "{name} has the content of another key");
    }
    ensure!(bench.list("").await?.len() == names.len(), "the listing has another number of objects");
    Ok(())
}

pub(super) async fn bodies_can_be_read_side_by_side_and_dropped(bench: Bench) -> Verdict {
    let body = noise(LARGE, 3);
    bench.given("a/x", body.clone()).await?;
    let key = bench.key("a/x");
    for _ in 0..4 {
        let mut opened = bench.store.get(&key, None).await.map_err(|error| format!("{error:?}"))?;
        let first = opened.body.next().await;
        ensure!(matches!(first, Some(Ok(_))), "the first chunk is {first:?}");
    }
    let reads = join_all((0..8).map(|_| bench.read("a/x"))).await;
    for read in reads {
        ensure!(read? == body, "one of several readers got other bytes");
    }
    Ok(())
}

pub(super) async fn a_dropped_put_leaves_the_object_whole_or_absent(bench: Bench) -> Verdict {
    let body = noise(LARGE, 4);
    for round in 0..8 {
        let name = format!("a/{round}");
        {
            let put = bench.create(&name, body.clone());
            let time = Duration::from_micros(300 * round);
            let _ = tokio::time::timeout(time, put).await;
        }
        for _ in 0..5 {
            let found = bench.find(&name).await?;
            ensure!(found.is_none_or(|found| found == body), "a dropped put left part of {name}");
        }
    }
    let polled_once = futures::future::poll_immediate(bench.create("b/x", "1")).await;
    drop(polled_once);
    let found = bench.find("b/x").await?;
    ensure!(found.is_none_or(|found| found == "1"), "a put dropped at once left something else");
    Ok(())
}

pub(super) async fn an_existing_object_is_never_overwritten(bench: Bench) -> Verdict {
    let first = bench.given("a/x", "first").await?;
    for body in ["second, and longer", "first", ""] {
        let outcome = bench.create("a/x", body).await;
        let refused = matches!(&outcome, Err(StoreError::AlreadyExists { key }) if *key == bench.key("a/x"));
        ensure!(refused, "creating it again said {outcome:?}");
    }
    ensure!(bench.read("a/x").await? == "first", "the content changed");
    let head = bench.head("a/x").await.map_err(|error| format!("{error:?}"))?;
    ensure!(head.etag == first.etag, "the tag changed");
    Ok(())
}

pub(super) async fn of_concurrent_creators_exactly_one_wins(bench: Bench) -> Verdict {
    for round in 0..5 {
        let name = format!("a/{round}");
        let creators = (0..8).map(|writer| bench.create(&name, format!("writer {writer}")));
        let mut winners = Vec::new();
        for (writer, outcome) in join_all(creators).await.into_iter().enumerate() {
            match outcome {
                Ok(_) => winners.push(writer),
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(format!("a loser was told {error:?}")),
            }
        }
        ensure!(winners.len() == 1, "round {round} has the winners {winners:?}");
        let content = bench.read(&name).await?;
        ensure!(content == format!("writer {}", winners[0]), "the object is that of a loser");
    }
    Ok(())
}
