//! Issues of GitHub: one for each thread, with a comment for each notice, closed at the end.
//!
//! Marks of thread and notice stand in HTML comments, which nobody sees. Text is escaped: no HTML, no mention, no
//! reference to other issues.

use async_trait::async_trait;
use backstay_backup_core::config::ChannelKind;
use backstay_backup_core::secret::Secret;
use hyper::Method;
use hyper::header::{ACCEPT, HeaderName};
use jiff::SignedDuration;
use serde_json::{Value, json};
use url::Url;

use super::http::{Answer, Call, Client};
use super::tracker::{self, Site, Stopped, Tracker, mark};
use super::{Channel, Draft, Message};
use crate::notice::{Kind, Notice};
use crate::outbox::Outcome;
use crate::render::{Unit, fit, fits, length};

const TITLE: usize = 250;
/// GitHub takes 65,536 characters.
const BODY: usize = 30_000;
/// How far GitHub's clock and ours may differ.
const SKEW: SignedDuration = SignedDuration::from_hours(2);

/// Issues of one repository.
#[derive(Debug)]
pub struct Github {
    site: Site,
    token: Secret<String>,
    project: String,
}

impl Github {
    /// The API at an address (`https://api.github.com/` usually), for issues of `owner/name`.
    ///
    /// # Errors
    /// The project is no `owner/name`.
    pub fn new(
        client: Client,
        url: Secret<Url>,
        token: Secret<String>,
        project: &str,
    ) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
        match project.split_once('/') {
            Some((owner, name)) if is_part(owner) && is_part(name) => {
                Ok(Self { site: Site::new(client, url), token, project: project.to_owned() })
            }
            _ => Err(format!("{project:?} is no owner/name")),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, Stopped> {
        let login = |call: Call| {
            call.bearer(&self.token)
                .header(ACCEPT, "application/vnd.github+json")
                .header(HeaderName::from_static("x-github-api-version"), "2022-11-28")
        };
        self.site.call(method, &format!("repos/{}/issues{path}", self.project), body, login).await
    }
}

fn thread_mark(notice: &Notice) -> String {
    format!("<!-- backstay thread {} -->", mark(&notice.thread))
}

fn notice_mark(notice: &Notice) -> String {
    format!("<!-- backstay notice {} -->", mark(&notice.id))
}

/// Text that Markdown and GitHub leave alone.
fn plain(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '&' => clean.push_str("&amp;"),
            // A character of no width behind it: neither a person nor an issue is called that.
            '@' | '#' => clean.extend([c, '\u{200B}']),
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '!' | '|' | '~' | '$' => clean.extend(['\\', c]),
            '\n' => clean.push_str("  \n"),
            c => clean.push(c),
        }
    }
    clean
}

fn text(message: &Message<'_>) -> String {
    let notice = message.notice;
    let mut room = BODY;
    loop {
        let body = format!(
            "{}\n\n{}\n{}",
            plain(&fit(&message.letter.body, room, Unit::Utf16)),
            thread_mark(notice),
            notice_mark(notice)
        );
        if fits(&body, 65_000, Unit::Utf16) {
            return body;
        }
        room /= 2;
    }
}

/// A title, which reads no Markdown but does mention; cut first, so that no cut parts a sign from what disarms it.
fn title(subject: &str) -> String {
    let mut room = TITLE;
    loop {
        let title = fit(subject, room, Unit::Utf16).replace('@', "@\u{200B}");
        if room == 0 || fits(&title, TITLE, Unit::Utf16) {
            return title;
        }
        room -= (length(&title, Unit::Utf16) - TITLE).min(room);
    }
}

#[async_trait]
impl Tracker for Github {
    async fn find(&self, message: &Message<'_>) -> Result<Option<String>, Stopped> {
        let answer =
            self.call(Method::GET, "?state=all&sort=created&direction=desc&per_page=100", None).await?;
        let mark = thread_mark(message.notice);
        let issues = answer.json();
        let found = issues
            .as_array()
            .into_iter()
            .flatten()
            .find(|issue| issue["body"].as_str().is_some_and(|body| body.contains(&mark)));
        Ok(found.and_then(|issue| issue["number"].as_u64()).map(|number| number.to_string()))
    }

    async fn create(&self, message: &Message<'_>) -> Result<String, Stopped> {
        let body = json!({ "title": title(&message.letter.subject), "body": text(message), "labels": ["backstay", message.notice.severity] });
        let answer = self.call(Method::POST, "", Some(body)).await?;
        match answer.json()["number"].as_u64() {
            Some(number) => Ok(number.to_string()),
            None => {
                Err(Stopped(Outcome::Later { problem: format!("no answer of GitHub: {}", answer.words()) }))
            }
        }
    }

    async fn tells(&self, record: &str, message: &Message<'_>) -> Result<bool, Stopped> {
        let mark = notice_mark(message.notice);
        let has = |item: &Value| item["body"].as_str().is_some_and(|body| body.contains(&mark));
        if has(&self.call(Method::GET, &format!("/{record}"), None).await?.json()) {
            return Ok(true);
        }
        // By GitHub's clock, behind which ours may be, or before it.
        let since = message.notice.created.saturating_sub(SKEW).unwrap_or(message.notice.created);
        let since = since.strftime("%Y-%m-%dT%H:%M:%SZ");
        let path = format!("/{record}/comments?per_page=100&since={since}");
        Ok(self
            .call(Method::GET, &path, None)
            .await?
            .json()
            .as_array()
            .is_some_and(|all| all.iter().any(has)))
    }

    async fn add(&self, record: &str, message: &Message<'_>) -> Result<(), Stopped> {
        let body = json!({ "body": format!("**{}**\n\n{}", plain(&message.letter.subject), text(message)) });
        self.call(Method::POST, &format!("/{record}/comments"), Some(body)).await.map(|_| ())
    }

    async fn close(&self, record: &str, _: &Message<'_>) -> Result<(), Stopped> {
        let body = json!({ "state": "closed", "state_reason": "completed" });
        self.call(Method::PATCH, &format!("/{record}"), Some(body)).await.map(|_| ())
    }
}

#[async_trait]
impl Channel for Github {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Github
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    fn per_minute(&self) -> u32 {
        20
    }

    fn takes(&self, notice: &Notice) -> bool {
        notice.kind != Kind::TaskSucceeded || !notice.facts.contains_key("first")
    }

    async fn reach(&self) -> Result<(), String> {
        self.site.reach().await
    }

    fn draft(&self, message: &Message<'_>) -> Vec<Draft> {
        let body = json!({ "title": title(&message.letter.subject), "body": text(message) });
        vec![Draft::new("POST issue", body.to_string())]
    }

    async fn deliver(&self, message: &Message<'_>) -> Outcome {
        tracker::deliver(self, message).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found among ten thousand invented incidents (seed 20267729): the cut fell right behind the sign.
    #[test]
    fn a_title_that_is_cut_behind_an_at_sign_is_disarmed_too() {
        for length in TITLE - 20..TITLE + 20 {
            for text in [format!("{}@octocat and others", "x".repeat(length)), "@".repeat(length)] {
                let title = title(&text);
                assert!(fits(&title, TITLE, Unit::Utf16), "{title}");
                assert!(
                    title.match_indices('@').all(|(at, _)| title[at + 1..].starts_with('\u{200B}')),
                    "{title}"
                );
            }
        }
    }
}
