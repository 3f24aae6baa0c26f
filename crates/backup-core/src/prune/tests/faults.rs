//! Faults and crashes at every call, and sets that cannot be read.

use super::*;
use crate::fault::Spot;

#[tokio::test]
async fn a_set_that_cannot_be_read_stays_and_is_named() {
    let site = Site::daily(5).await;
    let like = layout::manifest(&stanza(), &id(1)).as_str().to_owned();
    let spot = Spot { operation: Operation::Get, like, number: 1 };
    site.faults[0].at(spot, 1, Mishap::Error(ErrorKind::Denied));
    let report = prune(&site, &keep(2)).await;
    assert_eq!(sets(&site).await, [id(1), id(3), id(4)]);
    assert_eq!(report.repositories[0].failed[0].object, id(1).to_string());
    assert!(!report.is_complete());
}

/// A site with sets to remove, a chain of parents, records, litter and uploads.
async fn busy_site() -> Site {
    let site = Site::new(&["near"]).await;
    let near = site.repository(0);
    for day in 0..7 {
        let mut shape = Shape::new(day, site.now());
        // 5 needs 3 needs 1: kept. 2 needs 0: both go.
        shape.manifest.parent = [(5, 3), (3, 1), (2, 0)].iter().find(|(c, _)| *c == day).map(|(_, p)| id(*p));
        site.write(&shape).await;
        site.pass(DAY);
    }
    for number in [0, 2, 5] {
        let kind = crate::proof::ProofKind::VerifyQuick;
        let proof = Proof::new(kind, stanza(), id(number), "test", site.now(), true);
        proof.store(near).await.unwrap();
    }
    put(near, &layout::object(&stanza(), &id(20), "litter").unwrap(), b"old").await;
    let upload = layout::object(&stanza(), &id(21), "litter").unwrap();
    near.store().start_upload(&upload, &Attributes::default()).await.unwrap();
    site.pass(DAY * 2);
    put(near, &layout::object(&stanza(), &id(22), "running").unwrap(), b"young").await;
    site
}

/// Every set that lists is whole, the kept ones are there, and what runs is untouched.
async fn assert_sound(site: &Site, place: &str) {
    let catalog = Catalog::load(&site.repositories, &stanza()).await.unwrap();
    for set in &catalog.sets {
        assert!(set.is_good(), "{place}: {} {:?}", set.id, set.problems());
        let options = VerifyOptions::new(Depth::Full);
        let report = verify_set(&site.repositories, &stanza(), set, &options).await;
        assert!(report.is_clean() && report.is_complete(), "{place}: {report:?}");
    }
    for number in [1, 3, 5, 6] {
        assert!(catalog.by_id(id(number).as_str()).is_ok(), "{place}: {number} was to be kept");
    }
    assert_eq!(catalog.newest_good(&Filter::default()).unwrap().id, id(6), "{place}");
    assert_eq!(keys_of(site, 0, 22).await.len(), 1, "{place}");
}

#[tokio::test]
async fn a_fault_at_any_call_leaves_whole_sets_and_the_next_run_finishes() {
    let site = busy_site().await;
    let policy = keep(2);
    let first = site.faults[0].calls().len() as u64;
    assert!(prune(&site, &policy).await.is_complete());
    let calls = site.faults[0].calls().len() as u64 - first;
    let clean = site.keys(0).await;
    assert!(calls > 40, "{calls}");
    let mishaps = [
        Mishap::Error(ErrorKind::Temporary),
        Mishap::Error(ErrorKind::Denied),
        Mishap::LostReply,
        Mishap::Cut { after: 1, loud: true },
    ];
    for mishap in mishaps {
        for call in 1..=calls {
            let site = busy_site().await;
            let fault = &site.faults[0];
            fault.on_call(fault.calls().len() as u64 + call, mishap);
            if let Ok(plan) = plan_prune(&site.repositories, &stanza(), &policy).await {
                plan.apply(&site.repositories, &CancellationToken::new()).await.ok();
            }
            fault.calm();
            let place = format!("{mishap:?} at call {call}");
            assert_sound(&site, &place).await;
            // What a removed set left behind is as old as it was, so the next run collects it.
            let report = prune(&site, &policy).await;
            assert!(report.is_complete(), "{place}: {report:?}");
            let left: Vec<_> = site.keys(0).await;
            assert_eq!(left, clean, "{place}");
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_call_leaves_whole_sets_and_the_next_run_finishes() {
    let site = busy_site().await;
    let policy = keep(2);
    let first = site.faults[0].calls().len() as u64;
    prune(&site, &policy).await;
    let calls = site.faults[0].calls().len() as u64 - first;
    let clean = site.keys(0).await;
    for call in 1..=calls {
        let site = busy_site().await;
        let fault = &site.faults[0];
        // The process dies in this call: it never returns.
        let never = Mishap::Slow(Duration::from_secs(1_000_000));
        fault.on_call(fault.calls().len() as u64 + call, never);
        tokio::time::timeout(Duration::from_millis(30), prune(&site, &policy)).await.ok();
        fault.calm();
        assert_sound(&site, &format!("crash at call {call}")).await;
        assert!(prune(&site, &policy).await.is_complete());
        assert_eq!(site.keys(0).await, clean, "crash at call {call}");
    }
}
