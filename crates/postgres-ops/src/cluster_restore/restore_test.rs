//! Proves a physical set by restoring it into a scratch folder, starting it there, and looking at what came out.
//!
//! Nothing leaves the folder: tablespaces are below it, the server listens on a socket in it, archives nothing, and runs no
//! subscriptions. Recovery ends where the set is consistent, so the proof is of the set and the WAL it needs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::SetId;
use backstay_backup_core::process::{self, ProcessError, SystemRunner};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::receipt::{ClusterReceipt, Outcome};
use super::recover::{ClusterRequest, Ending, plan_cluster_restore};
use super::server::{StartOptions, stop_at_once};
use super::{ClusterRestoreError, ClusterRestoreOptions};
use crate::account::{Account, command_as};
use crate::recovery::{RecoveryTarget, TimelineChoice};
use crate::restore_test::{CheckResult, SqlCheck, run_checks};
use crate::server::Server;
use crate::throwaway::ScratchFolder;
use crate::tools::ToolSearch;

/// Settings that keep a test server to itself, and make it quick: it is worthless afterwards.
const SETTINGS: [(&str, &str); 11] = [
    ("listen_addresses", ""),
    ("port", "5432"),
    ("unix_socket_permissions", "0700"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("autovacuum", "off"),
    ("logging_collector", "off"),
    ("ssl", "off"),
    ("archive_mode", "off"),
    ("max_logical_replication_workers", "0"),
];
/// Everything `pg_amcheck` says.
const MOST_WORDS: usize = 1 << 20;

/// How a set is tested.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterTest {
    /// Folder for the restored cluster; needs room for all of it.
    pub scratch: PathBuf,
    /// `restore_command`, with `%f` and `%p`.
    pub restore_command: String,
    /// Where the server programs are, and what its `restore_command` needs of the environment.
    pub start: StartOptions,
    /// A superuser of the restored cluster.
    pub superuser: String,
    /// The operator's own checks, run in the database `postgres`.
    pub checks: Vec<SqlCheck>,
}

impl ClusterTest {
    /// A test in that folder, without checks of the operator's.
    #[must_use]
    pub fn new(scratch: impl Into<PathBuf>, restore_command: &str, tools: ToolSearch) -> Self {
        Self {
            scratch: scratch.into(),
            restore_command: restore_command.to_owned(),
            start: StartOptions::new(tools),
            superuser: "postgres".to_owned(),
            checks: Vec::new(),
        }
    }
}

/// Outcome of a test.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClusterTestReport {
    /// Receipt of the restore.
    pub receipt: ClusterReceipt,
    /// `pg_amcheck`, where it is there, and the operator's checks.
    pub checks: Vec<CheckResult>,
    /// Begin to end in seconds.
    pub seconds: f64,
}

impl ClusterTestReport {
    /// Whether recovery ended where it was told to and every check holds.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.receipt.outcome == Outcome::Exact && self.checks.iter().all(|check| check.passed)
    }
}

/// A server that is ended, whatever becomes of the test.
struct Ended<'a> {
    data: &'a Path,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        stop_at_once(self.data);
    }
}

/// Restores a set into a scratch folder, recovers it until it is consistent, checks it, and removes everything.
///
/// # Errors
/// Whatever stops a restore.
///
/// # Cancel safety
/// A dropped or cancelled call leaves no server and no files.
pub async fn test_cluster_restore(
    repositories: &Repositories,
    catalog: &Catalog,
    set: &SetId,
    identities: &Identities,
    test: &ClusterTest,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<ClusterTestReport, ClusterRestoreError> {
    let begin = Instant::now();
    let account =
        Account::for_servers().map_err(ClusterRestoreError::io("find an account for", &test.scratch))?;
    let folder = ScratchFolder::make(&test.scratch, account)
        .map_err(ClusterRestoreError::io("make a folder in", &test.scratch))?;
    let data = folder.path().join("data");
    let options = ClusterRestoreOptions::new(&data);
    let request = ClusterRequest::new(RecoveryTarget::Immediate, TimelineChoice::Current).set(set.clone());
    let plan = Box::pin(plan_cluster_restore(repositories, catalog, identities, &request, &options)).await?;
    let ending = Ending::Start(start(test, folder.path())?);
    let _server = Ended { data: &data };
    let settings = plan.settings(&test.restore_command);
    let restoring = plan.apply(repositories, identities, &settings, &ending, progress, cancel);
    let receipt = Box::pin(restoring).await?;
    let mut checks = Vec::new();
    if receipt.outcome == Outcome::Exact {
        let mut server = Server::new(&folder.path().display().to_string(), 5432, &test.superuser);
        "postgres".clone_into(&mut server.database);
        checks.extend(amcheck(test, folder.path(), account, cancel).await?);
        checks.extend(run_checks(&server, &test.checks).await?);
    }
    Ok(ClusterTestReport { receipt, checks, seconds: begin.elapsed().as_secs_f64() })
}

/// Everybody on this machine who may enter the folder may connect: the server's account, and root.
fn start(test: &ClusterTest, folder: &Path) -> Result<StartOptions, ClusterRestoreError> {
    let access = folder.join("access.conf");
    std::fs::write(&access, "local all all trust\n").map_err(ClusterRestoreError::io("write", &access))?;
    let mut start = test.start.clone();
    for (name, value) in SETTINGS {
        start = start.setting(name, value);
    }
    let text = |path: &Path| path.display().to_string();
    Ok(start.setting("unix_socket_directories", &text(folder)).setting("hba_file", &text(&access)))
}

/// Runs `pg_amcheck` on every database; `None` where this machine does not have it.
async fn amcheck(
    test: &ClusterTest,
    folder: &Path,
    account: Option<Account>,
    cancel: &CancellationToken,
) -> Result<Option<CheckResult>, ClusterRestoreError> {
    let major = 14;
    let search = test.start.tools.clone();
    let finding = tokio::task::spawn_blocking(move || {
        crate::tools::find_tool("pg_amcheck", major, "the server of the set", &search)
    });
    let Ok(tool) = finding.await.map_err(|error| crate::client::lost_thread("pg_amcheck", &error))? else {
        return Ok(None);
    };
    let spec = command_as(&tool.path, account)
        .args(["--all", "--install-missing", "--heapallindexed", "--port=5432"])
        .arg(format!("--host={}", folder.display()))
        .arg(format!("--username={}", test.superuser));
    let runner = SystemRunner::new(&std::collections::BTreeMap::new());
    let (passed, found) = match process::capture(&runner, spec, MOST_WORDS, cancel).await {
        Ok(_) => (true, "no corruption".to_owned()),
        Err(ProcessError::Cancelled { .. }) => return Err(backstay_backup_core::Error::Cancelled.into()),
        Err(error) => (false, error.to_string()),
    };
    Ok(Some(CheckResult { name: "pg_amcheck".to_owned(), passed, found }))
}
