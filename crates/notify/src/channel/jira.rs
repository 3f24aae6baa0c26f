//! Issues of Jira Cloud: one for each thread, with a comment for each notice, moved to "done" at the end.
//!
//! Text travels as a document of plain paragraphs (ADF), which knows no markup. The issue carries a label of its thread;
//! the search for it lags by seconds, so the outbox also keeps the key of the issue.

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::header::AUTHORIZATION;
use serde_json::{Value, json};
use url::Url;

use super::http::{Answer, Call, Client};
use super::tracker::{self, Site, Stopped, Tracker, mark};
use super::{Channel, Draft, Message};
use crate::outbox::Outcome;
use crate::render::{Unit, fit};

const SUMMARY: usize = 255;
/// Longest description; Jira counts the whole document.
const DOCUMENT: usize = 32_767;
const LINES: usize = 300;

/// Issues of one project.
#[derive(Debug)]
pub struct Jira {
    site: Site,
    login: Secret<String>,
    project: String,
    issue_type: String,
}

impl Jira {
    /// The site at an address, for issues of a project; the account and its API token log in.
    ///
    /// # Errors
    /// The project is no key.
    pub fn new(
        client: Client,
        url: Secret<Url>,
        (user, token): (&str, &Secret<String>),
        (project, issue_type): (&str, &str),
    ) -> Result<Self, String> {
        let is_key = !project.is_empty() && project.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_key {
            return Err(format!("{project:?} is no key of a project"));
        }
        let login = Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{}", token.expose()))));
        Ok(Self {
            site: Site::new(client, url),
            login,
            project: project.to_owned(),
            issue_type: issue_type.to_owned(),
        })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, Stopped> {
        let login = |call: Call| call.header(AUTHORIZATION, self.login.expose());
        self.site.call(method, &format!("rest/api/3/{path}"), body, login).await
    }
}

fn label(message: &Message<'_>) -> String {
    format!("backstay-{}", mark(&message.notice.thread))
}

/// Plain paragraphs, the last of which is the mark of the notice.
fn document(message: &Message<'_>) -> Value {
    let mut room = 20_000;
    loop {
        let text = fit(&message.letter.body, room, Unit::Utf16);
        let lines = text.lines().filter(|line| !line.trim().is_empty()).take(LINES);
        let end = format!("backstay {}", mark(&message.notice.id));
        let paragraph =
            |line: &str| json!({ "type": "paragraph", "content": [{ "type": "text", "text": line }] });
        let content: Vec<Value> = lines.map(paragraph).chain([paragraph(&end)]).collect();
        let document = json!({ "type": "doc", "version": 1, "content": content });
        if document.to_string().len() <= DOCUMENT || room == 0 {
            return document;
        }
        room /= 2;
    }
}

fn summary(message: &Message<'_>) -> String {
    fit(&message.letter.subject, SUMMARY, Unit::Utf16)
}

#[async_trait]
impl Tracker for Jira {
    async fn find(&self, message: &Message<'_>) -> Result<Option<String>, Stopped> {
        let query = json!({
            "jql": format!("project = \"{}\" AND labels = \"{}\" ORDER BY created DESC", self.project, label(message)),
            "fields": ["summary"],
            "maxResults": 1,
        });
        let found = self.call(Method::POST, "search/jql", Some(query)).await?.json();
        Ok(found["issues"][0]["key"].as_str().map(str::to_owned))
    }

    async fn create(&self, message: &Message<'_>) -> Result<String, Stopped> {
        let body = json!({ "fields": {
            "project": { "key": self.project },
            "issuetype": { "name": self.issue_type },
            "summary": summary(message),
            "description": document(message),
            "labels": ["backstay", label(message)],
        }});
        let answer = self.call(Method::POST, "issue", Some(body)).await?;
        match answer.json()["key"].as_str() {
            Some(key) => Ok(key.to_owned()),
            None => {
                Err(Stopped(Outcome::Later { problem: format!("no answer of Jira: {}", answer.words()) }))
            }
        }
    }

    async fn tells(&self, record: &str, message: &Message<'_>) -> Result<bool, Stopped> {
        let mark = format!("backstay {}", mark(&message.notice.id));
        let issue = self.call(Method::GET, &format!("issue/{record}?fields=description"), None).await?;
        if issue.json().to_string().contains(&mark) {
            return Ok(true);
        }
        let path = format!("issue/{record}/comment?orderBy=-created&maxResults=100");
        Ok(self.call(Method::GET, &path, None).await?.json().to_string().contains(&mark))
    }

    async fn add(&self, record: &str, message: &Message<'_>) -> Result<(), Stopped> {
        let body = json!({ "body": document(message) });
        self.call(Method::POST, &format!("issue/{record}/comment"), Some(body)).await.map(|_| ())
    }

    async fn close(&self, record: &str, _: &Message<'_>) -> Result<(), Stopped> {
        let path = format!("issue/{record}/transitions");
        let open = self.call(Method::GET, &path, None).await?.json();
        let mut ways = open["transitions"].as_array().into_iter().flatten();
        let done = ways.find(|way| way["to"]["statusCategory"]["key"] == "done");
        // A workflow without a way from here to "done", or an issue that is there: nothing to do.
        let Some(id) = done.and_then(|way| way["id"].as_str()) else { return Ok(()) };
        let body = json!({ "transition": { "id": id } });
        self.call(Method::POST, &path, Some(body)).await.map(|_| ())
    }
}

#[async_trait]
impl Channel for Jira {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Jira
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    fn per_minute(&self) -> u32 {
        60
    }

    async fn reach(&self) -> Result<(), String> {
        self.site.reach().await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        let body = json!({ "fields": { "summary": summary(message), "description": document(message) } });
        vec![Draft::new("POST issue", body.to_string())]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        tracker::deliver(self, message).await
    }
}
