//! Rules that no other scene happens to touch: what becomes of secrets in answers, of hosts that fall silent, of races.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::config::{Config, ConfigFile};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::process::{CommandRunner, SystemRunner};
use backstay_backup_core::secret::{Secret, SecretError, SecretRef, SecretSource};
use backstay_notify::channel::Registry;
use backstay_notify::incident::{IncidentId, Journal, Objective};
use backstay_notify::outbox::schedule::{self, Circumstances};
use backstay_notify::outbox::{Attempted, Outcome, Parcel, Phase, Rules, Spool};
use backstay_notify::redact::Redactor;
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

/// Tells the first of two channels that are each other's fallback, and lets minutes pass.
async fn tell_one_of_each_others_fallbacks(
    state: &Path,
    a: &HttpSink,
    b: &HttpSink,
    passing: i64,
) -> Notifier {
    let clock = ManualClock::at(at(0));
    let mut setup = setup(state, &clock, vec![("a", webhook(&a.url("/"))), ("b", webhook(&b.url("/")))]);
    for (name, fallback) in [("a", "b"), ("b", "a")] {
        setup.registry.fallbacks.insert(name.to_owned(), fallback.to_owned());
    }
    let notifier = Notifier::open(setup).unwrap();
    notifier.send(notice("n", Severity::P0), &["a".to_owned()]).await.unwrap();
    minutes(&notifier, &clock, passing).await;
    notifier
}

