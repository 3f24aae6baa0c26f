//! `restore-redis`: arguments, plan, restore, receipt.

mod receipts;
mod report;
mod service;
mod target;

use std::path::PathBuf;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::config::Setting;
use backstay_cli::{Arguments, Context, Exit, Failure, IdentityArgs, Opened};
use backstay_redis_ops::archive::StreamId;
use backstay_redis_ops::restore::{
    Outcome, Owner, RestoreOptions, RestoreReceipt, RestoreRequest, ServerConfiguration, ServerProgram,
    TtlPolicy, plan_restore,
};
use clap::{Parser, ValueEnum};

use report::{Plan, Receipt};
use service::ServiceArgs;
use target::TargetArgs;

/// Restores a Redis to any moment that is stored.
///
/// The server must be stopped. Its old data is kept beside the new; nothing is called restored before the server was asked.
#[derive(Debug, Parser)]
#[command(
    name = "restore-redis",
    version,
    after_help = "Undo a FLUSHALL:\n  \
    restore-redis --before FLUSHALL --config-file /etc/redis/redis.conf --ttl shift \\\n    \
    --stop-command 'systemctl stop redis-server' --start-command 'systemctl start redis-server'"
)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// The data directory [default: `dir` of --config-file]
    #[arg(long, value_name = "DIR", alias = "target-directory")]
    data_directory: Option<PathBuf>,
    /// Configuration file of the server: says what it loads at its start
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// What it says without a --config-file
    #[arg(long, value_name = "YES_OR_NO", value_enum, conflicts_with = "config_file")]
    appendonly: Option<YesNo>,
    /// Which server of a stanza that has several
    #[arg(long, value_name = "NAME", default_value = "main")]
    stream: StreamId,
    /// What becomes of expiry times
    #[arg(long, value_enum, default_value_t = Ttl::Keep)]
    ttl: Ttl,
    /// Loads everything in a throwaway server before the old data is touched
    #[arg(long)]
    rehearse: bool,
    /// The server program [default: redis-server or valkey-server in PATH]
    #[arg(long, value_name = "FILE")]
    server_program: Option<PathBuf>,
    /// Account that owns a data directory that does not exist yet
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    #[command(flatten)]
    service: ServiceArgs,
    /// Says what would be done
    #[arg(long, conflicts_with = "check_receipt")]
    dry_run: bool,
    /// Compares a server that you started yourself with the last restore into its directory
    #[arg(long)]
    check_receipt: bool,
    /// Keeps no record of the result beside the set
    #[arg(long)]
    no_proof: bool,
    #[command(flatten)]
    identity: IdentityArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum YesNo {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ttl {
    /// Leaves them: what has expired since is gone
    Keep,
    /// Moves them by the time that went by
    Shift,
    /// Removes them
    Strip,
}

impl From<Ttl> for TtlPolicy {
    fn from(ttl: Ttl) -> Self {
        match ttl {
            Ttl::Keep => Self::Keep,
            Ttl::Shift => Self::Shift,
            Ttl::Strip => Self::Strip,
        }
    }
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        self.identity.settings().into_iter().chain(self.service.settings()).collect()
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the restore. Until the data is swapped the old one is in its place, and the same command goes on.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let (target, set) = args.target.request()?;
    if args.check_receipt {
        return check(ctx, args).await;
    }
    let options = options(ctx, args).await?;
    let opened = ctx.open_repositories().await?;
    let catalog = ctx.stoppable(Catalog::load(&opened.repositories, ctx.stanza())).await??;
    let identities = ctx.identities().await?;
    let set = set.map(|id| catalog.by_id(&id).map(|summary| summary.id.clone())).transpose()?;
    let target = target::with_set(target, set.as_ref());
    let request = RestoreRequest::new(target).set(set).stream(args.stream.clone());
    let planning = plan_restore(&opened.repositories, &catalog, &identities, &request, &options);
    let plan = ctx.stoppable(Box::pin(planning)).await??;
    if args.dry_run {
        return ctx.print(&Plan { plan: &plan });
    }
    plan.refuse_if_full()?;
    args.service.stop(ctx).await?;
    let applying = plan.apply(&opened.repositories, &identities, &ctx.progress, &ctx.cancel);
    let mut receipt = Box::pin(applying).await?;
    // Before the start: should that fail, the receipt says what to compare with.
    receipts::write(&receipt)?;
    args.service.start(ctx, &mut receipt).await?;
    finish(ctx, args, Some(&opened), &receipt).await
}

async fn options(ctx: &Context, args: &Args) -> Result<RestoreOptions, Failure> {
    let configuration = configuration(ctx, args).await?;
    let directory =
        args.data_directory.clone().or_else(|| configuration.directory.clone()).ok_or_else(|| {
            Failure::usage("no data directory is named")
                .with_hint("add --data-directory, or a --config-file that has `dir`")
        })?;
    if directory.is_relative() && args.data_directory.is_none() {
        return Err(Failure::usage(format!(
            "`dir` of the server is {}, which is relative",
            directory.display()
        ))
        .with_hint("add --data-directory"));
    }
    let search = ctx.environment().get("PATH").map(String::as_str);
    let program = match ServerProgram::find(args.server_program.as_deref(), search).await {
        Ok(program) => Some(program),
        Err(error) if args.server_program.is_some() => return Err(error.into()),
        Err(_) => None,
    };
    let owner = args.owner.as_deref().map(Owner::find).transpose()?;
    Ok(RestoreOptions::new(directory, configuration)
        .program(program)
        .ttl(args.ttl.into())
        .owner(owner)
        .rehearse(args.rehearse))
}

/// What the server loads: its file says it, or the server while it still runs, or the operator.
async fn configuration(ctx: &Context, args: &Args) -> Result<ServerConfiguration, Failure> {
    if let Some(path) = &args.config_file {
        return Ok(ServerConfiguration::read(path)?);
    }
    if let Some(appendonly) = args.appendonly {
        return Ok(ServerConfiguration::usual(appendonly == YesNo::Yes, "--appendonly"));
    }
    if let Some(configuration) = args.service.configuration(ctx).await? {
        return Ok(configuration);
    }
    let what = "nobody says what the server loads at its start; with the wrong guess it would come up empty";
    Err(Failure::usage(what)
        .with_hint("add --config-file /etc/redis/redis.conf, or the --redis-url of the running server, or --appendonly yes|no"))
}

async fn check(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let directory = match (&args.data_directory, &args.config_file) {
        (Some(directory), _) => directory.clone(),
        (None, Some(path)) => ServerConfiguration::read(path)?.directory.ok_or_else(no_directory)?,
        (None, None) => return Err(no_directory()),
    };
    let mut receipt = receipts::read(&directory)?;
    args.service.check(ctx, &mut receipt).await?;
    let opened = if args.no_proof { None } else { Some(ctx.open_repositories().await?) };
    finish(ctx, args, opened.as_ref(), &receipt).await
}

fn no_directory() -> Failure {
    Failure::usage("no data directory is named").with_hint("add the --data-directory that was restored into")
}

/// Keeps the receipt, in the directory and as a proof of the set, and prints it.
async fn finish(
    ctx: &Context,
    args: &Args,
    opened: Option<&Opened>,
    receipt: &RestoreReceipt,
) -> Result<Exit, Failure> {
    let kept = receipts::write(receipt)?;
    let mut unkept = Vec::new();
    if receipt.outcome == Outcome::Loaded
        && !args.no_proof
        && let Some(opened) = opened
    {
        unkept.extend(receipts::prove(ctx, opened, receipt).await);
    }
    let exit = if receipt.is_as_planned() { Exit::Done } else { Exit::Data };
    ctx.finish(&Receipt { receipt, kept, unkept }, exit)
}
