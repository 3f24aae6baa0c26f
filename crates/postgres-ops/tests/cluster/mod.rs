//! Real clusters whose WAL goes into a real archive, and what their physical sets restore to.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_postgres_ops::physical::{BackupOptions, ClusterBackupReport, backup_cluster};
use backstay_postgres_ops::wal::{SystemId, WalFile};
use backstay_postgres_ops::wal_archive::WalArchive;
use backstay_postgres_ops::{Error, Server};
use backstay_testkit::{PostgresInstall, PostgresOptions, TestPostgres};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

/// A server, a repository, and a thread that takes every file that the server archives there.
pub struct Cluster {
    pub postgres: TestPostgres,
    pub root: tempfile::TempDir,
    pub repositories: Repositories,
    archiver: Option<Archiver>,
}

/// Options of a server that archives into `spool`.
pub fn archiving(options: PostgresOptions) -> PostgresOptions {
    options
        .setting("archive_mode", "on")
        // Appears under its name when it is whole.
        .setting("archive_command", "mkdir -p ../spool && cp %p ../spool/.%f && mv ../spool/.%f ../spool/%f")
        .setting("wal_level", "replica")
}

impl Cluster {
    pub async fn start(options: PostgresOptions) -> Self {
        let root = tempfile::tempdir().unwrap();
        let repositories = local(&root.path().join("repository")).await;
        Self::start_in(options, root, repositories).await
    }

    pub async fn start_in(
        options: PostgresOptions,
        root: tempfile::TempDir,
        repositories: Repositories,
    ) -> Self {
        let postgres = TestPostgres::start(archiving(options)).await.unwrap();
        let archive = archive(&postgres, &repositories);
        let spool = postgres.data_directory().parent().unwrap().join("spool");
        let archiver = Some(Archiver::start(spool, archive));
        Self { postgres, root, repositories, archiver }
    }

    pub fn server(&self) -> Server {
        Server::parse(&self.postgres.url("postgres"), &BTreeMap::new()).unwrap()
    }

    pub fn options(&self) -> BackupOptions {
        let mut options = BackupOptions::new(stanza());
        options.wal_timeout = Duration::from_secs(60);
        options
    }

    pub async fn back_up(&self, options: &BackupOptions) -> Result<ClusterBackupReport, Error> {
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        Box::pin(backup_cluster(&self.server(), &self.repositories, options, &progress, &cancel)).await
    }

    /// What the server archives from now on stays where it is.
    pub fn stop_archiver(&mut self) {
        self.archiver = None;
    }

    pub fn set_folder(&self, manifest: &Manifest) -> PathBuf {
        self.root.path().join("repository/main/sets").join(manifest.set.to_string())
    }

    pub fn psql(&self, sql: &str) -> String {
        self.postgres.psql("postgres", sql).unwrap()
    }
}

pub async fn local(path: &Path) -> Repositories {
    let store = Arc::new(LocalStore::create(path.to_path_buf()).unwrap());
    let repository = Repository::open_or_create("local", store, &SystemClock).await.unwrap();
    Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap()
}

pub fn archive(postgres: &TestPostgres, repositories: &Repositories) -> WalArchive {
    let system = postgres.psql("postgres", "select system_identifier from pg_control_system()").unwrap();
    WalArchive::new(repositories.clone(), stanza(), SystemId::new(system.parse().unwrap()))
}

/// Pushes what appears in a folder.
struct Archiver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Archiver {
    fn start(spool: PathBuf, archive: WalArchive) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            while !stopped.load(Ordering::Relaxed) {
                runtime.block_on(push_all(&spool, &archive));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn push_all(spool: &Path, archive: &WalArchive) {
    let Ok(entries) = std::fs::read_dir(spool) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Ok(file) = path.file_name().unwrap().to_str().unwrap().parse::<WalFile>() else { continue };
        let content = std::fs::read(&path).unwrap();
        archive.push(file, Bytes::from(content)).await.unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

/// Opens a set as somebody without Backstay does.
pub fn unpack(set: &Path, target: &Path) {
    std::fs::create_dir_all(target).unwrap();
    let script = "set -e -o pipefail; cd \"$1\"; for pack in pack-*.tar.zst last.tar.zst; do \
                  zstd -dc \"$pack\" | tar -xf - -C \"$2\"; done; zstd -dc backup_manifest.zst > \"$2\"/backup_manifest";
    let unpacked = Command::new("bash").args(["-c", script, "unpack"]).arg(set).arg(target).output().unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
}

/// What PostgreSQL's own program says of an unpacked set.
pub fn verify(install: &PostgresInstall, target: &Path) -> Result<(), String> {
    let mut command = Command::new(install.program("pg_verifybackup").unwrap());
    let output = command.arg("--no-parse-wal").arg(target).stdin(Stdio::null()).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// No secrets are used.
pub fn identities() -> Identities {
    Identities::none()
}
