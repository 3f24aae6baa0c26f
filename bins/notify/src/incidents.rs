//! Incidents and notices.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use backstay_cli::{Context, Exit, Failure, OpenedNotifier};
use backstay_notify::incident::Receipt;
use backstay_notify::{JOURNAL, Kind, Notice, Opening, Resolution, Severity, Told, Update};
use serde_json::Value;

use crate::args::{Ack, By, List, Open, Resolve, Send, UpdateArgs, Which};
use crate::report::{Incidents, Sent, Shown};
use crate::{PROGRAM, page};

/// Longest text that is read from standard input, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// Time for the repository of the incidents before something severe is told without it.
const HASTE: Duration = Duration::from_secs(1);

async fn notifier(ctx: &Context) -> Result<OpenedNotifier, Failure> {
    notifier_within(ctx, None).await
}

async fn notifier_within(ctx: &Context, limit: Option<Duration>) -> Result<OpenedNotifier, Failure> {
    if ctx.config.notify.channel.is_empty() {
        return Err(Failure::usage("no channel is configured")
            .with_hint("add a [[notify.channel]] section to the configuration"));
    }
    let opened = match limit {
        Some(limit) => ctx.notifier_waiting(PROGRAM, limit).await?,
        None => ctx.notifier(PROGRAM).await?,
    };
    for template in &opened.templates {
        tracing::warn!(%template, "template left out");
    }
    Ok(opened)
}

fn by(ctx: &Context, by: &By) -> String {
    let user = ["BACKSTAY_BY", "SUDO_USER", "LOGNAME", "USER"]
        .into_iter()
        .find_map(|name| ctx.environment().get(name));
    by.by.clone().unwrap_or_else(|| user.cloned().unwrap_or_else(|| PROGRAM.to_owned()))
}

/// What follows a change of an incident: a warning when nobody was told of something severe yet, the page, the report.
async fn said(ctx: &Context, opened: &OpenedNotifier, told: &Told) -> Result<Exit, Failure> {
    let report = &told.report;
    let is_told = report.delivered.iter().any(|delivered| delivered.channel != JOURNAL);
    let waits = report.waiting.iter().any(|waiting| waiting.channel != JOURNAL);
    if told.incident.severity <= Severity::P1 && waits && !is_told {
        let incident = told.incident.id.as_str();
        tracing::warn!(
            incident,
            "nobody has been told yet; it waits in the outbox and is tried again by `tick`"
        );
    }
    page::refresh(ctx, &opened.notifier).await;
    Sent::about(told).print(ctx)
}

pub(crate) async fn open(ctx: &Context, args: &Open) -> Result<Exit, Failure> {
    let mut opening = Opening::new(args.severity, &args.title, &by(ctx, &args.by));
    opening.text.clone_from(&args.text);
    opening.impact.clone_from(&args.impact);
    opening.commander.clone_from(&args.commander);
    opening.tiers.clone_from(&args.tier);
    opening.key.clone_from(&args.key);
    opening.since = args.since;
    let opened = notifier_within(ctx, (args.severity <= Severity::P1).then_some(HASTE)).await?;
    let told = opened.notifier.open_incident(&opening).await?;
    said(ctx, &opened, &told).await
}

pub(crate) async fn update(ctx: &Context, args: &UpdateArgs) -> Result<Exit, Failure> {
    let mut update = Update::new(&args.text, &by(ctx, &args.by));
    update.status = args.status;
    update.severity = args.severity;
    update.impact.clone_from(&args.impact);
    update.commander.clone_from(&args.commander);
    let opened = notifier(ctx).await?;
    let told = opened.notifier.update_incident(&args.which.incident, &update).await?;
    said(ctx, &opened, &told).await
}

pub(crate) async fn acknowledge(ctx: &Context, args: &Ack) -> Result<Exit, Failure> {
    let opened = notifier(ctx).await?;
    let told = opened.notifier.acknowledge_incident(&args.which.incident, &by(ctx, &args.by)).await?;
    said(ctx, &opened, &told).await
}

pub(crate) async fn resolve(ctx: &Context, args: &Resolve) -> Result<Exit, Failure> {
    let mut end = Resolution::new(&args.text, &by(ctx, &args.by));
    for path in &args.receipt {
        end.receipts.push(receipt(path)?);
    }
    let opened = notifier(ctx).await?;
    let told = opened.notifier.resolve_incident(&args.which.incident, &end).await?;
    said(ctx, &opened, &told).await
}

/// What a restore measured, from the report it printed with `--json`.
fn receipt(path: &Path) -> Result<Receipt, Failure> {
    let wrong = |problem: String| {
        Failure::usage(format!("cannot use the receipt {}: {problem}", path.display()))
            .with_hint("give the file that a restore program printed with --json")
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let millis = ["rto-millis", "rto_millis", "millis"].into_iter().find_map(|name| report[name].as_u64());
    let millis = millis.ok_or_else(|| wrong("it says nothing of a measured time (rto-millis)".to_owned()))?;
    let what = ["target", "database", "set", "what"].into_iter().find_map(|name| report[name].as_str());
    Ok(Receipt::new(what.unwrap_or("a restore"), millis))
}

pub(crate) async fn send(ctx: &Context, args: &Send) -> Result<Exit, Failure> {
    let text = if args.text == "-" { input()? } else { args.text.clone() };
    let now = ctx.clock.now();
    let id = match &args.id {
        Some(id) => format!("sent~{id}"),
        None => format!("sent~{}~{}", now.as_microsecond(), std::process::id()),
    };
    let mut notice = Notice::new(&id, &id, Kind::Report, args.severity, now, &args.title).text(text);
    notice.facts.extend(args.fact.iter().cloned());
    let report = notifier(ctx).await?.notifier.send(notice, &args.channel).await?;
    Sent::alone(report).print(ctx)
}

fn input() -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("cannot read standard input: {error}"));
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_TEXT).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) async fn list(ctx: &Context, args: &List) -> Result<Exit, Failure> {
    let incidents = ctx.notifier(PROGRAM).await?.notifier.incidents(args.all).await?;
    ctx.print(&Incidents { incidents, all: args.all })
}

pub(crate) async fn show(ctx: &Context, which: &Which) -> Result<Exit, Failure> {
    let incident = ctx.notifier(PROGRAM).await?.notifier.incident(&which.incident).await?;
    ctx.print(&Shown { incident })
}
