//! Plans and their execution, with locks, holds, faults and crashes at every call.

mod faults;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::*;
use crate::catalog::Filter;
use crate::catalog::fixture::{DAY, Shape, Site, id, overwrite, put, stanza};
use crate::fault::{ErrorKind, Mishap, Operation};
use crate::hold;
use crate::key::Key;
use crate::lease::{Lease, LeaseOptions, register};
use crate::memory::MemoryStore;
use crate::proof::Proof;
use crate::repository::layout;
use crate::store::{Attributes, Capabilities, PutMode};
use crate::verify::{Depth, VerifyOptions, verify_set};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn no_wait() -> Rules {
    Rules::default().min_age(TimeSpan::from_secs(0))
}

fn keep(count: u32) -> PrunePolicy {
    PrunePolicy::new(no_wait().last(count))
}

async fn plan(site: &Site, policy: &PrunePolicy) -> PrunePlan {
    plan_prune(&site.repositories, &stanza(), policy).await.unwrap()
}

async fn apply(site: &Site, plan: &PrunePlan) -> PruneReport {
    plan.apply(&site.repositories, &CancellationToken::new()).await.unwrap()
}

async fn prune(site: &Site, policy: &PrunePolicy) -> PruneReport {
    let plan = plan(site, policy).await;
    apply(site, &plan).await
}

fn removals(plan: &PrunePlan) -> Vec<SetId> {
    plan.repositories[0].remove.iter().map(|removal| removal.set.clone()).collect()
}

async fn sets(site: &Site) -> Vec<SetId> {
    let catalog = Catalog::load(&site.repositories, &stanza()).await.unwrap();
    let mut ids: Vec<_> = catalog.sets.iter().map(|set| set.id.clone()).collect();
    ids.sort();
    ids
}

async fn keys_of(site: &Site, index: usize, number: u32) -> Vec<String> {
    let keys = site.keys(index).await.into_iter().map(String::from);
    keys.filter(|key| key.contains(id(number).as_str())).collect()
}

#[tokio::test]
async fn a_plan_only_reads_and_says_what_and_why() {
    let site = Site::daily(6).await;
    let plan = plan(&site, &keep(2)).await;
    assert_eq!(removals(&plan), [id(3), id(2), id(1), id(0)]);
    assert!(site.faults[0].calls().iter().all(|call| call.operation != Operation::Delete));
    assert_eq!(site.faults[0].count(Operation::Put), 6 * 3 + 1, "nothing but the sets was written");
    let json = serde_json::to_value(&plan).unwrap();
    let near = &json["repositories"][0];
    assert_eq!(near["remove"][0]["set"], id(3).as_str());
    assert_eq!(near["remove"][0]["objects"], 3);
    assert_eq!(near["keep"][0]["keep"][0]["rule"], "last-good");
    assert_eq!(json["policy"]["grace"], "1d");
    assert!(plan.bytes() > 4 * 390);
}

#[tokio::test]
async fn applying_removes_everything_of_a_set_and_nothing_else() {
    let site = Site::daily(4).await;
    let near = site.repository(0);
    Proof::new(crate::proof::ProofKind::VerifyFull, stanza(), id(0), "test", site.now(), true)
        .store(near)
        .await
        .unwrap();
    hold::place(&site.repositories, &stanza(), &id(0), "audit").await.unwrap();
    site.pass(SignedDuration::from_secs(1));
    hold::release(&site.repositories, &stanza(), &id(0), "done").await.unwrap();
    let foreign = Key::parse("main/sets/README").unwrap();
    put(near, &foreign, b"mine").await;
    let report = prune(&site, &keep(2)).await;
    assert!(report.is_complete(), "{report:?}");
    let mut removed = report.repositories[0].removed.clone();
    removed.sort();
    assert_eq!(removed, [id(0), id(1)]);
    assert_eq!(report.repositories[0].objects, 2 * 3 + 3);
    assert_eq!(sets(&site).await, [id(2), id(3)]);
    assert!(keys_of(&site, 0, 0).await.is_empty() && keys_of(&site, 0, 1).await.is_empty());
    assert_eq!(keys_of(&site, 0, 3).await.len(), 3);
    near.store().head(&foreign).await.unwrap();
    assert!(plan(&site, &keep(2)).await.is_empty());
}

