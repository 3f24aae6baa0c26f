//! What a run of `prune-backups` says.

mod streams;
mod wal;

use std::fmt;

use backstay_backup_core::hold::HoldReceipt;
use backstay_backup_core::prune::{LitterKind, PrunePlan, PruneReport, RepositoryPlan, RepositoryReport};
use backstay_backup_core::retention::{Decision, Rules};
use backstay_cli::human::Bytes;
use backstay_cli::{Exit, Failure, Opened};
use backstay_postgres_ops::recovery::{WalPrunePlan, WalPruneReport};
use backstay_redis_ops::archive::{StreamPrunePlan, StreamPruneReport};
use serde::Serialize;

use streams::{PlannedStreams, PrunedStreams};
use wal::{PlannedWal, PrunedWal};

/// A repository that could not be opened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LeftOut {
    repository: String,
    problem: String,
}

fn left_out(opened: &Opened) -> Vec<LeftOut> {
    let unavailable = opened.unavailable.iter();
    unavailable.map(|out| LeftOut { repository: out.name.clone(), problem: out.failure.message() }).collect()
}

fn list_left_out(f: &mut fmt::Formatter<'_>, left_out: &[LeftOut]) -> fmt::Result {
    left_out.iter().try_for_each(|out| {
        write!(f, "\n! repository {} could not be opened: {}", out.repository, out.problem)
    })
}

/// What `--dry-run` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Planned {
    #[serde(flatten)]
    plan: PrunePlan,
    wal: PlannedWal,
    streams: PlannedStreams,
    unavailable: Vec<LeftOut>,
}

impl Planned {
    pub(super) fn new(
        plan: PrunePlan,
        wal: Result<WalPrunePlan, Failure>,
        streams: Result<StreamPrunePlan, Failure>,
        opened: &Opened,
    ) -> Self {
        let (wal, streams) = (PlannedWal::new(wal), PlannedStreams::new(streams));
        Self { plan, wal, streams, unavailable: left_out(opened) }
    }

    pub(super) fn exit(&self) -> Exit {
        let blocked =
            self.plan.repositories.iter().filter_map(|plan| Some(plan.blocked.as_ref()?.class().into()));
        let unread = self.plan.repositories.iter().any(|plan| !plan.unread.is_empty());
        let missing = (unread || !self.unavailable.is_empty()).then_some(Exit::Temporary);
        blocked.chain(missing).chain([self.wal.exit(), self.streams.exit()]).max().unwrap_or(Exit::Done)
    }

    fn rules(&self, repository: &str) -> &Rules {
        self.plan.policy.by_repository.get(repository).unwrap_or(&self.plan.policy.rules)
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for plan in &self.plan.repositories {
            repository_plan(f, plan, self.rules(&plan.repository))?;
        }
        let bytes = self.plan.bytes() + self.wal.bytes() + self.streams.bytes();
        write!(f, "{}{}{} would be freed", self.wal, self.streams, Bytes(bytes))?;
        list_left_out(f, &self.unavailable)
    }
}

fn repository_plan(f: &mut fmt::Formatter<'_>, plan: &RepositoryPlan, rules: &Rules) -> fmt::Result {
    let (keep, remove) = (plan.keep.len(), plan.remove.len());
    writeln!(f, "{}: {keep} sets stay, {remove} would be removed", plan.repository)?;
    if let Some(blocked) = &plan.blocked {
        writeln!(f, "! nothing would be touched: {blocked}")?;
    }
    if rules.is_empty() {
        writeln!(f, "  no retention rule is set, so every set stays")?;
    }
    for decision in &plan.keep {
        writeln!(f, "  keep    {}  {}", decision.set, reasons(decision))?;
    }
    for removal in &plan.remove {
        writeln!(f, "  remove  {}  {}, stored {}", removal.set, Bytes(removal.bytes), removal.store_time)?;
    }
    for litter in &plan.litter {
        let what = litter_kind(&litter.what);
        writeln!(
            f,
            "  litter  {what}: {} objects, {}, newest {}",
            litter.objects,
            Bytes(litter.bytes),
            litter.newest
        )?;
    }
    for unread in &plan.unread {
        writeln!(f, "! {} stays, because it cannot be read: {}", unread.object, unread.problem)?;
    }
    if plan.foreign.objects > 0 {
        let examples: Vec<_> = plan.foreign.examples.iter().map(ToString::to_string).collect();
        let count = plan.foreign.objects;
        writeln!(f, "  {count} objects are not ours and are left alone, such as {}", examples.join(", "))?;
    }
    Ok(())
}

