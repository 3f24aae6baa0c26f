//! The arguments.

use std::path::PathBuf;

use backstay_cli::Arguments;
use backstay_notify::{Severity, Status};
use clap::{Args as Group, Parser, Subcommand};
use jiff::Timestamp;

/// Tells people what is going on, and keeps trying until they have been told.
///
/// Incidents and notices go to the channels of the configured policy, through an outbox on disk.
#[derive(Debug, Parser)]
#[command(
    name = "send-notification",
    version,
    after_help = "Every minute, so that nothing waits longer than that:\n  \
    * * * * *  send-notification tick --config /etc/backstay/backstay.toml"
)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments for Args {}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Opens an incident, and tells everybody of its severity
    Open(Open),
    /// Tells news of an incident
    Update(UpdateArgs),
    /// Says that somebody is on it: escalation ends
    Ack(Ack),
    /// Says that an incident is over; downtime and objectives are computed
    Resolve(Resolve),
    /// Tells something that is no incident
    Send(Send),
    /// Shows the incidents
    List(List),
    /// Shows one incident with its timeline, as Markdown
    Show(Which),
    /// Delivers what waits, and fires due reminders and escalation; from a timer, or as a service
    Tick(Tick),
    /// Checks channels, secrets, policy and templates without telling anybody anything
    Lint,
    /// Says who would hear of what, when, and why
    Explain(Explain),
    /// Writes the status page
    Page(PageArgs),
}

#[derive(Debug, Group)]
pub(crate) struct By {
    /// Who says so [default: the account and host of this process]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Group)]
pub(crate) struct Open {
    /// P0 (everything stands still) to P3 (to be done some time)
    #[arg(long, value_name = "P0..P3")]
    pub(crate) severity: Severity,
    /// What it is, in a line
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: String,
    /// More words
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) text: String,
    /// Who or what suffers
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) impact: String,
    /// Who leads
    #[arg(long, value_name = "NAME")]
    pub(crate) commander: Option<String>,
    /// Affected recovery tier, such as T1; repeatable
    #[arg(long, value_name = "TIER")]
    pub(crate) tier: Vec<String>,
    /// What it is about: while an incident with this key is open, it is updated instead
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// When the failure began, such as 2026-11-22T22:13:54Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) by: By,
}

#[derive(Debug, Group)]
pub(crate) struct Which {
    /// The incident: its id, the beginning of one, or its key
    #[arg(value_name = "INCIDENT")]
    pub(crate) incident: String,
}

#[derive(Debug, Group)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The news
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: String,
    /// investigating, identified or monitoring
    #[arg(long, value_name = "STATUS", value_parser = open_status)]
    pub(crate) status: Option<Status>,
    /// How bad it is now
    #[arg(long, value_name = "P0..P3")]
    pub(crate) severity: Option<Severity>,
    /// Who or what suffers now
    #[arg(long, value_name = "TEXT")]
    pub(crate) impact: Option<String>,
    /// Who leads now
    #[arg(long, value_name = "NAME")]
    pub(crate) commander: Option<String>,
    #[command(flatten)]
    pub(crate) by: By,
}

fn open_status(text: &str) -> Result<Status, String> {
    match text.parse::<Status>() {
        Ok(Status::Resolved) => Err("an incident ends with `send-notification resolve`".to_owned()),
        Ok(status) => Ok(status),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Debug, Group)]
pub(crate) struct Ack {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) by: By,
}

#[derive(Debug, Group)]
pub(crate) struct Resolve {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Last words
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) text: String,
    /// JSON report of a restore program, whose measured time is told; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) by: By,
}

#[derive(Debug, Group)]
pub(crate) struct Send {
    /// What it is, in a line
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: String,
    /// The words; - for standard input
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) text: String,
    /// How bad
    #[arg(long, value_name = "P0..P3", default_value = "P3")]
    pub(crate) severity: Severity,
    /// A channel, instead of those of the severity; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Vec<String>,
    /// Tells the same thing once, however often it is sent with this name
    #[arg(long, value_name = "NAME")]
    pub(crate) id: Option<String>,
    /// Further facts, as NAME=VALUE; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = fact)]
    pub(crate) fact: Vec<(String, String)>,
}

fn fact(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Group)]
pub(crate) struct List {
    /// Those that are over, too
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Tick {
    /// Goes on until it is stopped, exact to the second
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Explain {
    /// One severity only
    #[arg(value_name = "P0..P3")]
    pub(crate) severity: Option<Severity>,
}

#[derive(Debug, Group)]
pub(crate) struct PageArgs {
    /// Directory, instead of notify.status-page and -bucket [default: below `status/` of the repositories]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) directory: Option<PathBuf>,
    /// Headline of the page [default: notify.status-title]
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
}
