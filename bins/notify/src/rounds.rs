//! Rounds through the outbox, checks, and the status page.

use std::fmt;
use std::io::Write as _;

use backstay_backup_core::config::ChannelKind;
use backstay_cli::{BareStore, Context, Exit, Failure};
use backstay_notify::Severity;
use backstay_notify::page::Page;
use backstay_notify::policy::Explained;
use backstay_notify::render::TemplateError;
use serde::Serialize;

use crate::PROGRAM;
use crate::args::{Explain, PageArgs, Tick};
use crate::report::{Round, Sent};

pub(crate) async fn tick(ctx: &Context, args: &Tick) -> Result<Exit, Failure> {
    let opened = ctx.notifier(PROGRAM).await?;
    for gone in &opened.unavailable {
        tracing::warn!(
            channel = gone.channel,
            problem = gone.problem,
            "channel cannot be used; its messages wait"
        );
    }
    if !args.follow {
        let report = opened.notifier.tick(&ctx.cancel).await?;
        refresh(ctx, &opened.notifier).await;
        return Sent::alone(report).print(ctx);
    }
    let show = |report: &backstay_notify::Report| {
        let text = Round(report).to_string();
        if !text.is_empty() {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    };
    // Pages are written beside the rounds: by whoever looks after the timer of `page`, or with `tick`.
    opened.notifier.follow(&ctx.cancel, show).await?;
    Ok(Exit::Done)
}

/// Writes the configured status page anew. Its failure is no failure of the round.
async fn refresh(ctx: &Context, notifier: &backstay_notify::Notifier) {
    let Some(directory) = &ctx.config.notify.status_page else { return };
    match notifier.incidents(true).await {
        Ok(incidents) => {
            let page = Page::render("Status", &incidents, ctx.clock.now());
            if let Err(error) = page.write(directory) {
                tracing::warn!(directory = %directory.display(), %error, "status page not written");
            }
        }
        Err(error) => tracing::warn!(%error, "status page not written"),
    }
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

#[derive(Debug, Serialize)]
struct Written {
    places: Vec<String>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.places.iter().map(|place| format!("written to {place}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

pub(crate) async fn page(ctx: &Context, args: &PageArgs) -> Result<Exit, Failure> {
    let incidents = ctx.notifier(PROGRAM).await?.notifier.incidents(true).await?;
    let page = Page::render(&args.title, &incidents, ctx.clock.now());
    if let Some(directory) = args.directory.as_ref().or(ctx.config.notify.status_page.as_ref()) {
        page.write(directory).map_err(|error| {
            Failure::usage(format!("cannot write the status page to {}: {error}", directory.display()))
        })?;
        return ctx.print(&Written { places: vec![directory.display().to_string()] });
    }
    let mut places = Vec::new();
    for (name, store) in ctx.bare_stores().await? {
        let (location, published) = match store? {
            BareStore::Directory(store) => (store.location(), page.publish(store.as_ref()).await),
            BareStore::S3(store) => {
                use backstay_backup_core::store::ObjectStore as _;
                (store.location(), page.publish(&store).await)
            }
        };
        published.map_err(|source| {
            let error =
                backstay_backup_core::Error::Store { repository: name, op: "write the status page", source };
            Failure::from(error)
        })?;
        places.push(format!("{location}/status/index.html"));
    }
    ctx.print(&Written { places })
}
