//! The catalog with good, bad and strange sets.

use jiff::SignedDuration;

use super::fixture::{DAY, Shape, Site, get, id, overwrite, put, stanza, start};
use super::*;
use crate::fault::{ErrorKind, Mishap, Operation, Spot};
use crate::hold;
use crate::key::Key;
use crate::manifest::SetKind;
use crate::proof::{Proof, ProofKind};
use crate::repository::{Repository, layout};

async fn load(site: &Site) -> Catalog {
    Catalog::load(&site.repositories, &stanza()).await.unwrap()
}

async fn prove(site: &Site, repository: &Repository, set: SetId, kind: ProofKind, passed: bool) {
    site.pass(SignedDuration::from_secs(1));
    Proof::new(kind, stanza(), set, "test", site.now(), passed).store(repository).await.unwrap();
}

fn ids(catalog: &Catalog) -> Vec<SetId> {
    catalog.sets.iter().map(|set| set.id.clone()).collect()
}

#[tokio::test]
async fn a_stanza_nobody_wrote_to_is_empty() {
    let site = Site::new(&["near"]).await;
    let catalog = load(&site).await;
    assert!(catalog.sets.is_empty());
    let error = catalog.newest_good(&Filter::default()).unwrap_err();
    assert_eq!(error.to_string(), "no good set in stanza main");
}

#[tokio::test]
async fn copies_of_several_repositories_are_one_set() {
    let site = Site::new(&["near", "far"]).await;
    site.write(&Shape::new(1, site.now())).await;
    site.pass(DAY);
    site.write_to(site.repository(1), &Shape::new(2, site.now())).await;
    let catalog = load(&site).await;
    assert_eq!(ids(&catalog), [id(2), id(1)]);
    let copies: Vec<_> = catalog.sets[1].copies.iter().map(|copy| copy.repository.as_str()).collect();
    assert_eq!(copies, ["near", "far"]);
    assert_eq!(catalog.candidates("near").len(), 1);
}

#[tokio::test]
async fn newest_means_newest_good() {
    let site = Site::daily(5).await;
    let near = site.repository(0);
    let mut incomplete = Shape::new(10, site.now());
    incomplete.manifest.complete = false;
    site.write(&incomplete).await;
    prove(&site, near, id(4), ProofKind::VerifyFull, false).await;
    prove(&site, near, id(4), ProofKind::VerifyQuick, true).await;
    let catalog = load(&site).await;
    assert_eq!(catalog.newest_good(&Filter::default()).unwrap().id, id(3));
    assert_eq!(catalog.sets.len(), 6);
    prove(&site, near, id(4), ProofKind::VerifyFull, true).await;
    assert_eq!(load(&site).await.newest_good(&Filter::default()).unwrap().id, id(4));
}

#[tokio::test]
async fn a_set_that_cannot_be_read_is_not_passed_over_for_an_older_one() {
    let site = Site::daily(3).await;
    let spot = |number: u32| {
        let like = layout::manifest(&stanza(), &id(number)).as_str().to_owned();
        Spot { operation: Operation::Get, like, number: 1 }
    };
    for kind in [ErrorKind::Denied, ErrorKind::Failed, ErrorKind::Missing, ErrorKind::Absent] {
        let choose = async |number: u32| {
            site.faults[0].at(spot(number), 1, Mishap::Error(kind));
            let catalog = load(&site).await;
            site.faults[0].calm();
            assert_eq!(catalog.sets.len(), 3, "{kind:?}");
            let unread = catalog.by_id(id(number).as_str()).unwrap();
            assert!(unread.is_unread() && !unread.problems().is_empty(), "{kind:?}: {unread:?}");
            catalog.newest_good(&Filter::default()).map(|set| set.id.clone())
        };
        let refused = choose(2).await.unwrap_err();
        assert!(matches!(&refused, Error::Unread { set, .. } if *set == id(2)), "{kind:?}: {refused:?}");
        assert_eq!(choose(1).await.unwrap(), id(2), "{kind:?}: an older one is in nobody's way");
    }
}

