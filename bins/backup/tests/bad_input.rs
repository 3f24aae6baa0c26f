//! Bad input to the backup programs: every case ends in its own words and exit code, and nothing is written or lost.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use age::secrecy::ExposeSecret;
use backstay_testkit::{PostgresOptions, TestPostgres};
use support::table::{Row, World, check};
use support::{Bench, files};

/// Servers, and repositories with one set each: `local`, and `sealed`, which is encrypted.
struct Backups {
    server: TestPostgres,
    prepared: Bench,
    set: String,
    sealed: String,
}

impl Backups {
    fn new() -> Self {
        let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
        server.psql("postgres", "CREATE DATABASE shop").unwrap();
        let rows = "CREATE TABLE item AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) n";
        server.psql("shop", rows).unwrap();
        let mut world = Self { server, prepared: Bench::new(), set: String::new(), sealed: String::new() };
        reach(&world.server, &mut world.prepared);
        let [right, wrong] = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
        let spare = age::x25519::Identity::generate().to_public();
        let recipients = format!("--option=encryption.recipients={},{spare}", right.to_public());
        world.prepared.run("backup-database", &["--repository", "./local"]).expect(0);
        world.prepared.run("backup-database", &["--repository", "./sealed", &recipients]).expect(0);
        world.prepared.write_secret("right.key", right.to_string().expose_secret());
        world.prepared.write_secret("wrong.key", wrong.to_string().expose_secret());
        world.set = set_of(&world.prepared, "local");
        world.sealed = set_of(&world.prepared, "sealed");
        world
    }
}

fn reach(server: &TestPostgres, bench: &mut Bench) {
    bench.set("BACKSTAY_POSTGRES_URL", server.url("shop"));
    bench.set("BACKSTAY_POSTGRES_BIN_DIR", server.install().bin().display().to_string());
}

