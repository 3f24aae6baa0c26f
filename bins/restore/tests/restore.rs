//! `restore-database` on a real server: the program's words, exit codes, and what it must not touch.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_postgres_ops::{DumpOptions, Server, ToolSearch, backup_database};
use backstay_testkit::{PostgresOptions, TestPostgres};
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = env!("CARGO_BIN_EXE_restore-database");
const LOCAL: [&str; 2] = ["--repository", "./local"];

struct Scene {
    server: TestPostgres,
    folder: tempfile::TempDir,
}

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }
}

impl Scene {
    /// A server with a database and one set of it.
    fn new(recipients: &[&str]) -> Self {
        let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
        server.psql("postgres", "CREATE DATABASE shop").unwrap();
        let fill = "CREATE TABLE item AS SELECT n, n::text AS text FROM generate_series(1, 500) n; \
                    CREATE TABLE note (text text); INSERT INTO note VALUES ('kept')";
        server.psql("shop", fill).unwrap();
        let scene = Self { server, folder: tempfile::tempdir().unwrap() };
        std::fs::write(scene.path("backstay.toml"), "").unwrap();
        let recipients = Recipients::parse(recipients.iter().copied()).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(scene.back_up(recipients));
        scene
    }

    async fn back_up(&self, recipients: Recipients) {
        let store = Arc::new(LocalStore::create(self.path("local")).unwrap());
        let repository = Repository::create("local", store, &SystemClock).await.unwrap();
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
        let server = Server::parse(&self.server.url("shop"), &BTreeMap::new()).unwrap();
        let options = DumpOptions::new(Stanza::parse("main").unwrap())
            .recipients(recipients)
            .tools(ToolSearch::only(self.server.install().bin()));
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        Box::pin(backup_database(&server, &repositories, &options, &progress, &cancel)).await.unwrap();
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Ended {
        let output = Command::new(PROGRAM)
            .args(LOCAL)
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("BACKSTAY_CONFIG", "backstay.toml")
            .env("BACKSTAY_POSTGRES_URL", self.server.url("postgres"))
            .env("BACKSTAY_POSTGRES_BIN_DIR", self.server.install().bin())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap_or(-1);
        Ended { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn databases(&self) -> String {
        let query =
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate";
        self.server.psql("postgres", query).unwrap().trim().to_owned()
    }

    fn count(&self, database: &str) -> String {
        self.server.psql(database, "SELECT count(*) FROM item").unwrap().trim().to_owned()
    }

    /// The object with the rows.
    fn data(&self) -> PathBuf {
        fn largest(folder: &Path) -> Option<PathBuf> {
            let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
            let files = entries.filter_map(|path| if path.is_dir() { largest(&path) } else { Some(path) });
            files
                .filter(|path| !path.ends_with("manifest.json"))
                .max_by_key(|path| path.metadata().unwrap().len())
        }
        largest(&self.path("local/main/sets")).unwrap()
    }
}

#[test]
fn help_fits_a_screen_and_shows_a_cron_line() {
    let output = Command::new(PROGRAM).arg("--help").env_clear().output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.lines().count() <= 50 && help.contains("0 4 * * 0  restore-database "), "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
}

#[test]
fn a_lost_database_comes_back_proven() {
    let scene = Scene::new(&[]);
    scene.server.psql("postgres", "DROP DATABASE shop").unwrap();
    let plan = scene.run(&["--dry-run"]).expect(0);
    assert!(plan.stdout.contains("into database shop"), "{}", plan.stdout);
    assert_eq!(scene.databases(), "postgres");
    let receipt = scene.run(&["--json"]).expect(0);
    let receipt: serde_json::Value = serde_json::from_str(&receipt.stdout).unwrap();
    assert_eq!(receipt["database"], "shop");
    assert_eq!(receipt["comparison"]["differences"], serde_json::json!([]));
    assert_eq!((scene.databases().as_str(), scene.count("shop").as_str()), ("postgres shop", "500"));
}

#[test]
fn a_filled_target_is_refused_and_replaced_only_on_request() {
    let scene = Scene::new(&[]);
    scene.server.psql("shop", "DELETE FROM item").unwrap();
    let refused = scene.run::<&str>(&[]).expect(4);
    assert!(
        refused.stderr.starts_with("error: database shop exists and is not empty\nhint: "),
        "{}",
        refused.stderr
    );
    assert_eq!(scene.count("shop"), "0");
    let replaced = scene.run(&["--replace"]).expect(0);
    assert!(replaced.stdout.contains("the old database is kept as shop_before_"), "{}", replaced.stdout);
    assert_eq!(scene.count("shop"), "500");
}

#[test]
fn a_damaged_set_is_refused_before_the_target_is_touched() {
    let scene = Scene::new(&[]);
    let data = scene.data();
    let mut content = std::fs::read(&data).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::remove_file(&data).unwrap();
    std::fs::write(&data, content).unwrap();
    let refused = scene.run(&["--target-database", "copy"]).expect(3);
    assert!(refused.stderr.contains(" is damaged: "), "{}", refused.stderr);
    assert_eq!(scene.databases(), "postgres shop");
}

#[test]
fn an_encrypted_set_asks_for_its_key_and_opens_with_it() {
    let key = age::x25519::Identity::generate();
    let other = age::x25519::Identity::generate();
    let public = key.to_public().to_string();
    let scene = Scene::new(&[&public]);
    let write = |name: &str, key: &age::x25519::Identity| {
        use age::secrecy::ExposeSecret;
        std::fs::write(scene.path(name), key.to_string().expose_secret()).unwrap();
    };
    write("right.key", &key);
    write("wrong.key", &other);
    let without = scene.run(&["--target-database", "copy"]).expect(2);
    assert!(without.stderr.contains("hint: give the private key"), "{}", without.stderr);
    let wrong = scene.run(&["--target-database", "copy", "--identity-file", "wrong.key"]).expect(2);
    assert!(!wrong.stderr.contains("AGE-SECRET-KEY"), "{}", wrong.stderr);
    assert_eq!(scene.databases(), "postgres shop");
    scene.run(&["--target-database", "copy", "--identity-file", "right.key"]).expect(0);
    assert_eq!(scene.count("copy"), "500");
}

#[test]
fn sets_that_are_not_there_are_an_answer() {
    let scene = Scene::new(&[]);
    let cases: [&[&str]; 4] = [
        &["--set", "2020"],
        &["--at", "2020-01-01T00:00:00Z"],
        &["--database", "other"],
        &["--stanza", "other"],
    ];
    for args in cases {
        let ended = scene.run(args).expect(1);
        assert!(ended.stderr.starts_with("error: no "), "{}", ended.stderr);
        assert!(ended.stderr.contains("hint: `list-backups` shows the sets there are"), "{}", ended.stderr);
    }
    assert_eq!(scene.databases(), "postgres shop");
}
