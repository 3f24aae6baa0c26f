//! Changes of incidents that meet: of several processes at once, of one that became less bad, of one that nobody can read.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::config::TimeSpan;
use backstay_backup_core::error::{Class, Classified as _};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_notify::incident::{Change, Event, Journal};
use backstay_notify::page::Page;
use backstay_notify::policy::Policy;
use backstay_notify::{Kind, Notice, Notifier, NotifyError, Opening, Resolution, Severity, Update};
use backstay_testkit::{Answer, HttpSink};
use jiff::SignedDuration;
use support::{at, notifier, setup, webhook};
use tokio_util::sync::CancellationToken;

fn sink() -> HttpSink {
    HttpSink::start(|_, _| Answer::ok("")).unwrap()
}

fn kinds(sink: &HttpSink) -> Vec<String> {
    let kind = |request: &backstay_testkit::Received| {
        request.json()["type"].as_str().unwrap().replace("backstay.", "")
    };
    sink.received().iter().map(kind).collect()
}

fn keyed(key: &str) -> Opening {
    let mut opening = Opening::new(Severity::P1, "slow", "ada");
    opening.key = Some(key.to_owned());
    opening
}

fn store(directory: &Path) -> Arc<Fault> {
    Arc::new(Fault::new(Arc::new(LocalStore::create(directory.to_owned()).unwrap()), 7))
}

#[tokio::test]
async fn the_same_key_of_many_processes_opens_one_incident_and_one_of_them_ends_it() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let open = || notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let openers = (0..8).map(|_| {
        let notifier = open();
        async move { notifier.open_incident(&keyed("shop")).await.unwrap().incident.id }
    });
    let ids = futures::future::join_all(openers).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(kinds(&sink), ["opened"]);
    let enders = (0..8).map(|_| {
        let notifier = open();
        async move { notifier.resolve_incident("shop", &Resolution::new("", "ada")).await }
    });
    let ends = futures::future::join_all(enders).await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    assert!(ends.iter().flat_map(|end| end.as_ref().err()).all(|error| error.class() == Class::Conflict));
    assert_eq!(kinds(&sink), ["opened", "resolved"]);
}

/// A script that lost the name must not end whatever happens to be open.
#[tokio::test]
async fn no_name_means_no_incident() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let id = notifier.open_incident(&keyed("shop")).await.unwrap().incident.id;
    let ended = notifier.resolve_incident("", &Resolution::new("", "ada")).await;
    assert!(matches!(ended, Err(NotifyError::NoIncident { .. })), "{ended:?}");
    assert_eq!(notifier.incident(&id.as_str()[..9]).await.unwrap().id, id);
}

#[tokio::test]
async fn whoever_was_told_when_it_was_worse_is_told_the_end() {
    let (pager, team) = (sink(), sink());
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let channels = vec![("pager", webhook(&pager.url("/"))), ("team", webhook(&team.url("/")))];
    let mut setup = setup(state.path(), &clock, channels);
    let mut table = support::policy(&["team"]);
    table.p0.channels = Some(vec!["pager".to_owned()]);
    setup.policy = Policy::new(&table, ["pager", "team"].map(str::to_owned));
    let notifier = Notifier::open(setup).unwrap();
    let id = notifier.open_incident(&Opening::new(Severity::P0, "down", "ada")).await.unwrap().incident.id;
    let mut less = Update::new("only the shop", "ada");
    less.severity = Some(Severity::P2);
    notifier.update_incident(id.as_str(), &less).await.unwrap();
    notifier.update_incident(id.as_str(), &Update::new("still the shop", "ada")).await.unwrap();
    notifier.acknowledge_incident(id.as_str(), "grace").await.unwrap();
    notifier.resolve_incident(id.as_str(), &Resolution::new("", "grace")).await.unwrap();
    assert_eq!(kinds(&pager), ["opened", "update", "acknowledged", "resolved"]);
    assert_eq!(kinds(&team), ["update", "update", "acknowledged", "resolved"]);
}

