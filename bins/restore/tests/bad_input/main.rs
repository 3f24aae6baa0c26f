//! Bad input to `restore-database`: every case ends in its own words and exit code, and nothing is written or lost.
#![allow(clippy::unwrap_used, missing_docs)]

mod repositories;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod targets;

use backstay_testkit::TestPostgres;
use support::table::{Row, World, Wrong, check_coverage};
use support::{Bench, Bucket, Scene, key_text};

const PROGRAM: [&str; 1] = ["restore-database"];
/// What the program has to be tried with.
const NEEDED: [(Wrong, &[&str]); 20] = [
    (Wrong::UnreachableServer, &PROGRAM),
    (Wrong::Password, &PROGRAM),
    (Wrong::MissingDatabase, &PROGRAM),
    (Wrong::MissingClient, &PROGRAM),
    (Wrong::OldClient, &PROGRAM),
    (Wrong::Unwritable, &PROGRAM),
    (Wrong::NoRepository, &PROGRAM),
    (Wrong::NewerRepository, &PROGRAM),
    (Wrong::OtherKey, &PROGRAM),
    (Wrong::NoKey, &PROGRAM),
    (Wrong::CutManifest, &PROGRAM),
    (Wrong::OtherStanza, &PROGRAM),
    (Wrong::FullDisk, &PROGRAM),
    (Wrong::TargetExists, &PROGRAM),
    (Wrong::TargetFilled, &PROGRAM),
    (Wrong::TargetInUse, &PROGRAM),
    (Wrong::UnknownKey, &PROGRAM),
    (Wrong::BadUrl, &PROGRAM),
    (Wrong::BadRetention, &PROGRAM),
    (Wrong::Clock, &PROGRAM),
];

#[test]
fn every_kind_is_tried() {
    let tables = [
        servers::rows(),
        servers::rows_of_a_newer_server(),
        repositories::rows(),
        targets::rows(),
        targets::rows_of_a_full_disk(),
    ];
    check_coverage(&tables.iter().flatten().map(Row::tried).collect::<Vec<_>>(), &NEEDED);
}

/// A row of this world.
fn row(kind: Wrong, case: &'static str, run: impl Into<String>) -> Row<Restores> {
    Row::new(kind, case, run)
}

/// A server, and repositories with one set each: `local`, and `sealed`, which is encrypted.
struct Restores {
    scene: Scene,
    bucket: Bucket,
    sets: Vec<String>,
    /// Folder of PostgreSQL's programs, where it is not the server's own.
    bin_dir: Option<String>,
}

impl Restores {
    fn new() -> Self {
        let scene = Scene::new(&[]);
        let [right, wrong] = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
        scene.back_up("sealed", &[&right.to_public().to_string()]);
        scene.bench.write_secret("wrong.key", &key_text(&wrong));
        let sets = ["local", "sealed"].map(|repository| scene.bench.only_set(repository)).to_vec();
        Self { scene, bucket: Bucket::start(), sets, bin_dir: None }
    }

    fn server(&self) -> &TestPostgres {
        &self.scene.server
    }

    fn url_as(&self, login: &str) -> String {
        format!("postgresql://{login}@127.0.0.1:{}/", self.server().port())
    }
}

impl World for Restores {
    fn bench(&self) -> Bench {
        let mut bench = Bench::new();
        bench.copy_from(&self.scene.bench, &["local", "sealed", "wrong.key"]);
        bench.reach(self.server(), "postgres");
        if let Some(folder) = &self.bin_dir {
            bench.set("BACKSTAY_POSTGRES_BIN_DIR", folder);
        }
        bench
    }

    fn outside(&self) -> String {
        let content = "SELECT (SELECT count(*) FROM item), (SELECT sum(n) FROM item), (SELECT text FROM note),
            (SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace)";
        let roles = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles";
        let server = self.server();
        let asked = [content, roles].map(|query| server.psql("shop", query).unwrap());
        [self.scene.databases(), asked.join("\n"), self.bucket.history()].join("\n")
    }

    fn redact(&self, text: String) -> String {
        let text = text.replace(&self.server().port().to_string(), "PORT");
        self.sets.iter().fold(text, |text, set| {
            let end = &set[set.len() - 10..];
            text.replace(set, "SET").replace(end, "END")
        })
    }
}

/// A restore into another database.
fn into_copy(more: &str) -> String {
    let space = if more.is_empty() { "" } else { " " };
    format!("restore-database --repository ./local --target-database copy{space}{more}")
}