#[tokio::test]
async fn applying_twice_or_late_is_harmless() {
    let site = Site::daily(4).await;
    let plan = plan(&site, &keep(2)).await;
    apply(&site, &plan).await;
    let again = apply(&site, &plan).await;
    assert!(again.is_complete());
    assert_eq!(again.repositories[0].objects, 0);
    assert!(again.repositories[0].skipped.iter().all(|skipped| skipped.reason == "it is gone already"));
    assert_eq!(sets(&site).await, [id(2), id(3)]);
}

#[tokio::test]
async fn each_repository_has_rules_of_its_own() {
    let site = Site::new(&["near", "far"]).await;
    for day in 0..8 {
        site.write(&Shape::new(day, site.now())).await;
        site.pass(DAY);
    }
    let policy = PrunePolicy::new(no_wait().last(2)).rules_of("far", no_wait().last(5));
    let report = prune(&site, &policy).await;
    assert_eq!(report.repositories.iter().map(|r| r.removed.len()).collect::<Vec<_>>(), [6, 3]);
    assert_eq!(sets(&site).await.len(), 5);
    assert!(keys_of(&site, 0, 4).await.is_empty());
    assert_eq!(keys_of(&site, 1, 4).await.len(), 3);
}

#[tokio::test]
async fn a_hold_placed_after_the_plan_wins() {
    let site = Site::daily(5).await;
    let plan = plan(&site, &keep(2)).await;
    hold::place(&site.repositories, &stanza(), &id(1), "evidence").await.unwrap();
    let report = apply(&site, &plan).await;
    assert_eq!(sets(&site).await, [id(1), id(3), id(4)]);
    assert_eq!(report.repositories[0].skipped[0].reason, "it is kept now: held");
}

#[tokio::test]
async fn a_child_written_after_the_plan_keeps_its_parent() {
    let site = Site::daily(5).await;
    let plan = plan(&site, &keep(2)).await;
    let mut child = Shape::new(9, site.now());
    child.manifest.parent = Some(id(1));
    site.write(&child).await;
    apply(&site, &plan).await;
    assert!(sets(&site).await.contains(&id(1)));
}

#[tokio::test]
async fn the_newest_good_set_must_be_whole_before_anything_goes() {
    let site = Site::daily(5).await;
    let key = layout::object(&stanza(), &id(4), "globals.sql").unwrap();
    site.repository(0).store().delete(&key).await.unwrap();
    let report = prune(&site, &keep(2)).await;
    assert!(report.repositories[0].removed.is_empty());
    let reason = &report.repositories[0].skipped[0].reason;
    assert!(reason.contains("could not be found whole: globals.sql: it is missing"), "{reason}");
    assert_eq!(report.repositories[0].damaged[0].object, id(4).to_string());
    assert!(!report.is_complete());
    assert_eq!(sets(&site).await.len(), 5);
}

#[tokio::test]
async fn locked_sets_stay_whole_with_the_sets_they_need() {
    let site = Site::new(&["near"]).await;
    let near = site.repository(0);
    for day in 0..6 {
        let mut shape = Shape::new(day, site.now());
        shape.manifest.parent = (day == 2).then(|| id(1));
        if day == 2 {
            // The manifest of this set is locked.
            for (name, bytes) in &shape.objects {
                put(near, &layout::object(&stanza(), &id(day), name).unwrap(), bytes).await;
            }
            let lock = Attributes::default().retain_until(Some(site.now() + DAY * 100));
            let body = Bytes::from(shape.manifest.encode().unwrap());
            let key = layout::manifest(&stanza(), &id(day));
            near.store().put(&key, body, PutMode::Create, &lock).await.unwrap();
        } else {
            site.write(&shape).await;
        }
        site.pass(DAY);
    }
    let report = prune(&site, &keep(2)).await;
    let near = &report.repositories[0];
    assert!(!report.is_complete());
    assert_eq!(near.denied.len(), 1);
    assert_eq!(near.denied[0].object, layout::manifest(&stanza(), &id(2)).as_str());
    assert_eq!(sets(&site).await, [id(1), id(2), id(4), id(5)]);
    assert_eq!(keys_of(&site, 0, 2).await.len(), 3, "the objects of a locked manifest stay");
    let kept_parent = near.skipped.iter().find(|skipped| skipped.set == id(1)).unwrap();
    assert_eq!(kept_parent.reason, format!("set {}, which stays, needs it", id(2)));
}

