//! The section `notify`: who is told what, through which channels.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use schemars::JsonSchema;

use super::document::{Entry, Node};
use super::error::ConfigError;
use super::model::S3Config;
use super::reader::Reader;
use super::units::TimeSpan;
use crate::secret::SecretRef;

type Result<T> = std::result::Result<T, ConfigError>;

/// Incidents and notifications.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct NotifyConfig {
    /// Directory of the outbox; `/var/lib/backstay/notify` where that is ours, else `~/.local/state/backstay/notify`.
    pub state: Option<PathBuf>,
    /// Where incidents are kept; `local` by default: beside the outbox.
    #[schemars(default)]
    pub incidents: IncidentPlace,
    /// Directory of templates that replace the built-in ones.
    pub templates: Option<PathBuf>,
    /// Address that is called whenever the outbox was worked through, as `healthchecks` expects it.
    pub heartbeat: Option<SecretRef>,
    /// Recovery time objective that resolved incidents are measured by.
    pub rto: Option<TimeSpan>,
    /// Age from which a message says that it is late, and updates are merged; 10 minutes by default.
    pub late_after: Option<TimeSpan>,
    /// How long a channel may fail before its fallback is used too; 2 minutes by default.
    pub fallback_after: Option<TimeSpan>,
    /// How long delivery is tried; 3 days by default.
    pub give_up_after: Option<TimeSpan>,
    /// Directory that the status page is written to, whenever an incident changes.
    pub status_page: Option<PathBuf>,
    /// Headline of the status page; `Status` by default.
    pub status_title: Option<String>,
    /// Bucket that the status page is written to, best one of another region than what it reports on.
    pub status_bucket: Option<S3Config>,
    /// Where messages go.
    #[schemars(default)]
    pub channel: Vec<ChannelConfig>,
    /// Who is told what of each severity.
    #[schemars(default)]
    pub policy: NotifyPolicy,
    /// What the task programs tell by themselves.
    #[schemars(default)]
    pub on: NotifyOn,
}

/// Where incidents are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IncidentPlace {
    /// Beside the outbox, on this machine.
    #[default]
    Local,
    /// In the repositories, so that all hosts agree.
    Repository,
}

/// A way to reach people.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct ChannelConfig {
    /// Name used in the policy.
    pub name: String,
    /// What it is.
    pub kind: ChannelKind,
    /// Address of the hook or service; often a secret.
    pub url: Option<SecretRef>,
    /// Token, password of a user, or key of an integration.
    pub token: Option<SecretRef>,
    /// Second address that failing deliveries also go to: the name of another channel.
    pub fallback: Option<String>,
    /// Slack: the channel, such as `#incident`.
    pub room: Option<String>,
    /// Slack: who is mentioned for P0: `here` or `channel`.
    pub mention: Option<String>,
    /// E-mail: recipients.
    #[schemars(default)]
    pub to: Vec<String>,
    /// E-mail: sender.
    pub from: Option<String>,
    /// E-mail, Jira: account; SNS: id of the access key, whose secret is the token.
    pub user: Option<String>,
    /// GitHub: `owner/name`; Jira: key of the project; Statuspage: id of the page.
    pub project: Option<String>,
    /// Jira: type of new issues; `Task` by default.
    pub issue_type: Option<String>,
    /// SNS: ARN of a topic, or a telephone number for SMS.
    pub target: Option<String>,
    /// SNS: region, which a topic knows itself.
    pub region: Option<String>,
    /// Statuspage: affected component.
    pub component: Option<String>,
    /// Command: program and arguments; it gets the message as JSON on its standard input.
    #[schemars(default)]
    pub command: Vec<String>,
    /// Certificates of authorities to trust besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Accepts an address without TLS on another machine.
    #[schemars(default)]
    pub insecure: bool,
    /// Messages in a minute at most; what the service allows by default.
    pub per_minute: Option<NonZeroU32>,
    /// Time for one attempt; 15 seconds by default.
    pub timeout: Option<TimeSpan>,
}

