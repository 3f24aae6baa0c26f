//! What `prune-backups` says of archived streams.

use std::fmt;

use backstay_cli::human::Bytes;
use backstay_cli::{Exit, Failure};
use backstay_redis_ops::archive::{OneStreamPlan, StreamPrunePlan, StreamPruneReport};
use serde::Serialize;

/// The plan, or why there is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PlannedStreams {
    plans: Vec<OneStreamPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip)]
    exit: Exit,
    #[serde(skip)]
    bytes: u64,
}

impl PlannedStreams {
    pub(super) fn new(plan: Result<StreamPrunePlan, Failure>) -> Self {
        match plan {
            Ok(plan) => {
                let bytes = plan.bytes();
                let StreamPrunePlan { streams, kept_because, .. } = plan;
                Self { plans: streams, kept_because, problem: None, exit: Exit::Done, bytes }
            }
            Err(failure) => {
                let (problem, exit) = (Some(failure.message()), failure.exit());
                Self { plans: Vec::new(), kept_because: None, problem, exit, bytes: 0 }
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

impl fmt::Display for PlannedStreams {
    /// Whole lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for plan in &self.plans {
            for at in &plan.repositories {
                writeln!(
                    f,
                    "  remove  {} segments of stream {} that no base needs and {} that are merged from {}, {}",
                    at.unneeded,
                    plan.stream,
                    at.superseded,
                    at.repository,
                    Bytes(at.bytes)
                )?;
            }
        }
        self.kept_because.iter().try_for_each(|why| writeln!(f, "  all segments of streams stay: {why}"))?;
        self.problem
            .iter()
            .try_for_each(|problem| writeln!(f, "! all segments of streams would stay: {problem}"))
    }
}

/// What was done, or why nothing was.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PrunedStreams {
    #[serde(flatten)]
    report: StreamPruneReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl PrunedStreams {
    pub(super) fn new(done: Result<(StreamPrunePlan, StreamPruneReport), Failure>) -> Self {
        match done {
            Ok((plan, report)) => {
                let is_whole = report.failed.is_empty() && report.blocked.is_empty();
                let exit = if is_whole { Exit::Done } else { Exit::Temporary };
                Self { report, kept_because: plan.kept_because, problem: None, exit }
            }
            Err(failure) => {
                let (problem, exit) = (Some(failure.message()), failure.exit());
                Self { report: StreamPruneReport::default(), kept_because: None, problem, exit }
            }
        }
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for PrunedStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StreamPruneReport { segments, bytes, failed, blocked, .. } = &self.report;
        if *segments > 0 {
            write!(f, "\n{segments} segments of streams removed, {}", Bytes(*bytes))?;
        }
        failed.iter().try_for_each(|(what, why)| write!(f, "\n! {what} stays: {why}"))?;
        blocked
            .iter()
            .try_for_each(|(name, why)| write!(f, "\n! segments in {name} were not touched: {why}"))?;
        self.kept_because.iter().try_for_each(|why| write!(f, "\nall segments of streams stay: {why}"))?;
        self.problem.iter().try_for_each(|problem| write!(f, "\n! all segments of streams stay: {problem}"))
    }
}
