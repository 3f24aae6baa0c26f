//! Slack: the API with a token, which threads, and the incoming webhook, which does not.
//!
//! Text is escaped and sent with `verbatim` and without `link_names`, so nothing in it becomes a mention, a link or a
//! room; only the configuration can mention ([`Mention`]). Slack refuses more than 13,200 characters of blocks in
//! all, which its documentation does not say; messages are cut well below.

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use hyper::Method;
use serde_json::{Value, json};
use url::Url;

use super::http::{Call, Client};
use super::{Channel, Draft, Message};
use crate::notice::Kind;
use crate::outbox::Outcome;
use crate::render::{Unit, fit};
use crate::severity::Severity;

/// Longest header.
const HEADER: usize = 150;
/// Longest section.
const SECTION: usize = 3000;
/// Longest body, in all sections together.
const BODY: usize = 9000;
/// Longest plain text, which notifications and old clients show; what an edit would take too.
const TEXT: usize = 3900;

/// Who is called to a message of severity P0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mention {
    /// Whoever is there.
    Here,
    /// Everybody of the room.
    Channel,
}

/// Slack's API.
#[derive(Debug)]
pub struct Slack {
    client: Client,
    url: Secret<Url>,
    token: Secret<String>,
    room: String,
    mention: Option<Mention>,
}

/// Slack's incoming webhook.
#[derive(Debug)]
pub struct SlackWebhook {
    client: Client,
    url: Secret<Url>,
    mention: Option<Mention>,
}

impl Slack {
    /// The API at an address (`https://slack.com/api/` usually), for one room.
    #[must_use]
    pub fn new(
        client: Client,
        url: Secret<Url>,
        token: Secret<String>,
        room: &str,
        mention: Option<Mention>,
    ) -> Self {
        Self { client, url, token, room: room.to_owned(), mention }
    }
}

impl SlackWebhook {
    /// The webhook at an address.
    #[must_use]
    pub fn new(client: Client, url: Secret<Url>, mention: Option<Mention>) -> Self {
        Self { client, url, mention }
    }
}

/// The text with Slack's three special characters escaped, and no longer than the limit afterwards.
fn escaped(text: &str, limit: usize) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut used = 0;
    for c in text.chars() {
        let mut utf8 = [0; 4];
        let piece: &str = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            c => c.encode_utf8(&mut utf8),
        };
        used += crate::render::length(piece, Unit::Utf16);
        if used + 2 > limit {
            clean.push('…');
            return clean;
        }
        clean.push_str(piece);
    }
    clean
}

fn blocks(message: &Message<'_>, mention: Option<Mention>) -> Value {
    let letter = message.letter;
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "emoji": false, "text": fit(&escaped(&letter.subject, HEADER), HEADER, Unit::Utf16) },
    })];
    if let (Some(mention), Severity::P0, true) =
        (mention, message.notice.severity, message.notice.kind.is_alert())
    {
        let who = match mention {
            Mention::Here => "<!here>",
            Mention::Channel => "<!channel>",
        };
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": who } }));
    }
    for section in sections(&letter.body) {
        blocks.push(
            json!({ "type": "section", "text": { "type": "mrkdwn", "verbatim": true, "text": section } }),
        );
    }
    Value::Array(blocks)
}

/// The body in sections that are short enough, cut between lines where that is possible.
fn sections(body: &str) -> Vec<String> {
    let body = escaped(body, BODY);
    let mut sections = Vec::new();
    let mut rest = body.as_str();
    while !rest.trim().is_empty() {
        let mut end = 0;
        let mut used = 0;
        for c in rest.chars() {
            used += c.len_utf16();
            if used > SECTION - 10 {
                break;
            }
            end += c.len_utf8();
        }
        if end < rest.len() {
            let line = rest[..end].rfind('\n').filter(|at| *at > 0);
            // Not inside of an escape.
            end = line.or_else(|| rest[..end].rfind('&').filter(|at| end - at < 6 && *at > 0)).unwrap_or(end);
        }
        let (section, more) = rest.split_at(end);
        if !section.trim().is_empty() {
            sections.push(section.trim_matches('\n').to_owned());
        }
        rest = more;
    }
    sections
}

fn payload(message: &Message<'_>, mention: Option<Mention>) -> Value {
    json!({
        "text": escaped(&message.letter.subject, TEXT),
        "blocks": blocks(message, mention),
        "link_names": false,
        "parse": "none",
        "unfurl_links": false,
        "unfurl_media": false,
    })
}

#[async_trait]
impl Channel for Slack {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Slack
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    fn per_minute(&self) -> u32 {
        60
    }

    async fn reach(&self) -> Result<(), String> {
        self.client.reach(self.url.expose()).await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        let mut body = payload(message, self.mention);
        body["channel"] = json!(self.room);
        if let Some(reference) = message.reference {
            body["thread_ts"] = json!(reference);
            // What changes everything is shown in the room as well.
            body["reply_broadcast"] = json!(matches!(message.notice.kind, Kind::Escalation | Kind::Resolved));
        }
        vec![Draft::new("POST chat.postMessage", body.to_string())]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        let Ok(url) = self.url.expose().join("chat.postMessage") else {
            return Outcome::Refused { problem: "the address is no base of an API".to_owned() };
        };
        let body = self.draft(message).remove(0).body;
        let call = Call::new(Method::POST, &Secret::new(url), body)
            .header(hyper::header::CONTENT_TYPE, "application/json; charset=utf-8")
            .bearer(&self.token);
        let answer = match self.client.send(call).await {
            Ok(answer) => answer,
            Err(broken) => return broken.into(),
        };
        let json = answer.json();
        match (answer.outcome(), json["ok"].as_bool()) {
            (Outcome::Accepted { .. }, Some(true)) => {
                let ts = json["ts"].as_str().map(str::to_owned);
                Outcome::Accepted { reference: ts.filter(|_| message.reference.is_none()) }
            }
            (Outcome::Accepted { .. }, Some(false)) => {
                let error = json["error"].as_str().unwrap_or("unknown_error").to_owned();
                said(&error, answer.retry_after)
            }
            (Outcome::Accepted { .. }, None) => {
                Outcome::Later { problem: format!("no answer of Slack: {}", answer.words()) }
            }
            (other, _) => other,
        }
    }
}

/// What an error of the API means.
fn said(error: &str, retry_after: Option<std::time::Duration>) -> Outcome {
    let problem = format!("Slack says {error}");
    match error {
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => {
            Outcome::Limited { retry_after, problem }
        }
        "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org" => Outcome::Later { problem },
        _ => Outcome::Refused { problem },
    }
}

#[async_trait]
impl Channel for SlackWebhook {
    fn kind(&self) -> ChannelKind {
        ChannelKind::SlackWebhook
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    fn per_minute(&self) -> u32 {
        60
    }

    async fn reach(&self) -> Result<(), String> {
        self.client.reach(self.url.expose()).await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        vec![Draft::new("POST", payload(message, self.mention).to_string())]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        let body = self.draft(message).remove(0).body;
        let call = Call::new(Method::POST, &self.url, body)
            .header(hyper::header::CONTENT_TYPE, "application/json; charset=utf-8");
        match self.client.send(call).await {
            Ok(answer) if answer.is_success() && answer.body.trim_ascii() != b"ok" => {
                Outcome::Later { problem: format!("no answer of Slack: {}", answer.words()) }
            }
            Ok(answer) => answer.outcome(),
            Err(broken) => broken.into(),
        }
    }
}