#[tokio::test]
async fn locked_objects_become_litter_until_the_lock_ends() {
    let site = Site::daily(3).await;
    let near = site.repository(0);
    let key = layout::object(&stanza(), &id(0), "globals.sql").unwrap();
    let bytes = crate::catalog::fixture::get(near, &key).await;
    near.store().delete(&key).await.unwrap();
    let lock = Attributes::default().retain_until(Some(site.now() + DAY * 10));
    near.store().put(&key, Bytes::from(bytes), PutMode::Create, &lock).await.unwrap();
    let report = prune(&site, &keep(1)).await;
    assert_eq!(report.repositories[0].denied.len(), 1);
    assert_eq!(keys_of(&site, 0, 0).await, [key.as_str()]);
    site.pass(DAY * 11);
    let report = prune(&site, &keep(1)).await;
    assert!(report.is_complete() && keys_of(&site, 0, 0).await.is_empty());
}

#[tokio::test]
async fn a_role_that_cannot_delete_changes_nothing() {
    let site = Site::daily(4).await;
    let plan = plan(&site, &keep(1)).await;
    site.faults[0].always(Operation::Delete, Mishap::Error(ErrorKind::Denied));
    let report = apply(&site, &plan).await;
    assert_eq!(report.repositories[0].denied.len(), 3);
    assert_eq!((sets(&site).await.len(), report.repositories[0].objects), (4, 0));
}

#[tokio::test]
async fn litter_is_collected_only_after_its_grace() {
    let site = Site::daily(1).await;
    let near = site.repository(0);
    let crashed = layout::object(&stanza(), &id(7), "half.dump").unwrap();
    put(near, &crashed, b"half").await;
    let unfinished = layout::object(&stanza(), &id(8), "big.dump").unwrap();
    near.store().start_upload(&unfinished, &Attributes::default()).await.unwrap();
    for (wait, left) in [(HOUR * 23, 1), (HOUR, 0)] {
        site.pass(wait);
        let report = prune(&site, &keep(1)).await;
        assert!(report.is_complete());
        assert_eq!(keys_of(&site, 0, 7).await.len(), left);
        let uploads = near.store().list_uploads(&layout::sets(&stanza())).await.unwrap();
        assert_eq!(uploads.len(), left);
        assert_eq!(report.repositories[0].litter.len(), 2 * (1 - left));
    }
    assert_eq!(sets(&site).await, [id(0)]);
}

#[tokio::test]
async fn a_backup_that_makes_progress_is_not_litter_however_long_it_takes() {
    let site = Site::daily(1).await;
    let near = site.repository(0);
    let name = |name: &str| layout::object(&stanza(), &id(7), name).unwrap();
    put(near, &name("first.dump"), b"1").await;
    near.store().start_upload(&name("third.dump"), &Attributes::default()).await.unwrap();
    site.pass(HOUR * 30);
    put(near, &name("second.dump"), b"2").await;
    site.pass(HOUR * 20);
    assert!(plan(&site, &keep(1)).await.is_empty());
    // And so is one whose only sign of life is a young upload.
    site.pass(HOUR * 30);
    near.store().start_upload(&name("fourth.dump"), &Attributes::default()).await.unwrap();
    let plan = plan(&site, &keep(1)).await;
    let kinds: Vec<_> = plan.repositories[0].litter.iter().map(|litter| &litter.what).collect();
    assert!(!kinds.iter().any(|kind| matches!(kind, LitterKind::Objects { .. })), "{kinds:?}");
}

#[tokio::test]
async fn a_backup_that_commits_after_the_plan_is_spared() {
    let site = Site::daily(1).await;
    let shape = Shape::new(7, site.now());
    for (name, bytes) in &shape.objects {
        put(site.repository(0), &layout::object(&stanza(), &id(7), name).unwrap(), bytes).await;
    }
    site.pass(DAY * 2);
    let plan = plan(&site, &keep(5)).await;
    assert_eq!(plan.repositories[0].litter.len(), 1);
    let manifest = layout::manifest(&stanza(), &id(7));
    put(site.repository(0), &manifest, &shape.manifest.encode().unwrap()).await;
    apply(&site, &plan).await;
    assert_eq!(sets(&site).await, [id(0), id(7)]);
    assert_eq!(keys_of(&site, 0, 7).await.len(), 3);
}

#[tokio::test]
async fn foreign_keys_are_reported_and_never_touched() {
    let site = Site::daily(3).await;
    let near = site.repository(0);
    let foreign = [
        "main/sets/20261122/base.tar",
        "main/sets/latest",
        "main/proofs/20261122T020000Z-0000000000/mine.txt",
        "main/holds/notes",
        "main/leases/folder/file",
    ];
    for key in foreign {
        put(near, &Key::parse(key).unwrap(), b"mine").await;
    }
    site.pass(DAY * 100);
    let plan = plan(&site, &keep(1)).await;
    assert_eq!(plan.repositories[0].foreign.objects, 5);
    apply(&site, &plan).await;
    for key in foreign {
        near.store().head(&Key::parse(key).unwrap()).await.unwrap();
    }
    assert_eq!(sets(&site).await, [id(2)]);
}

