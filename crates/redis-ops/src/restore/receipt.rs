//! What a restore reached, beside what was planned.

use std::path::PathBuf;

use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::proof::{self, RestoreTest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::expected::{Comparison, Expected};
use super::live::LiveFacts;
use super::plan::RestorePlan;
use super::resolve::Missing;
use super::ttl::TtlPolicy;
use crate::archive::{Position, StreamId};

/// What became of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The files are in place; no server has been asked yet, so nothing is proven.
    Prepared,
    /// A server has loaded them and has what it must have.
    Loaded,
    /// A server has something else. What differs is named.
    Different,
}

/// How long a part of a restore took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Receipt of a restore.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RestoreReceipt {
    /// What became of it.
    pub outcome: Outcome,
    /// The stanza.
    pub stanza: Stanza,
    /// Which server.
    pub stream: StreamId,
    /// The snapshot that it began with.
    pub set: SetId,
    /// What was asked for, in words.
    pub target: String,
    /// Where it was to end.
    pub planned: Position,
    /// The moment whose state that is.
    pub planned_time: Timestamp,
    /// Where it ended.
    pub reached: Position,
    /// Commands that were put behind the snapshot.
    pub commands: u64,
    /// What became of expiry times.
    pub ttl: TtlPolicy,
    /// By how many seconds they were moved.
    pub ttl_shift_seconds: f64,
    /// What the server must have.
    pub expected: Expected,
    /// What a server had, when one was asked.
    pub found: Option<LiveFacts>,
    /// How both compare.
    pub comparison: Comparison,
    /// What is archived behind the end and is not here.
    pub missing: Missing,
    /// Where the old data is.
    pub old: Option<PathBuf>,
    /// What is good to know.
    pub notes: Vec<String>,
    /// Where the time went.
    pub phases: Vec<Phase>,
    /// Begin of the restore to its end, in seconds.
    pub rto_seconds: f64,
    /// When it was finished.
    pub finished: Timestamp,
}

impl RestoreReceipt {
    /// Of a restore whose files are complete.
    pub(super) fn prepared(plan: &RestorePlan, expected: Expected, reached: Position, commands: u64) -> Self {
        Self {
            outcome: Outcome::Prepared,
            stanza: plan.stanza.clone(),
            stream: plan.stream.clone(),
            set: plan.set.clone(),
            target: plan.target.to_string(),
            planned: plan.end,
            planned_time: plan.time,
            reached,
            commands,
            ttl: plan.ttl,
            ttl_shift_seconds: 0.0,
            expected,
            found: None,
            comparison: Comparison::default(),
            missing: plan.missing.clone(),
            old: None,
            notes: plan.notes.clone(),
            phases: Vec::new(),
            rto_seconds: 0.0,
            finished: Timestamp::UNIX_EPOCH,
        }
    }

    /// Whether the plan was kept, as far as anybody can say now.
    #[must_use]
    pub fn is_as_planned(&self) -> bool {
        self.outcome != Outcome::Different
    }

    /// Adds a phase that followed the restore of the files.
    pub fn add_phase(&mut self, name: &str, seconds: f64) {
        self.phases.push(Phase { name: name.to_owned(), seconds });
        self.rto_seconds += seconds;
    }

    /// Compares a server with what it must have.
    pub fn judge(&mut self, found: LiveFacts) {
        self.comparison = self.expected.compare(&found, false);
        self.outcome = if self.comparison.is_equal() { Outcome::Loaded } else { Outcome::Different };
        self.found = Some(found);
    }

    /// What a proof of the set says about it.
    #[must_use]
    pub fn proof(&self) -> RestoreTest {
        let mut test = RestoreTest::default();
        test.rto_millis = millis(self.rto_seconds);
        test.phases = self.phases.iter().map(Phase::proof).collect();
        test.facts_compared = self.comparison.compared;
        test.differences.clone_from(&self.comparison.differences);
        test
    }
}

impl Phase {
    pub(super) fn proof(&self) -> proof::Phase {
        proof::Phase { name: self.name.clone(), millis: millis(self.seconds) }
    }
}

pub(super) fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}