/// Kinds of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChannelKind {
    /// Slack's API with a token: one thread for each incident.
    Slack,
    /// Slack's incoming webhook.
    SlackWebhook,
    /// E-mail by SMTP.
    Email,
    /// PagerDuty Events v2.
    Pagerduty,
    /// A workflow of Microsoft Teams.
    Teams,
    /// Issues of Jira.
    Jira,
    /// Issues of GitHub.
    Github,
    /// Incidents of a Statuspage.
    Statuspage,
    /// A topic of AWS SNS, or SMS to one telephone.
    Sns,
    /// A webhook signed as Standard Webhooks has it.
    Webhook,
    /// A program.
    Command,
}

/// Kinds and their names.
pub const CHANNEL_KINDS: [(&str, ChannelKind); 11] = [
    ("slack", ChannelKind::Slack),
    ("slack-webhook", ChannelKind::SlackWebhook),
    ("email", ChannelKind::Email),
    ("pagerduty", ChannelKind::Pagerduty),
    ("teams", ChannelKind::Teams),
    ("jira", ChannelKind::Jira),
    ("github", ChannelKind::Github),
    ("statuspage", ChannelKind::Statuspage),
    ("sns", ChannelKind::Sns),
    ("webhook", ChannelKind::Webhook),
    ("command", ChannelKind::Command),
];

impl ChannelKind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        CHANNEL_KINDS.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }
}

/// The table: one row for each severity.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct NotifyPolicy {
    /// Everything stands still.
    #[schemars(default)]
    pub p0: PolicyRow,
    /// An important part stands still.
    #[schemars(default)]
    pub p1: PolicyRow,
    /// Something is broken.
    #[schemars(default)]
    pub p2: PolicyRow,
    /// To be done some time.
    #[schemars(default)]
    pub p3: PolicyRow,
}

/// What one severity means; what is left out is as usual.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct PolicyRow {
    /// Channels that are told everything.
    pub channels: Option<Vec<String>>,
    /// Channels of the executives, told as well.
    pub executives: Option<Vec<String>>,
    /// Time for somebody to acknowledge before the escalation begins.
    pub response_time: Option<TimeSpan>,
    /// Longest silence of an open incident; `0s` for any.
    pub update_every: Option<TimeSpan>,
    /// Steps while nobody acknowledges; each is a channel, or several joined by `+`.
    pub escalation: Option<Vec<Vec<String>>>,
    /// Channels that are reminded of an overdue update; the first of `channels` by default.
    pub reminders: Option<Vec<String>>,
}

/// What the task programs tell by themselves; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct NotifyOn {
    /// Severity of a failed task, P0 to P3; it is told until the task succeeds.
    pub failure: Option<String>,
    /// Severity of a missed objective.
    pub objective_missed: Option<String>,
    /// Tells the first success of a task.
    #[schemars(default)]
    pub first_success: bool,
    /// Tells every success.
    #[schemars(default)]
    pub every_success: bool,
    /// Only these programs; all by default.
    #[schemars(default)]
    pub programs: Vec<String>,
}

impl NotifyOn {
    /// Whether nothing is told.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.failure.is_none()
            && self.objective_missed.is_none()
            && !self.first_success
            && !self.every_success
    }
}

impl NotifyConfig {
    /// Names of the channels.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.channel.iter().map(|channel| channel.name.clone())
    }
}