#[tokio::test]
async fn a_key_keeps_no_secret_and_stays_the_same_key() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let first = notifier.open_incident(&keyed("shop?token=abc123def")).await.unwrap().incident;
    let again = notifier.open_incident(&keyed("shop?token=abc123def")).await.unwrap().incident;
    let other = notifier.open_incident(&keyed("shop?token=fed321cba")).await.unwrap().incident;
    assert_eq!(first.id, again.id);
    assert_ne!(first.id, other.id, "two keys never become one");
    let known = notifier.incidents(true).await.unwrap();
    assert!(!format!("{known:?}").contains("abc123def"), "{known:?}");
    assert_eq!(notifier.incident("shop?token=abc123def").await.unwrap().id, first.id);
}

#[tokio::test]
async fn a_page_of_what_could_not_be_read_never_says_that_all_is_well() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let far = store(&state.path().join("repository"));
    setup.journal = Some(Journal::new(vec![far.clone()], Prefix::root()));
    let notifier = Notifier::open(setup).unwrap();
    let page = async || Page::of_known("Example", &notifier.known_incidents(true).await.unwrap(), at(60));
    let calm = page().await;
    assert!(calm.html.contains("No open incident") && calm.json.contains("\"complete\": true"));
    far.always(Operation::List, Mishap::Error(ErrorKind::Temporary));
    let blind = page().await;
    assert!(!blind.html.contains("No open incident"), "{}", blind.html);
    assert!(blind.html.contains("Unknown") && blind.html.contains("there may be more"), "{}", blind.html);
    let json: serde_json::Value = serde_json::from_str(&blind.json).unwrap();
    assert_eq!((&json["state"], &json["complete"]), (&"unknown".into(), &false.into()));
    notifier.open_incident(&Opening::new(Severity::P1, "slow", "ada")).await.unwrap();
    let some = page().await;
    assert!(some.html.contains("Partial outage") && some.html.contains("there may be more"), "{}", some.html);
}

#[tokio::test]
async fn words_without_end_are_cut_and_what_is_too_much_all_the_same_is_said_at_once() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let open = || notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    // Each of these characters is six in a record.
    let endless = "\u{1}".repeat(3 << 20);
    let mut opening = Opening::new(Severity::P1, "slow", "ada");
    opening.text.clone_from(&endless);
    let id = open().open_incident(&opening).await.unwrap().incident.id;
    let mut end = Resolution::new("", "ada");
    end.text.clone_from(&endless);
    open().resolve_incident(id.as_str(), &end).await.unwrap();
    assert_eq!(kinds(&sink), ["opened", "resolved"]);
    let known = open().journal().events(true).await.unwrap();
    assert_eq!(known.events[&id].len(), 2, "other hosts can read it");
    let mut notice = Notice::new("n", "n", Kind::Report, Severity::P2, at(0), "many facts");
    notice.facts = (0..10).map(|n| (format!("fact {n}"), endless.clone())).collect();
    let error = open().send(notice, &[]).await.unwrap_err();
    assert!(error.class() == Class::Usage && error.to_string().contains("too much"), "{error}");
    let told = open().tick(&CancellationToken::new()).await.unwrap();
    assert_eq!((told.damaged.len(), told.waiting.len()), (0, 0), "{told:?}");
}

/// In years it becomes much, and whoever acknowledges must not wait for it.
#[tokio::test]
async fn what_is_over_is_not_read_to_change_what_is_open() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let far = store(&state.path().join("repository"));
    let host = |name: &str| {
        let state = state.path().join(name);
        let mut setup = setup(&state, &clock, vec![("hook", webhook(&sink.url("/")))]);
        setup.journal = Some(Journal::new(vec![far.clone()], Prefix::root()));
        Notifier::open(setup).unwrap()
    };
    let a = host("a");
    for number in 0..20 {
        let title = format!("incident {number}");
        let id = a.open_incident(&Opening::new(Severity::P2, &title, "ada")).await.unwrap().incident.id;
        a.resolve_incident(id.as_str(), &Resolution::new("", "ada")).await.unwrap();
    }
    let id = a.open_incident(&Opening::new(Severity::P2, "open", "ada")).await.unwrap().incident.id;
    let before = far.count(Operation::Get);
    host("b").acknowledge_incident(id.as_str(), "bob").await.unwrap();
    let read = far.count(Operation::Get) - before;
    assert!(read <= 5, "{read} reads");
    assert_eq!(host("b").incident("20").await.unwrap().id, id, "the only open one that begins so");
    a.resolve_incident(id.as_str(), &Resolution::new("", "ada")).await.unwrap();
    assert!(host("b").incident("20").await.is_err(), "several that are over begin so");
}

