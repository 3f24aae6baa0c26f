//! Every channel against peers that do everything that services do.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

#[path = "support/peers.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backstay_backup_core::process::SystemRunner;
use backstay_backup_core::secret::Secret;
use backstay_notify::channel::Channel as _;
use backstay_notify::channel::command::Command;
use backstay_notify::channel::http::{self, Client};
use backstay_notify::channel::pagerduty::PagerDuty;
use backstay_notify::channel::slack::{Mention, Slack};
use backstay_notify::channel::webhook::Webhook;
use backstay_notify::outbox::Outcome;
use backstay_notify::{Kind, Status};
use backstay_testkit::{Answer, HttpSink, PortLease, Received};
use peers::{all, deliver, name, notice, quick};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

/// The table of the module page, for every channel.
#[tokio::test]
async fn every_channel_says_precisely_what_is_known_afterwards() {
    let moved = Answer::Status(302, vec![("Location", "http://127.0.0.1:1/".to_owned())], String::new());
    let cases: Vec<(&str, Answer)> = vec![
        ("limited", Answer::limited(120)),
        ("limited", Answer::Status(503, vec![("Retry-After", "9".to_owned())], String::new())),
        ("later", Answer::status(500)),
        ("later", Answer::status(503)),
        ("unknown", Answer::status(502)),
        ("unknown", Answer::status(504)),
        ("unknown", Answer::Close),
        ("unknown", Answer::Silence),
        ("refused", moved),
        ("refused", Answer::status(400)),
        ("refused", Answer::status(401)),
        ("refused", Answer::status(404)),
        ("refused", Answer::status(410)),
    ];
    for (kind, make, taken) in all() {
        let sink = HttpSink::start(|_, _| Answer::status(500)).unwrap();
        let channel = make(&sink.url(""));
        assert_eq!(channel.kind().name(), kind);
        for (expected, answer) in &cases {
            let answer = answer.clone();
            let shown = format!("{answer:?}");
            sink.forget();
            sink.answer(move |_, _| answer.clone());
            let outcome = deliver(channel.as_ref(), &notice(Kind::Opened, 1), None).await;
            assert_eq!(name(&outcome), *expected, "{kind}: {shown}: {outcome:?}");
            assert_eq!(
                sink.received().len(),
                1,
                "{kind}: {shown}: nothing is repeated, no redirect is followed"
            );
            let told = format!("{outcome:?}");
            assert!(!told.contains("t0ken-of-test"), "{told}");
            if let (Outcome::Limited { retry_after, .. }, true) = (&outcome, shown.contains("429")) {
                assert_eq!(*retry_after, Some(Duration::from_secs(120)));
            }
        }
        // Trackers look first; an empty list is the answer to that.
        let of_script = taken.clone();
        sink.answer(move |request, _| match request.method.as_str() {
            "GET" => Answer::ok("[]"),
            _ if request.path.ends_with("/search/jql") => Answer::ok(r#"{"issues":[]}"#),
            _ => of_script.clone(),
        });
        let outcome = deliver(channel.as_ref(), &notice(Kind::Opened, 1), None).await;
        assert_eq!(name(&outcome), "accepted", "{kind}: {outcome:?}");
    }
}

#[tokio::test]
async fn without_connection_or_trust_nothing_was_sent() {
    let port = PortLease::reserve().unwrap();
    let sink = HttpSink::start(|_, _| Answer::ok("ok")).unwrap();
    for (kind, make, _) in all() {
        let refused = make(&format!("http://127.0.0.1:{}", port.port()));
        assert_eq!(name(&deliver(refused.as_ref(), &notice(Kind::Opened, 1), None).await), "later", "{kind}");
        // A service that speaks no TLS behind an address that promises it.
        let plain = make(&format!("https://127.0.0.1:{}", sink.port()));
        let outcome = deliver(plain.as_ref(), &notice(Kind::Opened, 1), None).await;
        assert_eq!(name(&outcome), "later", "{kind}: {outcome:?}");
        let nowhere = make("https://no-such-host.invalid");
        assert_eq!(name(&deliver(nowhere.as_ref(), &notice(Kind::Opened, 1), None).await), "later", "{kind}");
    }
    assert!(sink.received().is_empty());
}

/// A service behind TLS with a certificate of its own, and how many requests it read.
async fn behind_tls(names: &[&str], directory: &Path) -> (u16, Arc<AtomicUsize>) {
    let made =
        rcgen::generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let made = made.unwrap();
    std::fs::write(directory.join("ca.pem"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, read) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let (acceptor, counted) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&read));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = [0; 4096];
            if stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (port, read)
}