#[tokio::test]
async fn two_channels_that_refuse_everything_do_not_call_each_other_for_ever() {
    let (a, b) = (sink(|| Answer::status(404)), sink(|| Answer::status(404)));
    let state = tempfile::tempdir().unwrap();
    tell_one_of_each_others_fallbacks(state.path(), &a, &b, 5).await;
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

/// A host that was off for longer than anything is tried has not tried it: the network may be back in a minute.
#[tokio::test]
async fn what_waited_on_a_host_that_was_off_is_tried_again_and_not_given_up() {
    let status = Arc::new(std::sync::atomic::AtomicU16::new(500));
    let of_script = Arc::clone(&status);
    let hook =
        HttpSink::start(move |_, _| Answer::status(of_script.load(std::sync::atomic::Ordering::SeqCst)))
            .unwrap();
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let open = || notifier(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    open().send(notice("n", Severity::P2), &[]).await.unwrap();
    clock.advance(SignedDuration::from_hours(4 * 24));
    let first = open().tick(&CancellationToken::new()).await.unwrap();
    assert_eq!((first.given_up.len(), first.waiting.len()), (0, 1), "{first:?}");
    status.store(200, std::sync::atomic::Ordering::SeqCst);
    clock.advance(SignedDuration::from_mins(20));
    assert_eq!(open().tick(&CancellationToken::new()).await.unwrap().delivered.len(), 1);
}

#[tokio::test]
async fn what_fails_while_somebody_tries_is_given_up_in_the_end() {
    let hook = sink(|| Answer::status(500));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    setup.rules.give_up_after = SignedDuration::from_hours(6);
    let notifier = Notifier::open(setup).unwrap();
    notifier.send(notice("n", Severity::P2), &[]).await.unwrap();
    let mut ends = Vec::new();
    for minute in (10..600).step_by(10) {
        clock.advance(SignedDuration::from_mins(10));
        let told = notifier.tick(&CancellationToken::new()).await.unwrap();
        ends.extend(told.given_up.iter().map(|_| minute));
    }
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert!((330..=370).contains(&ends[0]), "{ends:?}");
}

/// The wait for a fallback is counted by the clock of those who wait.
#[tokio::test]
async fn a_clock_that_is_set_back_does_not_delay_the_fallback() {
    let (down, other) = (sink(|| Answer::status(500)), sink(|| Answer::ok("")));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let channels = vec![("pager", webhook(&down.url("/"))), ("team", webhook(&other.url("/")))];
    let mut setup = setup(state.path(), &clock, channels);
    setup.registry.fallbacks.insert("pager".to_owned(), "team".to_owned());
    let notifier = Notifier::open(setup).unwrap();
    notifier.send(notice("n", Severity::P0), &["pager".to_owned()]).await.unwrap();
    minutes(&notifier, &clock, 1).await;
    clock.advance(SignedDuration::from_hours(-1));
    minutes(&notifier, &clock, 3).await;
    assert_eq!(other.received().len(), 1);
}

/// A message is given up some day, an event is not: without it an incident would stay open on every other host.
#[tokio::test]
async fn the_end_of_an_incident_reaches_a_repository_that_was_away_for_days() {
    let hook = sink(|| Answer::ok(""));
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let far = Arc::new(Fault::new(Arc::new(LocalStore::create(state.path().join("repository")).unwrap()), 7));
    let mut setup = setup(state.path(), &clock, vec![("hook", webhook(&hook.url("/")))]);
    setup.rules.give_up_after = SignedDuration::from_hours(6);
    setup.journal = Some(Journal::new(vec![far.clone()], Prefix::root()));
    let notifier = Notifier::open(setup).unwrap();
    let opening = backstay_notify::Opening::new(Severity::P2, "slow", "ada");
    let id = notifier.open_incident(&opening).await.unwrap().incident.id;
    far.always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
    let end = backstay_notify::Resolution::new("", "ada");
    notifier.resolve_incident(id.as_str(), &end).await.unwrap();
    for _ in 0..50 {
        clock.advance(SignedDuration::from_mins(20));
        let told = notifier.tick(&CancellationToken::new()).await.unwrap();
        assert!(told.given_up.is_empty(), "{told:?}");
    }
    far.calm();
    clock.advance(SignedDuration::from_mins(20));
    notifier.tick(&CancellationToken::new()).await.unwrap();
    let known = Journal::new(vec![far.clone()], Prefix::root()).events(false).await.unwrap();
    assert!(known.over.contains(&id), "{known:?}");
}

/// A service of secrets that knows some and is silent about the others.
#[derive(Debug)]
struct Slow;

#[async_trait]
impl SecretSource for Slow {
    async fn resolve(&self, reference: &SecretRef) -> Result<Secret<String>, SecretError> {
        match reference {
            SecretRef::Env { env } if env == "NEVER" => std::future::pending().await,
            SecretRef::Env { env } => Ok(Secret::new(env.clone())),
            _ => Err(SecretError::Unsupported { kind: "other" }),
        }
    }

    async fn version(&self, _: &SecretRef) -> Result<String, SecretError> {
        Err(SecretError::Unsupported { kind: "any version" })
    }
}

/// What is to be told is on disk only when the channels are there.
#[tokio::test(start_paused = true)]
async fn secrets_that_never_come_keep_neither_the_call_nor_the_other_channels() {
    let file = "[[notify.channel]]\nname = \"a\"\nkind = \"webhook\"\nurl = { env = \"NEVER\" }\n\
                [[notify.channel]]\nname = \"b\"\nkind = \"webhook\"\nurl = { env = \"NEVER\" }\n\
                [[notify.channel]]\nname = \"c\"\nkind = \"webhook\"\nurl = { env = \"https://hooks.example/hunter2hunter2\" }\n";
    let (path, environment) = ("backstay.toml".into(), Default::default());
    let file = ConfigFile { path, text: file.to_owned() };
    let config = Config::load(Some(&file), &environment, &Default::default()).unwrap().config;
    let runner: Arc<dyn CommandRunner> = Arc::new(SystemRunner::new(&Default::default()));
    let mut redactor = Redactor::default();
    let begun = tokio::time::Instant::now();
    let registry = Registry::open(&config.notify.channel, &Slow, &runner, &mut redactor).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(registry.channels.keys().collect::<Vec<_>>(), ["c"]);
    assert_eq!(registry.unavailable.len(), 2);
    assert!(!redactor.clean("see /hunter2hunter2").contains("hunter2"), "all secrets are known");
}

/// Whoever dies while closing leaves nothing behind that looks as if nobody had been told.
#[tokio::test]
async fn closing_that_is_cut_off_anywhere_leaves_nothing_that_looks_untold() {
    let mut cuts = 0;
    for call in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let store = || Arc::new(LocalStore::create(folder.path().join("outbox")).unwrap());
        let fault = Arc::new(Fault::new(store(), 7));
        let closer = Spool::new(fault.clone());
        for id in ["first", "second"] {
            let parcel = Parcel::new(Some(notice(id, Severity::P2)), vec!["hook".to_owned()], None);
            closer.enqueue(&parcel).await.unwrap();
        }
        let mut told = Attempted::fresh(at(0));
        (told.phase, told.group) = (Phase::Accepted, vec![2]);
        closer.write_state(1, "hook", &told).await.unwrap();
        fault.on(Operation::Delete, call, Mishap::Error(ErrorKind::Temporary));
        let is_cut = closer.close_settled(at(1)).await.is_err();
        let (pending, _) = Spool::new(store()).load().await.unwrap();
        for item in &pending {
            let is_told = |seq| {
                let leader = pending.iter().find(|leader| leader.seq == 1);
                seq == 1 && leader.is_some_and(|leader| leader.states.contains_key("hook"))
                    || leader.is_some_and(|leader| leader.state("hook").group.contains(&seq))
            };
            assert!(is_told(item.seq), "cut at delete {call}: {pending:?}");
        }
        if !is_cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 3, "{cuts}");
}

#[tokio::test]
async fn two_channels_that_are_both_out_do_not_fill_the_outbox_with_each_others_messages() {
    let (a, b) = (sink(|| Answer::status(500)), sink(|| Answer::status(500)));
    let state = tempfile::tempdir().unwrap();
    let notifier = tell_one_of_each_others_fallbacks(state.path(), &a, &b, 20).await;
    let (pending, _) = notifier.spool().load().await.unwrap();
    assert_eq!(pending.len(), 2, "the message, and the same for the other one");
}

/// Whoever dies with the message on its way leaves word that it may have arrived.
#[tokio::test]
async fn before_a_message_goes_out_the_intent_is_on_disk() {
    let (state, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(at(0)));
    let note = state.path().join("outbox/state/000000000001/room.json");
    let (seen, of_script) = (Arc::<std::sync::Mutex<String>>::default(), note.clone());
    let noted = Arc::clone(&seen);
    let room = HttpSink::start(move |_, _| {
        *noted.lock().unwrap() = std::fs::read_to_string(&of_script).unwrap_or_default();
        Answer::status(500)
    })
    .unwrap();
    let notifier = notifier(state.path(), &clock, vec![("room", slack_webhook(&room.url("/")))]);
    notifier.send(notice("n", Severity::P3), &[]).await.unwrap();
    assert!(seen.lock().unwrap().contains("\"trying\""), "{seen:?}");
    assert!(std::fs::read_to_string(&note).unwrap().contains("\"waiting\""), "and its outcome afterwards");
}

#[test]
fn who_was_out_for_a_minute_is_asked_within_seconds_and_who_was_out_for_a_day_within_minutes() {
    let rules = Rules::default();
    let (mut state, mut now) = (Attempted::fresh(at(0)), at(0));
    while now < at(86_400) {
        let at_hand = Circumstances { created: at(0), now, is_idempotent: true, chance: 1.0 };
        let outcome = Outcome::Later { problem: "no network".to_owned() };
        (state, _) = schedule::after(state, &outcome, at_hand, &rules);
        let (wait, out) = (state.due().duration_since(now), now.duration_since(at(0)));
        assert!(wait <= (out / 8).max(SignedDuration::from_secs(15)), "{wait:?} after {out:?}");
        assert!(wait <= SignedDuration::from_secs(1080) && wait >= SignedDuration::from_secs(4), "{wait:?}");
        now = state.due();
    }
}
