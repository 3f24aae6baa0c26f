//! Incidents of a public status page with Statuspage's API.
//!
//! What is public is only what incidents say: neither reminders nor escalations nor tasks come here.

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use hyper::Method;
use hyper::header::AUTHORIZATION;
use serde_json::{Value, json};
use url::Url;

use super::http::{Answer, Call, Client};
use super::tracker::{self, Site, Stopped, Tracker, mark};
use super::{Channel, Draft, Message};
use crate::notice::{Kind, Notice};
use crate::outbox::Outcome;
use crate::render::{Unit, clean_line, clean_text, fit};
use crate::severity::{Severity, Status};

const NAME: usize = 200;
const BODY: usize = 4096;

/// One page.
#[derive(Debug)]
pub struct Statuspage {
    site: Site,
    token: Secret<String>,
    page: String,
    component: Option<String>,
}

impl Statuspage {
    /// The API at an address (`https://api.statuspage.io/v1/` usually), for one page and the component that suffers.
    ///
    /// # Errors
    /// The page or component is no id.
    pub fn new(
        client: Client,
        url: Secret<Url>,
        token: Secret<String>,
        (page, component): (&str, Option<&str>),
    ) -> Result<Self, String> {
        let is_id = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if let Some(strange) = [Some(page), component].into_iter().flatten().find(|id| !is_id(id)) {
            return Err(format!("{strange:?} is no id"));
        }
        let site = Site::new(client, url);
        Ok(Self { site, token, page: page.to_owned(), component: component.map(str::to_owned) })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, Stopped> {
        let login = |call: Call| call.header(AUTHORIZATION, format!("OAuth {}", self.token.expose()));
        self.site.call(method, &format!("pages/{}/incidents{path}", self.page), body, login).await
    }

    fn incident(&self, message: &Message<'_>) -> Value {
        let notice = message.notice;
        let status = if notice.kind == Kind::Resolved {
            Status::Resolved
        } else {
            notice.status.unwrap_or(Status::Investigating)
        };
        let mut incident = json!({
            "name": fit(&clean_line(&notice.title), NAME, Unit::Utf16),
            "status": status,
            "body": words(message),
            "metadata": { "backstay": { "thread": mark(&notice.thread) } },
        });
        if let Some(component) = &self.component {
            let state = match (status, notice.severity) {
                (Status::Resolved, _) => "operational",
                (_, Severity::P0) => "major_outage",
                (_, Severity::P1) => "partial_outage",
                _ => "degraded_performance",
            };
            incident["components"] = json!({ component.as_str(): state });
        }
        json!({ "incident": incident })
    }
}

/// What the public reads: the words of the notice, and what was late, but no inner facts.
fn words(message: &Message<'_>) -> String {
    let notice = message.notice;
    let text = if message.letter.merged > 0 {
        &message.letter.body
    } else if notice.text.is_empty() {
        &notice.title
    } else {
        &notice.text
    };
    fit(&clean_text(text).replace('<', "‹").replace('>', "›"), BODY, Unit::Utf16)
}

#[async_trait]
impl Tracker for Statuspage {
    async fn find(&self, message: &Message<'_>) -> Result<Option<String>, Stopped> {
        let all = self.call(Method::GET, "?limit=100", None).await?.json();
        let wanted = mark(&message.notice.thread);
        let mut incidents = all.as_array().into_iter().flatten();
        let found = incidents.find(|incident| incident["metadata"]["backstay"]["thread"] == wanted.as_str());
        Ok(found.and_then(|incident| incident["id"].as_str()).map(str::to_owned))
    }

    async fn create(&self, message: &Message<'_>) -> Result<String, Stopped> {
        let answer = self.call(Method::POST, "", Some(self.incident(message))).await?;
        match answer.json()["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => {
                Err(Stopped(Outcome::Later { problem: format!("no answer of the page: {}", answer.words()) }))
            }
        }
    }

    async fn tells(&self, record: &str, message: &Message<'_>) -> Result<bool, Stopped> {
        let incident = self.call(Method::GET, &format!("/{record}"), None).await?.json();
        let (status, body) = (&self.incident(message)["incident"]["status"], words(message));
        let mut updates = incident["incident_updates"].as_array().into_iter().flatten();
        Ok(updates.any(|update| update["body"] == body.as_str() && update["status"] == *status))
    }

    async fn add(&self, record: &str, message: &Message<'_>) -> Result<(), Stopped> {
        self.call(Method::PATCH, &format!("/{record}"), Some(self.incident(message))).await.map(|_| ())
    }

    /// The entry itself carries the status.
    async fn close(&self, _: &str, _: &Message<'_>) -> Result<(), Stopped> {
        Ok(())
    }
}

#[async_trait]
impl Channel for Statuspage {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Statuspage
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    fn per_minute(&self) -> u32 {
        60
    }

    fn takes(&self, notice: &Notice) -> bool {
        matches!(notice.kind, Kind::Opened | Kind::Update | Kind::Resolved)
    }

    async fn reach(&self) -> Result<(), String> {
        self.site.reach().await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        vec![Draft::new("POST incident", self.incident(message).to_string())]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        tracker::deliver(self, message).await
    }
}