pub(super) fn notify(reader: Reader<'_>) -> Result<NotifyConfig> {
    let channel = channels(&reader)?;
    let names: Vec<&str> = channel.iter().map(|channel| channel.name.as_str()).collect();
    let places = [("local", IncidentPlace::Local), ("repository", IncidentPlace::Repository)];
    let config = NotifyConfig {
        state: reader.path("state")?,
        incidents: reader.choice("incidents", &places)?.unwrap_or_default(),
        templates: reader.path("templates")?,
        heartbeat: reader.reference_or_text("heartbeat")?,
        rto: reader.span("rto")?,
        late_after: reader.span("late-after")?,
        fallback_after: reader.span("fallback-after")?,
        give_up_after: reader.span("give-up-after")?,
        status_page: reader.path("status-page")?,
        status_title: reader.string("status-title")?,
        status_bucket: status_bucket(&reader)?,
        policy: policy(reader.section("policy")?, &names)?,
        on: on(reader.section("on")?)?,
        channel,
    };
    reader.finish()?;
    Ok(config)
}

fn status_bucket(reader: &Reader<'_>) -> Result<Option<S3Config>> {
    let section = reader.section("status-bucket")?;
    if section.is_present() { super::sections::s3(section).map(Some) } else { Ok(None) }
}

fn channels(reader: &Reader<'_>) -> Result<Vec<ChannelConfig>> {
    let forms = "write a [[notify.channel]] section with `name` and `kind`";
    let all = reader.each("channel", forms, |item| channel(reader, item), |channel| &channel.name)?;
    for (channel, origin) in &all {
        let Some(fallback) = &channel.fallback else { continue };
        if *fallback == channel.name || !all.iter().any(|(other, _)| other.name == *fallback) {
            let problem = format!("{fallback:?} is no other channel");
            return Err(reader.bad(&format!("channel.{}.fallback", channel.name), origin, problem));
        }
    }
    Ok(all.into_iter().map(|(channel, _)| channel).collect())
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=40).contains(&text.len()) && text.bytes().all(allowed) && text != "journal"
}

fn channel(parent: &Reader<'_>, item: &Entry) -> Result<ChannelConfig> {
    let Node::Table(table) = &item.node else {
        return Err(parent.bad("channel", &item.origin, "write a [[notify.channel]] section"));
    };
    let name = match table.get("name").map(|entry| &entry.node) {
        Some(Node::Text(name)) if is_name(name) => name.clone(),
        _ => {
            let problem = "each channel needs a `name` of up to 40 letters, digits, - and _; not \"journal\"";
            return Err(parent.bad("channel", &item.origin, problem));
        }
    };
    let reader = Reader::new(parent.layers, &parent.key_path(&format!("channel.{name}")), Some(table));
    let _ = reader.in_file("name");
    let kind = reader.choice("kind", &CHANNEL_KINDS)?.ok_or_else(|| ConfigError::Missing {
        key: reader.key_path("kind"),
        problem: "say what it is, such as \"slack\" or \"email\"".to_owned(),
    })?;
    let list = |key| -> Result<Vec<String>> {
        Ok(reader.list(key)?.unwrap_or_default().into_iter().map(|(text, _)| text).collect())
    };
    let channel = ChannelConfig {
        kind,
        url: reader.reference_or_text("url")?,
        token: reader.secret("token")?,
        fallback: reader.string("fallback")?,
        room: reader.string("room")?,
        mention: reader.choice("mention", &[("here", "here"), ("channel", "channel")])?.map(str::to_owned),
        to: list("to")?,
        from: reader.string("from")?,
        user: reader.string("user")?,
        project: reader.string("project")?,
        issue_type: reader.string("issue-type")?,
        target: reader.string("target")?,
        region: reader.string("region")?,
        component: reader.string("component")?,
        command: list("command")?,
        ca_file: reader.path("ca-file")?,
        insecure: reader.boolean("insecure")?.unwrap_or(false),
        per_minute: reader.count("per-minute")?.and_then(NonZeroU32::new),
        timeout: reader.span("timeout")?,
        name,
    };
    needs(&reader, &channel)?;
    reader.finish()?;
    Ok(channel)
}

