//! `prune-backups`: removes what retention does not keep, and puts sets on hold.

mod report;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::config::{Setting, TimeSpan};
use backstay_backup_core::hold;
use backstay_backup_core::prune::{PrunePlan, PrunePolicy, plan_prune};
use backstay_backup_core::retention::Rules;
use backstay_cli::{Arguments, Context, Exit, Failure, Opened};
use backstay_postgres_ops::recovery::{WalPrunePlan, WalPruneReport, plan_wal_prune};
use backstay_redis_ops::archive::{StreamPrunePlan, StreamPruneReport, bases, plan_stream_prune};
use clap::Parser;

use report::{Holding, Planned, Pruned};

/// Removes the sets that no retention rule keeps, and what crashes left behind.
///
/// Never the newest good set, a set on hold, or one that another needs. Without any rule every set stays.
#[derive(Debug, Parser)]
#[command(
    name = "prune-backups",
    version,
    after_help = "Every night after the backup, from cron:\n  \
    37 4 * * *  prune-backups --repository /var/backups/shop --keep-within 30d --keep-monthly 12"
)]
pub struct Args {
    /// Keeps the newest N sets of each database
    #[arg(long, value_name = "N")]
    keep_last: Option<String>,
    /// Keeps everything younger, such as 30d
    #[arg(long, value_name = "SPAN")]
    keep_within: Option<String>,
    /// Keeps one set of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<String>,
    /// The same for days
    #[arg(long, value_name = "N")]
    keep_daily: Option<String>,
    /// The same for weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<String>,
    /// The same for months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<String>,
    /// The same for years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<String>,
    /// Leaves younger litter alone, since it may be a running backup
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    grace: TimeSpan,
    /// Prints the plan and removes nothing
    #[arg(long)]
    dry_run: bool,
    /// Puts a set on hold instead of pruning
    #[arg(long, value_name = "SET", conflicts_with_all = ["release", "dry_run"], requires = "reason")]
    hold: Option<String>,
    /// Takes a set off hold instead of pruning
    #[arg(long, value_name = "SET", conflicts_with = "dry_run", requires = "reason")]
    release: Option<String>,
    /// Why it is held or released
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Arguments for Args {
    fn settings(&self) -> Vec<Setting> {
        let rules = [
            ("keep-last", &self.keep_last),
            ("keep-within", &self.keep_within),
            ("keep-hourly", &self.keep_hourly),
            ("keep-daily", &self.keep_daily),
            ("keep-weekly", &self.keep_weekly),
            ("keep-monthly", &self.keep_monthly),
            ("keep-yearly", &self.keep_yearly),
        ];
        let given = rules.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given
            .map(|(name, value)| Setting::new(&format!("retention.{name}"), value, &format!("--{name}")))
            .collect()
    }
}

/// Prunes, or holds or releases a set.
///
/// # Errors
/// No repository can be read, somebody else prunes, or there is no such set.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let opened = context.stoppable(context.open_repositories()).await??;
    if let Some(set) = args.hold.as_deref().or(args.release.as_deref()) {
        let report = context.stoppable(set_hold(context, &opened, set, &args)).await??;
        let exit = report.exit();
        return context.finish(&report, exit);
    }
    let policy = policy(context, &args);
    if args.dry_run {
        let plan = async {
            let plan = plan_prune(&opened.repositories, context.stanza(), &policy).await?;
            let wal = plan_wal(context, &opened, &plan, policy.grace).await;
            let streams = plan_streams(context, &opened, &plan, policy.grace).await;
            Ok::<_, Failure>((plan, wal, streams))
        };
        let (plan, wal, streams) = context.stoppable(plan).await??;
        let plan = Planned::new(plan, wal, streams, &opened);
        let exit = plan.exit();
        return context.finish(&plan, exit);
    }
    let prune = async {
        let plan = plan_prune(&opened.repositories, context.stanza(), &policy).await?;
        let wal = plan_wal(context, &opened, &plan, policy.grace).await;
        let streams = plan_streams(context, &opened, &plan, policy.grace).await;
        let sets = plan.apply(&opened.repositories, &context.cancel).await?;
        // What the sets that are gone needed can go now.
        let wal = match wal {
            Ok(wal) => apply_wal(context, &opened, &wal, &policy).await,
            Err(failure) => Err(failure),
        };
        let streams = match streams {
            Ok(streams) => apply_streams(context, &opened, streams, &policy).await,
            Err(failure) => Err(failure),
        };
        Ok((sets, wal, streams))
    };
    // The lease keeps two runs from reporting each other's work. Each decides for itself what may go, so making room
    // where there is none for a lease is harmless.
    let (sets, wal, streams) =
        context.under_lease_if_room(&opened.repositories, "prune-backups", prune).await?;
    let report = Pruned::new(sets, wal, streams, &opened);
    let exit = report.exit();
    context.finish(&report, exit)
}

