//! A database, and short ways to back it up and to see what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::retry::{Retry, RetryPolicy};
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::{
    BackupReport, DumpOptions, Error, RestoreOptions, RestoreReceipt, Server, backup_database,
    restore_database,
};
use backstay_testkit::{PostgresOptions, TestPostgres};
use tokio_util::sync::CancellationToken;

/// Whether every case is to be run instead of a sample.
pub(crate) fn soak() -> bool {
    std::env::var_os("BACKSTAY_SOAK").is_some()
}

pub(crate) fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

/// A PostgreSQL server with the database `source`.
pub(crate) struct Scene {
    pub(crate) postgres: Arc<TestPostgres>,
}

impl Scene {
    /// A server whose database has this many rows that do not compress, 65 bytes each.
    pub(crate) async fn start(rows: u32) -> Self {
        let postgres = TestPostgres::start(PostgresOptions::default()).await.unwrap();
        postgres.create_database("source").unwrap();
        for statement in [
            "create table entries(id int primary key, body text not null)".to_owned(),
            format!(
                "insert into entries select g, md5(g::text) || md5((-g)::text) from generate_series(1, {rows}) g"
            ),
            "create view newest as select max(id) from entries".to_owned(),
        ] {
            postgres.psql("source", &statement).unwrap();
        }
        Self { postgres: Arc::new(postgres) }
    }

    pub(crate) fn server(&self, database: &str) -> Server {
        Server::parse(&self.postgres.url(database), &BTreeMap::new()).unwrap()
    }

    pub(crate) async fn backup(
        &self,
        repositories: &Repositories,
        options: &DumpOptions,
    ) -> Result<BackupReport, Error> {
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        backup_database(&self.server("source"), repositories, options, &progress, &cancel).await
    }

    /// Restores into a new database, which is dropped again. The restore itself compares every fact.
    pub(crate) async fn restore(
        &self,
        repositories: &Repositories,
        manifest: &Manifest,
        target: &str,
    ) -> Result<RestoreReceipt, Error> {
        self.restore_with(repositories, manifest, target, &Identities::none()).await
    }

    /// The same with keys.
    pub(crate) async fn restore_with(
        &self,
        repositories: &Repositories,
        manifest: &Manifest,
        target: &str,
        keys: &Identities,
    ) -> Result<RestoreReceipt, Error> {
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let (server, options) = (self.server("postgres"), RestoreOptions::default().target(target));
        let restored =
            restore_database(&server, repositories, manifest, keys, &options, &progress, &cancel).await;
        if restored.is_ok() {
            self.psql(format!("drop database {target}")).await;
        }
        restored
    }

    /// How many databases have a name that begins so.
    pub(crate) async fn count_databases(&self, name: &str) -> String {
        self.psql(format!("select count(*) from pg_database where starts_with(datname, '{name}')")).await
    }

    /// Off the async threads, which may be needed by the store.
    async fn psql(&self, statement: String) -> String {
        let postgres = self.postgres.clone();
        let run = move || postgres.psql("postgres", &statement).unwrap();
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

/// Opens, or first creates, the only repository on a store.
pub(crate) async fn open(store: SharedStore) -> Result<Repositories, backstay_backup_core::Error> {
    let repository = Repository::open_or_create("only", store, &SystemClock).await?;
    Repositories::new(vec![repository], 1, Arc::new(SystemClock))
}

/// Repeats quickly, so that a test of many faults is short.
pub(crate) fn retrying(store: SharedStore) -> SharedStore {
    let policy = RetryPolicy::default()
        .attempts(8)
        .base(Duration::from_millis(2))
        .cap(Duration::from_millis(20))
        .total(Duration::from_secs(20));
    Arc::new(Retry::with_seed(store, policy, 11))
}

/// The sets a reader sees.
pub(crate) async fn catalog(repositories: &Repositories) -> Catalog {
    Catalog::load(repositories, &stanza()).await.unwrap()
}

/// All texts of an error, as a printer would show them.
pub(crate) fn words(error: &Error) -> String {
    chain(error)
}

/// The same of any error.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