/// Refuses a channel without what its kind needs.
fn needs(reader: &Reader<'_>, channel: &ChannelConfig) -> Result<()> {
    use ChannelKind as Kind;
    let has: BTreeMap<&str, bool> = BTreeMap::from([
        ("url", channel.url.is_some()),
        ("token", channel.token.is_some()),
        ("room", channel.room.is_some()),
        ("to", !channel.to.is_empty()),
        ("from", channel.from.is_some()),
        ("user", channel.user.is_some()),
        ("project", channel.project.is_some()),
        ("target", channel.target.is_some()),
        ("command", !channel.command.is_empty()),
    ]);
    let needed: &[&str] = match channel.kind {
        Kind::Slack => &["token", "room"],
        Kind::SlackWebhook | Kind::Teams => &["url"],
        Kind::Email => &["url", "to", "from"],
        Kind::Pagerduty => &["token"],
        Kind::Jira => &["url", "user", "token", "project"],
        Kind::Github | Kind::Statuspage => &["token", "project"],
        Kind::Webhook => &["url"],
        // An access key has two halves; without either, keys are looked for where AWS's own tools would.
        Kind::Sns if channel.user.is_some() => &["target", "token"],
        Kind::Sns if channel.token.is_some() => &["target", "user"],
        Kind::Sns => &["target"],
        Kind::Command => &["command"],
    };
    match needed.iter().find(|key| !has[**key]) {
        None => Ok(()),
        Some(key) => Err(ConfigError::Missing {
            key: reader.key_path(key),
            problem: format!("a channel of kind {} needs it", channel.kind.name()),
        }),
    }
}

fn policy(reader: Reader<'_>, channels: &[&str]) -> Result<NotifyPolicy> {
    let policy = NotifyPolicy {
        p0: row(reader.section("p0")?, channels)?,
        p1: row(reader.section("p1")?, channels)?,
        p2: row(reader.section("p2")?, channels)?,
        p3: row(reader.section("p3")?, channels)?,
    };
    reader.finish()?;
    Ok(policy)
}

fn row(reader: Reader<'_>, channels: &[&str]) -> Result<PolicyRow> {
    let names = |key: &'static str, joined: bool| -> Result<Option<Vec<Vec<String>>>> {
        let Some(items) = reader.list(key)? else { return Ok(None) };
        let mut all = Vec::new();
        for (text, origin) in items {
            let step: Vec<String> = match joined {
                true => text.split('+').map(|name| name.trim().to_owned()).collect(),
                false => vec![text],
            };
            if let Some(strange) = step.iter().find(|name| !channels.contains(&name.as_str())) {
                let near = super::reader::nearest(strange, channels.iter().copied());
                let near = near.map_or_else(String::new, |near| format!(": did you mean {near:?}?"));
                return Err(reader.bad(key, &origin, format_args!("no channel is called {strange:?}{near}")));
            }
            all.push(step);
        }
        Ok(Some(all))
    };
    let flat = |key| Ok(names(key, false)?.map(|steps| steps.into_iter().flatten().collect()));
    let row = PolicyRow {
        channels: flat("channels")?,
        executives: flat("executives")?,
        response_time: reader.span("response-time")?,
        update_every: reader.span("update-every")?,
        escalation: names("escalation", true)?,
        reminders: flat("reminders")?,
    };
    reader.finish()?;
    Ok(row)
}

const SEVERITIES: [(&str, &str); 4] = [("P0", "P0"), ("P1", "P1"), ("P2", "P2"), ("P3", "P3")];

fn on(reader: Reader<'_>) -> Result<NotifyOn> {
    let programs = reader.list("programs")?.unwrap_or_default();
    let config = NotifyOn {
        failure: reader.choice("failure", &SEVERITIES)?.map(str::to_owned),
        objective_missed: reader.choice("objective-missed", &SEVERITIES)?.map(str::to_owned),
        first_success: reader.boolean("first-success")?.unwrap_or(false),
        every_success: reader.boolean("every-success")?.unwrap_or(false),
        programs: programs.into_iter().map(|(program, _)| program).collect(),
    };
    reader.finish()?;
    Ok(config)
}