async fn plan_wal(
    context: &Context,
    opened: &Opened,
    plan: &PrunePlan,
    grace: TimeSpan,
) -> Result<WalPrunePlan, Failure> {
    let mut catalog = Catalog::load(&opened.repositories, context.stanza()).await?;
    // A repository that is not open may hold sets that need WAL of the others.
    let closed = opened.unavailable.iter().map(|out| (out.name.clone(), out.failure.message()));
    catalog.unreachable.extend(closed);
    Ok(plan_wal_prune(&opened.repositories, &catalog, Some(plan), grace).await?)
}

async fn apply_wal(
    context: &Context,
    opened: &Opened,
    plan: &WalPrunePlan,
    policy: &PrunePolicy,
) -> Result<(WalPrunePlan, WalPruneReport), Failure> {
    let report = plan.apply(&opened.repositories, policy.clock_tolerance, &context.cancel).await?;
    Ok((plan.clone(), report))
}

async fn plan_streams(
    context: &Context,
    opened: &Opened,
    plan: &PrunePlan,
    grace: TimeSpan,
) -> Result<StreamPrunePlan, Failure> {
    let mut catalog = Catalog::load(&opened.repositories, context.stanza()).await?;
    // A repository that is not open may hold bases that need segments of the others.
    let closed = opened.unavailable.iter().map(|out| (out.name.clone(), out.failure.message()));
    catalog.unreachable.extend(closed);
    let bases = bases(&catalog);
    Ok(plan_stream_prune(&opened.repositories, &catalog, &bases, Some(plan), grace).await?)
}

async fn apply_streams(
    context: &Context,
    opened: &Opened,
    plan: StreamPrunePlan,
    policy: &PrunePolicy,
) -> Result<(StreamPrunePlan, StreamPruneReport), Failure> {
    let report = plan.apply(&opened.repositories, policy.clock_tolerance, &context.cancel).await?;
    Ok((plan, report))
}

/// Rules of flags count everywhere; otherwise every repository has its own.
fn policy(context: &Context, args: &Args) -> PrunePolicy {
    let common = PrunePolicy::new(Rules::from(&context.config.retention)).grace(args.grace);
    if !args.settings().is_empty() {
        return common;
    }
    let repositories = context.config.repository.iter();
    repositories.fold(common, |policy, repository| {
        policy.rules_of(&repository.name, Rules::from(&repository.retention))
    })
}

async fn set_hold(context: &Context, opened: &Opened, set: &str, args: &Args) -> Result<Holding, Failure> {
    let catalog = Catalog::load(&opened.repositories, context.stanza()).await?;
    let set = &catalog.by_id(set)?.id;
    let reason = args.reason.as_deref().unwrap_or_default();
    let (repositories, stanza) = (&opened.repositories, context.stanza());
    let receipt = match args.hold {
        Some(_) => hold::place(repositories, stanza, set, reason).await?,
        None => hold::release(repositories, stanza, set, reason).await?,
    };
    Ok(Holding::new(receipt, opened))
}
