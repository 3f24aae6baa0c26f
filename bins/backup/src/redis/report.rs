//! What `backup-redis` prints.

use std::fmt;

use backstay_cli::{Exit, human};
use backstay_redis_ops::rdb::{Checksum, Contents};
use backstay_redis_ops::server::{Role, TopologyKind};
use backstay_redis_ops::snapshot::{RedisFacts, ShardFacts, SnapshotPlan, SnapshotReport, Via};
use serde::Serialize;

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Plan(pub(super) SnapshotPlan);

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.0;
        let how = match plan.via {
            Via::Psync => "as a replica",
            Via::Bgsave => "by BGSAVE",
        };
        let encrypted = if plan.encrypted { ", encrypted" } else { "" };
        write!(f, "would back up {}, {how}{encrypted}", what(plan.topology, plan.shards.len()))?;
        for shard in &plan.shards {
            let role = match shard.role {
                Some(Role::Primary) => " (primary)",
                Some(Role::Replica) => " (replica)",
                None => "",
            };
            write!(f, "\n  {} from {}{role}", shard.name, shard.server)?;
            if let (Some(keys), Some(memory)) = (shard.keys, shard.used_memory) {
                write!(f, ": {}, {keys} keys, {} of memory", shard.version, human::Bytes(memory))?;
            }
        }
        for warning in &plan.warnings {
            write!(f, "\n! {warning}")?;
        }
        Ok(())
    }
}

fn what(topology: TopologyKind, shards: usize) -> String {
    match topology {
        TopologyKind::Cluster => format!("a cluster of {shards} shards"),
        TopologyKind::Sentinel => "the primary that the Sentinels name".to_owned(),
        TopologyKind::Single | TopologyKind::Unknown => "one Redis".to_owned(),
    }
}

/// What a run prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct BackedUp {
    set: String,
    stanza: String,
    recovery_point: String,
    keys: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    facts: RedisFacts,
    stored_in: Vec<String>,
    pub(super) missing_in: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
    seconds: f64,
}

impl BackedUp {
    pub(super) fn new(report: &SnapshotReport) -> Self {
        let (manifest, facts) = (&report.receipt.manifest, &report.facts);
        let mut warnings = report.warnings.clone();
        warnings.extend(facts.shards.iter().flat_map(doubts));
        Self {
            set: manifest.set.to_string(),
            stanza: manifest.stanza.to_string(),
            recovery_point: manifest.recovery_point.to_string(),
            keys: facts.keys(),
            plain_bytes: manifest.plain_size(),
            stored_bytes: manifest.stored_size(),
            facts: facts.clone(),
            stored_in: report.receipt.stored_in.clone(),
            missing_in: report.receipt.missing_in.clone(),
            warnings,
            seconds: report.elapsed.as_secs_f64(),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        if self.missing_in.is_empty() { Exit::Done } else { Exit::Missed }
    }
}

/// What could not be checked while it passed by.
fn doubts(shard: &ShardFacts) -> Vec<String> {
    let mut doubts = Vec::new();
    if shard.rdb.checksum == Checksum::Absent {
        doubts.push(format!(
            "{} computes no checksum (rdbchecksum no): damage on its side would not be noticed",
            shard.server
        ));
    }
    if let Contents::Unknown { reason } = &shard.rdb.contents {
        doubts.push(format!("the keys of {} are not counted: {reason}", shard.name));
    }
    doubts
}

impl fmt::Display for BackedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "set {} of {}: {} keys, {} stored as {} in {:.1} s ({})",
            self.set,
            what(self.facts.topology, self.facts.shards.len()),
            self.keys,
            human::Bytes(self.plain_bytes),
            human::Bytes(self.stored_bytes),
            self.seconds,
            self.stored_in.join(", ")
        )?;
        for shard in &self.facts.shards {
            write!(
                f,
                "\n  {} from {}: {} keys, {} expire",
                shard.name,
                shard.server,
                shard.rdb.keys(),
                shard.rdb.expires()
            )?;
            if let Some(offset) = shard.offset {
                write!(f, ", at offset {offset}")?;
            }
        }
        for (repository, reason) in &self.missing_in {
            write!(f, "\n  not in {repository}: {reason}")?;
        }
        for warning in &self.warnings {
            write!(f, "\n! {warning}")?;
        }
        Ok(())
    }
}
