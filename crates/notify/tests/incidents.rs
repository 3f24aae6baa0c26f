//! Incidents, timers, tasks and what follows from them, under a virtual clock.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod support;

use std::sync::Arc;

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::config::{NotifyOn, NotifyPolicy, TimeSpan};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_notify::incident::{Incident, Journal, Receipt};
use backstay_notify::page::Page;
use backstay_notify::policy::Policy;
use backstay_notify::tasks::{self, Ended};
use backstay_notify::{Kind, Notice, Notifier, NotifyError, Opening, Resolution, Severity, Status, Update};
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

#[tokio::test]
async fn an_incident_is_told_from_its_beginning_to_its_measured_end() {
    let (sink, state) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    setup.rto = Some(SignedDuration::from_mins(15));
    let notifier = Notifier::open(setup).unwrap();
    let mut opening = Opening::new(Severity::P0, "database down", "ada");
    opening.impact = "nobody can log in".to_owned();
    opening.since = Some(at(-600));
    let incident = notifier.open_incident(&opening).await.unwrap().incident;
    let id = incident.id.as_str();
    clock.advance(SignedDuration::from_secs(60));
    notifier.acknowledge_incident(id, "grace").await.unwrap();
    clock.advance(SignedDuration::from_secs(60));
    let mut update = Update::new("the disk is full", "grace");
    update.status = Some(Status::Identified);
    notifier.update_incident(id, &update).await.unwrap();
    clock.advance(SignedDuration::from_secs(600));
    let mut end = Resolution::new("", "grace");
    end.receipts = vec![Receipt::new("shop", 61_000)];
    let told = notifier.resolve_incident(id, &end).await.unwrap();
    assert_eq!(told.incident.downtime(), Some(SignedDuration::from_secs(600 + 720)));
    assert_eq!(kinds(&sink), ["opened", "acknowledged", "update", "resolved"]);
    let last = sink.received().pop().unwrap().json();
    let text = last["data"]["text"].as_str().unwrap();
    assert!(text.contains("Downtime: 22m\n") && text.contains("RTO: 22m of 15m promised, MISSED"), "{text}");
    assert!(text.contains("Restore of shop: 1m1s of 15m promised\n"), "{text}");
    assert!(last["data"]["subject"].as_str().unwrap().contains("objective missed"));
    let again = notifier.resolve_incident(id, &end).await;
    assert!(matches!(again, Err(NotifyError::Over { .. })), "{again:?}");
    let none = notifier.update_incident("20200101T000000Z-00000000", &update).await;
    assert!(matches!(none, Err(NotifyError::NoIncident { .. })));
}

#[tokio::test]
async fn two_hosts_that_share_a_store_agree_and_fire_each_timer_once() {
    let (sink, shared) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let mut hosts = Vec::new();
    for name in ["a", "b"] {
        let state = shared.path().join(name);
        let mut setup = setup(&state, &clock, vec![("hook", webhook(&sink.url("/")))]);
        let store = LocalStore::create(shared.path().join("repository")).unwrap();
        setup.journal = Some(Journal::new(vec![Arc::new(store)], Prefix::parse("main/incidents").unwrap()));
        setup.identity = format!("test on {name}");
        let mut row = support::policy(&["hook"]);
        row.p1.escalation = Some(vec![vec!["hook".to_owned()]]);
        row.p1.response_time = Some(TimeSpan::from_secs(900));
        setup.policy = Policy::new(&row, ["hook".to_owned()]);
        hosts.push(Notifier::open(setup).unwrap());
    }
    let [a, b] = hosts.as_slice() else { panic!("two") };
    let incident = a.open_incident(&Opening::new(Severity::P1, "slow", "ada")).await.unwrap().incident;
    clock.advance(SignedDuration::from_secs(5));
    b.update_incident(incident.id.as_str(), &Update::new("seen from b", "bob")).await.unwrap();
    let seen = a.incident(incident.id.as_str()).await.unwrap();
    assert_eq!(seen.timeline.len(), 2);
    assert_eq!(seen, b.incident(incident.id.as_str()).await.unwrap());
    clock.advance(SignedDuration::from_secs(1000));
    let cancel = CancellationToken::new();
    let (first, second) = tokio::join!(a.tick(&cancel), b.tick(&cancel));
    assert_eq!(first.unwrap().fired.len() + second.unwrap().fired.len(), 1);
    b.resolve_incident(incident.id.as_str(), &Resolution::new("", "bob")).await.unwrap();
    assert_eq!(a.incidents(false).await.unwrap(), Vec::<Incident>::new());
    assert_eq!(kinds(&sink), ["opened", "update", "escalation", "resolved"]);
}

