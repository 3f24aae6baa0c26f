//! One server, one local repository, and short ways to use them.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::error::Error as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_postgres_ops::{
    BackupReport, DumpOptions, Error, RestoreOptions, RestoreReceipt, Server, ToolSearch, backup_database,
    restore_database,
};
use backstay_testkit::{PostgresOptions, TestPostgres};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

pub struct Scene {
    pub postgres: TestPostgres,
    pub repositories: Repositories,
    pub root: tempfile::TempDir,
}

impl Scene {
    pub async fn start() -> Self {
        Self::with(TestPostgres::start(PostgresOptions::default()).await.unwrap()).await
    }

    pub async fn with(postgres: TestPostgres) -> Self {
        let root = tempfile::tempdir().unwrap();
        // The throwaway server's account must be able to pass.
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let store = Arc::new(LocalStore::create(root.path().join("repository")).unwrap());
        let repository = Repository::create("local", store, &SystemClock).await.unwrap();
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
        Self { postgres, repositories, root }
    }

    pub fn server(&self, database: &str) -> Server {
        Server::parse(&self.postgres.url(database), &BTreeMap::new()).unwrap()
    }

    pub fn options(&self) -> DumpOptions {
        DumpOptions::new(Stanza::parse("main").unwrap())
    }

    pub async fn backup(&self, database: &str, options: &DumpOptions) -> Result<BackupReport, Error> {
        let (progress, cancel) = idle();
        backup_database(&self.server(database), &self.repositories, options, &progress, &cancel).await
    }

    pub async fn restore(
        &self,
        report: &BackupReport,
        options: &RestoreOptions,
    ) -> Result<RestoreReceipt, Error> {
        self.restore_with(report, &Identities::none(), options).await
    }

    pub async fn restore_with(
        &self,
        report: &BackupReport,
        identities: &Identities,
        options: &RestoreOptions,
    ) -> Result<RestoreReceipt, Error> {
        let (progress, cancel) = idle();
        let (server, manifest) = (self.server("postgres"), &report.receipt.manifest);
        restore_database(&server, &self.repositories, manifest, identities, options, &progress, &cancel).await
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn unused_port(&self) -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// Flips one bit in the middle of one of the set's stored objects.
    pub fn flip_a_bit(&self, report: &BackupReport, object: usize) {
        let manifest = &report.receipt.manifest;
        let path = self
            .root
            .path()
            .join("repository/main/sets")
            .join(manifest.set.as_str())
            .join(&manifest.objects[object].name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    }

    /// Objects below the stanza.
    pub async fn object_count(&self) -> usize {
        let store = self.repositories.members()[0].store().clone();
        store.list(&Prefix::parse("main").unwrap()).count().await
    }

    /// Sets that exist.
    pub async fn sets(&self) -> Vec<String> {
        let store = self.repositories.members()[0].store().clone();
        let keys: Vec<_> = store.list(&Prefix::parse("main/sets").unwrap()).collect().await;
        keys.into_iter()
            .map(|meta| meta.unwrap().key.to_string())
            .filter(|key| key.ends_with("/manifest.json"))
            .collect()
    }

    /// A folder of programs in which pg_dump is a script; `$REAL` is the real one.
    pub fn fake_pg_dump(&self, script: &str) -> ToolSearch {
        let folder = self.folder(&format!("tools-{}", script.len()));
        let real = self.postgres.install().program("pg_dump").unwrap();
        let text = format!(
            "#!/bin/bash\nREAL={}\n[ \"$1\" = --version ] && exec \"$REAL\" --version\n{script}\n",
            real.display()
        );
        let path = folder.join("pg_dump");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(real.with_file_name("pg_dumpall"), folder.join("pg_dumpall")).unwrap();
        ToolSearch::only(folder)
    }
}

pub fn idle() -> (Progress, CancellationToken) {
    (Progress::new(), CancellationToken::new())
}

pub fn names(postgres: &TestPostgres) -> Vec<String> {
    let list = postgres.psql("postgres", "select datname from pg_database order by 1").unwrap();
    list.lines().map(str::to_owned).collect()
}

pub fn identity_text(identity: &age::x25519::Identity) -> String {
    use age::secrecy::ExposeSecret;
    identity.to_string().expose_secret().to_owned()
}

pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
