//! What `archive-redis` says: at its end, and of the one that runs.

use std::fmt;

use backstay_cli::Exit;
use backstay_cli::human::{Ago, Bytes};
use backstay_redis_ops::follow::{FollowFacts, FollowReport};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

/// Told every second; older than that, nobody tells any more.
const FRESH: SignedDuration = SignedDuration::from_secs(10);

/// The end of a run.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Archived(pub(super) FollowReport);

impl fmt::Display for Archived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FollowReport { stream, facts, .. } = &self.0;
        write!(f, "stream {stream}: everything received is stored")?;
        write_facts(f, facts)
    }
}

/// What an archiver told of itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Told {
    /// Whether it still tells.
    running: bool,
    /// When it did last.
    age_seconds: i64,
    #[serde(flatten)]
    told: Value,
    #[serde(skip)]
    facts: Option<FollowFacts>,
}

impl Told {
    pub(super) fn new(told: Value, now: Timestamp) -> Self {
        let at: Option<Timestamp> = told.get("at").and_then(|at| at.as_str()?.parse().ok());
        let age = at.map_or(SignedDuration::MAX, |at| now.duration_since(at));
        let facts = serde_json::from_value(told.clone()).ok();
        Self { running: age < FRESH, age_seconds: age.as_secs(), told, facts }
    }

    /// Fine while it runs, is attached, and has nothing to complain of.
    pub(super) fn exit(&self) -> Exit {
        let is_fine = |facts: &FollowFacts| {
            let problems = [&facts.server_problem, &facts.store_problem];
            facts.server.is_some() && facts.lease && problems.iter().all(|problem| problem.is_none())
        };
        if self.running && self.facts.as_ref().is_some_and(is_fine) { Exit::Done } else { Exit::Absent }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.running {
            write!(f, "running")?;
        } else {
            write!(
                f,
                "NOT RUNNING; what it told last, {}",
                Ago(SignedDuration::from_secs(self.age_seconds))
            )?;
        }
        self.facts.as_ref().map_or(Ok(()), |facts| write_facts(f, facts))
    }
}

fn write_facts(f: &mut fmt::Formatter<'_>, facts: &FollowFacts) -> fmt::Result {
    if let Some(server) = &facts.server {
        write!(f, "\n  attached to {server}")?;
    }
    if let Some(received) = facts.received {
        write!(f, "\n  received up to {received}")?;
    }
    if let Some(durable) = facts.durable {
        write!(f, "\n  stored up to {durable}")?;
    }
    if let Some(base) = facts.base {
        write!(f, "\n  newest base at {base}")?;
    }
    if facts.base_pending {
        write!(f, "\n  a base is on its way")?;
    }
    write!(f, "\n  spool: {} segments wait, {}", facts.waiting, Bytes(facts.spool_bytes))?;
    write!(
        f,
        "\n  since its start: {} segments, {} merged ones, {} bases; {} connections that went on, {} that began anew",
        facts.segments, facts.merged, facts.bases, facts.continued, facts.full_syncs
    )?;
    facts.losses.iter().try_for_each(|loss| write!(f, "\n! {loss}"))?;
    let problems = facts.server_problem.iter().chain(&facts.store_problem);
    problems.into_iter().try_for_each(|problem| write!(f, "\n! {problem}"))
}