fn timed() -> NotifyPolicy {
    let mut row = support::policy(&["hook"]);
    row.p0.update_every = Some(TimeSpan::from_secs(900));
    row.p0.response_time = Some(TimeSpan::from_secs(300));
    row.p0.escalation = Some(vec![vec!["hook".to_owned()], vec!["hook".to_owned()]]);
    row
}

/// Moments of the notices of these kinds, in seconds since the incident was opened.
fn moments(sink: &HttpSink, wanted: &[&str]) -> Vec<i64> {
    let kinds = kinds(sink);
    let received = sink.received();
    let fitting = received.iter().zip(&kinds).filter(|(_, kind)| wanted.contains(&kind.as_str()));
    fitting
        .map(|(request, _)| {
            request.header("webhook-timestamp").unwrap().parse::<i64>().unwrap() - at(0).as_second()
        })
        .collect()
}

#[tokio::test]
async fn reminders_and_escalation_keep_their_times_across_restarts_and_stop() {
    let (sink, state) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let cancel = CancellationToken::new();
    let fresh = || {
        // Every look is a new process: nothing is remembered but what is on disk.
        let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
        setup.policy = Policy::new(&timed(), ["hook".to_owned()]);
        Notifier::open(setup).unwrap()
    };
    let incident = fresh().open_incident(&Opening::new(Severity::P0, "down", "ada")).await.unwrap().incident;
    let mut next = fresh().tick(&cancel).await.unwrap().next.unwrap();
    let mut looks = 0;
    while next < at(4000) {
        clock.advance(next.duration_since(backstay_backup_core::clock::Clock::now(&clock)));
        let report = fresh().tick(&cancel).await.unwrap();
        // A second look at the same moment, as another process would have it, fires nothing.
        assert_eq!(fresh().tick(&cancel).await.unwrap().fired, Vec::<String>::new());
        next = report.next.unwrap();
        looks += 1;
    }
    assert_eq!(looks, 6);
    assert_eq!(moments(&sink, &["escalation"]), [300, 600]);
    assert_eq!(moments(&sink, &["reminder"]), [900, 1800, 2700, 3600]);
    fresh().acknowledge_incident(incident.id.as_str(), "grace").await.unwrap();
    fresh().resolve_incident(incident.id.as_str(), &Resolution::new("", "grace")).await.unwrap();
    clock.advance(SignedDuration::from_hours(5));
    let report = fresh().tick(&cancel).await.unwrap();
    assert_eq!((report.fired.len(), report.next), (0, None));
}

#[tokio::test]
async fn who_looks_late_reminds_once_and_an_acknowledgement_ends_the_escalation() {
    let (sink, state) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    setup.policy = Policy::new(&timed(), ["hook".to_owned()]);
    let notifier = Notifier::open(setup).unwrap();
    let id = notifier.open_incident(&Opening::new(Severity::P0, "down", "ada")).await.unwrap().incident.id;
    notifier.acknowledge_incident(id.as_str(), "grace").await.unwrap();
    clock.advance(SignedDuration::from_mins(50));
    notifier.tick(&CancellationToken::new()).await.unwrap();
    assert_eq!(kinds(&sink), ["opened", "acknowledged", "reminder"]);
    let text = sink.received()[2].json()["data"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("No update for 50m. 3 updates are overdue."), "{text}");
}

/// Whatever the clock does, nobody waits longer than was meant: for a step, or for a reminder.
#[tokio::test]
async fn a_clock_that_is_set_back_an_hour_delays_no_step_and_no_reminder() {
    let (sink, state) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    setup.policy = Policy::new(&timed(), ["hook".to_owned()]);
    let notifier = Notifier::open(setup).unwrap();
    let id = notifier.open_incident(&Opening::new(Severity::P0, "down", "ada")).await.unwrap().incident.id;
    let cancel = CancellationToken::new();
    let look = async |minutes: i64| {
        let mut fired = Vec::new();
        for _ in 0..minutes {
            clock.advance(SignedDuration::from_mins(1));
            let report = notifier.tick(&cancel).await.unwrap();
            fired.extend(
                report
                    .fired
                    .iter()
                    .map(|name| name.split(' ').nth(1).unwrap().split('-').next().unwrap().to_owned()),
            );
        }
        fired
    };
    // A minute, an hour back, and the first step comes within its five minutes; then the second one, and the reminder.
    assert!(look(1).await.is_empty());
    clock.advance(SignedDuration::from_hours(-1));
    assert_eq!(look(6).await, ["escalation"]);
    assert_eq!(look(10).await, ["escalation", "reminder"]);
    // Back again: the next reminder is a quarter of an hour away at most, and so is the one after the clock is right.
    clock.advance(SignedDuration::from_hours(-1));
    assert_eq!(look(16).await, ["reminder"]);
    clock.advance(SignedDuration::from_hours(2));
    assert_eq!(look(15).await.len(), 2, "late by the clock: one at once, one in a quarter of an hour");
    notifier.resolve_incident(id.as_str(), &Resolution::new("", "grace")).await.unwrap();
    assert!(look(60).await.is_empty());
    let notes = std::fs::read_dir(state.path().join("outbox/noticed")).map_or(0, Iterator::count);
    assert_eq!(notes, 0, "nothing is kept of what is over");
}

