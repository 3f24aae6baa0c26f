//! The program of this package, and a server with a database and sets of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

#[path = "../../../backup/tests/support/bench.rs"]
mod bench;
#[path = "../../../backup/tests/support/bucket.rs"]
mod bucket;
#[path = "../../../backup/tests/support/git.rs"]
mod git;
#[path = "../../../backup/tests/support/harm.rs"]
mod harm;
#[path = "../../../backup/tests/support/moments.rs"]
mod moments;
#[path = "../../../backup/tests/support/table.rs"]
pub mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use age::secrecy::ExposeSecret;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::{DumpOptions, Server, ToolSearch, backup_database};
use backstay_storage_s3::{Credentials, S3Options, S3Store};
use backstay_testkit::{PostgresOptions, TestPostgres};
use tokio_util::sync::CancellationToken;

pub use bench::{Bench, Ended, files, flip_a_bit, until};
pub use bucket::{Bucket, unreadable, unreadable_for_now};
pub use git::git;
pub use moments::Moments;

pub fn path(program: &str) -> &'static str {
    match program {
        "restore-cluster" => env!("CARGO_BIN_EXE_restore-cluster"),
        "restore-code" => env!("CARGO_BIN_EXE_restore-code"),
        "restore-config" => env!("CARGO_BIN_EXE_restore-config"),
        "restore-database" => env!("CARGO_BIN_EXE_restore-database"),
        "strace" => "strace",
        other => panic!("{other} is not of this package"),
    }
}

/// A server with a database, and one set of it in the repository `local`.
pub struct Scene {
    pub server: TestPostgres,
    pub bench: Bench,
}

impl Scene {
    pub fn new(recipients: &[&str]) -> Self {
        let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
        Self::fill(&server);
        let mut scene = Self { server, bench: Bench::new() };
        scene.bench.reach(&scene.server, "postgres");
        scene.back_up("local", recipients);
        scene
    }

    pub fn fill(server: &TestPostgres) {
        server.psql("postgres", "CREATE DATABASE shop").unwrap();
        let fill = "CREATE TABLE item AS SELECT n, n::text AS text FROM generate_series(1, 500) n; \
                    CREATE TABLE note (text text); INSERT INTO note VALUES ('kept')";
        server.psql("shop", fill).unwrap();
    }

    /// Backs up into a new repository.
    pub fn back_up(&self, repository: &str, recipients: &[&str]) {
        let recipients = Recipients::parse(recipients.iter().copied()).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(self.store_set(repository, recipients));
    }

    async fn store_set(&self, name: &str, recipients: Recipients) {
        let store = Arc::new(LocalStore::create(self.path(name)).unwrap());
        let repository = Repository::create(name, store, &SystemClock).await.unwrap();
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
        let server = Server::parse(&self.server.url("shop"), &BTreeMap::new()).unwrap();
        let options = DumpOptions::new(Stanza::parse("main").unwrap())
            .recipients(recipients)
            .tools(ToolSearch::only(self.server.install().bin()));
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        Box::pin(backup_database(&server, &repositories, &options, &progress, &cancel)).await.unwrap();
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.bench.path(below)
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        self.bench.run("restore-database", &[&["--repository", "./local"], args].concat())
    }

    pub fn databases(&self) -> String {
        let query =
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate";
        self.server.psql("postgres", query).unwrap().trim().to_owned()
    }

    pub fn count(&self, database: &str) -> String {
        self.server.psql(database, "SELECT count(*) FROM item").unwrap().trim().to_owned()
    }

    /// The object with the rows.
    pub fn data(&self) -> PathBuf {
        data(&self.bench)
    }
}

/// The object with the rows.
pub fn data(bench: &Bench) -> PathBuf {
    let mut objects = files(&bench.path("local/main/sets"));
    objects.retain(|path| !path.ends_with("manifest.json"));
    objects.into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

pub fn key_text(key: &age::x25519::Identity) -> String {
    key.to_string().expose_secret().to_owned()
}

/// A new folder to make a repository in.
pub fn folder(bench: &Bench, name: &str) -> SharedStore {
    Arc::new(LocalStore::create(bench.path(name)).unwrap())
}

/// The place in a bucket that [`Bucket::lend`] lends.
pub async fn place_in(bucket: &Bucket) -> SharedStore {
    let credentials = Credentials::Static {
        access_key_id: "admin".to_owned(),
        secret_access_key: Secret::new("admin-secret".to_owned()),
        session_token: None,
    };
    let place = S3Options::new("backups").region("us-east-1").endpoint(bucket.server.endpoint());
    let place = place.prefix(Prefix::parse("shop").unwrap()).credentials(credentials);
    Arc::new(S3Store::open(place).await.unwrap())
}

/// Repositories in these stores, all of which take part in each set.
pub async fn repositories(stores: impl IntoIterator<Item = SharedStore>) -> Repositories {
    let mut members = Vec::new();
    for store in stores {
        let name = format!("r{}", members.len() + 1);
        members.push(Repository::open_or_create(&name, store, &SystemClock).await.unwrap());
    }
    let all = members.len();
    Repositories::new(members, all, Arc::new(SystemClock)).unwrap()
}
