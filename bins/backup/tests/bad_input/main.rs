//! Bad input to the backup programs: every case ends in its own words and exit code, and nothing is written or lost.
#![allow(clippy::unwrap_used, missing_docs)]

mod buckets;
mod configuration;
mod keys_and_sets;
mod repositories;
mod servers;
#[path = "../support/mod.rs"]
mod support;

use age::secrecy::ExposeSecret;
use backstay_testkit::{PostgresOptions, TestPostgres};
use support::Bench;
use support::table::{Row, World, Wrong, check_coverage};

const BACKUP: &str = "backup-database";
const LIST: &str = "list-backups";
const VERIFY: &str = "verify-backups";
const PRUNE: &str = "prune-backups";
const STORAGE: &str = "check-storage";
const READERS: [&str; 3] = [LIST, VERIFY, PRUNE];
const ALL: [&str; 5] = [BACKUP, LIST, VERIFY, PRUNE, STORAGE];

/// What each program has to be tried with.
const NEEDED: [(Wrong, &[&str]); 17] = [
    (Wrong::UnreachableServer, &[BACKUP, LIST, STORAGE]),
    (Wrong::Password, &[BACKUP, LIST]),
    (Wrong::MissingDatabase, &[BACKUP, LIST, VERIFY]),
    (Wrong::MissingClient, &[BACKUP, VERIFY]),
    (Wrong::OldClient, &[BACKUP, VERIFY]),
    (Wrong::Unwritable, &ALL),
    (Wrong::NoRepository, &ALL),
    (Wrong::NewerRepository, &[BACKUP, LIST, VERIFY, PRUNE]),
    (Wrong::OtherKey, &[BACKUP, VERIFY]),
    (Wrong::NoKey, &[VERIFY]),
    (Wrong::CutManifest, &READERS),
    (Wrong::OtherStanza, &READERS),
    (Wrong::FullDisk, &[BACKUP, VERIFY, PRUNE, STORAGE]),
    (Wrong::UnknownKey, &ALL),
    (Wrong::BadUrl, &ALL),
    (Wrong::BadRetention, &ALL),
    (Wrong::Clock, &ALL),
];

#[test]
fn every_kind_is_tried_on_every_program_it_applies_to() {
    let tables = [
        servers::rows(),
        servers::rows_of_a_newer_server(),
        repositories::rows(),
        keys_and_sets::rows(),
        configuration::rows(),
    ];
    let of_buckets = buckets::rows();
    let tried = tables.iter().flatten().map(Row::tried).chain(of_buckets.iter().map(Row::tried));
    let tried: Vec<_> = tried.collect();
    check_coverage(&tried, &NEEDED);
}

/// A row of this world.
fn row(kind: Wrong, case: &'static str, run: impl Into<String>) -> Row<Backups> {
    Row::new(kind, case, run)
}

/// A server, and repositories with one set each: `local`, and `sealed`, which is encrypted.
struct Backups {
    server: TestPostgres,
    prepared: Bench,
    sets: Vec<String>,
    /// Folder of PostgreSQL's programs, where it is not the server's own.
    bin_dir: Option<String>,
}

impl Backups {
    fn new() -> Self {
        let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
        fill(&server);
        let mut world = Self { server, prepared: Bench::new(), sets: Vec::new(), bin_dir: None };
        world.prepared.reach(&world.server, "shop");
        let [right, wrong] = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
        let spare = age::x25519::Identity::generate().to_public();
        let recipients = format!("--option=encryption.recipients={},{spare}", right.to_public());
        world.back_up("local", &[]);
        world.back_up("sealed", &[&recipients]);
        world.prepared.write_secret("right.key", right.to_string().expose_secret());
        world.prepared.write_secret("wrong.key", wrong.to_string().expose_secret());
        world
    }

    fn back_up(&mut self, repository: &str, args: &[&str]) {
        let place = format!("./{repository}");
        self.prepared.run(BACKUP, &[&["--repository", &place], args].concat()).expect(0);
        self.sets.push(self.prepared.only_set(repository));
    }
}

fn fill(server: &TestPostgres) {
    server.psql("postgres", "CREATE DATABASE shop").unwrap();
    let rows = "CREATE TABLE item AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) n";
    server.psql("shop", rows).unwrap();
}

impl World for Backups {
    fn bench(&self) -> Bench {
        let mut bench = Bench::new();
        bench.copy_from(&self.prepared, &["local", "sealed", "right.key", "wrong.key"]);
        bench.reach(&self.server, "shop");
        if let Some(folder) = &self.bin_dir {
            bench.set("BACKSTAY_POSTGRES_BIN_DIR", folder);
        }
        bench
    }

    fn outside(&self) -> String {
        let list = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
        let content = "SELECT count(*), sum(n), max(text) FROM item";
        self.server.psql("postgres", list).unwrap() + &self.server.psql("shop", content).unwrap()
    }

    fn redact(&self, text: String) -> String {
        let text = text.replace(&self.server.port().to_string(), "PORT");
        self.sets.iter().fold(text, |text, set| text.replace(set, "SET"))
    }
}
