//! `list-backups`: what there is to restore from, and how much it can be trusted.

mod streams;
mod wal;

use std::fmt;

use backstay_backup_core::catalog::{
    Catalog, CatalogReport, CheckReport, CopyState, Filter, SetReport, UnreachableReport,
};
use backstay_backup_core::manifest::SetKind;
use backstay_backup_core::proof::ProofKind;
use backstay_cli::human::{Ago, Bytes, Table};
use backstay_cli::{Arguments, Context, Exit, Failure, Opened};
use backstay_postgres_ops::recovery::{ClusterStatus, cluster_statuses};
use backstay_redis_ops::archive::{StreamStatus, bases, stream_statuses};
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// Lists the backup sets of a stanza: newest recovery point first, with what is known of each.
///
/// Ends with 1 when there is no good set.
#[derive(Debug, Parser)]
#[command(
    name = "list-backups",
    version,
    after_help = "Every hour, from cron, loud when the newest good backup is older than a day:\n  \
    5 * * * *  list-backups --repository /var/backups/shop --newer-than 1d >/dev/null"
)]
pub struct Args {
    /// Only sets of this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Only sets of this kind, such as postgres-logical
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only good sets
    #[arg(long)]
    good: bool,
    /// Only sets whose recovery point is younger, such as 1d
    #[arg(long, value_name = "SPAN")]
    newer_than: Option<backstay_backup_core::config::TimeSpan>,
}

impl Arguments for Args {}

/// Lists the sets that fit.
///
/// # Errors
/// No repository can be read.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let report = context.stoppable(list(context, &args)).await??;
    let exit = if report.catalog.sets.iter().any(|set| set.good) { Exit::Done } else { Exit::Absent };
    context.finish(&report, exit)
}

async fn list(context: &Context, args: &Args) -> Result<Listing, Failure> {
    let opened = context.open_repositories().await?;
    let now = context.clock.now();
    let catalog = Catalog::load(&opened.repositories, context.stanza()).await?;
    let mut filter = Filter::default();
    filter.kind = args.kind.as_deref().map(SetKind::new);
    filter.database.clone_from(&args.database);
    let youngest = |set: &SetReport| match (args.newer_than, set.age_seconds) {
        (None, _) => true,
        (Some(limit), Some(age)) => age >= 0 && age.unsigned_abs() <= limit.as_secs(),
        (Some(_), None) => false,
    };
    let mut report = catalog.report(now);
    let anything = filter == Filter::default();
    let wanted: Vec<_> = catalog.select(&filter).map(|set| set.id.clone()).collect();
    report
        .sets
        .retain(|set| (anything || wanted.contains(&set.set)) && (!args.good || set.good) && youngest(set));
    report.unreachable.extend(opened.unavailable.iter().map(|left_out| UnreachableReport {
        repository: left_out.name.clone(),
        problem: left_out.failure.message(),
    }));
    let (wal, wal_problem) = match wal(context, &opened, &catalog, now).await {
        Ok(wal) => (wal, None),
        Err(failure) => (Vec::new(), Some(failure.message())),
    };
    let streams = stream_statuses(&opened.repositories, context.stanza(), &bases(&catalog), now).await;
    let (streams, streams_problem) = match streams {
        Ok(streams) => (streams, None),
        Err(error) => (Vec::new(), Some(Failure::from(error).message())),
    };
    Ok(Listing { catalog: report, wal, wal_problem, streams, streams_problem, now })
}

/// What the archived WAL of the stanza is good for. Without the private key the ranges are told, and no times.
async fn wal(
    context: &Context,
    opened: &Opened,
    catalog: &Catalog,
    now: Timestamp,
) -> Result<Vec<ClusterStatus>, Failure> {
    let identities = context.identities().await?;
    Ok(cluster_statuses(&opened.repositories, context.stanza(), catalog, &identities, now).await?)
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listing {
    #[serde(flatten)]
    catalog: CatalogReport,
    wal: Vec<ClusterStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wal_problem: Option<String>,
    streams: Vec<StreamStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams_problem: Option<String>,
    #[serde(skip)]
    now: Timestamp,
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stanza = &self.catalog.stanza;
        if self.catalog.sets.is_empty() {
            write!(f, "no such set in stanza {stanza}")?;
        } else {
            let mut table = Table::new(&[
                "SET",
                "DATABASE",
                "RECOVERY POINT",
                "AGE",
                "SIZE",
                "STATE",
                "VERIFIED",
                "PROVEN",
                "COPIES",
            ]);
            self.catalog.sets.iter().for_each(|set| table.row(self.cells(set)));
            write!(f, "{table}")?;
        }
        for set in &self.catalog.sets {
            for problem in &set.problems {
                write!(f, "\n! {}: {problem}", set.set)?;
            }
        }
        for left_out in &self.catalog.unreachable {
            write!(f, "\n! repository {} could not be read: {}", left_out.repository, left_out.problem)?;
        }
        for cluster in &self.wal {
            write!(f, "\n\n{}", wal::Cluster(cluster))?;
        }
        if let Some(problem) = &self.wal_problem {
            write!(f, "\n! what WAL there is cannot be told: {problem}")?;
        }
        for stream in &self.streams {
            write!(f, "\n\n{}", streams::Stream(stream))?;
        }
        if let Some(problem) = &self.streams_problem {
            write!(f, "\n! what streams there are cannot be told: {problem}")?;
        }
        Ok(())
    }
}

impl Listing {
    fn cells(&self, set: &SetReport) -> [String; 9] {
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
        let point = set.recovery_point.map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
        [
            set.set.to_string(),
            or_unknown(set.database.clone()),
            or_unknown(point),
            or_unknown(set.age_seconds.map(|age| Ago(SignedDuration::from_secs(age)).to_string())),
            or_unknown(set.stored_bytes.map(|bytes| Bytes(bytes).to_string())),
            state(set),
            self.check(set.verified.as_ref()),
            self.check(set.proven.as_ref()),
            set.copies.iter().map(copy).collect::<Vec<_>>().join(", "),
        ]
    }

    fn check(&self, check: Option<&CheckReport>) -> String {
        let Some(check) = check else { return "never".to_owned() };
        let ago = Ago(self.now.duration_since(check.at));
        match (check.passed, check.kind) {
            (false, _) => format!("FAILED {ago}"),
            (true, ProofKind::VerifyQuick) => format!("quick {ago}"),
            (true, ProofKind::VerifyFull) => format!("full {ago}"),
            (true, _) => ago.to_string(),
        }
    }
}

fn state(set: &SetReport) -> String {
    let state = if set.good { "good" } else { "BAD" };
    if set.held.is_some() { format!("{state}, held") } else { state.to_owned() }
}

fn copy(copy: &backstay_backup_core::catalog::CopyReport) -> String {
    match copy.state {
        CopyState::Good => copy.repository.clone(),
        CopyState::Failed => format!("{} (failed)", copy.repository),
        CopyState::Differs => format!("{} (differs)", copy.repository),
        CopyState::Incomplete => format!("{} (incomplete)", copy.repository),
        CopyState::Unread => format!("{} (not read)", copy.repository),
        CopyState::Newer => format!("{} (newer format)", copy.repository),
        _ => format!("{} (unreadable)", copy.repository),
    }
}