fn reasons(decision: &Decision) -> String {
    let reasons: Vec<_> = decision.keep.iter().map(ToString::to_string).collect();
    reasons.join(", ")
}

fn litter_kind(litter: &LitterKind) -> String {
    match litter {
        LitterKind::Objects { set } => format!("set {set} without a manifest"),
        LitterKind::Records { set } => format!("records of set {set}, which is gone"),
        LitterKind::Upload { key, .. } => format!("unfinished upload of {key}"),
        LitterKind::Probe { key } => format!("clock probe {key}"),
        other => format!("{other:?}"),
    }
}

/// What a run did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Pruned {
    #[serde(flatten)]
    report: PruneReport,
    wal: PrunedWal,
    streams: PrunedStreams,
    unavailable: Vec<LeftOut>,
}

impl Pruned {
    pub(super) fn new(
        report: PruneReport,
        wal: Result<(WalPrunePlan, WalPruneReport), Failure>,
        streams: Result<(StreamPrunePlan, StreamPruneReport), Failure>,
        opened: &Opened,
    ) -> Self {
        let (wal, streams) = (PrunedWal::new(wal), PrunedStreams::new(streams));
        Self { report, wal, streams, unavailable: left_out(opened) }
    }

    pub(super) fn exit(&self) -> Exit {
        let of = |report: &RepositoryReport| {
            let blocked = report.blocked.as_ref().map(|blocked| blocked.class().into());
            let denied = (!report.denied.is_empty()).then_some(Exit::Usage);
            let failed = (!report.failed.is_empty()).then_some(Exit::Temporary);
            blocked.into_iter().chain(denied).chain(failed).max()
        };
        if self.report.repositories.iter().any(|report| !report.damaged.is_empty()) {
            return Exit::Data;
        }
        let missing = (!self.unavailable.is_empty()).then_some(Exit::Temporary);
        self.report
            .repositories
            .iter()
            .filter_map(of)
            .chain(missing)
            .chain([self.wal.exit(), self.streams.exit()])
            .max()
            .unwrap_or(Exit::Done)
    }
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, report) in self.report.repositories.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            repository_report(f, report)?;
        }
        write!(f, "{}{}", self.wal, self.streams)?;
        list_left_out(f, &self.unavailable)
    }
}

fn repository_report(f: &mut fmt::Formatter<'_>, report: &RepositoryReport) -> fmt::Result {
    let (sets, bytes) = (report.removed.len(), Bytes(report.bytes));
    write!(f, "{}: {sets} sets removed, {} objects, {bytes}", report.repository, report.objects)?;
    if let Some(blocked) = &report.blocked {
        write!(f, "\n! nothing was touched: {blocked}")?;
    }
    for set in &report.removed {
        write!(f, "\n  removed {set}")?;
    }
    for litter in &report.litter {
        write!(f, "\n  removed {}", litter_kind(litter))?;
    }
    for skipped in &report.skipped {
        write!(f, "\n  {} stays: {}", skipped.set, skipped.reason)?;
    }
    for denied in &report.denied {
        write!(f, "\n! not allowed to remove {}: {}", denied.object, denied.problem)?;
    }
    for failed in report.failed.iter().chain(&report.damaged) {
        write!(f, "\n! {}: {}", failed.object, failed.problem)?;
    }
    Ok(())
}

/// What holding or releasing a set did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Holding {
    #[serde(flatten)]
    receipt: HoldReceipt,
    unavailable: Vec<LeftOut>,
}

impl Holding {
    pub(super) fn new(receipt: HoldReceipt, opened: &Opened) -> Self {
        Self { receipt, unavailable: left_out(opened) }
    }

    pub(super) fn exit(&self) -> Exit {
        let everywhere = self.receipt.missing_in.is_empty() && self.unavailable.is_empty();
        if everywhere { Exit::Done } else { Exit::Temporary }
    }
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.receipt.held { "held" } else { "no longer held" };
        write!(f, "set {} is {state} in {}", self.receipt.set, self.receipt.stored_in.join(", "))?;
        for (repository, problem) in &self.receipt.missing_in {
            write!(f, "\n! not in {repository}: {problem}")?;
        }
        list_left_out(f, &self.unavailable)
    }
}
