//! The configured channels, ready to be used, and those that are not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::config::{ChannelConfig, ChannelKind};
use backstay_backup_core::error::describe;
use backstay_backup_core::process::CommandRunner;
use backstay_backup_core::secret::{Secret, SecretRef, SecretSource};
use url::Url;

use super::http::{self, Client};
use super::slack::Mention;
use super::{Channel, command, github, jira, pagerduty, slack, statuspage, teams, webhook};
use crate::redact::Redactor;

/// Time for one attempt.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Time for the secrets of a channel to be had; without them its messages wait. Nothing is on disk yet meanwhile.
const SECRETS: Duration = Duration::from_secs(5);

/// Channels by name. A channel that cannot be made does not stop the others: what goes to it waits.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Registry {
    /// Those that work.
    pub channels: BTreeMap<String, Arc<dyn Channel>>,
    /// Messages in a minute, where the configuration says so.
    pub per_minute: BTreeMap<String, u32>,
    /// Each channel's fallback.
    pub fallbacks: BTreeMap<String, String>,
    /// Those that do not, and why.
    pub unavailable: Vec<Unavailable>,
}

/// A channel that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Its name.
    pub channel: String,
    /// Why.
    pub problem: String,
}

/// Why a channel cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ChannelError(String);

impl Registry {
    /// Makes every configured channel, all at once, and tells the redactor all their secrets. A service of secrets that
    /// does not answer keeps nobody waiting for long.
    pub async fn open(
        configured: &[ChannelConfig],
        secrets: &dyn SecretSource,
        runner: &Arc<dyn CommandRunner>,
        redactor: &mut Redactor,
    ) -> Self {
        let mut registry = Self::default();
        let made = configured.iter().map(|config| async move {
            let mut own = Redactor::default();
            let made = channel(config, secrets, runner, &mut own);
            let late = |_| Err(ChannelError(format!("its secrets could not be had within {SECRETS:?}")));
            let made = tokio::time::timeout(SECRETS, made).await.unwrap_or_else(late);
            (made, own)
        });
        let made = futures::future::join_all(made).await;
        for (config, (made, own)) in configured.iter().zip(made) {
            redactor.learn(own);
            if let Some(fallback) = &config.fallback {
                registry.fallbacks.insert(config.name.clone(), fallback.clone());
            }
            if let Some(limit) = config.per_minute {
                registry.per_minute.insert(config.name.clone(), limit.get());
            }
            match made {
                Ok(channel) => {
                    registry.channels.insert(config.name.clone(), channel);
                }
                Err(ChannelError(problem)) => {
                    registry.unavailable.push(Unavailable { channel: config.name.clone(), problem });
                }
            }
        }
        registry
    }
}

async fn secret(
    reference: Option<&SecretRef>,
    secrets: &dyn SecretSource,
    redactor: &mut Redactor,
) -> Result<Option<Secret<String>>, ChannelError> {
    let Some(reference) = reference else { return Ok(None) };
    let secret = secrets.resolve(reference).await.map_err(|error| ChannelError(describe(&error)))?;
    redactor.add(&secret);
    Ok(Some(secret))
}

