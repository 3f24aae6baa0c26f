//! Microsoft Teams, by the address of a workflow that posts adaptive cards.
//!
//! Text goes into `RichTextBlock`s, which read no markup at all. A workflow takes a request and fails later, out of
//! sight, when the card has grown beyond 28 KB by its expansion: cards are cut at 18 KB, and "taken" is all that can ever
//! be known. There are no threads and no edits.

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use serde_json::{Value, json};
use url::Url;

use super::http::Client;
use super::{Channel, Draft, Message};
use crate::outbox::Outcome;
use crate::render::{Unit, fit};

/// Largest request in bytes.
const CARD: usize = 18_000;
const TITLE: usize = 400;
/// Lines of a card.
const LINES: usize = 60;

/// A workflow.
#[derive(Debug)]
pub struct Teams {
    client: Client,
    url: Secret<Url>,
}

impl Teams {
    /// The workflow at an address.
    #[must_use]
    pub fn new(client: Client, url: Secret<Url>) -> Self {
        Self { client, url }
    }
}

fn rich(text: &str, is_title: bool) -> Value {
    let run = if is_title {
        json!({ "type": "TextRun", "text": text, "weight": "bolder", "size": "large" })
    } else {
        json!({ "type": "TextRun", "text": text })
    };
    json!({ "type": "RichTextBlock", "inlines": [run] })
}

fn card(subject: &str, body: &str) -> String {
    let mut blocks = vec![rich(&fit(subject, TITLE, Unit::Utf16), true)];
    let lines: Vec<&str> = body.lines().filter(|line| !line.trim().is_empty()).collect();
    blocks.extend(lines.iter().take(LINES).map(|line| rich(line, false)));
    if lines.len() > LINES {
        blocks.push(rich(&format!("[{} more lines]", lines.len() - LINES), false));
    }
    let content = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.2",
        "body": blocks,
    });
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": content,
        }],
    })
    .to_string()
}

fn payload(message: &Message<'_>) -> String {
    let letter = message.letter;
    let mut room = 12_000;
    loop {
        let body = fit(&letter.body, room, Unit::Bytes);
        let card = card(&letter.subject, &body);
        if card.len() <= CARD || room == 0 {
            return card;
        }
        room /= 2;
    }
}

#[async_trait]
impl Channel for Teams {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Teams
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    fn per_minute(&self) -> u32 {
        30
    }

    async fn reach(&self) -> Result<(), String> {
        self.client.reach(self.url.expose()).await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        vec![Draft::new("POST", payload(message))]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        match self.client.post_json(&self.url, payload(message).into_bytes()).await {
            Ok(answer) if answer.is_success() => {
                // The words of a service behind the workflow, passed on with a status of success.
                let words = answer.words();
                if words.contains("HTTP error 429") {
                    return Outcome::Limited { retry_after: answer.retry_after, problem: words };
                }
                if words.contains("delivery failed") || words.contains("\"error\"") {
                    return Outcome::Refused { problem: words };
                }
                Outcome::Accepted { reference: None }
            }
            Ok(answer) => answer.outcome(),
            Err(broken) => broken.into(),
        }
    }
}