#[tokio::test]
async fn a_set_that_cannot_be_read_is_not_called_absent() {
    let site = Site::daily(1).await;
    site.faults[0].always(Operation::Get, Mishap::Error(ErrorKind::Denied));
    let refused = load(&site).await.newest_good(&Filter::default()).unwrap_err();
    assert!(matches!(refused, Error::Unread { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_proof_that_is_listed_and_not_read_is_said_to_be() {
    let site = Site::daily(1).await;
    prove(&site, site.repository(0), id(0), ProofKind::VerifyFull, false).await;
    let like = layout::proofs(&stanza(), &id(0)).as_str().to_owned();
    let like = format!("{}/*", like.trim_end_matches('/'));
    let spot = Spot { operation: Operation::Get, like, number: 1 };
    site.faults[0].at(spot, 1, Mishap::Error(ErrorKind::Absent));
    let catalog = load(&site).await;
    assert_eq!(site.faults[0].injected(), 1);
    assert_eq!(catalog.sets[0].copies[0].proofs.damaged.len(), 1, "{catalog:?}");
}

#[tokio::test]
async fn a_manifest_that_was_damaged_on_its_way_is_read_again() {
    let site = Site::daily(2).await;
    let like = layout::manifest(&stanza(), &id(1)).as_str().to_owned();
    site.faults[0].at(Spot { operation: Operation::Get, like, number: 1 }, 1, Mishap::Flip);
    assert_eq!(load(&site).await.newest_good(&Filter::default()).unwrap().id, id(1));
    assert_eq!(site.faults[0].injected(), 1);
}

#[tokio::test]
async fn sets_are_chosen_by_time_kind_database_and_id() {
    let site = Site::daily(4).await;
    let mut other = Shape::new(0xabc, site.now());
    other.manifest.source.database = "other".to_owned();
    other.manifest.kind = SetKind::new("redis");
    site.write(&other).await;
    let catalog = load(&site).await;
    let shop = Filter::default().database("shop");
    assert_eq!(catalog.newest_good(&shop.clone().at_or_before(start() + DAY)).unwrap().id, id(1));
    let just_before = start() + DAY - SignedDuration::from_secs(1);
    assert_eq!(catalog.newest_good(&shop.at_or_before(just_before)).unwrap().id, id(0));
    assert_eq!(catalog.newest_good(&Filter::default().kind(SetKind::new("redis"))).unwrap().id, id(0xabc));
    let error = catalog.newest_good(&Filter::default().database("none")).unwrap_err();
    assert_eq!(error.to_string(), "no good set of database none in stanza main");
    assert_eq!(catalog.by_id(id(3).as_str()).unwrap().id, id(3));
    assert_eq!(catalog.by_id("20261122T020000Z-0000000abc").unwrap().id, id(0xabc));
    assert_eq!(catalog.by_id("20261122T020000Z-0000000a").unwrap().id, id(0xabc));
    let ambiguous = catalog.by_id("20261122T").unwrap_err().to_string();
    assert!(ambiguous.contains("there are 5"), "{ambiguous}");
    assert!(catalog.by_id("").is_err() && catalog.by_id("2027").is_err());
}

#[tokio::test]
async fn a_flipped_bit_in_a_manifest_is_listed_as_damage_and_stops_nothing() {
    let site = Site::daily(2).await;
    let near = site.repository(0);
    let key = layout::manifest(&stanza(), &id(1));
    let whole = get(near, &key).await;
    for bit in (0..whole.len() * 8).step_by(5) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        overwrite(near, &key, &flipped).await;
        let catalog = load(&site).await;
        let set = catalog.by_id(id(1).as_str()).unwrap();
        assert_eq!(set.copies[0].state, CopyState::Unreadable, "bit {bit}");
        assert!(!set.problems().is_empty());
        assert_eq!(catalog.newest_good(&Filter::default()).unwrap().id, id(0));
    }
    for len in [0, 1, whole.len() - 1] {
        overwrite(near, &key, &whole[..len]).await;
        assert_eq!(load(&site).await.by_id(id(1).as_str()).unwrap().copies[0].state, CopyState::Unreadable);
    }
}

#[tokio::test]
async fn misplaced_and_newer_manifests_are_listed_with_their_problem() {
    let site = Site::daily(1).await;
    let near = site.repository(0);
    let of_zero = get(near, &layout::manifest(&stanza(), &id(0))).await;
    put(near, &layout::manifest(&stanza(), &id(7)), &of_zero).await;
    let mut newer = Shape::new(8, site.now());
    newer.manifest.format = 99;
    site.write(&newer).await;
    let mut elsewhere = Shape::new(9, site.now());
    elsewhere.manifest.stanza = Stanza::parse("other").unwrap();
    put(near, &layout::manifest(&stanza(), &id(9)), &elsewhere.manifest.encode().unwrap()).await;
    put(near, &Key::parse("main/sets/notes.txt").unwrap(), b"mine").await;
    let catalog = load(&site).await;
    let state = |number| catalog.by_id(id(number).as_str()).unwrap().copies[0].state;
    assert_eq!(
        (state(7), state(8), state(9)),
        (CopyState::Unreadable, CopyState::Newer, CopyState::Unreadable)
    );
    let problems = catalog.by_id(id(9).as_str()).unwrap().problems().join("; ");
    assert!(problems.contains("belongs to set") && problems.contains("other"), "{problems}");
    assert_eq!(catalog.newest_good(&Filter::default()).unwrap().id, id(0));
}

#[tokio::test]
async fn damage_in_one_repository_leaves_the_set_good() {
    let site = Site::new(&["near", "far"]).await;
    site.write(&Shape::new(1, site.now())).await;
    overwrite(site.repository(0), &layout::manifest(&stanza(), &id(1)), b"{}").await;
    let catalog = load(&site).await;
    assert!(catalog.sets[0].is_good());
    assert_eq!(catalog.sets[0].problems().len(), 1);
    assert_eq!(catalog.candidates("near")[0].health, Health::Unreadable);
    assert_eq!(catalog.candidates("far")[0].health, Health::Good);
}

#[tokio::test]
async fn a_copy_that_differs_is_not_good() {
    let site = Site::new(&["near", "far"]).await;
    let honest = Shape::new(1, site.now());
    site.write_to(site.repository(0), &honest).await;
    site.pass(DAY);
    let mut forged = honest.clone();
    forged.manifest.annotations.insert("who".to_owned(), "me".to_owned());
    site.write_to(site.repository(1), &forged).await;
    let catalog = load(&site).await;
    assert_eq!(catalog.sets[0].copy_in("far").unwrap().state, CopyState::Differs);
    assert_eq!(catalog.sets[0].manifest.as_deref(), Some(&honest.manifest));
    assert_eq!(catalog.candidates("far")[0].health, Health::Doubtful);
}

#[tokio::test]
async fn a_set_without_its_parents_is_not_good() {
    let site = Site::daily(1).await;
    for (number, parent) in [(1, 0), (2, 1), (3, 77), (4, 3), (5, 6), (6, 5), (9, 9)] {
        let mut child = Shape::new(number, site.now());
        child.manifest.parent = Some(id(parent));
        site.write(&child).await;
    }
    let catalog = load(&site).await;
    let good: Vec<_> = (0..7).map(|number| catalog.by_id(id(number).as_str()).unwrap().is_good()).collect();
    assert_eq!(good, [true, true, true, false, false, false, false]);
    assert!(!catalog.by_id(id(9).as_str()).unwrap().is_good());
    let problems = catalog.by_id(id(4).as_str()).unwrap().problems();
    assert_eq!(problems, [format!("it needs set {}, which is not good", id(77))]);
    prove(&site, site.repository(0), id(0), ProofKind::VerifyFull, false).await;
    assert!(!load(&site).await.by_id(id(2).as_str()).unwrap().is_good());
}

#[tokio::test]
async fn writers_clocks_do_not_reach_retention() {
    let honest = Site::daily(6).await;
    let hostile = Site::new(&["near"]).await;
    let years = SignedDuration::from_hours(24 * 3650);
    for day in 0..6 {
        if day > 0 {
            hostile.pass(DAY);
        }
        let mut shape = Shape::new(day, hostile.now());
        let lie = if day % 2 == 0 { hostile.now() + years } else { hostile.now() - years };
        shape.manifest.started = lie;
        shape.manifest.finished = lie;
        shape.manifest.recovery_point = lie;
        hostile.write(&shape).await;
    }
    let sorted = |catalog: Catalog| {
        let mut candidates = catalog.candidates("near");
        candidates.sort_by_key(|candidate| candidate.set.clone());
        candidates
    };
    let hostile = load(&hostile).await;
    assert!(hostile.sets[0].problems()[0].contains("the writer's clock was wrong"));
    assert_eq!(sorted(hostile), sorted(load(&honest).await));
}

#[tokio::test]
async fn a_future_recovery_point_does_not_make_a_set_the_newest_for_ever() {
    let site = Site::new(&["near"]).await;
    let mut liar = Shape::new(1, site.now());
    liar.manifest.recovery_point = site.now() + DAY * 400;
    site.write(&liar).await;
    site.pass(DAY);
    site.write(&Shape::new(2, site.now())).await;
    assert_eq!(load(&site).await.newest_good(&Filter::default()).unwrap().id, id(2));
}

#[tokio::test]
async fn the_report_shows_size_age_verified_and_proven_state() {
    let site = Site::daily(1).await;
    let near = site.repository(0);
    let before = load(&site).await.sets[0].report(site.now());
    assert_eq!((before.verified, before.proven), (None, None));
    prove(&site, near, id(0), ProofKind::VerifyFull, true).await;
    prove(&site, near, id(0), ProofKind::RestoreTest, false).await;
    hold::place(&site.repositories, &stanza(), &id(0), "audit").await.unwrap();
    site.pass(DAY);
    let report = load(&site).await.report(site.now());
    let set = &report.sets[0];
    assert_eq!((set.stored_bytes, set.age_seconds), (Some(390), Some(86_402)));
    assert_eq!(set.held.as_deref(), Some("audit"));
    let (verified, proven) = (set.verified.as_ref().unwrap(), set.proven.as_ref().unwrap());
    assert_eq!((verified.kind, verified.passed), (ProofKind::VerifyFull, true));
    assert_eq!((proven.kind, proven.passed), (ProofKind::RestoreTest, false));
    assert!(!set.good);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["sets"][0]["verified"]["kind"], "verify-full");
    assert_eq!(json["sets"][0]["copies"][0]["state"], "failed");
}

#[tokio::test]
async fn holds_follow_their_newest_event_and_damage_holds() {
    let site = Site::new(&["near", "far"]).await;
    site.write(&Shape::new(0, site.now())).await;
    let (near, far) = (site.repository(0), site.repository(1));
    let hold_of = async |name: &str| load(&site).await.candidates(name)[0].hold;
    hold::place(&site.repositories, &stanza(), &id(0), "audit").await.unwrap();
    assert_eq!((hold_of("near").await, hold_of("far").await), (Hold::Held, Hold::Held));
    // A release that reached only one repository releases nothing.
    site.pass(DAY);
    site.faults[1].always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
    let receipt = hold::release(&site.repositories, &stanza(), &id(0), "done").await.unwrap();
    assert_eq!(receipt.missing_in.len(), 1);
    site.faults[1].calm();
    assert_eq!(hold_of("near").await, Hold::Held);
    site.pass(DAY);
    hold::release(&site.repositories, &stanza(), &id(0), "done").await.unwrap();
    let released = site.now();
    assert_eq!(hold_of("far").await, Hold::Released(released));
    // The newest event decides, and one that cannot be read counts as a hold.
    let holds = layout::holds(&stanza(), &id(0));
    let newest = site.keys(0).await.into_iter().rfind(|key| holds.contains(key)).unwrap();
    let mut bytes = get(near, &newest).await;
    bytes[40] ^= 4;
    overwrite(near, &newest, &bytes).await;
    assert_eq!((hold_of("near").await, hold_of("far").await), (Hold::Held, Hold::Held));
    assert!(load(&site).await.sets[0].problems()[0].contains("/holds/"));
    assert_eq!(far.name(), "far");
}

#[tokio::test]
async fn a_damaged_proof_gives_way_to_the_one_before() {
    let site = Site::daily(1).await;
    let near = site.repository(0);
    prove(&site, near, id(0), ProofKind::VerifyFull, false).await;
    prove(&site, near, id(0), ProofKind::VerifyFull, true).await;
    assert!(load(&site).await.sets[0].is_good());
    let newest = site.keys(0).await.into_iter().rfind(|key| key.as_str().contains("/proofs/")).unwrap();
    let bytes = get(near, &newest).await;
    overwrite(near, &newest, &bytes[..bytes.len() / 2]).await;
    let catalog = load(&site).await;
    assert!(!catalog.sets[0].is_good());
    assert!(catalog.sets[0].problems().iter().any(|problem| problem.contains("/proofs/")));
}

#[tokio::test]
async fn an_unreachable_repository_is_named_and_the_others_are_shown() {
    let site = Site::new(&["near", "far"]).await;
    site.write(&Shape::new(0, site.now())).await;
    site.faults[0].always(Operation::List, Mishap::Error(ErrorKind::Temporary));
    let catalog = load(&site).await;
    assert!(catalog.sets[0].is_good());
    assert_eq!(catalog.unreachable[0].0, "near");
    site.faults[1].always(Operation::List, Mishap::Error(ErrorKind::Temporary));
    assert!(Catalog::load(&site.repositories, &stanza()).await.is_err());
}

#[tokio::test]
async fn a_fault_at_any_call_never_makes_a_smaller_catalog() {
    let site = Site::daily(3).await;
    prove(&site, site.repository(0), id(1), ProofKind::VerifyFull, true).await;
    hold::place(&site.repositories, &stanza(), &id(2), "audit").await.unwrap();
    let before = site.faults[0].calls().len() as u64;
    let whole = load(&site).await.report(site.now());
    let calls = site.faults[0].calls().len() as u64 - before;
    assert!(calls >= 8, "{calls}");
    let mishaps = [
        Mishap::Error(ErrorKind::Temporary),
        Mishap::LostReply,
        Mishap::Cut { after: 1, loud: true },
        Mishap::Error(ErrorKind::Denied),
    ];
    for mishap in mishaps {
        for call in 1..=calls {
            site.faults[0].on_call(site.faults[0].calls().len() as u64 + call, mishap);
            let loaded = Catalog::load(&site.repositories, &stanza()).await;
            site.faults[0].calm();
            let Ok(catalog) = loaded else { continue };
            let report = catalog.report(site.now());
            assert_eq!(report.sets.len(), 3, "{mishap:?} at {call}");
            // Whatever could not be read is a problem of its set, or nothing is different.
            assert!(
                report == whole || report.sets.iter().any(|set| !set.problems.is_empty()),
                "{mishap:?} {call}"
            );
        }
    }
}