fn set_of(bench: &Bench, repository: &str) -> String {
    let manifest = bench.manifest(repository);
    manifest.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

impl World for Backups {
    fn bench(&self) -> Bench {
        let mut bench = Bench::new();
        bench.copy_from(&self.prepared, &["local", "sealed", "right.key", "wrong.key"]);
        reach(&self.server, &mut bench);
        bench
    }

    fn databases(&self) -> String {
        let list = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
        let content = "SELECT count(*), sum(n), max(text) FROM item";
        self.server.psql("postgres", list).unwrap() + &self.server.psql("shop", content).unwrap()
    }

    fn redact(&self, text: String) -> String {
        let text = text.replace(&self.server.port().to_string(), "PORT");
        text.replace(&self.set, "SET").replace(&self.sealed, "SET")
    }
}

fn nothing(_: &mut Bench, _: &Backups) {}

fn url(bench: &mut Bench, text: String) {
    bench.set("BACKSTAY_POSTGRES_URL", text);
}

#[test]
fn servers_and_tools() {
    let world = Backups::new();
    let rows = [
        Row {
            wrong: "the server cannot be reached",
            arrange: nothing,
            run: "backup-database --repository ./new --database-url postgresql://postgres@127.0.0.1:1/shop",
            exit: 5,
            says: "error: cannot connect to 127.0.0.1:1/shop: …Connection refused…\n\
                   hint: check host and port, and whether the server accepts connections from here",
        },
        Row {
            wrong: "the password is wrong",
            arrange: |bench, world| {
                url(bench, format!("postgresql://postgres:guess@127.0.0.1:{}/shop", world.server.port()));
            },
            run: "backup-database --repository ./new",
            exit: 2,
            says: "…error: 127.0.0.1:PORT/shop refused role postgres: …password authentication failed…\n\
                   hint: check the role and its password; ~/.pgpass is a safe place for it",
        },
        Row {
            wrong: "there is no such role",
            arrange: |bench, world| {
                url(bench, format!("postgresql://nobody:guess@127.0.0.1:{}/shop", world.server.port()));
            },
            run: "backup-database --repository ./new",
            exit: 2,
            says: "…error: 127.0.0.1:PORT/shop refused role nobody: …\nhint: check the role and its password; …",
        },
        Row {
            wrong: "there is no such database",
            arrange: |bench, world| url(bench, world.server.url("shopp")),
            run: "backup-database --repository ./new",
            exit: 2,
            says: "…error: database shopp does not exist on 127.0.0.1:PORT\n\
                   hint: check the name; `psql --list` shows the databases there are",
        },
        Row {
            wrong: "there is no such table",
            arrange: nothing,
            run: "backup-database --repository ./new --table public.itme",
            exit: 2,
            says: "error: no table of database shop fits \"public.itme\"\nhint: check the name, …",
        },
        Row {
            wrong: "there is no such schema",
            arrange: nothing,
            run: "backup-database --repository ./new --schema sales",
            exit: 2,
            says: "error: no schema of database shop fits \"sales\"\nhint: check the name, …",
        },
        Row {
            wrong: "pg_dump is missing",
            arrange: nothing,
            run: "backup-database --repository ./new --bin-dir .",
            exit: 2,
            says: "…error: pg_dump 15 or newer was not found\n\
                   hint: install the PostgreSQL 15 client, or name the folder of pg_dump with --bin-dir",
        },
    ];
    check(&world, &rows);
}

#[test]
fn a_client_that_is_older_than_the_server() {
    let mut world = Backups::new();
    let options = PostgresOptions::default().version(17).unwrap();
    let old = world.server.install().bin().display().to_string();
    world.server = TestPostgres::start_blocking(&options).unwrap();
    let fill = "CREATE TABLE item AS SELECT n, md5(n::text) AS text FROM generate_series(1, 10) n";
    world.server.psql("postgres", "CREATE DATABASE shop").unwrap();
    world.server.psql("shop", fill).unwrap();
    world.prepared.write("old", &old);
    let rows = [Row {
        wrong: "pg_dump is too old",
        arrange: |bench, world: &Backups| {
            let old = std::fs::read_to_string(world.prepared.path("old")).unwrap();
            bench.set("BACKSTAY_POSTGRES_BIN_DIR", old);
        },
        run: "backup-database --repository ./new",
        exit: 2,
        says: "…error: pg_dump 15 is older than the server, which is 17\n\
               hint: install the PostgreSQL 17 client, or name the folder of pg_dump with --bin-dir",
    }];
    check(&world, &rows);
}

const NOT_ONE: &str = "error: HERE/other is not a Backstay repository\n\
     hint: check the place; the first backup makes an empty or missing directory a repository";

fn other_things(bench: &mut Bench, _: &Backups) {
    std::fs::create_dir(bench.path("other")).unwrap();
    bench.write("other/letter.txt", "somebody's file");
}

const NEWER: &str = "error: the description of repository HERE/local cannot be used: it has format 2, this program reads up to 1\n\
     hint: use the version of Backstay that wrote it, or a newer one";

fn newer(bench: &mut Bench, _: &Backups) {
    let sealed = backstay_backup_core::manifest::seal(&serde_json::json!({
        "format": 2, "id": "0".repeat(32), "created": "2036-01-01T00:00:00Z"
    }));
    std::fs::remove_file(bench.path("local/backstay.json")).unwrap();
    std::fs::write(bench.path("local/backstay.json"), sealed.unwrap()).unwrap();
}

#[test]
fn repositories() {
    let rows = [
        Row {
            wrong: "a file is in the place of the repository",
            arrange: |bench, _| bench.write("taken", "somebody's file"),
            run: "backup-database --repository ./taken",
            exit: 2,
            says: "error: ./taken is not a directory\nhint: name an empty or missing directory; …",
        },
        Row {
            wrong: "the folder of a new repository cannot be written",
            arrange: |bench, _| bench.make_unwritable("closed"),
            run: "backup-database --repository ./closed/new",
            exit: 2,
            says: "…error: …not allowed to …closed/new…\nhint: check the credentials and permissions; …",
        },
        Row {
            wrong: "the repository cannot be written",
            arrange: |bench, _| bench.make_unwritable("local"),
            run: "backup-database --repository ./local",
            exit: 2,
            says: "…error: …repository ./local: …not allowed to store …: Permission denied (os error 13)\n\
                   hint: check the credentials and permissions; `check-storage` tries every operation",
        },
        Row {
            wrong: "the disk is full",
            arrange: |bench, _| {
                bench.make_full("full");
                std::fs::copy(bench.path("local/backstay.json"), bench.path("full/backstay.json")).unwrap();
                bench.write("full/.lock", "");
            },
            run: "backup-database --repository ./full --no-globals",
            exit: 5,
            says: "error: repository ./full: …: no space left to store main/sets/…\n\
                   hint: free some space; `prune-backups --dry-run` shows what retention would remove",
        },
        Row {
            wrong: "backing up into a folder with other things",
            arrange: other_things,
            run: "backup-database --repository ./other",
            exit: 2,
            says: "error: directory ./other has other things in it and is no repository\n\
                   hint: name an empty or missing directory; the first backup makes it a repository",
        },
        Row {
            wrong: "listing what is no repository",
            arrange: other_things,
            run: "list-backups --repository ./other",
            exit: 2,
            says: NOT_ONE,
        },
        Row {
            wrong: "verifying what is no repository",
            arrange: other_things,
            run: "verify-backups --repository ./other",
            exit: 2,
            says: NOT_ONE,
        },
        Row {
            wrong: "pruning what is no repository",
            arrange: other_things,
            run: "prune-backups --repository ./other --keep-last 1",
            exit: 2,
            says: NOT_ONE,
        },
        Row {
            wrong: "backing up into a newer repository",
            arrange: newer,
            run: "backup-database --repository ./local",
            exit: 2,
            says: NEWER,
        },
        Row {
            wrong: "listing a newer repository",
            arrange: newer,
            run: "list-backups --repository ./local",
            exit: 2,
            says: NEWER,
        },
        Row {
            wrong: "verifying a newer repository",
            arrange: newer,
            run: "verify-backups --repository ./local",
            exit: 2,
            says: NEWER,
        },
        Row {
            wrong: "pruning a newer repository",
            arrange: newer,
            run: "prune-backups --repository ./local --keep-last 1",
            exit: 2,
            says: NEWER,
        },
    ];
    check(&Backups::new(), &rows);
}

fn truncated(bench: &mut Bench, _: &Backups) {
    let manifest = bench.manifest("local");
    let content = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, &content[..content.len() / 2]).unwrap();
}

