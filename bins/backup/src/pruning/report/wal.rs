//! What `prune-backups` says of WAL.

use std::fmt;

use backstay_cli::human::Bytes;
use backstay_cli::{Exit, Failure};
use backstay_postgres_ops::recovery::{ClusterWalPlan, RepositoryWalPruned, WalPrunePlan, WalPruneReport};
use serde::Serialize;

/// The plan, or why there is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PlannedWal {
    clusters: Vec<ClusterWalPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip)]
    exit: Exit,
    #[serde(skip)]
    bytes: u64,
}

impl PlannedWal {
    pub(super) fn new(plan: Result<WalPrunePlan, Failure>) -> Self {
        match plan {
            Ok(plan) => {
                let bytes = plan.bytes();
                Self { clusters: plan.clusters, problem: None, exit: Exit::Done, bytes }
            }
            Err(failure) => {
                let problem = Some(failure.message());
                Self { clusters: vec![], problem, exit: failure.exit(), bytes: 0 }
            }
        }
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Display for PlannedWal {
    /// Whole lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cluster in &self.clusters {
            writeln!(f, "{}", Kept(cluster))?;
            for plan in &cluster.repositories {
                let (name, objects, bytes) = (&plan.repository, plan.objects, Bytes(plan.bytes));
                let (first, last) = (plan.first, plan.last);
                writeln!(f, "  remove  {objects} objects of WAL from {name}, {first} to {last}, {bytes}")?;
            }
        }
        self.problem.iter().try_for_each(|problem| writeln!(f, "! all WAL would stay: {problem}"))
    }
}

/// What stays of the WAL of a cluster.
struct Kept<'a>(&'a ClusterWalPlan);

impl fmt::Display for Kept<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = self.0.system;
        match (&self.0.kept_because, self.0.keep_from, &self.0.needed_by) {
            (None, Some(from), Some(set)) => {
                write!(f, "WAL of cluster {system} stays from {from} on, where set {set} begins")
            }
            (why, ..) => {
                write!(f, "WAL of cluster {system} stays: {}", why.as_deref().unwrap_or("nothing is known"))
            }
        }
    }
}

/// What was done, or why nothing was.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PrunedWal {
    clusters: Vec<ClusterWalPlan>,
    #[serde(flatten)]
    report: WalPruneReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl PrunedWal {
    pub(super) fn new(done: Result<(WalPrunePlan, WalPruneReport), Failure>) -> Self {
        match done {
            Ok((plan, report)) => {
                let exit = exit(&report);
                Self { clusters: plan.clusters, report, problem: None, exit }
            }
            Err(failure) => {
                let (problem, exit) = (Some(failure.message()), failure.exit());
                Self { clusters: vec![], report: WalPruneReport::default(), problem, exit }
            }
        }
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }
}

fn exit(report: &WalPruneReport) -> Exit {
    let of = |done: &RepositoryWalPruned| {
        let denied = (!done.denied.is_empty()).then_some(Exit::Usage);
        let failed = (!done.failed.is_empty() || done.stopped.is_some()).then_some(Exit::Temporary);
        denied.max(failed)
    };
    let kept = (!report.kept.is_empty()).then_some(Exit::Temporary);
    report.repositories.iter().filter_map(of).chain(kept).max().unwrap_or(Exit::Done)
}

impl fmt::Display for PrunedWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cluster in &self.clusters {
            write!(f, "\n{}", Kept(cluster))?;
        }
        for done in &self.report.repositories {
            write!(
                f,
                "\n{}: {} objects of WAL removed, {}",
                done.repository,
                done.objects,
                Bytes(done.bytes)
            )?;
            done.stopped.iter().try_for_each(|why| write!(f, "\n! no more of it was touched: {why}"))?;
            for denied in &done.denied {
                write!(f, "\n! not allowed to remove {}: {}", denied.object, denied.problem)?;
            }
            for failed in &done.failed {
                write!(f, "\n! {}: {}", failed.object, failed.problem)?;
            }
        }
        for (system, why) in &self.report.kept {
            write!(f, "\n! WAL of cluster {system} stays: {why}")?;
        }
        self.problem.iter().try_for_each(|problem| write!(f, "\n! all WAL stays: {problem}"))
    }
}
