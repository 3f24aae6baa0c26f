//! Promises that only show when they are broken: who is told by whom, how fast, how often, and what is kept.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

#[path = "support/peers.rs"]
mod peers;
mod support;

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::config::{NotifyPolicy, TimeSpan};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::secret::Secret;
use backstay_notify::channel::http;
use backstay_notify::channel::slack::{Mention, Slack};
use backstay_notify::channel::{Channel as _, Message};
use backstay_notify::incident::{Change, Event, Incident, IncidentId, Journal};
use backstay_notify::outbox::{Attempted, Parcel, Phase, Spool};
use backstay_notify::page::Page;
use backstay_notify::policy::Policy;
use backstay_notify::redact::Redactor;
use backstay_notify::render::Templates;
use backstay_notify::{Kind, Notice, Notifier, Opening, Resolution, Severity, Status, Update};
use backstay_testkit::{Answer, HttpSink, Received};
use jiff::{SignedDuration, Timestamp};
use support::{at, client, notifier, setup, slack_webhook, webhook};
use tokio_util::sync::CancellationToken;

fn notice(id: &str, severity: Severity) -> Notice {
    Notice::new(id, id, Kind::Report, severity, at(0), "all is lost")
}

fn sink(answer: impl Fn() -> Answer + Send + Sync + 'static) -> HttpSink {
    HttpSink::start(move |_, _| answer()).unwrap()
}

fn kinds(sink: &HttpSink) -> Vec<String> {
    let kind = |request: &Received| request.json()["type"].as_str().unwrap().replace("backstay.", "");
    sink.received().iter().map(kind).collect()
}

async fn seconds(notifier: &Notifier, clock: &ManualClock, seconds: i64) {
    clock.advance(SignedDuration::from_secs(seconds));
    notifier.tick(&CancellationToken::new()).await.unwrap();
}

#[tokio::test]
async fn a_limit_without_a_time_stops_the_whole_channel_for_half_a_minute() {
    let hook = HttpSink::start(|_, number| match number {
        0 => Answer::Status(429, Vec::new(), String::new()),
        _ => Answer::ok(""),
    })
    .unwrap();
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    notifier.send(notice("a", Severity::P2), &[]).await.unwrap();
    notifier.send(notice("b", Severity::P2), &[]).await.unwrap();
    seconds(&notifier, &clock, 29).await;
    assert_eq!(hook.received().len(), 1);
    seconds(&notifier, &clock, 2).await;
    let received = hook.received();
    assert_eq!(received.len(), 3);
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"), "the same message again");
}

#[tokio::test]
async fn a_rate_is_kept_by_all_processes_together_and_is_that_of_the_configuration() {
    let hook = sink(|| Answer::ok(""));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let open = || {
        let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
        setup.registry.per_minute.insert("hook".to_owned(), 60);
        Notifier::open(setup).unwrap()
    };
    for number in 0..12 {
        open().send(notice(&format!("n{number}"), Severity::P2), &[]).await.unwrap();
    }
    assert_eq!(hook.received().len(), 6, "a few at once");
    seconds(&open(), &clock, 3).await;
    assert_eq!(hook.received().len(), 9, "then one a second");
    seconds(&open(), &clock, 3).await;
    assert_eq!(hook.received().len(), 12);
}

fn slack(sink: &HttpSink, mention: Option<Mention>) -> Slack {
    let base = http::address(&sink.url("/api/"), false).unwrap();
    Slack::new(client(), base, Secret::new("xoxb".to_owned()), "#incident", mention)
}