/// A copy of the set below a stanza it does not belong to.
fn of_another_stanza(bench: &mut Bench, _: &Backups) {
    std::fs::create_dir(bench.path("local/other")).unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-a".as_ref(), bench.path("local/main/sets").as_os_str()])
        .arg(bench.path("local/other"))
        .status();
    assert!(copied.unwrap().success());
    assert_eq!(files(&bench.path("local/other")).len(), files(&bench.path("local/main/sets")).len());
}

#[test]
fn sets_and_keys() {
    let rows = [
        Row {
            wrong: "a description of a repository that was cut short",
            arrange: |bench, _| {
                std::fs::remove_file(bench.path("local/backstay.json")).unwrap();
                bench.write("local/backstay.json", "{\"format\": 1");
            },
            run: "backup-database --repository ./local",
            exit: 3,
            says: "error: the description of repository HERE/local cannot be used: …\nhint: …",
        },
        Row {
            wrong: "listing a manifest that was cut short",
            arrange: truncated,
            run: "list-backups --repository ./local",
            exit: 1,
            says: "…SET … BAD …\n! SET: ./local: the manifest of set SET in repository ./local cannot be used: …",
        },
        Row {
            wrong: "verifying a manifest that was cut short",
            arrange: truncated,
            run: "verify-backups --repository ./local",
            exit: 3,
            says: "…SET …FAILED…the manifest of set SET in repository ./local cannot be used: …",
        },
        Row {
            wrong: "pruning beside a manifest that was cut short",
            arrange: truncated,
            run: "prune-backups --repository ./local --keep-last 1",
            exit: 0,
            says: "./local: 0 sets removed, 0 objects, 0 B",
        },
        Row {
            wrong: "listing the set of another stanza",
            arrange: of_another_stanza,
            run: "list-backups --repository ./local --stanza other",
            exit: 1,
            says: "…SET … BAD …\n! SET: ./local: the manifest at set SET of stanza other belongs to set SET of stanza main…",
        },
        Row {
            wrong: "verifying the set of another stanza",
            arrange: of_another_stanza,
            run: "verify-backups --repository ./local --stanza other",
            exit: 3,
            says: "…SET …FAILED…belongs to set SET of stanza main…",
        },
        Row {
            wrong: "reading an encrypted set without its key",
            arrange: nothing,
            run: "verify-backups --repository ./sealed --full --content",
            exit: 2,
            says: "…unchecked…: its content was not decrypted: give the private key of age1…",
        },
        Row {
            wrong: "reading an encrypted set with the wrong key",
            arrange: nothing,
            run: "verify-backups --repository ./sealed --full --content --identity-file wrong.key",
            exit: 2,
            says: "…unchecked…: its content was not decrypted: none of the keys given belongs to age1…",
        },
        Row {
            wrong: "restoring an encrypted set for a test without its key",
            arrange: nothing,
            run: "verify-backups --repository ./sealed --restore-test --scratch .",
            exit: 2,
            says: "…SET… not tested …is encrypted: give the private key of age1…",
        },
        Row {
            wrong: "a file that holds no key",
            arrange: |bench, _| bench.write_secret("no.key", "open sesame\n"),
            run: "verify-backups --repository ./sealed --full --content --identity-file no.key",
            exit: 2,
            says: "error: invalid encryption key: line 1 is no age identity …\nhint: `age-keygen` makes a pair: …",
        },
        Row {
            wrong: "a recipient that is none",
            arrange: nothing,
            run: "backup-database --repository ./new --option encryption.recipients=age1me,age1you",
            exit: 2,
            says: "error: invalid encryption key: \"age1me\" is no age recipient (age1…): …\nhint: `age-keygen` makes a pair: …",
        },
        Row {
            wrong: "holding a set that is not there",
            arrange: nothing,
            run: "prune-backups --repository ./local --hold 2020 --reason audit",
            exit: 1,
            says: "error: no set 2020… in stanza main\nhint: `list-backups` shows the sets there are",
        },
    ];
    check(&Backups::new(), &rows);
}