#[tokio::test]
async fn certificates_that_nobody_vouches_for_get_no_message() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    for (names, trusts, expected) in [
        (&["localhost"][..], true, "accepted"),
        (&["localhost"], false, "later"),
        (&["elsewhere.example"], true, "later"),
    ] {
        let (port, read) = behind_tls(names, directory.path()).await;
        let client = Client::new(trusts.then_some(ca.as_path()), Duration::from_secs(5)).unwrap();
        let url = http::address(&format!("https://localhost:{port}/hook"), false).unwrap();
        let hook = Webhook::new(client, url, None).unwrap();
        let outcome = deliver(&hook, &notice(Kind::Opened, 1), None).await;
        assert_eq!(name(&outcome), expected, "{names:?}: {outcome:?}");
        assert_eq!(read.load(Ordering::SeqCst), usize::from(expected == "accepted"));
    }
}

#[tokio::test]
async fn services_that_say_yes_and_mean_no_are_understood() {
    static CASES: [(&str, &str, &str); 18] = [
        ("slack", r#"{"ok":false,"error":"channel_not_found"}"#, "refused"),
        ("slack", r#"{"ok":false,"error":"not_in_channel"}"#, "refused"),
        ("slack", r#"{"ok":false,"error":"is_archived"}"#, "refused"),
        ("slack", r#"{"ok":false,"error":"msg_too_long"}"#, "refused"),
        ("slack", r#"{"ok":false,"error":"invalid_auth"}"#, "refused"),
        ("slack", r#"{"ok":false,"error":"token_revoked"}"#, "refused"),
        ("slack", r#"{"ok":false,"error":"ratelimited"}"#, "limited"),
        ("slack", r#"{"ok":false,"error":"rate_limited"}"#, "limited"),
        ("slack", r#"{"ok":false,"error":"service_unavailable"}"#, "later"),
        ("slack", r#"{"ok":false,"error":"internal_error"}"#, "later"),
        ("slack", "<html>Welcome to the hotel</html>", "later"),
        ("slack-webhook", "<html>Welcome to the hotel</html>", "later"),
        ("pagerduty", "<html>Welcome to the hotel</html>", "later"),
        (
            "teams",
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429",
            "limited",
        ),
        (
            "teams",
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 413",
            "refused",
        ),
        ("github", "<html>Welcome to the hotel</html>", "later"),
        ("jira", "<html>Welcome to the hotel</html>", "later"),
        ("statuspage", "<html>Welcome to the hotel</html>", "later"),
    ];
    for (kind, make, _) in all() {
        for (_, body, expected) in CASES.iter().filter(|(of, _, _)| *of == kind) {
            let sink = HttpSink::start(move |_, _| Answer::ok(*body)).unwrap();
            let outcome = deliver(make(&sink.url("")).as_ref(), &notice(Kind::Opened, 1), None).await;
            assert_eq!(name(&outcome), *expected, "{kind}: {body}: {outcome:?}");
        }
    }
}

/// A service that takes a request and whose answer arrives only in part: what was said may have been yes.
async fn cut_off(answer: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 65_536]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    url
}

#[tokio::test]
async fn an_answer_that_did_not_arrive_as_a_whole_is_none_where_its_words_count() {
    let slack = |kind: &str| kind.starts_with("slack");
    for (kind, make, _) in all().into_iter().filter(|(kind, ..)| slack(kind)) {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{\"ok\":",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ] {
            let channel = make(&cut_off(answer).await);
            let outcome = deliver(channel.as_ref(), &notice(Kind::Opened, 1), None).await;
            assert_eq!(name(&outcome), "unknown", "{kind}: {answer:?}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn slack_keeps_one_thread_and_calls_the_room_only_when_told_to() {
    let sink =
        HttpSink::start(|_, number| Answer::ok(format!(r#"{{"ok":true,"ts":"17.{number}"}}"#))).unwrap();
    let base = http::address(&sink.url("/api/"), false).unwrap();
    let token = Secret::new("xoxb".to_owned());
    let slack = Slack::new(quick(), base, token, "#incident", Some(Mention::Here));
    let first = deliver(&slack, &notice(Kind::Opened, 1), None).await;
    assert_eq!(first, Outcome::Accepted { reference: Some("17.0".to_owned()) });
    let second = deliver(&slack, &notice(Kind::Update, 2), Some("17.0")).await;
    assert_eq!(second, Outcome::Accepted { reference: None });
    let bodies: Vec<Value> = sink.received().iter().map(Received::json).collect();
    assert_eq!((&bodies[0]["thread_ts"], &bodies[1]["thread_ts"]), (&Value::Null, &json!("17.0")));
    assert_eq!(
        (bodies[0].to_string().contains("<!here>"), bodies[1].to_string().contains("<!here>")),
        (true, false)
    );
    assert_eq!(sink.received()[0].header("authorization"), Some("Bearer xoxb"));
}

/// Slack as far as the tests need it: a message has a room and a time, and an edit may fail.
fn slack_answers(request: &Received, edit: &'static str) -> Answer {
    match request.path.as_str() {
        "/api/chat.update" => Answer::ok(edit),
        _ => Answer::ok(r#"{"ok":true,"channel":"C0123","ts":"17.5"}"#),
    }
}

fn slack(sink: &HttpSink) -> Slack {
    let base = http::address(&sink.url("/api/"), false).unwrap();
    Slack::new(quick(), base, Secret::new("xoxb".to_owned()), "#incident", Some(Mention::Here))
}

#[tokio::test]
async fn slack_shows_how_an_incident_stands_in_its_first_message() {
    let sink = HttpSink::start(|request, _| slack_answers(request, r#"{"ok":true}"#)).unwrap();
    let slack = slack(&sink);
    let first = deliver(&slack, &notice(Kind::Opened, 1), None).await;
    assert_eq!(first, Outcome::Accepted { reference: Some("C0123:17.5".to_owned()) });
    let mut news = notice(Kind::Update, 2);
    news.status = Some(Status::Identified);
    news.impact = "<!channel> nobody can log in".to_owned();
    for notice in [news, notice(Kind::Reminder, 3), notice(Kind::Resolved, 4)] {
        let outcome = deliver(&slack, &notice, Some("C0123:17.5")).await;
        assert_eq!(outcome, Outcome::Accepted { reference: None });
    }
    let received = sink.received();
    let paths: Vec<&str> =
        received.iter().map(|request| request.path.trim_start_matches("/api/chat.")).collect();
    assert_eq!(
        paths,
        ["postMessage", "update", "postMessage", "postMessage", "update", "postMessage"],
        "the edit goes first, and a reminder changes nothing"
    );
    let edit = received[1].json();
    assert_eq!((&edit["channel"], &edit["ts"]), (&json!("C0123"), &json!("17.5")));
    let text = edit["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(text.starts_with("Status: identified\nImpact: &lt;!channel&gt; nobody can log in"), "{text}");
    assert!(!edit.to_string().contains("<!here>"), "an edit calls nobody");
    assert!(received[4].json()["text"].as_str().unwrap().starts_with("[P0] RESOLVED: "));
    assert_eq!(received[5].json()["thread_ts"], "17.5");
}

#[tokio::test]
async fn an_edit_that_fails_keeps_no_news_back_unless_slack_wants_to_be_left_alone() {
    for (edit, expected, requests) in [
        (r#"{"ok":false,"error":"edit_window_closed"}"#, "accepted", 2),
        (r#"{"ok":false,"error":"internal_error"}"#, "accepted", 2),
        ("<html>Welcome to the hotel</html>", "accepted", 2),
        (r#"{"ok":false,"error":"ratelimited"}"#, "limited", 1),
    ] {
        let sink = HttpSink::start(move |request, _| slack_answers(request, edit)).unwrap();
        let outcome = deliver(&slack(&sink), &notice(Kind::Update, 2), Some("C0123:17.5")).await;
        assert_eq!((name(&outcome), sink.received().len()), (expected, requests), "{edit}: {outcome:?}");
    }
}

#[tokio::test]
async fn blocks_that_slack_finds_too_long_are_followed_by_a_short_text() {
    let sink = HttpSink::start(|_, number| match number {
        0 => Answer::ok(r#"{"ok":false,"error":"msg_blocks_too_long"}"#),
        _ => Answer::ok(r#"{"ok":true,"channel":"C0123","ts":"17.5"}"#),
    })
    .unwrap();
    let mut long = notice(Kind::Opened, 1);
    long.text = "<many & words> ".repeat(5000);
    let outcome = deliver(&slack(&sink), &long, None).await;
    assert_eq!(outcome, Outcome::Accepted { reference: Some("C0123:17.5".to_owned()) });
    let second = sink.received()[1].json();
    assert!(second["blocks"].is_null());
    let text = second["text"].as_str().unwrap();
    assert!(text.contains("&lt;many &amp; words&gt;") && text.len() <= 4000, "{}", text.len());
}

#[tokio::test]
async fn pagerduty_opens_acknowledges_and_ends_one_alert() {
    let sink = HttpSink::start(|_, _| Answer::status(202)).unwrap();
    let pager = PagerDuty::new(
        quick(),
        http::address(&sink.url("/v2/enqueue"), false).unwrap(),
        Secret::new("k".repeat(32)),
    );
    assert!(!pager.takes(&notice(Kind::Update, 1)) && !pager.takes(&notice(Kind::Reminder, 1)));
    for (kind, action) in [
        (Kind::Opened, "trigger"),
        (Kind::Escalation, "trigger"),
        (Kind::Acknowledged, "acknowledge"),
        (Kind::Resolved, "resolve"),
    ] {
        deliver(&pager, &notice(kind, 1), None).await;
        let body = sink.received().pop().unwrap().json();
        assert_eq!(
            (body["event_action"].as_str(), body["dedup_key"].as_str()),
            (Some(action), Some("20261122T221354Z-3f9a2c01"))
        );
        assert_eq!(
            (body["routing_key"].as_str().unwrap().len(), body["payload"]["severity"].as_str()),
            (32, Some("critical"))
        );
    }
}

#[tokio::test]
async fn programs_answer_by_their_exit_code_and_get_words_as_data_only() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let run = |script: String| {
        Command::new(
            Arc::new(SystemRunner::new(&environment)),
            vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
            Duration::from_secs(2),
        )
    };
    let mut evil = notice(Kind::Opened, 1);
    evil.title = format!("$(touch {0}) `touch {0}`; touch {0}", directory.path().join("injected").display());
    let taken = run(format!("cat > {}", out.display()));
    assert_eq!(name(&deliver(&taken, &evil, None).await), "accepted");
    let got: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(got["title"], evil.title);
    assert!(!directory.path().join("injected").exists());
    for (script, expected) in [
        ("exit 0", "accepted"),
        ("exit 75", "later"),
        ("exit 64", "refused"),
        ("exit 78", "refused"),
        ("kill -9 $$", "unknown"),
        ("sleep 60", "unknown"),
    ] {
        let outcome = deliver(&run(script.to_owned()), &evil, None).await;
        assert_eq!(name(&outcome), expected, "{script}: {outcome:?}");
    }
    let missing = Command::new(
        Arc::new(SystemRunner::new(&environment)),
        vec!["/no/such/program".to_owned()],
        Duration::from_secs(2),
    );
    assert_eq!(name(&deliver(&missing, &evil, None).await), "later");
}
