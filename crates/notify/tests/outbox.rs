//! The outbox against disks and channels that misbehave.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::error::{Class, Classified as _};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::local::LocalStore;
use backstay_notify::channel::Unavailable;
use backstay_notify::outbox::Spool;
use backstay_notify::{Kind, Notice, Notifier, Opening, Resolution, Severity, Update};
use backstay_testkit::{Answer, HttpSink};
use jiff::SignedDuration;
use support::{at, notifier, setup, slack_webhook, webhook};
use tokio_util::sync::CancellationToken;

fn report(number: usize) -> Notice {
    Notice::new(
        &format!("n{number}"),
        &format!("t{number}"),
        Kind::Report,
        Severity::P2,
        at(0),
        &format!("report {number}"),
    )
}

fn titles(sink: &HttpSink) -> Vec<String> {
    sink.received()
        .iter()
        .map(|request| request.json()["data"]["title"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn a_damaged_entry_is_put_aside_and_said_while_the_others_go() {
    let (sink, state) = (HttpSink::start(|_, _| Answer::status(503)).unwrap(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    for number in 1..=3 {
        notifier.send(report(number), &[]).await.unwrap();
    }
    let pending = state.path().join("outbox/pending");
    let bytes = std::fs::read(pending.join("000000000002.json")).unwrap();
    let flipped: Vec<u8> =
        bytes.iter().enumerate().map(|(at, byte)| if at == 100 { byte ^ 1 } else { *byte }).collect();
    std::fs::write(pending.join("000000000002.json"), flipped).unwrap();
    std::fs::write(pending.join("000000000009.json"), b"").unwrap();
    std::fs::write(state.path().join("outbox/state/000000000003/hook.json"), b"{").unwrap();
    sink.answer(|_, _| Answer::ok(""));
    sink.forget();
    clock.advance(SignedDuration::from_secs(60));
    // The next process: this one still has in memory what it read.
    let notifier =
        Notifier::open(setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))])).unwrap();
    let told = notifier.tick(&CancellationToken::new()).await.unwrap();
    assert_eq!(told.damaged.len(), 3, "{:?}", told.damaged);
    let mut titles = titles(&sink);
    titles.sort();
    let alarm = "the outbox was damaged";
    assert_eq!(titles, ["report 1", "report 3", alarm, alarm, alarm]);
    assert_eq!(std::fs::read_dir(state.path().join("outbox/damaged")).unwrap().count(), 2);
    let calm = notifier.tick(&CancellationToken::new()).await.unwrap();
    assert!(!calm.did_something(), "{calm:?}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_of_the_caller_and_what_was_taken_is_delivered() {
    let (sink, state) = (HttpSink::start(|_, _| Answer::status(500)).unwrap(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let store = LocalStore::create(state.path().join("outbox")).unwrap();
    let fault = Arc::new(Fault::new(Arc::new(store), 7));
    let setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let notifier = Notifier::over(Spool::new(fault.clone()), setup).unwrap();
    notifier.send(report(1), &[]).await.unwrap();
    fault.full_after(0);
    let error = notifier.send(report(2), &[]).await.unwrap_err();
    assert_eq!(error.class(), Class::Temporary);
    assert!(error.hint().unwrap().contains("make room"), "{error:?}");
    fault.calm();
    fault.always(Operation::Put, Mishap::Error(ErrorKind::Denied));
    assert_eq!(notifier.send(report(2), &[]).await.unwrap_err().class(), Class::Usage);
    fault.calm();
    sink.answer(|_, _| Answer::ok(""));
    sink.forget();
    clock.advance(SignedDuration::from_secs(60));
    notifier.tick(&CancellationToken::new()).await.unwrap();
    assert_eq!(titles(&sink), ["report 1"]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let clock = ManualClock::at(at(0));
    let error = Notifier::open(setup(&file, &clock, Vec::new())).unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    assert!(error.to_string().contains(&file.display().to_string()));
}

#[tokio::test]
async fn every_error_of_the_disk_loses_nothing_that_was_taken() {
    let clock = ManualClock::at(at(0));
    for call in 1..80 {
        let (sink, state) = (HttpSink::start(|_, _| Answer::ok("")).unwrap(), tempfile::tempdir().unwrap());
        let store = LocalStore::create(state.path().join("outbox")).unwrap();
        let fault = Arc::new(Fault::new(Arc::new(store), 7));
        let setup = setup(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
        let notifier = Notifier::over(Spool::new(fault.clone()), setup).unwrap();
        fault.on_call(call, Mishap::Error(ErrorKind::Temporary));
        let first = notifier.open_incident(&Opening::new(Severity::P1, "down", "ada")).await;
        let was_hit = fault.injected() > 0;
        fault.calm();
        let mut ids: Vec<String> = Vec::new();
        notifier.tick(&CancellationToken::new()).await.unwrap();
        for request in sink.received() {
            let id = request.header("webhook-id").unwrap().to_owned();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        // Whoever was told "done" is told the truth; whoever was told of an error may be wrong about it only towards more.
        assert!(
            ids.len() == 1 || (first.is_err() && ids.is_empty()),
            "call {call}: {} messages, {first:?}",
            ids.len()
        );
        let incidents = notifier.incidents(true).await.unwrap();
        assert_eq!(incidents.len(), ids.len(), "call {call}");
        if !was_hit {
            return;
        }
    }
    panic!("never came to an end");
}

#[tokio::test]
async fn retry_after_stops_all_threads_of_a_channel_and_only_that_channel() {
    let limited =
        HttpSink::start(|_, number| if number == 0 { Answer::limited(120) } else { Answer::ok("") }).unwrap();
    let free = HttpSink::start(|_, _| Answer::ok("")).unwrap();
    let state = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let channels = vec![("limited", webhook(&limited.url("/"))), ("free", webhook(&free.url("/")))];
    let notifier = notifier(state.path(), &clock, channels);
    notifier.send(report(1), &[]).await.unwrap();
    for second in 1..120 {
        clock.advance(SignedDuration::from_secs(1));
        if second == 5 {
            notifier.send(report(2), &[]).await.unwrap();
        }
        notifier.tick(&CancellationToken::new()).await.unwrap();
    }
    assert_eq!((limited.received().len(), free.received().len()), (1, 2));
    clock.advance(SignedDuration::from_secs(1));
    notifier.tick(&CancellationToken::new()).await.unwrap();
    assert_eq!(titles(&limited), ["report 1", "report 1", "report 2"]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_an_hour_neither_stops_nor_repeats_anything() {
    let (sink, state) = (
        HttpSink::start(|_, number| Answer::status(if number == 0 { 500 } else { 200 })).unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let clock = ManualClock::at(at(0));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    notifier.send(report(1), &[]).await.unwrap();
    clock.advance(SignedDuration::from_hours(-1));
    notifier.send(report(2), &[]).await.unwrap();
    for _ in 0..10 {
        clock.advance(SignedDuration::from_secs(1));
        notifier.tick(&CancellationToken::new()).await.unwrap();
    }
    assert_eq!(
        titles(&sink),
        ["report 1", "report 2", "report 1"],
        "within the wait that was meant, not an hour later"
    );
}

#[tokio::test]
async fn what_a_channel_refuses_is_said_through_its_fallback() {
    let refusing = HttpSink::start(|_, _| Answer::status(404)).unwrap();
    let other = HttpSink::start(|_, _| Answer::ok("")).unwrap();
    let state = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let mut setup = setup(
        state.path(),
        &clock,
        vec![("hook", webhook(&refusing.url("/"))), ("other", webhook(&other.url("/")))],
    );
    setup.registry.fallbacks.insert("hook".to_owned(), "other".to_owned());
    let notifier = Notifier::open(setup).unwrap();
    let told = notifier.send(report(1), &["hook".to_owned()]).await.unwrap();
    assert_eq!((told.given_up.len(), told.delivered.len()), (1, 1));
    let alarm = other.received()[0].json();
    assert_eq!(alarm["data"]["title"], "a message could not be delivered through hook");
    assert!(alarm["data"]["text"].as_str().unwrap().contains("report 1"));
    assert_eq!(refusing.received().len(), 1);
}

#[tokio::test]
async fn a_channel_that_fails_for_minutes_is_doubled_by_its_fallback_once() {
    let (down, other) = (
        HttpSink::start(|_, _| Answer::status(500)).unwrap(),
        HttpSink::start(|_, _| Answer::ok("")).unwrap(),
    );
    let state = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let mut setup = setup(
        state.path(),
        &clock,
        vec![("hook", webhook(&down.url("/"))), ("other", webhook(&other.url("/")))],
    );
    setup.registry.fallbacks.insert("hook".to_owned(), "other".to_owned());
    let notifier = Notifier::open(setup).unwrap();
    notifier.send(report(1), &["hook".to_owned()]).await.unwrap();
    for _ in 0..120 {
        clock.advance(SignedDuration::from_secs(30));
        notifier.tick(&CancellationToken::new()).await.unwrap();
    }
    assert_eq!(titles(&other), ["report 1"]);
    assert!(down.received().len() > 8);
    down.answer(|_, _| Answer::ok(""));
    down.forget();
    clock.advance(SignedDuration::from_mins(20));
    notifier.tick(&CancellationToken::new()).await.unwrap();
    assert_eq!(titles(&down), ["report 1"]);
}

#[tokio::test]
async fn a_channel_that_is_there_again_gets_all_that_waited_for_it_soon_and_at_once() {
    for (outage, soon) in [(60, 20), (3600, 540)] {
        let (sink, state) =
            (HttpSink::start(|_, _| Answer::status(500)).unwrap(), tempfile::tempdir().unwrap());
        let clock = ManualClock::at(at(0));
        let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
        let ticks = async |seconds: i64| {
            for _ in 0..seconds {
                clock.advance(SignedDuration::from_secs(1));
                let told = notifier.tick(&CancellationToken::new()).await.unwrap();
                if !told.delivered.is_empty() {
                    return told.delivered.len();
                }
            }
            0
        };
        for number in 1..=4 {
            notifier.send(report(number), &[]).await.unwrap();
            ticks(outage / 4).await;
        }
        sink.answer(|_, _| Answer::ok(""));
        // What failed a moment ago would wait for its own time.
        clock.advance(SignedDuration::from_secs(6));
        assert_eq!(ticks(soon).await, 4, "after {outage} s");
    }
}

#[tokio::test]
async fn a_lost_answer_is_repeated_once_where_nobody_can_tell_and_then_said_otherwise() {
    let (silent, other) =
        (HttpSink::start(|_, _| Answer::Close).unwrap(), HttpSink::start(|_, _| Answer::ok("")).unwrap());
    let state = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let mut setup = setup(
        state.path(),
        &clock,
        vec![("room", slack_webhook(&silent.url("/"))), ("other", webhook(&other.url("/")))],
    );
    setup.registry.fallbacks.insert("room".to_owned(), "other".to_owned());
    let notifier = Notifier::open(setup).unwrap();
    notifier.send(report(1), &["room".to_owned()]).await.unwrap();
    for _ in 0..50 {
        clock.advance(SignedDuration::from_secs(60));
        notifier.tick(&CancellationToken::new()).await.unwrap();
    }
    assert_eq!((silent.received().len(), other.received().len()), (2, 1));
}

#[tokio::test]
async fn a_channel_without_its_secret_waits_and_the_others_go() {
    let sink = HttpSink::start(|_, _| Answer::ok("")).unwrap();
    let state = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let open = |with_secret: bool| {
        let mut setup = setup(
            state.path(),
            &clock,
            vec![("hook", webhook(&sink.url("/hook"))), ("pager", webhook(&sink.url("/pager")))],
        );
        if !with_secret {
            setup.registry.channels.remove("pager");
            let problem = "environment variable PAGER is not set".to_owned();
            setup.registry.unavailable.push(Unavailable { channel: "pager".to_owned(), problem });
        }
        Notifier::open(setup).unwrap()
    };
    let told = open(false).send(report(1), &[]).await.unwrap();
    assert_eq!(told.delivered.len(), 1);
    assert_eq!(told.waiting[0].problem.as_deref(), Some("environment variable PAGER is not set"));
    clock.advance(SignedDuration::from_secs(60));
    open(true).tick(&CancellationToken::new()).await.unwrap();
    let paths: Vec<_> = sink.received().iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths, ["/hook", "/pager"]);
}

/// A channel that cannot be used is no different: somebody must hear of the worst.
#[tokio::test]
async fn what_is_severe_and_nobody_was_told_goes_to_whoever_can_be_told() {
    let (down, other) = (
        HttpSink::start(|_, _| Answer::status(500)).unwrap(),
        HttpSink::start(|_, _| Answer::ok("")).unwrap(),
    );
    for (unusable, severity, expected) in [
        (false, Severity::P0, 1),
        (true, Severity::P0, 1),
        (false, Severity::P1, 1),
        (false, Severity::P2, 0),
    ] {
        other.forget();
        let state = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(at(0));
        let mut setup = setup(
            state.path(),
            &clock,
            vec![("pager", webhook(&down.url("/"))), ("team", webhook(&other.url("/")))],
        );
        if unusable {
            setup.registry.channels.remove("pager");
            let problem = "environment variable PAGER is not set".to_owned();
            setup.registry.unavailable.push(Unavailable { channel: "pager".to_owned(), problem });
        }
        let notifier = Notifier::open(setup).unwrap();
        let notice = Notice::new("n", "t", Kind::Report, severity, at(0), "all is lost");
        notifier.send(notice, &["pager".to_owned()]).await.unwrap();
        for _ in 0..20 {
            clock.advance(SignedDuration::from_secs(30));
            notifier.tick(&CancellationToken::new()).await.unwrap();
        }
        assert_eq!(other.received().len(), expected, "{severity}, unusable: {unusable}");
        if expected > 0 {
            let text = other.received()[0].json()["data"]["text"].as_str().unwrap().to_owned();
            assert!(text.contains("told here, because pager does not answer"), "{text}");
        }
    }
}

#[tokio::test]
async fn updates_of_an_outage_become_one_late_message() {
    let (sink, state) = (HttpSink::start(|_, _| Answer::status(500)).unwrap(), tempfile::tempdir().unwrap());
    let clock = ManualClock::at(at(0));
    let notifier = notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))]);
    let id = notifier.open_incident(&Opening::new(Severity::P1, "down", "ada")).await.unwrap().incident.id;
    for number in 1..=20 {
        clock.advance(SignedDuration::from_mins(10));
        notifier.update_incident(id.as_str(), &Update::new(&format!("news {number}"), "ada")).await.unwrap();
    }
    notifier.resolve_incident(id.as_str(), &Resolution::new("over", "ada")).await.unwrap();
    sink.answer(|_, _| Answer::ok(""));
    sink.forget();
    clock.advance(SignedDuration::from_mins(20));
    notifier.tick(&CancellationToken::new()).await.unwrap();
    let texts: Vec<String> = sink
        .received()
        .iter()
        .map(|request| request.json()["data"]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().all(|text| text.contains("[sent late: written ")));
    let news: Vec<usize> = (1..=20)
        .map(|number| {
            texts[1]
                .find(&format!("news {number}\n"))
                .or_else(|| texts[1].find(&format!("news {number}")))
                .unwrap()
        })
        .collect();
    assert!(news.is_sorted(), "{}", texts[1]);
}

#[tokio::test]
async fn processes_at_the_same_time_deliver_each_message_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let of_script = Arc::clone(&count);
    let sink = HttpSink::start(move |_, _| {
        of_script.fetch_add(1, Ordering::SeqCst);
        Answer::ok("ok")
    })
    .unwrap();
    let state = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(at(0));
    let senders = (0..8).map(|number| {
        let notifier = notifier(state.path(), &clock, vec![("room", slack_webhook(&sink.url("/")))]);
        async move { notifier.send(report(number), &[]).await.unwrap() }
    });
    futures::future::join_all(senders).await;
    assert_eq!(count.load(Ordering::SeqCst), 8);
}

/// The bar is two seconds for the 99th of a hundred; the machine of the tests may be busy, so the figure is printed
/// and only ten times the bar fails.
#[tokio::test]
async fn the_worst_severity_reaches_its_channel_quickly() {
    let (sink, state) = (HttpSink::start(|_, _| Answer::status(202)).unwrap(), tempfile::tempdir().unwrap());
    let notifier = {
        let clock = ManualClock::at(at(0));
        notifier(state.path(), &clock, vec![("hook", webhook(&sink.url("/")))])
    };
    let mut times = Vec::new();
    for number in 0..100 {
        let begun = std::time::Instant::now();
        let title = format!("incident {number}");
        notifier.open_incident(&Opening::new(Severity::P0, &title, "ada")).await.unwrap();
        times.push(sink.received().last().unwrap().at.duration_since(begun));
    }
    times.sort();
    eprintln!("P0 handed over: median {:?}, p99 {:?}, longest {:?}", times[50], times[98], times[99]);
    assert!(times[98] < std::time::Duration::from_secs(20), "{:?}", times[98]);
}