fn no_retention(bench: &mut Bench, _: &Backups) {
    bench.write("backstay.toml", "[retention]\nkeep-dayly = 7\n");
}

#[test]
fn configuration() {
    let rows = [
        Row {
            wrong: "an unknown key in the file",
            arrange: |bench, _| bench.write("backstay.toml", "stanza = \"main\"\n[compresion]\nlevel = 3\n"),
            run: "backup-database --repository ./new",
            exit: 2,
            says: "error: unknown key `compresion` at line 2 of backstay.toml: did you mean `compression`?",
        },
        Row {
            wrong: "an unknown key in a section",
            arrange: no_retention,
            run: "prune-backups --repository ./local",
            exit: 2,
            says: "error: unknown key `retention.keep-dayly` at line 2 of backstay.toml: did you mean `retention.keep-daily`?",
        },
        Row {
            wrong: "an unknown key in a flag",
            arrange: nothing,
            run: "list-backups --repository ./local --option compression.levle=3",
            exit: 2,
            says: "error: unknown key `compression.levle` in --option: did you mean `compression.level`?",
        },
        Row {
            wrong: "a file that is no TOML",
            arrange: |bench, _| bench.write("backstay.toml", "stanza = main\n"),
            run: "list-backups --repository ./local",
            exit: 2,
            says: "error: configuration file backstay.toml is not valid TOML at line 1: …",
        },
        Row {
            wrong: "a database address of another product",
            arrange: nothing,
            run: "backup-database --repository ./new --database-url mysql://u@h/d",
            exit: 2,
            says: "error: bad value of `postgres.url` in --database-url: write it as postgresql://…",
        },
        Row {
            wrong: "a database address with a port that is none",
            arrange: nothing,
            run: "backup-database --repository ./new --database-url postgresql://u@h:port/d",
            exit: 2,
            says: "error: …--database-url…port…",
        },
        Row {
            wrong: "a database address with an unknown parameter",
            arrange: nothing,
            run: "backup-database --repository ./new --database-url postgresql://u@h/d?sslmod=require",
            exit: 2,
            says: "error: invalid connection setting: parameter \"sslmod\" is not supported\nhint: …",
        },
        Row {
            wrong: "a repository in a store that is not supported",
            arrange: nothing,
            run: "backup-database --repository gs://bucket/shop",
            exit: 2,
            says: "error: …gs:// is not supported…",
        },
        Row {
            wrong: "an S3 address without a bucket",
            arrange: nothing,
            run: "backup-database --repository s3://",
            exit: 2,
            says: "error: bad value of …: …bucket…",
        },
        Row {
            wrong: "an S3 address with an unknown parameter",
            arrange: nothing,
            run: "backup-database --repository s3://bucket/shop?regoin=eu-central-1",
            exit: 2,
            says: "error: …regoin…region…",
        },
        Row {
            wrong: "a retention that keeps nothing",
            arrange: nothing,
            run: "prune-backups --repository ./local --keep-last 0",
            exit: 2,
            says: "error: bad value of `retention.keep-last` in --keep-last: …",
        },
        Row {
            wrong: "a retention that is no number",
            arrange: nothing,
            run: "prune-backups --repository ./local --keep-daily many",
            exit: 2,
            says: "error: bad value of `retention.keep-daily` in --keep-daily: …",
        },
        Row {
            wrong: "a retention without a unit",
            arrange: nothing,
            run: "prune-backups --repository ./local --keep-within 30",
            exit: 2,
            says: "error: bad value of `retention.keep-within` in --keep-within: …",
        },
    ];
    check(&Backups::new(), &rows);
}