#[tokio::test]
async fn a_host_clock_a_year_off_removes_nothing_and_both_clocks_are_named() {
    for days in [365, -365, 1, -1] {
        let site = Site::daily(6).await;
        put(site.repository(0), &layout::object(&stanza(), &id(9), "running").unwrap(), b"x").await;
        site.host_clock.advance(DAY * days);
        let report = prune(&site, &keep(1)).await;
        let blocked = report.repositories[0].blocked.as_ref().unwrap();
        let host = site.repositories.clock().now();
        assert_eq!(*blocked, Blocked::Clock { host, store: site.now() }, "{days}");
        assert!(blocked.to_string().contains(&host.to_string()));
        assert_eq!(blocked.class(), Class::Usage);
        assert_eq!(sets(&site).await.len(), 6);
        assert_eq!(keys_of(&site, 0, 9).await.len(), 1);
    }
}

#[tokio::test]
async fn a_set_of_a_newer_program_blocks_its_repository() {
    let site = Site::new(&["near", "far"]).await;
    for day in 0..4 {
        site.write(&Shape::new(day, site.now())).await;
        site.pass(DAY);
    }
    let mut newer = Shape::new(9, site.now());
    newer.manifest.format = 2;
    site.write_to(site.repository(0), &newer).await;
    let report = prune(&site, &keep(1)).await;
    assert_eq!(report.repositories[0].blocked, Some(Blocked::NewerFormat { set: id(9) }));
    assert_eq!(report.repositories[1].removed.len(), 3);
}

#[tokio::test]
async fn an_unreachable_repository_does_not_stop_the_others() {
    let site = Site::new(&["near", "far"]).await;
    for day in 0..4 {
        site.write(&Shape::new(day, site.now())).await;
        site.pass(DAY);
    }
    site.faults[0].always(Operation::List, Mishap::Error(ErrorKind::Temporary));
    let report = prune(&site, &keep(1)).await;
    assert!(matches!(report.repositories[0].blocked, Some(Blocked::Unreachable { .. })));
    assert_eq!(report.repositories[1].removed.len(), 3);
    site.faults[0].calm();
    assert_eq!(keys_of(&site, 0, 0).await.len(), 3);
}

#[tokio::test]
async fn damaged_manifests_are_left_to_a_human() {
    let site = Site::daily(5).await;
    overwrite(site.repository(0), &layout::manifest(&stanza(), &id(1)), b"garbage").await;
    site.pass(DAY * 30);
    prune(&site, &keep(1)).await;
    assert_eq!(sets(&site).await, [id(1), id(4)]);
    assert_eq!(keys_of(&site, 0, 1).await.len(), 3);
}

#[tokio::test]
async fn cancelling_stops_between_sets() {
    let site = Site::daily(5).await;
    let plan = plan(&site, &keep(1)).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let report = plan.apply(&site.repositories, &cancel).await.unwrap();
    assert!(report.repositories[0].removed.is_empty());
    assert_eq!(report.repositories[0].skipped.len(), 4);
    assert_eq!(sets(&site).await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn old_entries_of_lease_logs_and_probes_are_collected() {
    let clock = crate::lease::PacedClock::new(false);
    let can = Capabilities { create_only: true, compare_and_swap: false, min_part: 1, max_parts: 10 };
    let store = Arc::new(MemoryStore::with_capabilities(clock.clone(), can));
    let near = Repository::create("near", store, &*clock).await.unwrap();
    let repositories = Repositories::new(vec![near.clone()], 1, clock).unwrap();
    let lease = Lease::acquire(&near, &stanza(), "backup", &LeaseOptions::new("x")).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        lease.renew().await.unwrap();
        register::store_now(&near, &stanza()).await.unwrap();
    }
    let litter = async || {
        let plan = plan_prune(&repositories, &stanza(), &keep(1)).await.unwrap();
        plan.apply(&repositories, &CancellationToken::new()).await.unwrap().repositories[0].litter.len()
    };
    assert_eq!(litter().await, 0);
    tokio::time::sleep(Duration::from_secs(49 * 3600)).await;
    // Nine of eleven entries, ten probes and the one of the prune before.
    assert_eq!(litter().await, 9 + 11);
    lease.check().await.unwrap();
    lease.release().await.unwrap();
}
