//! Real clusters whose WAL goes into a real archive, and what their physical sets restore to.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_postgres_ops::physical::{BackupOptions, ClusterBackupReport, backup_cluster};
use backstay_postgres_ops::wal::{Segment, SegmentSize, SystemId, WalFile};
use backstay_postgres_ops::wal_archive::{Fetched, WalArchive};
use backstay_postgres_ops::{Error, Server};
use backstay_testkit::{PostgresInstall, PostgresOptions, TestPostgres};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

/// A server, a repository, and a thread that takes every file that the server archives there.
pub struct Cluster {
    /// Ends first: it reads folders of the others.
    archiver: Option<Archiver>,
    pub postgres: TestPostgres,
    pub root: tempfile::TempDir,
    pub repositories: Repositories,
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
        Self { archiver, postgres, root, repositories }
    }

    pub fn server(&self) -> Server {
        Server::parse(&self.postgres.url("postgres"), &BTreeMap::new()).unwrap()
    }

    pub fn options(&self) -> BackupOptions {
        let mut options = BackupOptions::new(stanza());
        options.wal_timeout = Duration::from_secs(300);
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

    /// Gives a file of the scratch directory to the servers' account.
    pub fn own(&self, name: &str) {
        give(self, &self.target(name));
    }

    /// Where an unpacked set can be started by the server's account.
    pub fn target(&self, name: &str) -> PathBuf {
        self.postgres.scratch().path().join(name)
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

/// A server on an unpacked set, recovered to the end of its backup with the WAL that its facts name, and nothing else.
pub async fn recover(cluster: &Cluster, report: &ClusterBackupReport, target: &Path) -> TestPostgres {
    let archive = archive(&cluster.postgres, &cluster.repositories);
    let size = SegmentSize::new(report.facts.segment_size).unwrap();
    for range in &report.facts.wal {
        let mut next = Some(Segment::containing(range.timeline, range.start, size));
        while let Some(segment) = next.filter(|segment| segment.start(size) < range.end) {
            let fetched = archive.fetch(WalFile::Segment(segment), &Identities::none()).await.unwrap();
            let Fetched::Content(content) = fetched else { panic!("{segment} is not in the archive") };
            std::fs::write(target.join("pg_wal").join(segment.to_string()), content).unwrap();
            next = segment.next(size);
        }
    }
    for tablespace in &report.facts.tablespaces {
        let link = target.join(format!("pg_tblspc/{}", tablespace.oid));
        let moved = target.with_extension(tablespace.oid.to_string());
        std::fs::rename(&link, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &link).unwrap();
        give(cluster, &moved);
    }
    std::fs::write(target.join("recovery.signal"), "").unwrap();
    give(cluster, target);
    let options = PostgresOptions::default()
        .install(cluster.postgres.install())
        .existing(target, cluster.postgres.password())
        .setting("archive_mode", "off")
        .setting("restore_command", "false")
        .setting("recovery_target", "immediate")
        .setting("recovery_target_action", "promote");
    let server = TestPostgres::start(options).await.unwrap();
    until_promoted(&server);
    server
}

/// A server answers before its recovery has ended.
fn until_promoted(server: &TestPostgres) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while server.psql("postgres", "select pg_is_in_recovery()").unwrap() != "f" {
        assert!(Instant::now() < deadline, "recovery does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn give(cluster: &Cluster, path: &Path) {
    if let Some(account) = cluster.postgres.account() {
        let owner = format!("{}:{}", account.uid(), account.gid());
        assert!(Command::new("chown").args(["-R", &owner]).arg(path).status().unwrap().success());
    }
}

/// Sessions that change rows of a table for as long as this lives.
pub struct Load {
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// The table `busy` of the database `postgres`, with rows enough for some thousand pages.
    pub fn prepare(cluster: &Cluster) {
        cluster.psql(
            "create table busy (id int primary key, n int, filler text); \
             insert into busy select g, 0, repeat(md5(g::text), 8) from generate_series(1, 40000) g; checkpoint",
        );
    }

    pub fn start(cluster: &Cluster, sessions: usize) -> Self {
        let sql = "do $$ begin loop update busy set n = n + 1 where id in (select (random() * 40000)::int from \
                   generate_series(1, 50)); commit; end loop; end $$";
        let threads = (0..sessions).map(|_| {
            let mut command = cluster.postgres.client("psql").unwrap();
            command.args(["-X", "-q", "-d", "postgres", "-c", sql]).env("PGAPPNAME", "load");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::spawn(move || drop(child.wait()))
        });
        Self { threads: threads.collect() }
    }

    /// Ends the sessions.
    pub fn stop(self, cluster: &Cluster) {
        cluster
            .psql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'load'");
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Waits until no session is in backup mode.
pub fn expect_no_backup(cluster: &Cluster) {
    let deadline = std::time::Instant::now() + Duration::from_secs(300);
    let sessions = "select count(*) from pg_stat_activity where application_name like 'backstay %'";
    while cluster.psql(sessions) != "0" {
        assert!(std::time::Instant::now() < deadline, "a session is left");
        std::thread::sleep(Duration::from_millis(50));
    }
}
