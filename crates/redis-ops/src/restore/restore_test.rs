//! Restores the snapshots of a set into a throwaway server and compares what it loaded with what was recorded.

use std::path::PathBuf;
use std::time::Instant;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::SetId;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::proof::RestoreTest;
use backstay_backup_core::replicas::Repositories;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::apply::ask;
use super::ephemeral::{Ephemeral, ServerProgram};
use super::error::RestoreError;
use super::expected::{Comparison, Expected, counts};
use super::live::LiveFacts;
use super::place::Shape;
use super::receipt::{Phase, millis};
use super::snapshots::{StoredSnapshot, snapshots_of};
use super::ttl::TtlChange;
use super::write::Work;

const DUMP: &str = "dump.rdb";

/// With what a set is tested.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreTestOptions {
    /// The server program; at least as new as the source.
    pub program: ServerProgram,
    /// Folder for the data of the throwaway server; needs room for the largest snapshot.
    pub scratch: PathBuf,
}

impl RestoreTestOptions {
    /// With that program, below that folder.
    #[must_use]
    pub fn new(program: ServerProgram, scratch: impl Into<PathBuf>) -> Self {
        Self { program, scratch: scratch.into() }
    }
}

/// What one snapshot of a set became.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct TestedSnapshot {
    /// Its object.
    pub object: String,
    /// What the server had.
    pub found: LiveFacts,
    /// How that compares with what was recorded.
    pub comparison: Comparison,
}

/// What a restore test found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RestoreTestReport {
    /// The set.
    pub set: SetId,
    /// The server that loaded it.
    pub server: String,
    /// Its snapshots: one, or one of each shard of a cluster.
    pub snapshots: Vec<TestedSnapshot>,
    /// Where the time went.
    pub phases: Vec<Phase>,
    /// Begin of the test to the last answer, in seconds.
    pub rto_seconds: f64,
}

impl RestoreTestReport {
    /// Whether everything was as recorded.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.snapshots.iter().all(|tested| tested.comparison.is_equal())
    }

    /// Keys that came back.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.snapshots.iter().map(|tested| tested.found.keys()).sum()
    }

    /// What a proof of the set says about it.
    #[must_use]
    pub fn proof(&self) -> RestoreTest {
        let mut test = RestoreTest::default();
        test.rto_millis = millis(self.rto_seconds);
        test.phases = self.phases.iter().map(Phase::proof).collect();
        let comparisons = || self.snapshots.iter().map(|tested| &tested.comparison);
        test.facts_compared = comparisons().map(|it| it.compared).sum();
        test.differences = comparisons().flat_map(|it| it.differences.iter().cloned()).collect();
        test
    }
}

/// Tests a set. Nothing expires in the throwaway server, so every key is compared, whatever its age.
///
/// # Errors
/// Any [`RestoreError`]; [`RestoreError::Content`] and [`RestoreError::Server`] say that the set is bad.
///
/// # Cancel safety
/// A dropped call leaves no process and no file.
pub async fn test_restore(
    repositories: &Repositories,
    catalog: &Catalog,
    set: &SetId,
    identities: &Identities,
    options: &RestoreTestOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RestoreTestReport, RestoreError> {
    let begun = Instant::now();
    let work = Work {
        repositories: repositories.clone(),
        identities: identities.clone(),
        owner: None,
        change: TtlChange::KEEP,
        progress: progress.clone(),
        cancel: cancel.clone(),
    };
    let (mut tested, mut phases) = (Vec::new(), Vec::new());
    for snapshot in snapshots_of(catalog, set)? {
        tested.push(test_one(&work, &snapshot, options, &mut phases).await?);
    }
    Ok(RestoreTestReport {
        set: set.clone(),
        server: options.program.version.to_string(),
        snapshots: tested,
        phases,
        rto_seconds: begun.elapsed().as_secs_f64(),
    })
}

async fn test_one(
    work: &Work,
    snapshot: &StoredSnapshot,
    options: &RestoreTestOptions,
    phases: &mut Vec<Phase>,
) -> Result<TestedSnapshot, RestoreError> {
    snapshot.refuse_old_server(&options.program.version)?;
    let scratch = &options.scratch;
    let folder = tempfile::Builder::new().prefix("backstay-restore-test-").tempdir_in(scratch);
    let folder = folder.map_err(RestoreError::io("make a folder in", scratch))?;
    let mut phase = |name: &str, begun: Instant| {
        phases.push(Phase { name: name.to_owned(), seconds: begun.elapsed().as_secs_f64() });
    };
    let begun = Instant::now();
    let base_bytes = work.snapshot(snapshot, &folder.path().join(DUMP)).await?;
    phase("snapshot", begun);
    let begun = Instant::now();
    work.progress.begin("loading in a throwaway server");
    let settings = [("appendonly", "no"), ("dbfilename", DUMP)];
    let mut server = Ephemeral::start(&options.program, folder.path(), &settings, &work.cancel).await?;
    let found = ask(&mut server).await;
    server.stop().await;
    phase("load", begun);
    let found = found?;
    let facts = &snapshot.facts;
    let databases = counts(facts);
    let functions = databases.is_some().then(|| facts.functions.clone());
    let expected = Expected {
        directory: folder.path().to_owned(),
        shape: Shape::Snapshot,
        databases,
        functions,
        base_bytes,
        stream_bytes: 0,
    };
    Ok(TestedSnapshot {
        object: snapshot.entry.name.clone(),
        comparison: expected.compare(&found, true),
        found,
    })
}
