//! Rounds through the outbox, and checks.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use backstay_backup_core::config::ChannelKind;
use backstay_cli::{Context, Exit, Failure, OpenedNotifier};
use backstay_notify::Severity;
use backstay_notify::policy::Explained;
use backstay_notify::render::TemplateError;
use serde::Serialize;
use tokio::sync::Notify;

use crate::args::{Explain, Tick};
use crate::report::{Round, Sent};
use crate::{PROGRAM, page};

/// Time for the repository of the incidents to answer a service, whose reminders and steps are due to the second.
const IN_TIME: Duration = Duration::from_secs(3);

/// How long a service does without a channel or a repository that could not be had, before it tries to open it again.
const AGAIN: Duration = Duration::from_secs(30);
/// How long it waits after the outbox could not be used.
const BREAK: Duration = Duration::from_secs(5);

pub(crate) async fn tick(ctx: &Context, args: &Tick) -> Result<Exit, Failure> {
    if args.follow {
        return follow_for_ever(ctx).await;
    }
    let opened = ctx.notifier(PROGRAM).await?;
    warn(&opened);
    let report = opened.notifier.tick(&ctx.cancel).await?;
    page::refresh(ctx, &opened.notifier).await;
    Sent::alone(report).print(ctx)
}

fn warn(opened: &OpenedNotifier) {
    for gone in &opened.unavailable {
        tracing::warn!(
            channel = gone.channel,
            problem = gone.problem,
            "channel cannot be used; its messages wait"
        );
    }
    if let Some(problem) = opened.notifier.journal().problem() {
        tracing::warn!(
            problem,
            "the repository of the incidents cannot be reached; going on with what is known here"
        );
    }
}

/// Runs until it is told to stop. A disk that is full for a while ends no service: what it has to say is on that disk
/// already. No heartbeat is sent meanwhile, so somebody notices.
async fn follow_for_ever(ctx: &Context) -> Result<Exit, Failure> {
    while !ctx.cancel.is_cancelled() {
        match follow(ctx).await {
            Err(failure) if failure.exit() == Exit::Temporary => {
                let problem = failure.message();
                tracing::warn!(problem, "nothing can be delivered for now; trying again");
                tokio::select! {
                    () = tokio::time::sleep(BREAK) => {}
                    () = ctx.cancel.cancelled() => {}
                }
            }
            ended => ended?,
        }
    }
    Ok(Exit::Done)
}

/// Runs until it is told to stop, or until a channel or the repository of the incidents may be had again: a service that
/// started before the network must not go without them for good.
async fn follow(ctx: &Context) -> Result<(), Failure> {
    let opened = ctx.notifier_waiting(PROGRAM, IN_TIME).await?;
    warn(&opened);
    let (stop, changed) = (ctx.cancel.child_token(), Notify::new());
    let show = |report: &backstay_notify::Report| {
        changed.notify_one();
        let text = Round(report).to_string();
        if !text.is_empty() {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    };
    let stop_to_open_again = async {
        if opened.notifier.journal().problem().is_some() || !opened.unavailable.is_empty() {
            tokio::time::sleep(AGAIN).await;
            stop.cancel();
        }
        std::future::pending::<()>().await;
    };
    // The page is written beside the rounds, which wait for no bucket.
    tokio::select! {
        ended = opened.notifier.follow(&stop, show) => ended?,
        () = page::keep_fresh(ctx, &opened.notifier, &changed) => {}
        () = stop_to_open_again => {}
    }
    Ok(())
}

/// What a check found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Linted {
    channels: usize,
    templates: usize,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl fmt::Display for Linted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = self.problems.iter().map(|problem| format!("! {problem}"));
        let lines: Vec<String> =
            problems.chain(self.notes.iter().map(|note| format!("note: {note}"))).collect();
        if !lines.is_empty() {
            writeln!(f, "{}", lines.join("\n"))?;
        }
        write!(f, "{} channels and {} templates checked: ", self.channels, self.templates)?;
        match self.problems.len() {
            0 => f.write_str("all can be used"),
            1 => f.write_str("1 problem"),
            many => write!(f, "{many} problems"),
        }
    }
}

pub(crate) async fn lint(ctx: &Context) -> Result<Exit, Failure> {
    let config = &ctx.config.notify;
    let opened = ctx.notifier(PROGRAM).await?;
    let notifier = &opened.notifier;
    let gone = opened.unavailable.iter().map(|gone| format!("channel {}: {}", gone.channel, gone.problem));
    let linted = notifier.lint_templates();
    let broken = opened.templates.iter().chain(&linted.errors).map(TemplateError::to_string);
    let mut problems: Vec<String> = gone.chain(broken).collect();
    if config.channel.is_empty() {
        problems.push("no channel is configured".to_owned());
    }
    let mut notes = Vec::new();
    for (severity, name) in notifier.policy().missing() {
        notes.push(format!("{severity} would also go to {name:?}, which is not configured"));
    }
    let alone = config.channel.iter().filter(|channel| {
        channel.fallback.is_none() && matches!(channel.kind, ChannelKind::Pagerduty | ChannelKind::Slack)
    });
    notes.extend(alone.map(|channel| format!("channel {} has no fallback", channel.name)));
    for severity in [Severity::P0, Severity::P1] {
        if let [only] = notifier.policy().channels(severity).as_slice()
            && config.channel.len() == 1
        {
            notes.push(format!("{severity} has {only:?} alone: when that fails, nobody hears of it"));
        }
    }
    if config.heartbeat.is_none() {
        notes.push("no heartbeat: nobody notices when this program stops running".to_owned());
    }
    let report = Linted {
        channels: config.channel.len(),
        templates: linted.checked + opened.templates.len(),
        problems,
        notes,
    };
    let exit = if report.problems.is_empty() { Exit::Done } else { Exit::Usage };
    ctx.finish(&report, exit)
}

#[derive(Debug, Serialize)]
struct Explanation {
    severities: Vec<Explained>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.severities.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("\n"))
    }
}

pub(crate) async fn explain(ctx: &Context, args: &Explain) -> Result<Exit, Failure> {
    let config = &ctx.config.notify;
    let policy = backstay_notify::policy::Policy::new(&config.policy, config.names());
    let wanted = args.severity.map_or_else(|| Severity::ALL.to_vec(), |severity| vec![severity]);
    ctx.print(&Explanation {
        severities: wanted.into_iter().map(|severity| policy.explain(severity)).collect(),
    })
}