/// Of many timers that are due at once the last ones go off seconds later: what was said meanwhile counts.
#[tokio::test]
async fn whoever_is_faster_than_a_timer_that_is_due_is_not_reminded() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let open = || {
        let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
        let mut table = support::policy(&["hook"]);
        table.p1.update_every = Some(TimeSpan::from_secs(900));
        setup.policy = Policy::new(&table, ["hook".to_owned()]);
        Notifier::open(setup).unwrap()
    };
    let notifier = open();
    let mut ids = Vec::new();
    for number in 0..20 {
        let opening = Opening::new(Severity::P1, &format!("incident {number}"), "ada");
        ids.push(notifier.open_incident(&opening).await.unwrap().incident.id.to_string());
    }
    // The newest go off first.
    ids.sort();
    let last = ids[0].clone();
    clock.advance(SignedDuration::from_secs(901));
    let cancel = CancellationToken::new();
    let other = open();
    let resolve = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        other.resolve_incident(&last, &Resolution::new("", "ada")).await.unwrap();
    };
    let (ticked, ()) = tokio::join!(notifier.tick(&cancel), resolve);
    assert_eq!(ticked.unwrap().fired.len(), 19);
    let told: Vec<String> = sink
        .received()
        .iter()
        .filter(|request| request.json()["data"]["thread"] == last.as_str())
        .map(|request| request.json()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, ["backstay.opened", "backstay.resolved"]);
}

/// Who can write to the repository cannot stop whoever reads it.
#[tokio::test]
async fn the_largest_number_that_an_event_can_have_is_no_end() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let id = notifier.open_incident(&keyed("shop")).await.unwrap().incident.id;
    let odd = Event::new(id.clone(), u64::MAX, at(1), "mallory", Change::Acknowledged);
    notifier.journal().append(&odd).await.unwrap();
    clock.advance(SignedDuration::from_secs(5));
    notifier.update_incident("shop", &Update::new("news", "ada")).await.unwrap();
    clock.advance(SignedDuration::from_secs(5));
    let ended = notifier.resolve_incident("shop", &Resolution::new("", "ada")).await.unwrap().incident;
    assert!(!ended.is_open());
    let said: Vec<&str> = ended.timeline.iter().map(|entry| entry.text.as_str()).collect();
    assert_eq!(said.len(), 4, "{said:?}");
}

#[tokio::test]
async fn what_one_host_says_stops_the_timers_of_another_and_both_call_a_timer_the_same() {
    let (sink, state, clock) = (sink(), tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let far = store(&state.path().join("repository"));
    let host = |name: &str| {
        let mut setup = setup(&state.path().join(name), &clock, vec![("hook", webhook(&sink.url("/")))]);
        setup.journal = Some(Journal::new(vec![far.clone()], Prefix::root()));
        setup.identity = format!("test on {name}");
        let mut table = support::policy(&["hook"]);
        table.p1.escalation = Some(vec![vec!["hook".to_owned()], vec!["hook".to_owned()]]);
        table.p1.response_time = Some(TimeSpan::from_secs(900));
        setup.policy = Policy::new(&table, ["hook".to_owned()]);
        Notifier::open(setup).unwrap()
    };
    let (a, b, cancel) = (host("a"), host("b"), CancellationToken::new());
    let id = a.open_incident(&Opening::new(Severity::P1, "slow", "ada")).await.unwrap().incident.id;
    clock.advance(SignedDuration::from_secs(901));
    // Nobody can take the timer for himself: better twice than never, and told apart by nobody.
    far.always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
    a.tick(&cancel).await.unwrap();
    b.tick(&cancel).await.unwrap();
    far.calm();
    let steps: Vec<_> = sink
        .received()
        .iter()
        .filter(|request| request.json()["type"] == "backstay.escalation")
        .map(|request| request.header("webhook-id").unwrap().to_owned())
        .collect();
    assert!(steps.len() == 2 && steps[0] == steps[1], "{steps:?}");
    b.acknowledge_incident(id.as_str(), "bob").await.unwrap();
    // Behind the event that could not be kept, whose time comes first.
    clock.advance(SignedDuration::from_secs(60));
    b.tick(&cancel).await.unwrap();
    clock.advance(SignedDuration::from_secs(901));
    assert_eq!(a.tick(&cancel).await.unwrap().fired, Vec::<String>::new());
}
