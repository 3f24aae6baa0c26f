//! Servers, repository and accidents of the demonstration.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::{Repository, layout};
use backstay_backup_core::retry::{Retry, RetryPolicy};
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::{Attributes, PutMode, SharedStore};
use backstay_postgres_ops::{
    BackupReport, DumpOptions, RestoreOptions, RestoreReceipt, Server, backup_database, restore_database,
};
use backstay_storage_s3::{Credentials, S3Options, S3Store};
use backstay_testkit::s3::{Credential, S3Options as S3ServerOptions, S3Server};
use backstay_testkit::{PostgresOptions, SampleSize, ScratchDir, StopMode, TestPostgres, load_sample};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Everything that the demonstration plays on.
pub(crate) struct Stage {
    postgres: TestPostgres,
    repositories: Repositories,
    scratch: ScratchDir,
    s3: Option<S3Server>,
}

impl Stage {
    /// Starts the servers, fills the database and makes an empty repository.
    pub(crate) async fn set(use_s3: bool, size: SampleSize) -> Result<Self> {
        let postgres = TestPostgres::start(PostgresOptions::default()).await?;
        load_sample(&postgres, "shop", size)?;
        let scratch = ScratchDir::create("demo", None)?;
        let s3 = if use_s3 {
            let options = S3ServerOptions::memory()
                .bucket("backups")
                .credential(Credential::admin("demo", "demo-secret"));
            Some(S3Server::start(options).await?)
        } else {
            None
        };
        let (name, store): (_, SharedStore) = match &s3 {
            Some(server) => ("s3", Arc::new(connect(server).await?)),
            None => ("local", Arc::new(LocalStore::create(scratch.path().join("repository"))?)),
        };
        let repository = Repository::open_or_create(name, store, &SystemClock).await?;
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock))?;
        Ok(Self { postgres, repositories, scratch, s3 })
    }

    /// One line about the server and the database.
    pub(crate) fn describe(&self) -> Result<String> {
        let sql = "select format('PostgreSQL %s, %s, %s tables', current_setting('server_version'),
            pg_size_pretty(pg_database_size(current_database())),
            (select count(*) from pg_tables where schemaname !~ '^(pg_|information)'))";
        Ok(self.postgres.psql("shop", sql)?)
    }

    fn server(&self, database: &str) -> Result<Server> {
        Ok(Server::parse(&self.postgres.url(database), &BTreeMap::new())?)
    }

    /// Backs the shop up.
    pub(crate) async fn backup(&self) -> Result<BackupReport> {
        let options = DumpOptions::new(Stanza::parse("shop")?).digests(true);
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let server = self.server("shop")?;
        Ok(backup_database(&server, &self.repositories, &options, &progress, &cancel).await?)
    }

    /// Changes every customer, then drops the database.
    pub(crate) fn accident(&self) -> Result<()> {
        self.postgres.psql("shop", "update shop.accounts set email = 'oops-' || id || '@example.com'")?;
        self.postgres.psql("postgres", "drop database shop")?;
        Ok(())
    }

    /// Restores the shop.
    pub(crate) async fn restore(&self, manifest: &Manifest) -> Result<RestoreReceipt> {
        self.restore_from(&self.repositories, manifest).await
    }

    async fn restore_from(&self, repositories: &Repositories, manifest: &Manifest) -> Result<RestoreReceipt> {
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let (server, options) = (self.server("postgres")?, RestoreOptions::default().replace(true));
        let none = Identities::none();
        Ok(restore_database(&server, repositories, manifest, &none, &options, &progress, &cancel).await?)
    }

    /// Copies the repository, flips one bit of the copy, and tries to restore from it. Returns the refusal.
    pub(crate) async fn damage(&self, manifest: &Manifest) -> Result<String> {
        let copy = Arc::new(LocalStore::create(self.scratch.path().join("copy"))?) as SharedStore;
        let original = self.repositories.members()[0].store();
        let victim = layout::object(&manifest.stanza, &manifest.set, &manifest.objects[0].name)?;
        let keys: Vec<_> = original.list(&backstay_backup_core::key::Prefix::root()).try_collect().await?;
        for meta in keys {
            let pieces: Vec<_> = original.get(&meta.key, None).await?.body.try_collect().await?;
            let mut bytes = pieces.concat();
            if meta.key == victim {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            copy.put(&meta.key, bytes.into(), PutMode::Create, &Attributes::default()).await?;
        }
        let repository = Repository::open("damaged-copy", copy).await?;
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock))?;
        match self.restore_from(&repositories, manifest).await {
            Ok(_) => Err("the damage went unnoticed".into()),
            Err(error) => Ok(error.to_string()),
        }
    }

    /// Stops the servers.
    pub(crate) async fn strike(mut self) {
        if let Some(s3) = self.s3.take() {
            s3.stop().await;
        }
        if let Err(error) = self.postgres.stop(StopMode::Fast) {
            println!("the scratch server did not stop: {error}");
        }
    }
}

async fn connect(server: &S3Server) -> Result<Retry> {
    let credentials = Credentials::Static {
        access_key_id: "demo".to_owned(),
        secret_access_key: Secret::new("demo-secret".to_owned()),
        session_token: None,
    };
    let options = S3Options::new("backups")
        .region("us-east-1")
        .endpoint(server.endpoint())
        .path_style(true)
        .credentials(credentials);
    let store: SharedStore = Arc::new(S3Store::open(options).await?);
    Ok(Retry::new(store, RetryPolicy::default()))
}
