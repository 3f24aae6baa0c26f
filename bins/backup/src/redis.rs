//! `backup-redis`: arguments, and the report of what was backed up.

pub mod custodian;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use backstay_backup_core::catalog::clock_problems;
use backstay_backup_core::config::Setting;
use backstay_cli::{Arguments, Context, Exit, Failure, Opened, RedisArgs};
use backstay_redis_ops::Source;
use backstay_redis_ops::server::Attach;
use backstay_redis_ops::snapshot::{SnapshotOptions, Via, backup_redis, plan_snapshot};
use clap::{Parser, ValueEnum};

use report::{BackedUp, Plan};

/// The lease that keeps two backups of one stanza apart.
const LEASE: &str = "backup-redis";

/// Backs up a Redis or Valkey as a replica does: one server, a replicated one, or every shard of a cluster.
///
/// The server needs no disk, and nothing runs there that could block writes.
#[derive(Debug, Parser)]
#[command(
    name = "backup-redis",
    version,
    after_help = "Every hour, from cron:\n  \
    7 * * * *  backup-redis --redis-url redis://backup@redis.example --repository /var/backups/shop"
)]
pub struct Args {
    /// Reads a replica (one in sync, else the primary), the primary, or the server that is named
    #[arg(long, value_enum, value_name = "WHICH", default_value = "replica", hide_possible_values = true)]
    attach: AttachTo,
    /// psync: as a replica; bgsave: by a save of the server whose file can be read here
    #[arg(long, value_enum, value_name = "HOW", default_value = "psync", hide_possible_values = true)]
    via: How,
    /// The server's snapshot file as this machine sees it, for --via bgsave [default: where the server says]
    #[arg(long, value_name = "FILE")]
    rdb_file: Option<PathBuf>,
    /// Longest wait for a BGSAVE
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    save_timeout: u64,
    /// Turns the server's own compression off while the snapshot begins, and back on: faster, smaller
    #[arg(long)]
    tune_server: bool,
    /// Shards read at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Your own words for the manifest, as KEY=VALUE; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::database::annotation)]
    annotation: Vec<(String, String)>,
    /// Looks at the servers and says what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    redis: RedisArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AttachTo {
    Replica,
    Primary,
    Named,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    Psync,
    Bgsave,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        self.redis.settings()
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the backup.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let source = ctx.redis().await?;
    let options = options(ctx, args)?;
    if args.dry_run {
        let plan = ctx.stoppable(plan_snapshot(&source, &options)).await??;
        return ctx.print(&Plan(plan));
    }
    let check = async {
        ctx.stoppable(plan_snapshot(&source, &options)).await??;
        Ok(())
    };
    let opened = ctx.open_or_create(Box::pin(check)).await?;
    let set = back_up(ctx, &source, &opened, &options).await?;
    let exit = set.exit();
    ctx.finish(&set, exit)
}

/// The Redis, while nobody else backs it up.
async fn back_up(
    ctx: &Context,
    source: &Source,
    opened: &Opened,
    options: &SnapshotOptions,
) -> Result<BackedUp, Failure> {
    let backup = async {
        let report = backup_redis(source, &opened.repositories, options, &ctx.progress, &ctx.cancel);
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

fn options(ctx: &Context, args: &Args) -> Result<SnapshotOptions, Failure> {
    let mut options = SnapshotOptions::new(ctx.stanza().clone());
    options.attach = match args.attach {
        AttachTo::Replica => Attach::Replica,
        AttachTo::Primary => Attach::Primary,
        AttachTo::Named => Attach::Named,
    };
    options.via = match args.via {
        How::Psync => Via::Psync,
        How::Bgsave => Via::Bgsave,
    };
    options.rdb_file.clone_from(&args.rdb_file);
    options.save_patience = Duration::from_secs(args.save_timeout);
    if args.tune_server {
        if options.via != Via::Psync {
            return Err(Failure::usage("--tune-server is for snapshots as a replica, not for --via bgsave"));
        }
        options.tune = Some(custodian::of_this_program()?);
    }
    options.jobs = usize::from(args.jobs);
    options.annotations = args.annotation.iter().cloned().collect();
    options.recipients = ctx.recipients()?;
    options.codec = ctx.config.compression.codec;
    let path = ctx.data_path();
    options.data_path = if args.jobs > 1 { path.side_by_side() } else { path };
    options.retain_until = ctx.retain_until();
    options.tool = concat!("backup-redis ", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(options)
}
