//! `restore-database`: arguments, choice of the set, and the receipt.

use std::fmt;

use backstay_backup_core::catalog::{Catalog, Filter};
use backstay_backup_core::config::Setting;
use backstay_backup_core::manifest::{Manifest, SetKind};
use backstay_cli::{Arguments, Context, Exit, Failure, IdentityArgs, PostgresArgs, human, restorable};
use backstay_postgres_ops::{RestoreOptions, RestorePlan, RestoreReceipt, plan_restore, restore_database};
use clap::Parser;
use jiff::Timestamp;
use serde::Serialize;

use crate::choice::newest_good;

/// Restores a database and proves that it is equal to what was backed up.
///
/// The target must be new or empty; --replace fills a database beside it and swaps at the end. Every stored byte is
/// checked before anything is touched, every fact is compared before the swap.
#[derive(Debug, Parser)]
#[command(
    name = "restore-database",
    version,
    after_help = "A drill every week, from cron:\n  \
    0 4 * * 0  restore-database --config /etc/backstay/backstay.toml --target-database drill --replace --drop-old"
)]
pub struct Args {
    /// The set, or the beginning of its id [default: the newest good one]
    #[arg(long, value_name = "ID")]
    set: Option<String>,
    /// The newest good set that is not newer than this, as 2026-11-22T14:30:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "set")]
    at: Option<Timestamp>,
    /// Database that was backed up, when the stanza holds several
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Name of the restored database [default: that of the source]
    #[arg(long, value_name = "NAME")]
    target_database: Option<String>,
    /// Replaces an existing database; the old one is kept under another name
    #[arg(long)]
    replace: bool,
    /// Ends other sessions of the database that is replaced
    #[arg(long, requires = "replace")]
    disconnect: bool,
    /// Drops the replaced database after the swap
    #[arg(long, requires = "replace")]
    drop_old: bool,
    /// Only this table, as schema.table (* and ? allowed); repeatable
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Only this schema; repeatable
    #[arg(long, value_name = "SCHEMA")]
    schema: Vec<String>,
    /// Tables loaded and indexes built at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Everything belongs to the role that restores
    #[arg(long)]
    no_owner: bool,
    /// Leaves privileges out
    #[arg(long)]
    no_privileges: bool,
    /// Puts everything into the default tablespace
    #[arg(long)]
    no_tablespaces: bool,
    /// Creates no roles
    #[arg(long)]
    no_roles: bool,
    /// Runs ANALYZE at the end
    #[arg(long)]
    analyze: bool,
    /// Trusts the repository: does not read the set once before the restore
    #[arg(long)]
    skip_verify: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Looks at set and target and says what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    postgres: PostgresArgs,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        self.postgres.settings().into_iter().chain(self.identity.settings()).collect()
    }
}

/// Runs the program.
///
/// # Errors
/// Whatever stops the restore; the target is as it was.
pub async fn run(ctx: &Context, args: &Args) -> Result<Exit, Failure> {
    let server = ctx.postgres().await?;
    let opened = ctx.open_repositories().await?;
    let catalog = ctx.stoppable(Catalog::load(&opened.repositories, ctx.stanza())).await??;
    let manifest = choose(&catalog, args)?;
    let options = options(ctx, args);
    if args.dry_run {
        let plan = plan_restore(&server, &manifest, &options).await?;
        return ctx.print(&Plan(plan));
    }
    let identities = ctx.identities().await?;
    let receipt = restore_database(
        &server,
        &opened.repositories,
        &manifest,
        &identities,
        &options,
        &ctx.progress,
        &ctx.cancel,
    )
    .await?;
    ctx.print(&Receipt(receipt))
}

fn choose(catalog: &Catalog, args: &Args) -> Result<Manifest, Failure> {
    let summary = match &args.set {
        Some(id) => catalog.by_id(id)?,
        None => {
            let mut filter = Filter::default().kind(SetKind::new(SetKind::POSTGRES_LOGICAL));
            if let Some(database) = &args.database {
                filter = filter.database(database);
            }
            if let Some(at) = args.at {
                filter = filter.at_or_before(at);
            }
            newest_good(catalog, &filter)?
        }
    };
    Ok(restorable(summary)?.clone())
}

fn options(ctx: &Context, args: &Args) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.target.clone_from(&args.target_database);
    options.replace = args.replace;
    options.disconnect = args.disconnect;
    options.drop_old = args.drop_old;
    options.tables.clone_from(&args.table);
    options.schemas.clone_from(&args.schema);
    options.jobs = args.jobs;
    options.no_owner = args.no_owner;
    options.no_privileges = args.no_privileges;
    options.no_tablespaces = args.no_tablespaces;
    options.create_roles = !args.no_roles;
    options.analyze = args.analyze;
    options.verify_first = !args.skip_verify;
    options.tools = ctx.postgres_tools();
    options
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Plan(RestorePlan);

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.0;
        write!(
            f,
            "would restore set {} (state of {}, {} tables, {} rows) into database {} on {}",
            plan.set, plan.recovery_point, plan.tables, plan.rows, plan.target.database, plan.server
        )?;
        if plan.target.filled_as != plan.target.database {
            write!(f, "\n  filled as {}, renamed at the end", plan.target.filled_as)?;
        }
        if let Some(kept) = &plan.target.kept_as {
            write!(f, "\n  the present database is kept as {kept}")?;
        }
        write!(f, "\n  {} to read, with {}", human::Bytes(plan.stored_bytes), plan.client)
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Receipt(RestoreReceipt);

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receipt = &self.0;
        let comparison = &receipt.comparison;
        let how = if comparison.by_content { "by content" } else { "by number" };
        writeln!(
            f,
            "database {} on {} shows the state of {}",
            receipt.database, receipt.server, receipt.recovery_point
        )?;
        writeln!(
            f,
            "  proven equal: {} facts; {} tables with {} rows compared {how}",
            comparison.compared, comparison.tables, comparison.rows
        )?;
        if let Some(kept) = &receipt.kept_as {
            writeln!(f, "  the old database is kept as {kept}")?;
        }
        if !receipt.roles.created.is_empty() {
            writeln!(f, "  roles created: {}", receipt.roles.created.join(", "))?;
        }
        for warning in receipt.warnings.iter().chain(&receipt.roles.refused) {
            writeln!(f, "  note: {warning}")?;
        }
        write!(f, "  RTO {:.1} s:", receipt.rto_seconds)?;
        for phase in &receipt.phases {
            write!(f, " {} {:.1}", phase.name, phase.seconds)?;
        }
        Ok(())
    }
}