async fn channel(
    config: &ChannelConfig,
    secrets: &dyn SecretSource,
    runner: &Arc<dyn CommandRunner>,
    redactor: &mut Redactor,
) -> Result<Arc<dyn Channel>, ChannelError> {
    let wrong = |problem: String| ChannelError(problem);
    let timeout = config.timeout.map_or(TIMEOUT, |timeout| timeout.duration());
    if config.kind == ChannelKind::Command {
        return Ok(Arc::new(command::Command::new(runner.clone(), config.command.clone(), timeout)));
    }
    let token = secret(config.token.as_ref(), secrets, redactor).await?;
    // The address of a mail server is none; that of a hook is.
    let mut public = Redactor::default();
    let known = if config.kind == ChannelKind::Email { &mut public } else { redactor };
    let url = secret(config.url.as_ref(), secrets, known).await?;
    if config.kind == ChannelKind::Email {
        return email(config, url, token, timeout);
    }
    if config.kind == ChannelKind::Sns {
        return sns(config, url, token.as_ref(), timeout).await;
    }
    let client = Client::new(config.ca_file.as_deref(), timeout).map_err(|error| wrong(error.to_string()))?;
    let usual = match config.kind {
        ChannelKind::Slack => "https://slack.com/api/",
        ChannelKind::Pagerduty => "https://events.pagerduty.com/v2/enqueue",
        ChannelKind::Github => "https://api.github.com/",
        ChannelKind::Statuspage => "https://api.statuspage.io/v1/",
        _ => "",
    };
    let text = url.as_ref().map_or(usual, |url| url.expose().as_str());
    let address: Secret<Url> = http::address(text, config.insecure).map_err(wrong)?;
    let needed =
        |token: Option<Secret<String>>| token.ok_or_else(|| ChannelError("it has no token".to_owned()));
    let project = config.project.as_deref().unwrap_or_default();
    let mention =
        config.mention.as_deref().map(|who| if who == "here" { Mention::Here } else { Mention::Channel });
    Ok(match config.kind {
        ChannelKind::Slack => {
            let base = with_slash(&address);
            let room = config.room.as_deref().unwrap_or_default();
            Arc::new(slack::Slack::new(client, base, needed(token)?, room, mention))
        }
        ChannelKind::SlackWebhook => Arc::new(slack::SlackWebhook::new(client, address, mention)),
        ChannelKind::Pagerduty => Arc::new(pagerduty::PagerDuty::new(client, address, needed(token)?)),
        ChannelKind::Teams => Arc::new(teams::Teams::new(client, address)),
        ChannelKind::Webhook => {
            Arc::new(webhook::Webhook::new(client, address, token.as_ref()).map_err(wrong)?)
        }
        ChannelKind::Github => {
            Arc::new(github::Github::new(client, address, needed(token)?, project).map_err(wrong)?)
        }
        ChannelKind::Jira => {
            let user = config.user.as_deref().unwrap_or_default();
            let kind = config.issue_type.as_deref().unwrap_or("Task");
            let token = needed(token)?;
            Arc::new(jira::Jira::new(client, address, (user, &token), (project, kind)).map_err(wrong)?)
        }
        ChannelKind::Statuspage => {
            let component = config.component.as_deref();
            let page = statuspage::Statuspage::new(client, address, needed(token)?, (project, component));
            Arc::new(page.map_err(wrong)?)
        }
        other => return Err(ChannelError(format!("this program was built without {}", other.name()))),
    })
}

fn with_slash(url: &Secret<Url>) -> Secret<Url> {
    let mut url = url.expose().clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Secret::new(url)
}

#[cfg(feature = "email")]
fn email(
    config: &ChannelConfig,
    url: Option<Secret<String>>,
    password: Option<Secret<String>>,
    timeout: Duration,
) -> Result<Arc<dyn Channel>, ChannelError> {
    use super::email::{Email, Server};
    let url = url.map_or_else(String::new, |url| url.expose().clone());
    let mut server = Server::new(&url, timeout);
    server.login = config.user.clone().zip(password);
    server.ca_file = config.ca_file.as_deref();
    server.insecure = config.insecure;
    let email = Email::new(&server, config.from.as_deref().unwrap_or_default(), &config.to);
    Ok(Arc::new(email.map_err(ChannelError)?))
}

/// A topic says itself where it is; a telephone is called from a region of the configuration.
#[cfg(feature = "sns")]
async fn sns(
    config: &ChannelConfig,
    url: Option<Secret<String>>,
    secret: Option<&Secret<String>>,
    timeout: Duration,
) -> Result<Arc<dyn Channel>, ChannelError> {
    use super::sns::{Sns, Target};
    let client =
        Client::new(config.ca_file.as_deref(), timeout).map_err(|error| ChannelError(error.to_string()))?;
    let target = Target::parse(config.target.as_deref().unwrap_or_default()).map_err(ChannelError)?;
    let region = config.region.clone().or_else(|| target.region().map(str::to_owned));
    let region =
        region.ok_or_else(|| ChannelError("a telephone needs a region to be called from".to_owned()))?;
    let url = url.map_or_else(|| target.service(&region), |url| url.expose().clone());
    let address = http::address(&url, config.insecure).map_err(ChannelError)?;
    let keys = config.user.as_deref().zip(secret);
    let sns = Sns::new(client, address, (target, &region), keys).await;
    Ok(Arc::new(sns.map_err(ChannelError)?))
}

#[cfg(not(feature = "sns"))]
async fn sns(
    _: &ChannelConfig,
    _: Option<Secret<String>>,
    _: Option<&Secret<String>>,
    _: Duration,
) -> Result<Arc<dyn Channel>, ChannelError> {
    Err(ChannelError("this program was built without sns".to_owned()))
}

#[cfg(not(feature = "email"))]
fn email(
    _: &ChannelConfig,
    _: Option<Secret<String>>,
    _: Option<Secret<String>>,
    _: Duration,
) -> Result<Arc<dyn Channel>, ChannelError> {
    Err(ChannelError("this program was built without email".to_owned()))
}
