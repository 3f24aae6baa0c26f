//! Rules that no other scene happens to touch: what becomes of secrets in answers, of hosts that fall silent, of races.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::fault::{Fault, Mishap, Operation};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::secret::Secret;
use backstay_notify::incident::{IncidentId, Journal, Objective};
use backstay_notify::outbox::{Attempted, Parcel, Phase, Spool};
use backstay_notify::{Kind, Notice, Notifier, Severity};
use backstay_testkit::{Answer, HttpSink};
use jiff::SignedDuration;
use support::{at, notifier, setup, slack_webhook, webhook};
use tokio_util::sync::CancellationToken;

fn notice(id: &str, severity: Severity) -> Notice {
    Notice::new(id, id, Kind::Report, severity, at(0), "all is lost")
}

fn sink(answer: impl Fn() -> Answer + Send + Sync + 'static) -> HttpSink {
    HttpSink::start(move |_, _| answer()).unwrap()
}

async fn minutes(notifier: &Notifier, clock: &ManualClock, minutes: i64) {
    for _ in 0..minutes * 2 {
        clock.advance(SignedDuration::from_secs(30));
        notifier.tick(&CancellationToken::new()).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_service_says_is_told_without_the_secrets_in_it() {
    const SECRET: &str = "hunter2hunter2";
    for status in [500, 404] {
        let down = sink(move || Answer::Status(status, Vec::new(), format!("no access for {SECRET} at all")));
        let other = sink(|| Answer::ok(""));
        let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
        let channels = vec![("pager", webhook(&down.url("/"))), ("team", webhook(&other.url("/")))];
        let mut setup = setup(state.path(), &clock, channels);
        setup.redactor.add(&Secret::new(SECRET.to_owned()));
        let notifier = Notifier::open(setup).unwrap();
        let told = notifier.send(notice("n", Severity::P0), &["pager".to_owned()]).await.unwrap();
        assert!(!format!("{told:?}").contains(SECRET), "{told:?}");
        minutes(&notifier, &clock, 5).await;
        let text = String::from_utf8_lossy(&other.received()[0].body).into_owned();
        assert!(text.contains("no access for") && !text.contains(SECRET), "{status}: {text}");
    }
}

#[tokio::test]
async fn a_host_that_took_a_timer_and_fell_silent_is_overtaken() {
    let shared = tempfile::tempdir().unwrap();
    let store = || Arc::new(LocalStore::create(shared.path().join("repository")).unwrap());
    let host = || Journal::new(vec![store()], Prefix::parse("main/incidents").unwrap());
    let id = IncidentId::parse("20261122T221354Z-3f9a2c01").unwrap();
    let patience = SignedDuration::from_secs(120);
    let (a, b) = (host(), host());
    assert!(a.claim(&id, "escalation-1", "a", at(0), patience).await);
    assert!(!b.claim(&id, "escalation-1", "b", at(119), patience).await);
    assert!(a.claim(&id, "escalation-1", "a", at(119), patience).await, "its own");
    assert!(b.claim(&id, "escalation-2", "b", at(119), patience).await, "another one");
    assert!(b.claim(&id, "escalation-1", "b", at(121), patience).await);
}

#[test]
fn an_objective_that_is_reached_to_the_second_is_kept() {
    let reached = |reached| Objective { name: "RTO".to_owned(), target: 900, reached };
    assert!(!reached(900).is_missed() && reached(901).is_missed());
}

#[tokio::test]
async fn the_same_notice_of_many_processes_is_told_once_and_waits_once() {
    for status in [200, 500] {
        let room = sink(move || Answer::Status(status, Vec::new(), "ok".to_owned()));
        let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
        let open = || notifier(state.path(), &clock, vec![("room", slack_webhook(&room.url("/")))]);
        let senders = (0..8).map(|_| {
            let notifier = open();
            async move { notifier.send(notice("nightly-7", Severity::P2), &[]).await.unwrap() }
        });
        futures::future::join_all(senders).await;
        let (pending, _) = open().spool().load().await.unwrap();
        assert_eq!(pending.len(), usize::from(status == 500));
        if status == 200 {
            assert_eq!(room.received().len(), 1);
            open().send(notice("nightly-7", Severity::P2), &[]).await.unwrap();
            assert_eq!(room.received().len(), 1, "also when it is done");
        }
    }
}

#[tokio::test]
async fn what_somebody_was_told_does_not_go_to_everybody() {
    let (down, team, third) =
        (sink(|| Answer::status(500)), sink(|| Answer::ok("")), sink(|| Answer::ok("")));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let channels = vec![
        ("pager", webhook(&down.url("/"))),
        ("team", webhook(&team.url("/"))),
        ("third", webhook(&third.url("/"))),
    ];
    let notifier = notifier(state.path(), &clock, channels);
    let to = ["pager", "team"].map(str::to_owned);
    notifier.send(notice("n", Severity::P0), &to).await.unwrap();
    minutes(&notifier, &clock, 10).await;
    assert_eq!((team.received().len(), third.received().len()), (1, 0));
}

#[tokio::test]
async fn two_channels_that_refuse_everything_do_not_call_each_other_for_ever() {
    let (a, b) = (sink(|| Answer::status(404)), sink(|| Answer::status(404)));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let channels = vec![("a", webhook(&a.url("/"))), ("b", webhook(&b.url("/")))];
    let mut setup = setup(state.path(), &clock, channels);
    for (name, fallback) in [("a", "b"), ("b", "a")] {
        setup.registry.fallbacks.insert(name.to_owned(), fallback.to_owned());
    }
    let notifier = Notifier::open(setup).unwrap();
    notifier.send(notice("n", Severity::P0), &["a".to_owned()]).await.unwrap();
    minutes(&notifier, &clock, 5).await;
    assert_eq!((a.received().len(), b.received().len()), (1, 1), "the message, and the alarm about it");
}

/// Who reads while another process closes a merged message must not take the later ones for untold.
#[tokio::test]
async fn who_reads_while_somebody_closes_a_merged_message_sees_all_of_it_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = || Arc::new(LocalStore::create(folder.path().join("outbox")).unwrap());
    let closer = Spool::new(store());
    for id in ["first", "second"] {
        let parcel = Parcel::new(Some(notice(id, Severity::P2)), vec!["hook".to_owned()], None);
        closer.enqueue(&parcel).await.unwrap();
    }
    let mut told = Attempted::fresh(at(0));
    (told.phase, told.group) = (Phase::Accepted, vec![2]);
    closer.write_state(1, "hook", &told).await.unwrap();
    // Both parcels are read; what says that the second was told with the first is read when it is gone.
    let fault = Arc::new(Fault::new(store(), 7));
    fault.on(Operation::Get, 3, Mishap::Slow(Duration::from_millis(400)));
    let reader = Spool::new(fault.clone());
    let (read, closed) = tokio::join!(reader.load(), async {
        while fault.count(Operation::Get) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        closer.close_settled(at(1)).await
    });
    assert_eq!(closed.unwrap().len(), 2);
    let (pending, _) = read.unwrap();
    assert!(pending.is_empty(), "{pending:?}");
}
