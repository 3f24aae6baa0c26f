//! PagerDuty, Events API v2: alerts that open, are acknowledged and end with the incident.
//!
//! The key of an alert is the thread, so nothing opens twice, whatever is repeated. PagerDuty drops an acknowledgement or
//! an end that has no open alert, and opens a new alert for a trigger after the end: both are why the outbox keeps the
//! order of a thread, and why news and reminders do not come here.

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use serde_json::{Map, Value, json};
use url::Url;

use super::http::Client;
use super::{Channel, Draft, Message};
use crate::notice::{Kind, Notice};
use crate::outbox::Outcome;
use crate::render::{Unit, clean_line, fit};
use crate::severity::Severity;

const SUMMARY: usize = 1024;
const DEDUP_KEY: usize = 255;
/// Longest text among the details; the whole event may have 512 KB.
const DETAIL: usize = 10_000;

/// An integration of PagerDuty.
#[derive(Debug)]
pub struct PagerDuty {
    client: Client,
    url: Secret<Url>,
    key: Secret<String>,
}

impl PagerDuty {
    /// The API at an address (`https://events.pagerduty.com/v2/enqueue` usually) with the key of an integration.
    #[must_use]
    pub fn new(client: Client, url: Secret<Url>, key: Secret<String>) -> Self {
        Self { client, url, key }
    }
}

fn action(kind: Kind) -> &'static str {
    match kind {
        Kind::Acknowledged => "acknowledge",
        Kind::Resolved | Kind::TaskSucceeded => "resolve",
        _ => "trigger",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::P0 => "critical",
        Severity::P1 => "error",
        Severity::P2 => "warning",
        Severity::P3 => "info",
    }
}

fn event(message: &Message<'_>, key: &str) -> Value {
    let notice = message.notice;
    let mut details = Map::new();
    let mut add = |name: &str, text: &str| {
        if !text.is_empty() {
            details.insert(name.to_owned(), json!(fit(text, DETAIL, Unit::Bytes)));
        }
    };
    add("text", &message.letter.body);
    add("impact", &clean_line(&notice.impact));
    add("commander", &clean_line(notice.commander.as_deref().unwrap_or_default()));
    add("tiers", &clean_line(&notice.tiers.join(", ")));
    let source = clean_line(&notice.source);
    json!({
        "routing_key": key,
        "event_action": action(notice.kind),
        "dedup_key": fit(&notice.thread, DEDUP_KEY, Unit::Bytes),
        "client": "Backstay",
        "payload": {
            "summary": fit(&message.letter.subject, SUMMARY, Unit::Utf16),
            "source": fit(if source.is_empty() { "backstay" } else { &source }, SUMMARY, Unit::Utf16),
            "severity": severity(notice.severity),
            "timestamp": notice.created.to_string(),
            "custom_details": details,
        },
    })
}

#[async_trait]
impl Channel for PagerDuty {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Pagerduty
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    fn per_minute(&self) -> u32 {
        120
    }

    fn takes(&self, notice: &Notice) -> bool {
        match notice.kind {
            Kind::Update | Kind::Reminder | Kind::DrillReport => false,
            Kind::Report => notice.severity <= Severity::P1,
            _ => true,
        }
    }

    async fn reach(&self) -> Result<(), String> {
        self.client.reach(self.url.expose()).await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        vec![Draft::new("POST enqueue", event(message, "R".repeat(32).as_str()).to_string())]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        let body = event(message, self.key.expose()).to_string().into_bytes();
        match self.client.post_json(&self.url, body).await {
            // Nothing but "accepted" is an acceptance: a proxy's greeting is none.
            Ok(answer) if answer.is_success() && answer.status != 202 => {
                Outcome::Later { problem: format!("no answer of PagerDuty: {}", answer.words()) }
            }
            Ok(answer) => answer.outcome(),
            Err(broken) => broken.into(),
        }
    }
}
