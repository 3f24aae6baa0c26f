//! Slack: the API with a token, which threads, and the incoming webhook, which does not.
//!
//! Text is escaped and sent with `verbatim` and without `link_names`, so nothing in it becomes a mention, a link or a
//! room; only the configuration can mention ([`Mention`]). Slack refuses more than 13,200 characters of blocks in
//! all, which its documentation does not say; messages are cut well below.
//!
//! The first message of an incident is edited when the incident changes, so that who looks into the room sees how things
//! stand without reading the thread. The edit goes first: repeating it changes nothing, and it keeps no news back unless
//! Slack wants to be left alone.

mod text;

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use hyper::Method;
use serde_json::{Value, json};
use url::Url;

use super::http::{Answer, Broken, Call, Client};
use super::{Channel, Draft, Message};
use crate::notice::Kind;
use crate::outbox::Outcome;
use text::{payload, short, standing};

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

    /// The message, in the thread of its incident.
    fn post(&self, message: &Message<'_>, mut body: Value) -> Value {
        body["channel"] = json!(self.room);
        if let Some(reference) = message.reference {
            body["thread_ts"] = json!(reference.rsplit(':').next());
            // What changes everything is shown in the room as well: also that it became worse, which is told as a beginning.
            body["reply_broadcast"] =
                json!(matches!(message.notice.kind, Kind::Opened | Kind::Escalation | Kind::Resolved));
        }
        body
    }

    /// The edit of the first message, where Slack told how to address it.
    fn edit(&self, message: &Message<'_>) -> Option<Value> {
        let (room, ts) = message.reference?.split_once(':')?;
        let mut body = standing(message.notice)?;
        body["channel"] = json!(room);
        body["ts"] = json!(ts);
        Some(body)
    }

    async fn call(&self, method: &str, body: &Value) -> Result<Answer, Broken> {
        let url = self.url.expose().join(method).map_err(|error| Broken::Unsent(error.to_string()))?;
        self.client.send(Call::json(Method::POST, &Secret::new(url), body).bearer(&self.token)).await
    }
}

impl SlackWebhook {
    /// The webhook at an address.
    #[must_use]
    pub fn new(client: Client, url: Secret<Url>, mention: Option<Mention>) -> Self {
        Self { client, url, mention }
    }
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
        let edit = self.edit(message).map(|body| Draft::new("POST chat.update", body.to_string()));
        let post = self.post(message, payload(message, self.mention));
        edit.into_iter().chain([Draft::new("POST chat.postMessage", post.to_string())]).collect()
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        if let Some(edit) = self.edit(message) {
            match self.call("chat.update", &edit).await.map(|answer| verdict(&answer)) {
                Ok(Outcome::Accepted { .. }) => {}
                Ok(limited @ Outcome::Limited { .. }) => return limited,
                Err(unsent @ Broken::Unsent(_)) => return unsent.into(),
                other => tracing::debug!(?other, "the first message of the thread was not edited"),
            }
        }
        let mut answer =
            match self.call("chat.postMessage", &self.post(message, payload(message, self.mention))).await {
                Ok(answer) => answer,
                Err(broken) => return broken.into(),
            };
        if answer.json()["error"].as_str().is_some_and(|error| TOO_LONG.contains(&error)) {
            // It was not taken, so this is no repetition.
            answer = match self.call("chat.postMessage", &self.post(message, short(message))).await {
                Ok(answer) => answer,
                Err(broken) => return broken.into(),
            };
        }
        match verdict(&answer) {
            Outcome::Accepted { .. } => Outcome::Accepted { reference: reference(&answer, message) },
            other => other,
        }
    }
}

/// What Slack says of blocks that it finds too long, or otherwise wrong.
const TOO_LONG: [&str; 3] = ["msg_too_long", "msg_blocks_too_long", "invalid_blocks"];

/// The first message of a thread, as `room:ts`, which an edit needs.
fn reference(answer: &Answer, message: &Message<'_>) -> Option<String> {
    if message.reference.is_some() {
        return None;
    }
    let json = answer.json();
    let ts = json["ts"].as_str()?;
    Some(json["channel"].as_str().map_or_else(|| ts.to_owned(), |room| format!("{room}:{ts}")))
}

/// What an answer of the API means, whose errors come with a status of success.
fn verdict(answer: &Answer) -> Outcome {
    let json = answer.json();
    match (answer.outcome(), json["ok"].as_bool()) {
        (Outcome::Accepted { .. }, Some(true)) => Outcome::Accepted { reference: None },
        (Outcome::Accepted { .. }, Some(false)) => {
            said(json["error"].as_str().unwrap_or("unknown_error"), answer.retry_after)
        }
        (Outcome::Accepted { .. }, None) => answer.without_answer_of("Slack"),
        (other, _) => other,
    }
}

/// What an error of the API means.
fn said(error: &str, retry_after: Option<std::time::Duration>) -> Outcome {
    let advice = match error {
        "not_in_channel" => ": invite the bot into the room",
        "channel_not_found" => ": there is no such room, or it is private and the bot is not in it",
        "is_archived" => ": the room is archived",
        "missing_scope" => ": the token needs the scope chat:write",
        "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive" => {
            ": the token is not valid any more"
        }
        _ => "",
    };
    let word: String = error.chars().filter(|c| !c.is_control()).take(100).collect();
    let problem = format!("Slack says {word}{advice}");
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
        match self.client.post_json(&self.url, body).await {
            Ok(answer) if answer.is_success() && answer.body.trim_ascii() != b"ok" => {
                answer.without_answer_of("Slack")
            }
            Ok(answer) => answer.outcome(),
            Err(broken) => broken.into(),
        }
    }
}
