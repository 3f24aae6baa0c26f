//! Services that keep one record for each thread: issues and public incidents.
//!
//! None of them has an idempotency key, so every step looks first: the record carries a mark of its thread, each entry a
//! mark of its notice, and both are searched before anything is created. What a killed process did is found again.

use async_trait::async_trait;
use backstay_backup_core::manifest::Sha256Hex;
use backstay_backup_core::secret::Secret;
use hyper::Method;
use serde_json::Value;
use url::Url;

use super::Message;
use super::http::{Answer, Broken, Call, Client};
use crate::notice::Kind;
use crate::outbox::Outcome;

/// A step that did not succeed.
#[derive(Debug)]
pub(super) struct Stopped(pub(super) Outcome);

impl From<Broken> for Stopped {
    fn from(broken: Broken) -> Self {
        Self(broken.into())
    }
}

/// Where such a service is, and how it is called.
#[derive(Debug)]
pub(super) struct Site {
    client: Client,
    url: Secret<Url>,
}

impl Site {
    pub(super) fn new(client: Client, url: Secret<Url>) -> Self {
        Self { client, url }
    }

    pub(super) async fn reach(&self) -> Result<(), String> {
        self.client.reach(self.url.expose()).await
    }

    /// Calls a path below the address of the service; whatever is no success stops the step.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        login: impl FnOnce(Call) -> Call,
    ) -> Result<Answer, Stopped> {
        let address = format!("{}/{path}", self.url.expose().as_str().trim_end_matches('/'));
        let url = Url::parse(&address)
            .map_err(|error| Stopped(Outcome::Refused { problem: format!("no address: {error}") }))?;
        let url = Secret::new(url);
        let call = match &body {
            Some(body) => Call::json(method, &url, body),
            None => Call::new(method, &url, Vec::new()),
        };
        success(self.client.send(login(call)).await?)
    }
}

/// The steps of such a service.
#[async_trait]
pub(super) trait Tracker: Sync {
    /// The record of a thread.
    async fn find(&self, message: &Message<'_>) -> Result<Option<String>, Stopped>;

    /// Makes the record; says what it is called.
    async fn create(&self, message: &Message<'_>) -> Result<String, Stopped>;

    /// Whether the record tells a notice already.
    async fn tells(&self, record: &str, message: &Message<'_>) -> Result<bool, Stopped>;

    /// Adds an entry to the record.
    async fn add(&self, record: &str, message: &Message<'_>) -> Result<(), Stopped>;

    /// Closes the record; closing it again changes nothing.
    async fn close(&self, record: &str, message: &Message<'_>) -> Result<(), Stopped>;
}

/// Brings a message into the record of its thread.
pub(super) async fn deliver(tracker: &dyn Tracker, message: &Message<'_>) -> Outcome {
    match steps(tracker, message).await {
        Ok(record) => Outcome::Accepted { reference: Some(record) },
        Err(Stopped(outcome)) => outcome,
    }
}

async fn steps(tracker: &dyn Tracker, message: &Message<'_>) -> Result<String, Stopped> {
    let known = match message.reference {
        Some(reference) => Some(reference.to_owned()),
        None => tracker.find(message).await?,
    };
    let ends = matches!(message.notice.kind, Kind::Resolved | Kind::TaskSucceeded);
    let record = match known {
        None => {
            let record = tracker.create(message).await?;
            if ends {
                tracker.close(&record, message).await?;
            }
            return Ok(record);
        }
        Some(record) => record,
    };
    if !tracker.tells(&record, message).await? {
        tracker.add(&record, message).await?;
    }
    if ends {
        tracker.close(&record, message).await?;
    }
    Ok(record)
}

/// An answer that had to be a success. Creating is not repeated blindly: the next attempt looks first, so that an
/// answer that never came is only "later".
fn success(answer: Answer) -> Result<Answer, Stopped> {
    let outcome = answer.outcome();
    let limited =
        answer.status == 403 && (answer.retry_after.is_some() || answer.words().contains("rate limit"));
    match outcome {
        Outcome::Accepted { .. } => Ok(answer),
        Outcome::Refused { problem } if limited => {
            Err(Stopped(Outcome::Limited { retry_after: answer.retry_after, problem }))
        }
        other => Err(Stopped(other)),
    }
}

/// A short name made of a text of any length.
pub(super) fn mark(text: &str) -> String {
    hex::encode(&Sha256Hex::of(text.as_bytes()).0[..8])
}