#[tokio::test]
async fn a_task_that_keeps_failing_is_told_once_and_its_recovery_with_its_length() {
    let (sink, state) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let mut on = NotifyOn::default();
    on.failure = Some("P2".to_owned());
    on.objective_missed = Some("P1".to_owned());
    on.first_success = true;
    let end = |code, words: &str| {
        let now = backstay_backup_core::clock::Clock::now(&clock);
        Ended::new("backup-database", "main", "db-1", now, code).words(words)
    };
    tasks::tell(&notifier, &on, &end(0, "12 tables")).await.unwrap();
    tasks::tell(&notifier, &on, &end(0, "12 tables")).await.unwrap();
    for _ in 0..5 {
        clock.advance(SignedDuration::from_secs(60));
        tasks::tell(&notifier, &on, &end(5, "disk full, token=abc123def")).await.unwrap();
    }
    tasks::tell(&notifier, &on, &end(2, "no such role")).await.unwrap();
    clock.advance(SignedDuration::from_secs(60));
    tasks::tell(&notifier, &on, &end(0, "12 tables")).await.unwrap();
    clock.advance(SignedDuration::from_secs(60));
    tasks::tell(&notifier, &on, &end(6, "two hours old")).await.unwrap();
    assert_eq!(
        kinds(&sink),
        ["task-succeeded", "task-failed", "update", "task-succeeded", "objective-missed"]
    );
    let failure = String::from_utf8(sink.received()[1].body.clone()).unwrap();
    assert!(failure.contains("disk full") && !failure.contains("abc123def"), "{failure}");
    let mut silent = NotifyOn::default();
    silent.failure = Some("P2".to_owned());
    silent.programs = vec!["prune-backups".to_owned()];
    tasks::tell(&notifier, &silent, &end(5, "not ours")).await.unwrap();
    assert_eq!(sink.received().len(), 5);
}

#[tokio::test]
async fn the_success_of_one_task_does_not_end_what_is_told_of_another() {
    let (sink, state) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let mut on = NotifyOn::default();
    on.failure = Some("P2".to_owned());
    let end = |about: &str, code| {
        let mut ended = Ended::new("backup-database", "main", "db-1", at(0), code).words("no such table");
        ended.about = Some(about.to_owned());
        ended
    };
    tasks::tell(&notifier, &on, &end("shop", 5)).await.unwrap();
    tasks::tell(&notifier, &on, &end("crm/ä\n", 5)).await.unwrap();
    tasks::tell(&notifier, &on, &end("crm/ä\n", 0)).await.unwrap();
    assert_eq!(kinds(&sink), ["task-failed", "task-failed", "task-succeeded"]);
    let open = notifier.incidents(false).await.unwrap();
    assert_eq!(open.len(), 1);
    assert!(open[0].timeline[0].by.ends_with(", shop"), "{:?}", open[0].timeline);
    tasks::tell(&notifier, &on, &end("shop", 0)).await.unwrap();
    assert_eq!(notifier.incidents(false).await.unwrap().len(), 0);
}

