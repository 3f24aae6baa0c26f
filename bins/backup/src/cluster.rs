//! `backup-cluster`: arguments, and the report of what was backed up.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use backstay_backup_core::catalog::clock_problems;
use backstay_backup_core::config::{ByteSize, Setting};
use backstay_cli::{Arguments, Context, Exit, Failure, Opened, PostgresArgs};
use backstay_postgres_ops::Server;
use backstay_postgres_ops::physical::{BackupOptions, backup_cluster, check_cluster, plan_cluster_backup};
use clap::Parser;

use report::{BackedUp, Plan};

/// The lease that keeps two backups of one stanza apart.
const LEASE: &str = "backup-cluster";

/// Backs up a whole PostgreSQL cluster, from which WAL leads to any later moment.
///
/// Runs on the host of the server, as the account of the server. The server must archive its WAL to the same stanza.
#[derive(Debug, Parser)]
#[command(
    name = "backup-cluster",
    version,
    after_help = "Every Sunday at one, from the cron table of the server's account:\n  \
    0 1 * * 0  backup-cluster --config /etc/backstay/backstay.toml"
)]
pub struct Args {
    /// Packs read at the same time [default: the number of cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// The data directory [default: where the server says]
    #[arg(long, value_name = "FOLDER")]
    data_directory: Option<PathBuf>,
    /// What the server calls the backup
    #[arg(long, value_name = "TEXT", default_value = "backstay")]
    label: String,
    /// Whether the server does its checkpoint at once, or spreads it over minutes
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    fast: bool,
    /// Does not check the checksums of pages
    #[arg(long)]
    no_page_checks: bool,
    /// Takes a set with damaged pages for a good one
    #[arg(long)]
    allow_corrupt: bool,
    /// Reads at most that much in a second, such as 50MiB
    #[arg(long, value_name = "BYTES")]
    rate: Option<ByteSize>,
    /// Gives up when the WAL does not reach the archive in that many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wal_timeout: u64,
    /// Your own words for the manifest, as KEY=VALUE; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::database::annotation)]
    annotation: Vec<(String, String)>,
    /// Looks at server and files and says what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    postgres: PostgresArgs,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        self.postgres.settings()
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the backup. A set with damaged pages is reported, and ends in [`Exit::Data`] unless that was allowed.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let server = ctx.postgres().await?;
    let options = options(ctx, args)?;
    if args.dry_run {
        let plan = ctx.stoppable(plan_cluster_backup(&server, &options)).await??;
        return ctx.print(&Plan(plan));
    }
    let check = async {
        ctx.stoppable(check_cluster(&server, &options)).await??;
        Ok(())
    };
    let opened = ctx.open_or_create(Box::pin(check)).await?;
    let set = back_up(ctx, &server, &opened, &options).await?;
    let exit = set.exit(args.allow_corrupt);
    ctx.finish(&set, exit)
}

/// The cluster, while nobody else backs it up.
async fn back_up(
    ctx: &Context,
    server: &Server,
    opened: &Opened,
    options: &BackupOptions,
) -> Result<BackedUp, Failure> {
    let backup = async {
        let report = backup_cluster(server, &opened.repositories, options, &ctx.progress, &ctx.cancel);
        // On the heap: the futures of whole backups are large.
        Ok(Box::pin(report).await?)
    };
    let report = ctx.under_lease(&opened.repositories, LEASE, backup).await?;
    let mut set = BackedUp::new(&report);
    set.warnings.extend(clock_problems(&opened.repositories, &report.receipt).await);
    let unavailable = opened.unavailable.iter();
    set.missing_in.extend(unavailable.map(|left_out| (left_out.name.clone(), left_out.failure.message())));
    Ok(set)
}

fn options(ctx: &Context, args: &Args) -> Result<BackupOptions, Failure> {
    let mut options = BackupOptions::new(ctx.stanza().clone());
    options.jobs = args.jobs.unwrap_or(options.jobs);
    options.data_directory.clone_from(&args.data_directory);
    options.label.clone_from(&args.label);
    options.fast = args.fast;
    options.check_pages = !args.no_page_checks;
    options.allow_corrupt = args.allow_corrupt;
    options.rate = args.rate.map(ByteSize::bytes);
    options.wal_timeout = Duration::from_secs(args.wal_timeout);
    options.annotations = args.annotation.iter().cloned().collect();
    options.recipients = ctx.recipients()?;
    options.codec = ctx.config.compression.codec;
    options.data_path = ctx.data_path().side_by_side();
    options.retain_until = ctx.retain_until();
    options.tool = concat!("backup-cluster ", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(options)
}