#[tokio::test]
async fn a_thread_of_slack_is_found_again_by_other_processes_and_its_end_is_shown_in_the_room() {
    let room = sink(|| Answer::ok(r#"{"ok":true,"channel":"C1","ts":"17.1"}"#));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let open = || notifier(state.path(), &clock, vec![("room", Arc::new(slack(&room, None)) as _)]);
    let id = open().open_incident(&Opening::new(Severity::P2, "slow", "ada")).await.unwrap().incident.id;
    open().update_incident(id.as_str(), &Update::new("news", "ada")).await.unwrap();
    let mut worse = Update::new("worse", "ada");
    worse.severity = Some(Severity::P0);
    open().update_incident(id.as_str(), &worse).await.unwrap();
    open().resolve_incident(id.as_str(), &Resolution::new("", "ada")).await.unwrap();
    let posts: Vec<serde_json::Value> = room
        .received()
        .iter()
        .filter(|request| request.path.ends_with("chat.postMessage"))
        .map(Received::json)
        .collect();
    let threads: Vec<_> = posts.iter().map(|post| post["thread_ts"].as_str()).collect();
    assert_eq!(threads, [None, Some("17.1"), Some("17.1"), Some("17.1")]);
    let shown: Vec<_> = posts.iter().map(|post| post["reply_broadcast"].as_bool()).collect();
    assert_eq!(shown, [None, Some(false), Some(true), Some(true)]);
}

#[test]
fn only_the_worst_calls_a_room() {
    let room = sink(|| Answer::ok(""));
    let slack = slack(&room, Some(Mention::Channel));
    for (severity, calls) in [(Severity::P0, true), (Severity::P1, false), (Severity::P3, false)] {
        let mut opened = peers::notice(Kind::Opened, 1);
        opened.severity = severity;
        let letter = Templates::default().letter(&opened, &[], "room", None, &Redactor::default());
        let draft = slack.draft(&Message::new(&opened, &letter, at(0))).remove(0);
        assert_eq!(String::from_utf8(draft.body).unwrap().contains("<!channel>"), calls, "{severity}");
    }
}

#[tokio::test]
async fn what_is_refused_is_said_by_whoever_there_is_and_is_never_less_than_severe() {
    for (severity, expected) in [(Severity::P3, "P1"), (Severity::P0, "P0")] {
        let (refusing, other) = (sink(|| Answer::status(404)), sink(|| Answer::ok("")));
        let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
        let channels = vec![("hook", webhook(&refusing.url("/"))), ("other", webhook(&other.url("/")))];
        let notifier = notifier(state.path(), &clock, channels);
        notifier.send(notice("n", severity), &["hook".to_owned()]).await.unwrap();
        let alarm = other.received()[0].json();
        assert_eq!(
            (&alarm["type"], &alarm["data"]["severity"]),
            (&"backstay.alarm".into(), &expected.into())
        );
    }
}

#[tokio::test]
async fn late_news_show_how_it_stands_now() {
    let hook = sink(|| Answer::status(500));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    let id = notifier.open_incident(&Opening::new(Severity::P1, "slow", "ada")).await.unwrap().incident.id;
    for (words, status) in [("one", Status::Identified), ("two", Status::Monitoring)] {
        let mut update = Update::new(words, "ada");
        update.status = Some(status);
        notifier.update_incident(id.as_str(), &update).await.unwrap();
    }
    hook.answer(|_, _| Answer::ok(""));
    hook.forget();
    seconds(&notifier, &clock, 1200).await;
    let last = hook.received().pop().unwrap().json();
    assert_eq!((&last["data"]["status"], &last["data"]["tells-updates"]), (&"monitoring".into(), &1.into()));
}

#[test]
fn executives_are_those_of_the_table_and_hear_of_the_worst_alone() {
    let mut table = NotifyPolicy::default();
    table.p0.executives = Some(vec!["boss".to_owned()]);
    let all = ["pager", "incident", "team", "operations", "executives", "boss"].map(str::to_owned);
    let policy = Policy::new(&table, all.clone());
    assert_eq!(policy.channels(Severity::P0), ["pager", "incident", "boss"]);
    for severity in [Severity::P1, Severity::P2, Severity::P3] {
        let rule = policy.rule(severity);
        let mut names = rule.channels.iter().chain(rule.escalation.iter().flatten()).chain(&rule.reminders);
        assert!(!names.any(|name| name == "boss" || name == "executives"), "{severity}: {rule:?}");
    }
    table.p1.channels = Some(vec!["team".to_owned(), "operations".to_owned()]);
    let policy = Policy::new(&table, all);
    assert_eq!(policy.rule(Severity::P1).reminders, ["team"], "one is reminded, not all");
}

#[test]
fn a_template_tells_no_secret_either_and_is_checked_with_nothing_but_a_title() {
    let directory = tempfile::tempdir().unwrap();
    let mut redactor = Redactor::default();
    redactor.add(&Secret::new("hunter2hunter2".to_owned()));
    std::fs::write(directory.path().join("report.txt"), "hunter2hunter2\n\nask hunter2hunter2\n").unwrap();
    let bare = "News\n\n{% if not commander %}{{ titel }}{% endif %}\n";
    std::fs::write(directory.path().join("update.txt"), bare).unwrap();
    let (templates, errors) = Templates::with_directory(directory.path());
    assert_eq!(errors, []);
    let letter = templates.letter(&notice("n", Severity::P2), &[], "room", None, &redactor);
    assert!(!format!("{letter:?}").contains("hunter2"), "{letter:?}");
    let found: Vec<_> =
        templates.lint().errors.iter().map(|error| (error.line, error.problem.clone())).collect();
    assert!(found.len() == 1 && found[0].0 == 3, "{found:?}");
}

fn store(directory: &tempfile::TempDir, name: &str) -> Arc<Fault> {
    Arc::new(Fault::new(Arc::new(LocalStore::create(directory.path().join(name)).unwrap()), 7))
}

#[tokio::test]
async fn an_event_is_kept_by_every_store_that_will_and_read_from_any() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (store(&folder, "a"), store(&folder, "b"));
    let journal = || Journal::new(vec![a.clone(), b.clone()], Prefix::root());
    let id = IncidentId::parse("20261122T221354Z-3f9a2c01").unwrap();
    let event = |number| Event::new(id.clone(), number, at(0), "ada", Change::Acknowledged);
    let known = async || journal().events(true).await.unwrap().events[&id].len();
    a.always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
    journal().append(&event(1)).await.unwrap();
    a.calm();
    assert_eq!(known().await, 1, "what only the second one has");
    journal().append(&event(2)).await.unwrap();
    for silent in [&a, &b] {
        silent.always(Operation::List, Mishap::Error(ErrorKind::Temporary));
        assert_eq!(known().await, if Arc::ptr_eq(silent, &a) { 2 } else { 1 });
        silent.calm();
    }
    for store in [&a, &b] {
        store.always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
    }
    assert!(journal().append(&event(3)).await.is_err(), "nobody has it");
}

#[test]
fn events_are_in_the_order_in_which_hosts_knew_of_each_other_and_nothing_follows_the_end() {
    let id = IncidentId::parse("20261122T221354Z-3f9a2c01").unwrap();
    let update = |number, second, words: &str, status| {
        let change = Change::Updated {
            text: words.to_owned(),
            status: Some(status),
            severity: None,
            impact: None,
            commander: None,
        };
        Event::new(id.clone(), number, at(second), "ada", change)
    };
    let opened = Change::Opened {
        title: "down".to_owned(),
        text: String::new(),
        severity: Severity::P1,
        impact: String::new(),
        commander: None,
        tiers: Vec::new(),
        key: None,
        since: None,
    };
    let end = Change::Resolved { text: "over".to_owned(), receipts: Vec::new() };
    let events = [
        Event::new(id.clone(), 1, at(0), "ada", opened),
        update(2, 100, "first", Status::Identified),
        // By a host whose clock is behind.
        update(3, 50, "second", Status::Monitoring),
    ];
    let incident = Incident::fold(&events).unwrap();
    let words: Vec<&str> = incident.timeline.iter().map(|entry| entry.text.as_str()).collect();
    assert_eq!((words, incident.status), (vec!["down", "first", "second"], Status::Monitoring));
    let over = [Event::new(id.clone(), 4, at(200), "ada", end), update(5, 300, "late", Status::Identified)];
    let incident = Incident::fold(events.iter().chain(&over)).unwrap();
    assert_eq!((incident.status, incident.timeline.len()), (Status::Resolved, 4));
}

/// A step is fired once, also long after the host that took it could have fallen silent.
#[tokio::test]
async fn a_step_that_another_host_fired_is_not_fired_again_later() {
    let (hook, shared) = (sink(|| Answer::ok("")), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let host = |name: &str| {
        let mut setup = setup(&shared.path().join(name), &clock, vec![("hook", webhook(&hook.url("/")))]);
        setup.journal = Some(Journal::new(vec![store(&shared, "repository")], Prefix::root()));
        setup.identity = format!("test on {name}");
        let mut table = support::policy(&["hook"]);
        table.p1.escalation = Some(vec![vec!["hook".to_owned()]]);
        table.p1.response_time = Some(TimeSpan::from_secs(900));
        setup.policy = Policy::new(&table, ["hook".to_owned()]);
        Notifier::open(setup).unwrap()
    };
    let (a, b) = (host("a"), host("b"));
    a.open_incident(&Opening::new(Severity::P1, "slow", "ada")).await.unwrap();
    seconds(&a, &clock, 1000).await;
    seconds(&b, &clock, 600).await;
    assert_eq!(kinds(&hook), ["opened", "escalation"]);
}

#[tokio::test]
async fn a_damaged_note_of_an_attempt_counts_as_one_that_may_have_arrived() {
    let room = sink(|| Answer::Close);
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let open = || notifier(state.path(), &clock, vec![("room", slack_webhook(&room.url("/")))]);
    open().send(notice("n", Severity::P3), &[]).await.unwrap();
    assert_eq!(room.received().len(), 1);
    std::fs::write(state.path().join("outbox/state/000000000001/room.json"), b"{").unwrap();
    for _ in 0..10 {
        seconds(&open(), &clock, 60).await;
    }
    let ours = |request: &&Received| String::from_utf8_lossy(&request.body).contains("all is lost");
    let told: Vec<Received> = room.received();
    let copies = told
        .iter()
        .filter(ours)
        .filter(|request| !String::from_utf8_lossy(&request.body).contains("could not be"))
        .count();
    assert_eq!(copies, 2, "at most one copy");
}

#[tokio::test]
async fn the_heartbeat_says_when_somebody_must_look() {
    let heart = sink(|| Answer::ok(""));
    let hook = sink(|| Answer::ok(""));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    setup.heartbeat = Some((client(), http::address(&heart.url("/ping"), false).unwrap()));
    let notifier = Notifier::open(setup).unwrap();
    let beats = || heart.received().iter().map(|request| request.path.clone()).collect::<Vec<_>>();
    seconds(&notifier, &clock, 1).await;
    assert_eq!(beats(), ["/ping"]);
    // Stuck: tried often, and nobody was told.
    hook.answer(|_, _| Answer::status(500));
    notifier.send(notice("stuck", Severity::P3), &[]).await.unwrap();
    seconds(&notifier, &clock, 60).await;
    assert_eq!(beats().last().unwrap(), "/ping", "twice is not often");
    for _ in 0..5 {
        seconds(&notifier, &clock, 60).await;
    }
    assert_eq!(beats().last().unwrap(), "/ping/fail");
    // Given up.
    hook.answer(|_, _| Answer::status(404));
    seconds(&notifier, &clock, 600).await;
    assert_eq!(beats().last().unwrap(), "/ping/fail");
    hook.answer(|_, _| Answer::ok(""));
    seconds(&notifier, &clock, 60).await;
    assert_eq!(beats().last().unwrap(), "/ping", "well again");
    // So does the service.
    let (before, cancel) = (beats().len(), CancellationToken::new());
    let watch = async {
        let begun = std::time::Instant::now();
        while beats().len() == before && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(notifier.follow(&cancel, |_| {}), watch);
    ended.unwrap();
    assert!(beats().len() > before);
}

/// What is done is known by its name for a week, and the last hundred whatever their age.
#[tokio::test]
async fn the_last_hundred_ends_and_those_of_a_week_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(store(&folder, "outbox"));
    let mut told = Attempted::fresh(at(0));
    told.phase = Phase::Accepted;
    for number in 1..=104_u64 {
        let parcel =
            Parcel::new(Some(notice(&format!("n{number}"), Severity::P2)), vec!["hook".to_owned()], None);
        spool.enqueue(&parcel).await.unwrap();
        spool.write_state(number, "hook", &told).await.unwrap();
    }
    assert_eq!(spool.close_settled(at(1)).await.unwrap().len(), 104);
    // Ages are those of the files.
    let now = Timestamp::now();
    spool.forget_old(now + SignedDuration::from_hours(6 * 24)).await.unwrap();
    assert_eq!(spool.done().await.unwrap().len(), 104);
    spool.forget_old(now + SignedDuration::from_hours(8 * 24)).await.unwrap();
    let kept = spool.done().await.unwrap();
    assert_eq!((kept.len(), kept[0].1.seq), (100, 5), "the oldest go");
}

#[tokio::test]
async fn a_failure_does_not_begin_in_the_future() {
    let hook = sink(|| Answer::ok(""));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    let mut opening = Opening::new(Severity::P1, "slow", "ada");
    opening.since = Some(at(3600));
    let opened = notifier.open_incident(&opening).await.unwrap().incident;
    assert_eq!(opened.since, at(0));
    let event = &notifier.journal().events(true).await.unwrap().events[&opened.id][0];
    assert!(matches!(event.change, Change::Opened { since: None, .. }), "{event:?}");
}

#[tokio::test]
async fn what_becomes_worse_is_a_new_alert_and_whoever_is_on_it_is_said_once() {
    let hook = sink(|| Answer::ok(""));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    let mut opening = Opening::new(Severity::P2, "slow", "ada");
    opening.key = Some("shop".to_owned());
    notifier.open_incident(&opening).await.unwrap();
    notifier.open_incident(&opening).await.unwrap();
    opening.severity = Severity::P0;
    let worse = notifier.open_incident(&opening).await.unwrap().incident;
    assert_eq!(worse.severity, Severity::P0);
    for _ in 0..2 {
        notifier.acknowledge_incident("shop", "grace").await.unwrap();
    }
    assert_eq!(kinds(&hook), ["opened", "opened", "acknowledged"]);
}

#[tokio::test]
async fn whoever_was_called_by_the_escalation_hears_of_the_end() {
    let (team, pager) = (sink(|| Answer::ok("")), sink(|| Answer::ok("")));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let channels = vec![("pager", webhook(&pager.url("/"))), ("team", webhook(&team.url("/")))];
    let mut setup = setup(state.path(), &clock, channels);
    let mut table = support::policy(&["team"]);
    table.p1.escalation = Some(vec![vec!["pager".to_owned()]]);
    table.p1.response_time = Some(TimeSpan::from_secs(900));
    setup.policy = Policy::new(&table, ["pager", "team"].map(str::to_owned));
    let notifier = Notifier::open(setup).unwrap();
    for is_late in [false, true] {
        let opening = Opening::new(Severity::P1, "slow", "ada");
        let id = notifier.open_incident(&opening).await.unwrap().incident.id;
        seconds(&notifier, &clock, if is_late { 901 } else { 1 }).await;
        notifier.resolve_incident(id.as_str(), &Resolution::new("", "ada")).await.unwrap();
    }
    assert_eq!(kinds(&pager), ["escalation", "resolved"], "and of nothing else");
}

#[tokio::test]
async fn the_public_page_of_a_service_takes_what_incidents_say_alone() {
    let page =
        peers::all().into_iter().find(|(kind, ..)| *kind == "statuspage").unwrap().1("https://x.example");
    for kind in Kind::ALL {
        let is_public = matches!(kind, Kind::Opened | Kind::Update | Kind::Resolved);
        assert_eq!(page.takes(&peers::notice(kind, 1)), is_public, "{kind}");
    }
}

#[tokio::test]
async fn github_says_in_words_that_it_wants_to_be_left_alone() {
    let make = peers::all().into_iter().find(|(kind, ..)| *kind == "github").unwrap().1;
    let cases = [
        (Answer::Status(403, Vec::new(), "API rate limit exceeded for user".to_owned()), "limited"),
        (Answer::Status(403, vec![("Retry-After", "60".to_owned())], "secondary".to_owned()), "limited"),
        (Answer::Status(403, Vec::new(), "Resource not accessible".to_owned()), "refused"),
    ];
    for (answer, expected) in cases {
        let service = sink(move || answer.clone());
        let outcome =
            peers::deliver(make(&service.url("")).as_ref(), &peers::notice(Kind::Opened, 1), None).await;
        assert_eq!(peers::name(&outcome), expected, "{outcome:?}");
    }
}

#[tokio::test]
async fn the_page_forgets_what_is_long_over() {
    let hook = sink(|| Answer::ok(""));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    let id = notifier.open_incident(&Opening::new(Severity::P1, "slow", "ada")).await.unwrap().incident.id;
    notifier.resolve_incident(id.as_str(), &Resolution::new("", "ada")).await.unwrap();
    let known = notifier.incidents(true).await.unwrap();
    let on_it = |days: i64| Page::render("x", &known, at(days * 86_400)).html.contains("slow");
    assert!(on_it(89) && !on_it(91));
}

/// Whoever died with a message in its hands may have told it.
#[tokio::test]
async fn an_attempt_that_was_cut_off_counts_as_one_that_may_have_arrived() {
    let room = sink(|| Answer::Close);
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let notifier = notifier(state.path(), &clock, vec![("room", slack_webhook(&room.url("/")))]);
    let parcel = Parcel::new(Some(notice("n", Severity::P3)), vec!["room".to_owned()], None);
    let seq = notifier.spool().enqueue(&parcel).await.unwrap().unwrap();
    let mut trying = Attempted::fresh(at(0));
    trying.phase = Phase::Trying;
    notifier.spool().write_state(seq, "room", &trying).await.unwrap();
    for _ in 0..10 {
        seconds(&notifier, &clock, 60).await;
    }
    assert_eq!(room.received().len(), 1, "once more, and then never again");
}

#[tokio::test]
async fn news_move_the_reminder() {
    let hook = sink(|| Answer::ok(""));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    let mut table = support::policy(&["hook"]);
    table.p1.update_every = Some(TimeSpan::from_secs(900));
    setup.policy = Policy::new(&table, ["hook".to_owned()]);
    let notifier = Notifier::open(setup).unwrap();
    let id = notifier.open_incident(&Opening::new(Severity::P1, "slow", "ada")).await.unwrap().incident.id;
    seconds(&notifier, &clock, 600).await;
    notifier.update_incident(id.as_str(), &Update::new("news", "ada")).await.unwrap();
    seconds(&notifier, &clock, 899).await;
    assert_eq!(kinds(&hook), ["opened", "update"]);
    seconds(&notifier, &clock, 2).await;
    assert_eq!(kinds(&hook), ["opened", "update", "reminder"]);
}
