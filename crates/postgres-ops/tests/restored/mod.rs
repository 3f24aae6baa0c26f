//! Restores of real clusters, started beside their source.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::progress::Progress;
use backstay_postgres_ops::ToolSearch;
use backstay_postgres_ops::cluster_restore::{
    ClusterPlan, ClusterReceipt, ClusterRequest, ClusterRestoreError, ClusterRestoreOptions, Ending,
    RecoverySettings, StartOptions, plan_cluster_restore,
};
use backstay_postgres_ops::recovery::{RecoveryTarget, TimelineChoice};
use backstay_postgres_ops::wal::WalFile;
use backstay_postgres_ops::wal_archive::{Fetched, WalArchive};
use backstay_testkit::{PortLease, TestPostgres};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, archive, stanza};

/// A directory that was restored into, and perhaps its server. Both go with it.
pub struct Restored<'a> {
    source: &'a TestPostgres,
    pub target: PathBuf,
    pub port: PortLease,
}

impl<'a> Restored<'a> {
    /// A place beside the data directory of the source.
    pub fn beside(source: &'a TestPostgres, name: &str) -> Self {
        let target = source.scratch().path().join(name);
        Self { source, target, port: PortLease::reserve().unwrap() }
    }

    pub fn options(&self) -> ClusterRestoreOptions {
        ClusterRestoreOptions::new(&self.target)
    }

    /// Starts on a port of its own.
    pub fn start_options(&self) -> StartOptions {
        StartOptions::new(ToolSearch::only(self.source.install().bin()))
            .setting("port", &self.port.port().to_string())
            .setting("listen_addresses", "127.0.0.1")
            .setting("unix_socket_directories", "")
            .setting("fsync", "off")
    }

    /// Plans, restores, starts, waits.
    pub async fn recover(
        &self,
        cluster: &Cluster,
        request: &ClusterRequest,
    ) -> Result<ClusterReceipt, ClusterRestoreError> {
        let plan = self.plan(cluster, request).await?;
        let settings = plan.settings(&copy_command(cluster));
        self.apply(cluster, &plan, &settings).await
    }

    pub async fn plan(
        &self,
        cluster: &Cluster,
        request: &ClusterRequest,
    ) -> Result<ClusterPlan, ClusterRestoreError> {
        self.plan_with(cluster, request, &self.options()).await
    }

    pub async fn plan_with(
        &self,
        cluster: &Cluster,
        request: &ClusterRequest,
        options: &ClusterRestoreOptions,
    ) -> Result<ClusterPlan, ClusterRestoreError> {
        let catalog = Catalog::load(&cluster.repositories, &stanza()).await.unwrap();
        let none = Identities::none();
        Box::pin(plan_cluster_restore(&cluster.repositories, &catalog, &none, request, options)).await
    }

    pub async fn apply(
        &self,
        cluster: &Cluster,
        plan: &ClusterPlan,
        settings: &RecoverySettings,
    ) -> Result<ClusterReceipt, ClusterRestoreError> {
        // What the plan saw may have been archived after the last copy.
        copy_wal(cluster).await;
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let ending = Ending::Start(self.start_options());
        let none = Identities::none();
        Box::pin(plan.apply(&cluster.repositories, &none, settings, &ending, &progress, &cancel)).await
    }

    /// Asks the restored server.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut command = self.source.client("psql").unwrap();
        command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        command.env("PGPORT", self.port.port().to_string()).env("PGPASSWORD", self.source.password());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs a program of the server's account, such as `pg_checksums`, on the restored directory.
    pub fn tool(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let mut command = self.command(program);
        let output = command.args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A program of this server's version, under the account of the server.
    pub fn command(&self, program: &str) -> Command {
        let program = self.source.install().program(program).unwrap();
        let mut command = match self.source.account() {
            None => Command::new(program),
            Some(account) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={}", account.uid())).arg(format!("--regid={}", account.gid()));
                command.arg("--clear-groups").arg(program);
                command
            }
        };
        command.current_dir("/");
        command
    }

    pub fn stop(&self, mode: &str) {
        if self.target.join("postmaster.pid").exists() {
            let target = self.target.to_str().unwrap();
            let _ = self.tool("pg_ctl", &["stop", "--silent", "-m", mode, "-D", target]);
        }
    }
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.stop("immediate");
        let mut beside = self.target.clone().into_os_string();
        beside.push(".tablespaces");
        let _ = std::fs::remove_dir_all(&self.target);
        let _ = std::fs::remove_dir_all(beside);
    }
}

pub fn request(target: RecoveryTarget) -> ClusterRequest {
    ClusterRequest::new(target, TimelineChoice::Latest)
}

/// Where [`copy_wal`] puts the log.
fn wal_folder(cluster: &Cluster) -> PathBuf {
    cluster.postgres.scratch().path().join("wal")
}

/// A `restore_command` that knows nothing of archives.
pub fn copy_command(cluster: &Cluster) -> String {
    format!("cp {}/%f %p", wal_folder(cluster).display())
}

/// Copies everything that is in the archive into a folder.
pub async fn copy_wal(cluster: &Cluster) {
    let folder = wal_folder(cluster);
    std::fs::create_dir_all(&folder).unwrap();
    let archive = archive(&cluster.postgres, &cluster.repositories);
    for file in archived(cluster).await {
        let path = folder.join(file.to_string());
        if !path.exists() {
            std::fs::write(path, fetch(&archive, file).await).unwrap();
        }
    }
}

async fn fetch(archive: &WalArchive, file: WalFile) -> bytes::Bytes {
    match archive.fetch(file, &Identities::none()).await.unwrap() {
        Fetched::Content(content) => content,
        other => panic!("{file}: {other:?}"),
    }
}

/// Everything that is in the archive.
pub async fn archived(cluster: &Cluster) -> Vec<WalFile> {
    let store = cluster.repositories.members()[0].store();
    let prefix = backstay_backup_core::key::Prefix::parse("main/wal").unwrap();
    let listed: Vec<_> = store.list(&prefix).try_collect().await.unwrap();
    let name = |name: &str| name.parse().ok().or_else(|| format!("{name}.history").parse().ok());
    listed.iter().filter_map(|meta| name(meta.key.file_name())).collect()
}

/// Waits until the server has archived everything up to now, and copies it.
pub async fn archive_all(cluster: &Cluster) {
    let name = cluster.psql("select pg_walfile_name(pg_current_wal_lsn())");
    cluster.psql("select pg_switch_wal()");
    wait_for(cluster, &name).await;
    copy_wal(cluster).await;
}

pub async fn wait_for(cluster: &Cluster, name: &str) {
    let wanted: WalFile = name.parse().unwrap();
    for _ in 0..15_000 {
        if archived(cluster).await.contains(&wanted) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{name} was not archived");
}

/// Content of all files of a folder and what its links point to, to see whether anything changes.
pub fn fingerprint(folder: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            found.extend(fingerprint(&entry.path()));
        }
        found.push((entry.path(), meta.len(), meta.modified().unwrap()));
    }
    found.sort();
    found
}
