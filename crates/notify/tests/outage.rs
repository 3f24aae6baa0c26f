//! A day without network, under a virtual clock, with processes that are really killed at every step.
//!
//! Each look at the outbox is a process of its own: this test program again, told by its environment what to do. A run
//! that is killed is followed by one that is not, as a timer would have it.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "support/kill.rs"]
mod kill;
mod support;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use backstay_backup_core::clock::ManualClock;
use backstay_backup_core::local::LocalStore;
use backstay_notify::channel::Channel;
use backstay_notify::outbox::Spool;
use backstay_notify::{Notifier, Opening, Resolution, Severity, Update};
use backstay_testkit::{Answer, HttpSink, PortLease, Received};
use kill::{KilledChannel, KilledStore, Steps};
use support::{at, setup, slack_webhook, webhook};
use tokio_util::sync::CancellationToken;

const NEWS: usize = 8;
const DAY: i64 = 86_400;
const RETRY_AFTER: i64 = 300;

/// Name of the only test of this file, which is also what its processes are started with.
const TEST: &str = "a_day_without_network_and_kills_at_every_step_lose_nothing";

/// What this program does when it is started by the test below.
fn child() {
    let variable = |name: &str| std::env::var(format!("NOTIFY_TEST_{name}")).unwrap();
    let state = PathBuf::from(variable("STATE"));
    let steps = Steps::new(variable("KILL").parse().unwrap());
    let clock = ManualClock::at(at(variable("NOW").parse().unwrap()));
    let killed = |channel| -> Arc<dyn Channel> { Arc::new(KilledChannel(channel, steps.clone())) };
    let channels = vec![
        ("hook", killed(webhook(&variable("HOOK")))),
        ("room", killed(slack_webhook(&variable("ROOM")))),
    ];
    let store = LocalStore::create(state.join("outbox")).unwrap();
    let spool = Spool::new(Arc::new(KilledStore(Arc::new(store), steps.clone())));
    let notifier = Notifier::over(spool, setup(&state, &clock, channels)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(act(&notifier, &variable("ACT")));
    std::fs::write(state.join("steps"), steps.taken().to_string()).unwrap();
}

/// Does one thing, unless a killed process did it already, and then works through the outbox.
async fn act(notifier: &Notifier, act: &str) {
    let known = notifier.incidents(true).await.unwrap().pop();
    let said = |words: &str| {
        known.as_ref().is_some_and(|known| known.timeline.iter().any(|entry| entry.text == words))
    };
    let id = known.as_ref().map(|known| known.id.to_string()).unwrap_or_default();
    match act {
        "tick" => {}
        "open" if known.is_none() => {
            notifier.open_incident(&Opening::new(Severity::P0, "the beginning", "ada")).await.unwrap();
        }
        "end" if known.as_ref().is_some_and(|known| known.is_open()) => {
            notifier.resolve_incident(&id, &Resolution::new("the end", "ada")).await.unwrap();
        }
        news if news.starts_with("news") && !said(news) => {
            notifier.update_incident(&id, &Update::new(news, "ada")).await.unwrap();
        }
        _ => {}
    }
    notifier.tick(&CancellationToken::new()).await.unwrap();
}

struct Scene {
    state: PathBuf,
    hook: String,
    room: String,
}

impl Scene {
    /// Runs one process; whether it lived.
    fn run(&self, act: &str, now: i64, kill: u64) -> bool {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
            .env("NOTIFY_TEST_STATE", &self.state)
            .env("NOTIFY_TEST_NOW", now.to_string())
            .env("NOTIFY_TEST_KILL", kill.to_string())
            .env("NOTIFY_TEST_HOOK", &self.hook)
            .env("NOTIFY_TEST_ROOM", &self.room)
            .env("NOTIFY_TEST_ACT", act)
            .output()
            .unwrap();
        let killed = output.status.signal() == Some(9);
        assert!(killed || output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(kill > 0 || !killed);
        assert!(killed || self.state.join("steps").exists(), "no test is called {TEST}");
        !killed
    }

    fn pending(&self) -> usize {
        std::fs::read_dir(self.state.join("outbox/pending")).map_or(0, Iterator::count)
    }
}

/// A service that wants to be left alone for a while from the first request on, and then takes everything.
fn recovered(body: &'static str) -> impl Fn(&Received, usize) -> Answer + Send + Sync + 'static {
    let since = AtomicI64::new(i64::MAX);
    move |request, _| {
        let _ = since.compare_exchange(i64::MAX, request.mark, Ordering::SeqCst, Ordering::SeqCst);
        let left = since.load(Ordering::SeqCst) + RETRY_AFTER - request.mark;
        if left > 0 { Answer::limited(left.unsigned_abs()) } else { Answer::ok(body) }
    }
}

/// What such a service took, and how many requests came too early besides the first one.
fn taken(sink: &HttpSink) -> (Vec<Received>, usize) {
    let received = sink.received();
    let begin = received[0].mark + RETRY_AFTER;
    let (early, taken): (Vec<_>, Vec<_>) = received.into_iter().partition(|request| request.mark < begin);
    (taken, early.len() - 1)
}

/// What the notices say, in order.
fn story() -> Vec<String> {
    let news = (1..=NEWS).map(|number| format!("news {number}"));
    std::iter::once("the beginning".to_owned()).chain(news).chain(["the end".to_owned()]).collect()
}

/// The words of the story in what was accepted, in order, each as often as it came.
fn told(received: &[Received], text: impl Fn(&Received) -> String) -> Vec<String> {
    let mut told = Vec::new();
    for request in received {
        let text = text(request);
        for words in story() {
            // The title, which is the beginning, stands in every message.
            let is_there = match words.as_str() {
                "the beginning" => text.contains("Next update") || text.contains("CRITICAL OUTAGE"),
                words => text.lines().any(|line| line.trim_end().ends_with(words)),
            };
            if is_there {
                told.push(words);
            }
        }
    }
    told
}

fn body_of_hook(request: &Received) -> String {
    request.json()["data"]["text"].as_str().unwrap_or_default().to_owned()
}

fn body_of_room(request: &Received) -> String {
    let json = request.json();
    let blocks = json["blocks"].as_array().cloned().unwrap_or_default();
    blocks.iter().map(|block| block["text"]["text"].as_str().unwrap_or_default().to_owned() + "\n").collect()
}

/// Nothing lost, order kept, no duplicate where repetitions are recognised and at most one of each elsewhere, and
/// no request before the time that was asked for.
fn check(hook: &HttpSink, room: &HttpSink, unheard: usize, what: &str) -> usize {
    let mut by_id: BTreeMap<String, Received> = BTreeMap::new();
    let mut order = Vec::new();
    for request in taken(hook).0 {
        let id = request.header("webhook-id").unwrap().to_owned();
        if let Some(first) = by_id.get(&id) {
            assert_eq!(body_of_hook(first), body_of_hook(&request), "{what}: the same id says the same");
        } else {
            order.push(id.clone());
            by_id.insert(id, request);
        }
    }
    let distinct: Vec<Received> = order.iter().map(|id| by_id[id].clone()).collect();
    assert_eq!(told(&distinct, body_of_hook), story(), "{what}: hook");
    let in_room = told(&taken(room).0, body_of_room);
    let mut first_seen = Vec::new();
    for words in &in_room {
        if !first_seen.contains(words) {
            first_seen.push(words.clone());
        }
        let copies = in_room.iter().filter(|other| *other == words).count();
        assert!(copies <= 2, "{what}: {words} came {copies} times");
    }
    assert_eq!(first_seen, story(), "{what}: room");
    for sink in [hook, room] {
        let (_, early) = taken(sink);
        assert!(early <= unheard, "{what}: {early} attempts before Retry-After");
    }
    in_room.len() - first_seen.len()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Memory instead of a disk: thousands of syncs are not what is tested here.
fn scratch() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

#[test]
fn a_day_without_network_and_kills_at_every_step_lose_nothing() {
    if std::env::var_os("NOTIFY_TEST_STATE").is_some() {
        return child();
    }
    let directory = scratch();
    let (hook_port, room_port) = (PortLease::reserve().unwrap(), PortLease::reserve().unwrap());
    let address = |port: &PortLease| format!("http://127.0.0.1:{}/", port.port());
    let scene = |name: &str| Scene {
        state: directory.path().join(name),
        hook: address(&hook_port),
        room: address(&room_port),
    };
    let outage = scene("outage");
    std::fs::create_dir_all(&outage.state).unwrap();
    let kills = AtomicUsize::new(0);
    let mut at_step = 0;
    let mut look = |act: &str, now: i64| {
        // Each process dies one step further than the last one, and is followed by one that lives.
        at_step = at_step % if act == "tick" { 4 } else { 14 } + 1;
        if !outage.run(act, now, at_step) {
            kills.fetch_add(1, Ordering::SeqCst);
        }
        assert!(outage.run(act, now, 0));
    };
    look("open", 0);
    for tick in 1..96_i64 {
        let now = tick * 900;
        let act = if tick % 10 == 5 && tick / 10 < 8 {
            format!("news {}", tick / 10 + 1)
        } else {
            "tick".to_owned()
        };
        look(&act, now);
    }
    look("end", DAY - 60);
    assert_eq!(outage.pending(), 2 + NEWS, "everything waits");
    let during = kills.load(Ordering::SeqCst);
    assert!(during > 60, "{during} kills");

    // The network is back: the same morning again and again, killed one step further each time, first in the round that
    // meets the limits, then in the one that delivers.
    let hook = HttpSink::start_on(hook_port.port(), |_, _| Answer::status(500)).unwrap();
    let room = HttpSink::start_on(room_port.port(), |_, _| Answer::status(500)).unwrap();
    let (mut after, mut copies) = (0_usize, 0_usize);
    for target in [0, 2] {
        let (mut steps, mut kills) = (0, 0);
        for kill in 0_u64.. {
            let scene = scene("morning");
            copy(&outage.state, &scene.state);
            for (sink, body) in [(&hook, ""), (&room, "ok")] {
                sink.forget();
                sink.answer(recovered(body));
            }
            let mut lived = true;
            for round in 0..12 {
                let now = DAY + 1200 + round * 150;
                [&hook, &room].iter().for_each(|sink| sink.set_mark(now));
                if round == target && kill > 0 {
                    lived = scene.run("tick", now, kill);
                    kills += u64::from(!lived);
                }
                assert!(scene.run("tick", now, 0));
                if kill == 0 && round == target {
                    steps = std::fs::read_to_string(scene.state.join("steps")).unwrap().parse().unwrap();
                }
                if scene.pending() == 0 {
                    break;
                }
            }
            let what = format!("killed at step {kill} of round {target}");
            assert_eq!(scene.pending(), 0, "{what}");
            // Who dies with the answer in its hands, before it can write it down, has not heard it.
            let unheard = usize::from(target == 0 && !lived);
            copies += check(&hook, &room, unheard, &what);
            std::fs::remove_dir_all(&scene.state).unwrap();
            if kill > 0 && lived {
                break;
            }
        }
        assert!(kills >= steps && steps >= 8, "{kills} kills of {steps} steps");
        after += usize::try_from(kills).unwrap();
    }
    eprintln!(
        "{during} kills during the outage, {after} after it, 0 lost, {copies} second copies where none can be told apart"
    );
}
