//! `restore-cluster`: arguments, plan, restore, receipt.

mod receipts;
mod report;
mod target;

use std::path::PathBuf;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::config::Setting;
use backstay_backup_core::encryption::Identities;
use backstay_cli::{Arguments, Context, Exit, Failure, IdentityArgs, Opened, restorable};
use backstay_postgres_ops::cluster_restore::{
    ClusterPlan, ClusterReceipt, ClusterRequest, ClusterRestoreOptions, Ending, Outcome, RecoverySettings,
    StartOptions, TargetAction, check_receipt, plan_cluster_restore,
};
use clap::{Parser, ValueEnum};

use report::{Plan, Receipt};
use target::TargetArgs;

/// Restores a whole PostgreSQL cluster and recovers it to a moment.
///
/// The directory must be new or empty. The plan proves that all WAL is there before anything is touched; the receipt
/// compares where recovery ended with where it was told to.
#[derive(Debug, Parser)]
#[command(
    name = "restore-cluster",
    version,
    after_help = "To ten minutes before now, in a directory beside the old one, and started:\n  \
    restore-cluster --config /etc/backstay/backstay.toml --data-directory /srv/pg/restored --start --port 5433 \\\n    \
    --target-time \"$(date -u -d '-10 min' +%FT%TZ)\""
)]
pub struct Args {
    /// The data directory to make
    #[arg(long, value_name = "DIR", alias = "target-directory")]
    data_directory: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// The base backup, or the beginning of its id [default: the newest good one that reaches the target]
    #[arg(long, value_name = "ID")]
    set: Option<String>,
    /// Keeps what is right in an old data directory; everything else in it is replaced or removed
    #[arg(long)]
    delta: bool,
    /// Lets --delta overwrite the data directory of another cluster
    #[arg(long, requires = "delta")]
    other_cluster: bool,
    /// Puts a tablespace there [default: DATA_DIRECTORY.tablespaces/OID]; repeatable
    #[arg(long, value_name = "OID_OR_NAME=DIR", value_parser = tablespace)]
    tablespace: Vec<(String, PathBuf)>,
    /// Puts tablespaces where they were on the source
    #[arg(long)]
    original_tablespaces: bool,
    /// Makes a standby that follows the archive, instead of a primary
    #[arg(long)]
    as_standby: bool,
    /// Connection string of the primary that a standby streams from
    #[arg(long, value_name = "CONNINFO", requires = "as_standby")]
    primary: Option<String>,
    /// What the server does at the target
    #[arg(long, value_enum, default_value_t = Action::Promote, conflicts_with = "as_standby")]
    target_action: Action,
    /// Where the restored cluster archives its WAL to; nowhere by default, never into the source's archive
    #[arg(long, value_name = "COMMAND")]
    archive_command: Option<String>,
    /// Instead of restore-wal with the same repositories
    #[arg(long, value_name = "COMMAND")]
    restore_command: Option<String>,
    /// Starts the server, waits for the end of its recovery, and compares it with the plan
    #[arg(long)]
    start: bool,
    /// Port of that start
    #[arg(long, value_name = "PORT", requires = "start")]
    port: Option<u16>,
    /// Any setting of that start, as NAME=VALUE; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "start", value_parser = pair)]
    start_setting: Vec<(String, String)>,
    /// Packs read at the same time [default: the number of cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Says what would be done
    #[arg(long, conflicts_with_all = ["start", "check_receipt"])]
    dry_run: bool,
    /// Compares a restore that you started yourself with its plan
    #[arg(long)]
    check_receipt: bool,
    /// Keeps no record of the result beside the set
    #[arg(long)]
    no_proof: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Folder of PostgreSQL's server programs
    #[arg(long, value_name = "FOLDER")]
    bin_dir: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Becomes a primary
    Promote,
    /// Waits, open for reading
    Pause,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        let folder = self.bin_dir.as_ref().map(|dir| Setting::new("postgres.bin-dir", dir, "--bin-dir"));
        self.identity.settings().into_iter().chain(folder).collect()
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

fn tablespace(text: &str) -> Result<(String, PathBuf), String> {
    let (name, directory) = text.split_once('=').ok_or("write it as OID_OR_NAME=DIR")?;
    Ok((name.to_owned(), PathBuf::from(directory)))
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the restore. Before the files are complete nothing can be started, and the same command goes on.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let target = args.target.request()?;
    let restore_command = match &args.restore_command {
        Some(command) => command.clone(),
        None => ctx.restore_command(args.as_standby, args.identity.identity_file.as_deref())?,
    };
    let opened = ctx.open_repositories().await?;
    let catalog = ctx.stoppable(Catalog::load(&opened.repositories, ctx.stanza())).await??;
    let identities = ctx.identities().await?;
    if args.check_receipt {
        return check(ctx, args, &opened, &catalog, &identities).await;
    }
    let mut request = target;
    if let Some(id) = &args.set {
        request = request.set(restorable(catalog.by_id(id)?)?.set.clone());
    }
    let plan = plan(ctx, args, &opened, &catalog, &identities, &request).await?;
    if args.dry_run {
        return ctx.print(&Plan { plan: &plan, restore_command });
    }
    let settings = settings(args, &plan, &restore_command);
    let ending = ending(ctx, args);
    let (repositories, progress) = (&opened.repositories, &ctx.progress);
    let restore = plan.apply(repositories, &identities, &settings, &ending, progress, &ctx.cancel);
    let receipt = Box::pin(restore).await?;
    finish(ctx, args, &opened, &receipt).await
}

async fn plan(
    ctx: &Context,
    args: &Args,
    opened: &Opened,
    catalog: &Catalog,
    identities: &Identities,
    request: &ClusterRequest,
) -> Result<ClusterPlan, Failure> {
    let options = options(args);
    let planning = plan_cluster_restore(&opened.repositories, catalog, identities, request, &options);
    Ok(ctx.stoppable(Box::pin(planning)).await??)
}

fn options(args: &Args) -> ClusterRestoreOptions {
    let mut options = ClusterRestoreOptions::new(&args.data_directory)
        .original_tablespaces(args.original_tablespaces)
        .delta(args.delta)
        .other_cluster(args.other_cluster);
    for (name, directory) in &args.tablespace {
        options = options.tablespace(name, directory);
    }
    match args.jobs {
        Some(jobs) => options.parallel(jobs),
        None => options,
    }
}

fn settings(args: &Args, plan: &ClusterPlan, restore_command: &str) -> RecoverySettings {
    let mut settings = if args.as_standby {
        RecoverySettings::standby(restore_command)
    } else {
        plan.settings(restore_command)
    };
    settings.primary.clone_from(&args.primary);
    settings.archive_command.clone_from(&args.archive_command);
    settings.action = match args.target_action {
        Action::Promote => TargetAction::Promote,
        Action::Pause => TargetAction::Pause,
    };
    settings
}

fn ending(ctx: &Context, args: &Args) -> Ending {
    if !args.start {
        return Ending::Prepare;
    }
    let mut start = StartOptions::new(ctx.postgres_tools());
    let port = args.port.map(|port| ("port".to_owned(), port.to_string()));
    start.settings = port.into_iter().chain(args.start_setting.iter().cloned()).collect();
    start.environment = ctx.restore_environment();
    Ending::Start(start)
}

async fn check(
    ctx: &Context,
    args: &Args,
    opened: &Opened,
    catalog: &Catalog,
    identities: &Identities,
) -> Result<Exit, Failure> {
    let receipt = receipts::read(&args.data_directory)?;
    let checking = check_receipt(receipt, &opened.repositories, catalog, identities);
    let receipt = ctx.stoppable(Box::pin(checking)).await??;
    finish(ctx, args, opened, &receipt).await
}

/// Keeps the receipt, beside the directory and as a proof of the set, and prints it.
async fn finish(
    ctx: &Context,
    args: &Args,
    opened: &Opened,
    receipt: &ClusterReceipt,
) -> Result<Exit, Failure> {
    let kept = receipts::write(receipt)?;
    let mut notes = Vec::new();
    if receipt.outcome == Outcome::Exact && !args.no_proof {
        notes.extend(receipts::prove(ctx, opened, receipt).await);
    }
    let exit = if receipt.is_as_planned() { Exit::Done } else { Exit::Data };
    ctx.finish(&Receipt { receipt, kept, notes }, exit)
}