#[tokio::test]
async fn no_word_of_an_incident_keeps_a_secret_wherever_it_was_put() {
    const SECRET: &str = "hunter2hunter2";
    let (sink, state) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    setup.redactor.add(&backstay_backup_core::secret::Secret::new(SECRET.to_owned()));
    setup.rto = Some(SignedDuration::from_mins(15));
    let notifier = Notifier::open(setup).unwrap();
    let mut opening = Opening::new(Severity::P0, SECRET, SECRET);
    (opening.text, opening.impact, opening.commander) = (SECRET.into(), SECRET.into(), Some(SECRET.into()));
    opening.tiers = vec![SECRET.to_owned()];
    let id = notifier.open_incident(&opening).await.unwrap().incident.id;
    let mut update = Update::new(SECRET, SECRET);
    (update.impact, update.commander) = (Some(SECRET.into()), Some(SECRET.into()));
    notifier.update_incident(id.as_str(), &update).await.unwrap();
    notifier.acknowledge_incident(id.as_str(), SECRET).await.unwrap();
    let mut end = Resolution::new(SECRET, SECRET);
    end.receipts = vec![Receipt::new(SECRET, 1)];
    notifier.resolve_incident(id.as_str(), &end).await.unwrap();
    let known = notifier.incidents(true).await.unwrap();
    let page = Page::render("Status", &known, at(60));
    assert!(!format!("{known:?}{}{}", page.html, page.json).contains(SECRET), "{known:?}");
    assert_eq!(sink.received().len(), 4);
    for request in sink.received() {
        assert!(!String::from_utf8_lossy(&request.body).contains(SECRET));
    }
    let mut files: Vec<_> = vec![state.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert!(
                !std::fs::read_to_string(&path).unwrap_or_default().contains(SECRET),
                "{}",
                path.display()
            );
        }
    }
}

#[tokio::test]
async fn what_is_said_twice_is_told_once() {
    let (sink, state) = (sink(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let notice = Notice::new("nightly-7", "nightly", Kind::Report, Severity::P3, at(0), "all well");
    notifier.send(notice.clone(), &[]).await.unwrap();
    notifier.send(notice.clone(), &[]).await.unwrap();
    assert_eq!(sink.received().len(), 1);
    let strange = notifier.send(notice, &["nobody".to_owned()]).await;
    assert!(matches!(strange, Err(NotifyError::UnknownChannel { .. })));
}

#[test]
fn the_usual_policy_is_the_one_that_is_written_down() {
    let roles = ["pager", "incident", "executives", "team", "operations", "ticket"];
    let policy = Policy::new(&NotifyPolicy::default(), roles.map(str::to_owned));
    let text = Severity::ALL.map(|severity| policy.explain(severity).to_string()).join("\n");
    let expected = "\
P0
  at once      pager, incident, executives              it was opened, and every later word
  after 5m     pager, incident                          nobody acknowledged it: step 1 of 2
  after 10m    pager, team, executives                  nobody acknowledged it: step 2 of 2
  after 15m    incident                                 no update for 15m: a reminder, and again every 15m
P1
  at once      incident, team                           it was opened, and every later word
  after 15m    pager, incident                          nobody acknowledged it: step 1 of 1
  after 30m    incident                                 no update for 30m: a reminder, and again every 30m
P2
  at once      operations                               it was opened, and every later word
  after 1h     operations, team                         nobody acknowledged it: step 1 of 1
P3
  at once      ticket                                   it was opened, and every later word";
    assert_eq!(text, expected);
    let few = Policy::new(&NotifyPolicy::default(), ["mail".to_owned()]);
    assert_eq!(few.channels(Severity::P0), ["mail"], "better the wrong reader than none");
    assert_eq!(few.explain(Severity::P3).not_configured, ["ticket"]);
}

#[tokio::test]
async fn the_status_page_says_what_is_open_and_escapes_everything() {
    let state = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let sink = sink();
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>";
    let id = notifier.open_incident(&Opening::new(Severity::P0, evil, "ada")).await.unwrap().incident.id;
    let open = Page::render("Example", &notifier.incidents(true).await.unwrap(), at(60));
    assert!(
        open.html.contains("Major outage")
            && !open.html.contains("<img")
            && !open.html.contains("<script>alert")
    );
    notifier.resolve_incident(id.as_str(), &Resolution::new("", "ada")).await.unwrap();
    let calm = Page::render("Example", &notifier.incidents(true).await.unwrap(), at(60));
    assert!(calm.html.contains("No open incident"));
    let json: serde_json::Value = serde_json::from_str(&calm.json).unwrap();
    assert_eq!(json["state"], "operational");
    assert_eq!(json["past"][0]["title"], evil);
    calm.write(&state.path().join("www")).unwrap();
    let store = LocalStore::create(state.path().join("bucket")).unwrap();
    let folder = Prefix::parse("status").unwrap();
    open.publish(&store, &folder).await.unwrap();
    calm.publish(&store, &folder).await.unwrap();
    let published = std::fs::read_to_string(state.path().join("bucket/status/index.html")).unwrap();
    assert_eq!(published, std::fs::read_to_string(state.path().join("www/index.html")).unwrap());
}
