//! Every channel that speaks HTTP, made for a service of the test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::secret::Secret;
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
use backstay_testkit::Answer;

use crate::support::at;

pub type Made = Box<dyn Fn(&str) -> Arc<dyn Channel>>;

pub fn quick() -> Client {
    Client::new(None, Duration::from_millis(400)).unwrap()
}

/// Every channel that speaks HTTP, and what its service says when it takes a message.
pub fn all() -> Vec<(&'static str, Made, Answer)> {
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

pub fn notice(kind: Kind, number: usize) -> Notice {
    let mut notice =
        Notice::new(&format!("i~{number}"), "20261122T221354Z-3f9a2c01", kind, Severity::P0, at(0), "down");
    notice.text = format!("words {number}");
    notice.status = Some(if kind == Kind::Resolved { Status::Resolved } else { Status::Investigating });
    notice
}

pub async fn deliver(channel: &dyn Channel, notice: &Notice, reference: Option<&str>) -> Outcome {
    let letter = Templates::default().letter(notice, &[], "room", None, &Redactor::default());
    channel.deliver(&Message::new(notice, &letter, at(0)).reference(reference)).await
}

pub fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Limited { .. } => "limited",
        Outcome::Later { .. } => "later",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Refused { .. } => "refused",
    }
}

/// A certificate that no system trusts, and its key, as files.
pub fn certificate(directory: &std::path::Path) -> (String, String) {
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate.display().to_string(), key.display().to_string())
}
