//! Every channel against peers that do everything that services do.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstay_backup_core::process::SystemRunner;
use backstay_backup_core::secret::Secret;
use backstay_notify::channel::command::Command;
use backstay_notify::channel::email::{Email, Server};
use backstay_notify::channel::github::Github;
use backstay_notify::channel::http::{self, Client};
use backstay_notify::channel::jira::Jira;
use backstay_notify::channel::pagerduty::PagerDuty;
use backstay_notify::channel::slack::Slack;
use backstay_notify::channel::statuspage::Statuspage;
use backstay_notify::channel::teams::Teams;
use backstay_notify::channel::{Channel, Message};
use backstay_notify::outbox::Outcome;
use backstay_notify::redact::Redactor;
use backstay_notify::render::Templates;
use backstay_notify::{Kind, Notice, Severity, Status};
use backstay_testkit::{Answer, HttpSink, PortLease, Received, SmtpSink};
use serde_json::{Value, json};
use support::at;

type Made = Box<dyn Fn(&str) -> Arc<dyn Channel>>;

fn quick() -> Client {
    Client::new(None, Duration::from_millis(400)).unwrap()
}

/// Every channel that speaks HTTP, and what its service says when it takes a message.
fn all() -> Vec<(&'static str, Made, Answer)> {
    fn address(url: &str) -> Secret<url::Url> {
        http::address(url, false).unwrap()
    }
    fn token() -> Secret<String> {
        Secret::new("t0ken-of-test".to_owned())
    }
    let ok = Answer::ok;
    let created = |body: &str| Answer::Status(201, Vec::new(), body.to_owned());
    vec![
        (
            "slack",
            Box::new(|url| {
                Arc::new(Slack::new(quick(), address(&format!("{url}/api/")), token(), "#incident", None))
            }),
            ok(r#"{"ok":true,"ts":"17.1"}"#),
        ),
        (
            "slack-webhook",
            Box::new(|url| {
                Arc::new(backstay_notify::channel::slack::SlackWebhook::new(quick(), address(url), None))
            }),
            ok("ok"),
        ),
        (
            "pagerduty",
            Box::new(|url| Arc::new(PagerDuty::new(quick(), address(url), token()))),
            Answer::Status(202, Vec::new(), "{}".to_owned()),
        ),
        ("teams", Box::new(|url| Arc::new(Teams::new(quick(), address(url)))), Answer::status(202)),
        (
            "webhook",
            Box::new(|url| {
                Arc::new(
                    backstay_notify::channel::webhook::Webhook::new(quick(), address(url), None).unwrap(),
                )
            }),
            ok(""),
        ),
        (
            "github",
            Box::new(|url| Arc::new(Github::new(quick(), address(url), token(), "o/r").unwrap())),
            created(r#"{"number":7}"#),
        ),
        (
            "jira",
            Box::new(|url| {
                Arc::new(
                    Jira::new(quick(), address(url), ("a@example.com", &token()), ("OPS", "Task")).unwrap(),
                )
            }),
            created(r#"{"key":"OPS-7"}"#),
        ),
        (
            "statuspage",
            Box::new(|url| {
                Arc::new(
                    Statuspage::new(quick(), address(&format!("{url}/v1/")), token(), ("page", None))
                        .unwrap(),
                )
            }),
            created(r#"{"id":"p7"}"#),
        ),
    ]
}

fn notice(kind: Kind, number: usize) -> Notice {
    let mut notice =
        Notice::new(&format!("i~{number}"), "20261122T221354Z-3f9a2c01", kind, Severity::P0, at(0), "down");
    notice.text = format!("words {number}");
    notice.status = Some(if kind == Kind::Resolved { Status::Resolved } else { Status::Investigating });
    notice
}

async fn deliver(channel: &dyn Channel, notice: &Notice, reference: Option<&str>) -> Outcome {
    let letter = Templates::default().letter(notice, &[], "room", None, &Redactor::default());
    channel.deliver(&Message::new(notice, &letter, at(0)).reference(reference)).await
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Limited { .. } => "limited",
        Outcome::Later { .. } => "later",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Refused { .. } => "refused",
    }
}

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

/// A certificate that no system trusts, and its key, as files.
fn certificate(directory: &std::path::Path) -> (String, String) {
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate.display().to_string(), key.display().to_string())
}

#[tokio::test]
async fn services_that_say_yes_and_mean_no_are_understood() {
    static CASES: [(&str, &str, &str); 12] = [
        ("slack", r#"{"ok":false,"error":"channel_not_found"}"#, "refused"),
        ("slack", r#"{"ok":false,"error":"invalid_auth"}"#, "refused"),
        ("slack", r#"{"ok":false,"error":"ratelimited"}"#, "limited"),
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

#[tokio::test]
async fn slack_keeps_one_thread_and_calls_the_room_only_when_told_to() {
    let sink =
        HttpSink::start(|_, number| Answer::ok(format!(r#"{{"ok":true,"ts":"17.{number}"}}"#))).unwrap();
    let base = http::address(&sink.url("/api/"), false).unwrap();
    let token = Secret::new("xoxb".to_owned());
    let slack =
        Slack::new(quick(), base, token, "#incident", Some(backstay_notify::channel::slack::Mention::Here));
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

/// Issues of GitHub, and of Jira, and incidents of a page, kept by small services that answer as those do.
#[derive(Default)]
struct Records(Mutex<BTreeMap<u64, (Value, Vec<Value>)>>);

impl Records {
    fn github(&self, request: &Received) -> Answer {
        let mut issues = self.0.lock().unwrap();
        let path = request.path.split('?').next().unwrap().trim_start_matches("/repos/o/r/issues").to_owned();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let number = parts.first().and_then(|number| number.parse().ok()).unwrap_or(0);
        match (request.method.as_str(), parts.len()) {
            ("GET", 0) => {
                Answer::ok(Value::from_iter(issues.values().map(|(issue, _)| issue.clone())).to_string())
            }
            ("POST", 0) => {
                let number = issues.len() as u64 + 1;
                let mut issue = request.json();
                issue["number"] = json!(number);
                issues.insert(number, (issue.clone(), Vec::new()));
                Answer::Status(201, Vec::new(), issue.to_string())
            }
            ("GET", 1) => Answer::ok(issues[&number].0.to_string()),
            ("PATCH", 1) => {
                issues.get_mut(&number).unwrap().0["state"] = request.json()["state"].clone();
                Answer::ok("{}")
            }
            ("GET", 2) => Answer::ok(Value::from(issues[&number].1.clone()).to_string()),
            ("POST", 2) => {
                issues.get_mut(&number).unwrap().1.push(request.json());
                Answer::Status(201, Vec::new(), "{}".to_owned())
            }
            _ => Answer::status(404),
        }
    }

    fn statuspage(&self, request: &Received) -> Answer {
        let mut incidents = self.0.lock().unwrap();
        let (method, is_one) = (request.method.as_str(), request.path.ends_with("/1"));
        let update = |incident: &Value| json!({ "body": incident["body"], "status": incident["status"] });
        match (method, is_one) {
            ("GET", false) => Answer::ok(
                Value::from_iter(incidents.values().map(|(incident, _)| incident.clone())).to_string(),
            ),
            ("POST", false) => {
                let mut incident = request.json()["incident"].clone();
                incident["id"] = json!("1");
                incident["incident_updates"] = json!([update(&incident)]);
                let next = incidents.len() as u64 + 1;
                incidents.insert(next, (incident.clone(), Vec::new()));
                Answer::Status(201, Vec::new(), incident.to_string())
            }
            ("GET", true) => Answer::ok(incidents[&1].0.to_string()),
            ("PATCH", true) => {
                let change = request.json()["incident"].clone();
                let incident = &mut incidents.get_mut(&1).unwrap().0;
                incident["status"] = change["status"].clone();
                incident["incident_updates"].as_array_mut().unwrap().push(update(&change));
                Answer::ok("{}")
            }
            _ => Answer::status(404),
        }
    }

    fn jira(&self, request: &Received) -> Answer {
        let mut issues = self.0.lock().unwrap();
        let path = request.path.split('?').next().unwrap().trim_start_matches("/rest/api/3/");
        match (request.method.as_str(), path) {
            ("POST", "search/jql") => {
                let jql = request.json()["jql"].as_str().unwrap().to_owned();
                let fits = |issue: &Value| issue["fields"]["labels"].as_array().unwrap().iter().any(|label| label != "backstay" && jql.contains(label.as_str().unwrap()));
                let found: Vec<Value> = issues.values().filter(|(issue, _)| fits(issue)).map(|_| json!({ "key": "OPS-1" })).collect();
                Answer::ok(json!({ "issues": found }).to_string())
            }
            ("POST", "issue") => {
                let next = issues.len() as u64 + 1;
                issues.insert(next, (request.json(), Vec::new()));
                Answer::Status(201, Vec::new(), json!({ "key": format!("OPS-{next}") }).to_string())
            }
            ("GET", "issue/OPS-1") => Answer::ok(issues[&1].0.to_string()),
            ("GET", "issue/OPS-1/comment") => Answer::ok(json!({ "comments": issues[&1].1 }).to_string()),
            ("POST", "issue/OPS-1/comment") => {
                issues.get_mut(&1).unwrap().1.push(request.json());
                Answer::Status(201, Vec::new(), "{}".to_owned())
            }
            ("GET", "issue/OPS-1/transitions") => Answer::ok(
                json!({ "transitions": [{ "id": "11", "to": { "statusCategory": { "key": "new" } } }, { "id": "31", "to": { "statusCategory": { "key": "done" } } }] }).to_string(),
            ),
            ("POST", "issue/OPS-1/transitions") => {
                issues.get_mut(&1).unwrap().0["state"] = request.json()["transition"]["id"].clone();
                Answer::status(204)
            }
            _ => Answer::status(404),
        }
    }
}

/// Everything is sent twice without a memory, as after a kill: one record, one entry each, closed at the end.
#[tokio::test]
async fn trackers_find_what_they_created_before_they_create_it_again() {
    for (kind, make, _) in
        all().into_iter().filter(|(kind, ..)| matches!(*kind, "github" | "jira" | "statuspage"))
    {
        let records = Arc::new(Records::default());
        let of_script = Arc::clone(&records);
        let sink = HttpSink::start(move |request, _| match kind {
            "github" => of_script.github(request),
            "jira" => of_script.jira(request),
            _ => of_script.statuspage(request),
        })
        .unwrap();
        let channel = make(&sink.url(""));
        for (number, of) in [Kind::Opened, Kind::Update, Kind::Update, Kind::Resolved].into_iter().enumerate()
        {
            for _ in 0..2 {
                let outcome = deliver(channel.as_ref(), &notice(of, number), None).await;
                assert_eq!(name(&outcome), "accepted", "{kind}: {outcome:?}");
            }
        }
        let records = records.0.lock().unwrap();
        assert_eq!(records.len(), 1, "{kind}");
        let (record, entries) = &records[&1];
        let entries = if kind == "statuspage" {
            record["incident_updates"].as_array().unwrap().len() - 1
        } else {
            entries.len()
        };
        assert_eq!(entries, 3, "{kind}");
        let end = if kind == "statuspage" { &record["status"] } else { &record["state"] };
        assert!(["closed", "31", "resolved"].contains(&end.as_str().unwrap()), "{kind}: {end}");
    }
}

fn email(
    sink: &SmtpSink,
    scheme: &str,
    ca: Option<&std::path::Path>,
    login: Option<&str>,
    to: &[&str],
) -> Email {
    let url = format!("{scheme}://localhost:{}", sink.port());
    let mut server = Server::new(&url, Duration::from_secs(5));
    server.ca_file = ca;
    server.login = login.map(|password| ("backstay".to_owned(), Secret::new(password.to_owned())));
    let to: Vec<String> = to.iter().map(|to| (*to).to_owned()).collect();
    Email::new(&server, "Backstay <backstay@example.com>", &to).unwrap()
}

#[tokio::test]
async fn mail_threads_and_is_the_same_message_when_it_is_sent_again() {
    let sink = SmtpSink::start(&[]).unwrap();
    let email = email(&sink, "smtp", None, None, &["oncall@example.com", "boss@example.com"]);
    let mut umlauts = notice(Kind::Opened, 1);
    umlauts.title = "Störung: Kunden können sich nicht anmelden 😀\r\nBcc: evil@example.com".to_owned();
    for _ in 0..2 {
        assert_eq!(name(&deliver(&email, &umlauts, None).await), "accepted");
    }
    assert_eq!(name(&deliver(&email, &notice(Kind::Update, 2), None).await), "accepted");
    let mails = sink.mails().unwrap();
    assert_eq!(mails.len(), 3);
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
    assert_ne!(mails[0].header("Message-ID"), mails[2].header("Message-ID"));
    assert_eq!(mails[2].header("References"), mails[0].header("Message-ID"));
    assert_eq!(mails[0].to, ["oncall@example.com", "boss@example.com"]);
    assert_eq!(
        (mails[0].header("Bcc"), mails[0].header("Auto-Submitted").as_deref()),
        (None, Some("auto-generated"))
    );
    assert_eq!(mails[0].header("Importance").as_deref(), Some("high"));
}

#[tokio::test]
async fn mail_servers_are_only_trusted_with_tls_that_can_be_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(directory.path());
    let ca = std::path::Path::new(&certificate);
    let starttls = SmtpSink::start(&[
        "--starttls",
        "--certificate",
        &certificate,
        "--key",
        &key,
        "--password",
        "right horse",
    ])
    .unwrap();
    let to = ["oncall@example.com"];
    let strange =
        deliver(&email(&starttls, "smtp", None, Some("right horse"), &to), &notice(Kind::Opened, 1), None)
            .await;
    assert_eq!(name(&strange), "later", "{strange:?}");
    let trusted = email(&starttls, "smtp", Some(ca), Some("right horse"), &to);
    assert_eq!(name(&deliver(&trusted, &notice(Kind::Opened, 1), None).await), "accepted");
    let wrong = deliver(
        &email(&starttls, "smtp", Some(ca), Some("wrong horse"), &to),
        &notice(Kind::Opened, 1),
        None,
    )
    .await;
    assert_eq!(name(&wrong), "refused", "{wrong:?}");
    assert!(!format!("{wrong:?}").contains("wrong horse"));
    let mails = starttls.mails().unwrap();
    assert_eq!((mails.len(), mails[0].tls, mails[0].authenticated), (1, true, true));
    let wrapped = SmtpSink::start(&["--wrapped", "--certificate", &certificate, "--key", &key]).unwrap();
    let over_tls = email(&wrapped, "smtps", Some(ca), None, &to);
    assert_eq!(name(&deliver(&over_tls, &notice(Kind::Opened, 1), None).await), "accepted");
    assert_eq!(wrapped.mails().unwrap().len(), 1);
}

#[tokio::test]
async fn mail_servers_that_say_later_no_or_nothing_are_understood() {
    let to = ["oncall@example.com"];
    let grey = SmtpSink::start(&["--greylist", "1"]).unwrap();
    let channel = email(&grey, "smtp", None, None, &to);
    assert_eq!(name(&deliver(&channel, &notice(Kind::Opened, 1), None).await), "later");
    assert_eq!(name(&deliver(&channel, &notice(Kind::Opened, 1), None).await), "accepted");
    let refusing = SmtpSink::start(&["--reject-data"]).unwrap();
    let outcome = deliver(&email(&refusing, "smtp", None, None, &to), &notice(Kind::Opened, 1), None).await;
    assert_eq!(name(&outcome), "refused", "{outcome:?}");
    // One address of two is gone: the other one is told all the same.
    let partly = SmtpSink::start(&["--refuse-address", "gone"]).unwrap();
    let both = email(&partly, "smtp", None, None, &["gone@example.com", "oncall@example.com"]);
    assert_eq!(name(&deliver(&both, &notice(Kind::Opened, 1), None).await), "accepted");
    assert_eq!(partly.mails().unwrap()[0].to, ["oncall@example.com"]);
    let gone = email(&partly, "smtp", None, None, &["gone@example.com"]);
    assert_eq!(name(&deliver(&gone, &notice(Kind::Opened, 1), None).await), "refused");
    // It takes the mail and never says so: sent again, it is the same message.
    let silent = SmtpSink::start(&["--silent-data", "1"]).unwrap();
    let channel = email(&silent, "smtp", None, None, &to);
    let outcome = deliver(&channel, &notice(Kind::Opened, 1), None).await;
    assert!(matches!(name(&outcome), "unknown" | "later"), "{outcome:?}");
    assert_eq!(name(&deliver(&channel, &notice(Kind::Opened, 1), None).await), "accepted");
    let mails = silent.mails().unwrap();
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
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
