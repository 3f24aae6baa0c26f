//! Bad input to `restore-database`: every case ends in its own words and exit code, and nothing is written or lost.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::process::{Child, Stdio};

use backstay_testkit::{PostgresOptions, TestPostgres};
use support::table::{Row, World, check};
use support::{Bench, Scene, data, flip_a_bit, key_text, reach, until};

/// A server, and repositories with one set each: `local`, and `sealed`, which is encrypted.
struct Restores {
    scene: Scene,
    sets: [String; 2],
}

impl Restores {
    fn new() -> Self {
        let scene = Scene::new(&[]);
        let [right, wrong] = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
        scene.back_up("sealed", &[&right.to_public().to_string()]);
        scene.bench.write_secret("wrong.key", &key_text(&wrong));
        let sets = ["local", "sealed"].map(|repository| {
            let manifest = scene.bench.manifest(repository);
            manifest.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
        });
        Self { scene, sets }
    }

    fn server(&self) -> &TestPostgres {
        &self.scene.server
    }
}

impl World for Restores {
    fn bench(&self) -> Bench {
        let mut bench = Bench::new();
        bench.copy_from(&self.scene.bench, &["local", "sealed", "wrong.key"]);
        reach(self.server(), &mut bench);
        bench
    }

    fn databases(&self) -> String {
        let content = "SELECT (SELECT count(*) FROM item), (SELECT sum(n) FROM item), (SELECT text FROM note),
            (SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace)";
        let roles = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles";
        let server = self.server();
        [self.scene.databases(), server.psql("shop", content).unwrap(), server.psql("shop", roles).unwrap()]
            .join("\n")
    }

    fn redact(&self, text: String) -> String {
        let text = text.replace(&self.server().port().to_string(), "PORT");
        self.sets.iter().fold(text, |text, set| text.replace(set, "SET"))
    }
}

fn nothing(_: &mut Bench, _: &Restores) {}

fn url(bench: &mut Bench, text: String) {
    bench.set("BACKSTAY_POSTGRES_URL", text);
}

#[test]
fn servers_and_tools() {
    let rows = [
        Row {
            wrong: "the server cannot be reached",
            arrange: nothing,
            run: "restore-database --repository ./local --database-url postgresql://postgres@127.0.0.1:1/",
            exit: 5,
            says: "error: cannot connect to 127.0.0.1:1/…: …Connection refused…\n\
                   hint: check host and port, and whether the server accepts connections from here",
        },
        Row {
            wrong: "the password is wrong",
            arrange: |bench, world| {
                url(bench, format!("postgresql://postgres:guess@127.0.0.1:{}/", world.server().port()));
            },
            run: "restore-database --repository ./local --target-database copy",
            exit: 2,
            says: "…error: 127.0.0.1:PORT/postgres refused role postgres: …password authentication failed…\n\
                   hint: check the role and its password; ~/.pgpass is a safe place for it",
        },
        Row {
            wrong: "the role may not create databases",
            arrange: |bench, world| {
                let role = "CREATE ROLE guest LOGIN PASSWORD 'guest'";
                world.server().psql("postgres", role).unwrap();
                url(bench, format!("postgresql://guest:guest@127.0.0.1:{}/", world.server().port()));
            },
            run: "restore-database --repository ./local --target-database copy --no-owner",
            exit: 2,
            says: "…error: cannot create the database …: …permission denied to create database…\n\
                   hint: give the role what it lacks, or use another one",
        },
        Row {
            wrong: "pg_restore is missing",
            arrange: nothing,
            run: "restore-database --repository ./local --target-database copy --bin-dir .",
            exit: 2,
            says: "error: pg_restore 15 or newer was not found\n\
                   hint: install the PostgreSQL 15 client, or name the folder of pg_restore with --bin-dir",
        },
    ];
    check(&Restores::new(), &rows);
}

#[test]
fn a_client_that_is_older_than_the_server() {
    let mut world = Restores::new();
    let newer = PostgresOptions::default().version(17).unwrap();
    let old = std::mem::replace(&mut world.scene.server, TestPostgres::start_blocking(&newer).unwrap());
    world.scene.bench.write("old", &old.install().bin().display().to_string());
    drop(old);
    let fill = "CREATE TABLE item (n int); CREATE TABLE note (text text)";
    world.server().psql("postgres", "CREATE DATABASE shop").unwrap();
    world.server().psql("shop", fill).unwrap();
    let rows = [Row {
        wrong: "pg_restore is too old",
        arrange: |bench, world: &Restores| {
            let old = std::fs::read_to_string(world.scene.path("old")).unwrap();
            bench.set("BACKSTAY_POSTGRES_BIN_DIR", old);
        },
        run: "restore-database --repository ./local --target-database copy",
        exit: 2,
        says: "…error: pg_restore 15 is older than the server, which is 17\n\
               hint: install the PostgreSQL 17 client, or name the folder of pg_restore with --bin-dir",
    }];
    check(&world, &rows);
}

fn truncated(bench: &mut Bench, _: &Restores) {
    let manifest = bench.manifest("local");
    let content = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, &content[..content.len() / 2]).unwrap();
}

/// The set below a stanza it does not belong to.
fn of_another_stanza(bench: &mut Bench, _: &Restores) {
    std::fs::rename(bench.path("local/main"), bench.path("local/other")).unwrap();
}

#[test]
fn repositories_and_sets() {
    let rows = [
        Row {
            wrong: "what is no repository",
            arrange: |bench, _| {
                std::fs::create_dir(bench.path("other")).unwrap();
                bench.write("other/letter.txt", "somebody's file");
            },
            run: "restore-database --repository ./other --target-database copy",
            exit: 2,
            says: "error: HERE/other is not a Backstay repository\n\
                   hint: check the place; the first backup makes an empty or missing directory a repository",
        },
        Row {
            wrong: "a newer repository",
            arrange: |bench, _| {
                let sealed = backstay_backup_core::manifest::seal(&serde_json::json!({
                    "format": 2, "id": "0".repeat(32), "created": "2036-01-01T00:00:00Z"
                }));
                std::fs::remove_file(bench.path("local/backstay.json")).unwrap();
                std::fs::write(bench.path("local/backstay.json"), sealed.unwrap()).unwrap();
            },
            run: "restore-database --repository ./local --target-database copy",
            exit: 2,
            says: "error: the description of repository HERE/local cannot be used: it has format 2, this program reads up to 1\n\
                   hint: use the version of Backstay that wrote it, or a newer one",
        },
        Row {
            wrong: "no key for an encrypted set",
            arrange: nothing,
            run: "restore-database --repository ./sealed --target-database copy",
            exit: 2,
            says: "error: set SET is encrypted: give the private key of age1…\n\
                   hint: give the private key of one of its recipients with --identity-file",
        },
        Row {
            wrong: "the wrong key for an encrypted set",
            arrange: nothing,
            run: "restore-database --repository ./sealed --target-database copy --identity-file wrong.key",
            exit: 2,
            says: "error: set SET is encrypted: none of the keys given belongs to age1…\n\
                   hint: give the private key of one of its recipients with --identity-file",
        },
        Row {
            wrong: "only a manifest that was cut short",
            arrange: truncated,
            run: "restore-database --repository ./local --target-database copy",
            exit: 1,
            says: "error: no good postgres-logical set in stanza main\nhint: `list-backups` shows the sets there are",
        },
        Row {
            wrong: "the manifest that was asked for was cut short",
            arrange: truncated,
            run: "restore-database --repository ./local --target-database copy --set 2",
            exit: 3,
            says: "error: set SET cannot be restored: ./local: the manifest of set SET in repository ./local cannot be used: …\n\
                   hint: `verify-backups` shows which copies and sets are whole; restore one of those",
        },
        Row {
            wrong: "only a manifest of another stanza",
            arrange: of_another_stanza,
            run: "restore-database --repository ./local --stanza other --target-database copy",
            exit: 1,
            says: "error: no good postgres-logical set in stanza other\nhint: `list-backups` shows the sets there are",
        },
        Row {
            wrong: "the manifest that was asked for is of another stanza",
            arrange: of_another_stanza,
            run: "restore-database --repository ./local --stanza other --target-database copy --set 2",
            exit: 3,
            says: "error: set SET cannot be restored: ./local: the manifest at set SET of stanza other belongs to set SET of stanza main\n\
                   hint: `verify-backups` shows which copies and sets are whole; restore one of those",
        },
        Row {
            wrong: "an object is damaged",
            arrange: |bench, _| flip_a_bit(&data(bench)),
            run: "restore-database --repository ./local --target-database copy",
            exit: 3,
            says: "…error: set SET is damaged: main.0001.dump.zst: …\n\
                   hint: `verify-backups` shows which copies and sets are whole; restore one of those",
        },
        Row {
            wrong: "a table that is not in the set",
            arrange: nothing,
            run: "restore-database --repository ./local --target-database copy --table public.itme",
            exit: 2,
            says: "error: set SET holds no table or schema of that name\n\
                   hint: without --table and --schema everything is restored",
        },
        Row {
            wrong: "a time that is none",
            arrange: nothing,
            run: "restore-database --repository ./local --target-database copy --at yesterday",
            exit: 2,
            says: "error: invalid value 'yesterday' for '--at <TIME>': …",
        },
    ];
    check(&Restores::new(), &rows);
}

/// A session that stays connected to a database.
struct Session(Child);

impl Session {
    fn open(server: &TestPostgres, database: &str) -> Self {
        let mut psql = server.client("psql").unwrap();
        psql.args(["-X", "-q", "-d", database, "-c", "SELECT pg_sleep(600)"]);
        let session = Self(psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let query = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
        until(|| server.psql("postgres", &query).unwrap() != "0");
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn targets() {
    let rows = [
        Row {
            wrong: "the target is not empty",
            arrange: nothing,
            run: "restore-database --repository ./local",
            exit: 4,
            says: "error: database shop exists and is not empty\n\
                   hint: give another name with --target-database, or --replace, which keeps the old database under another name",
        },
        Row {
            wrong: "the same is said by a dry run",
            arrange: nothing,
            run: "restore-database --repository ./local --dry-run",
            exit: 4,
            says: "error: database shop exists and is not empty\nhint: …",
        },
        Row {
            wrong: "somebody uses the database to be replaced",
            arrange: |bench, world| bench.keep(Session::open(world.server(), "shop")),
            run: "restore-database --repository ./local --replace",
            exit: 4,
            says: "error: database shop is in use by 1 session\n\
                   hint: end them, or let --disconnect end them when the restored database takes its place",
        },
        Row {
            wrong: "one table would take the place of the database",
            arrange: nothing,
            run: "restore-database --repository ./local --replace --table public.note",
            exit: 2,
            says: "error: set SET would replace database shop by a part of it\n\
                   hint: without --replace the tables go into the database as it is; with --target-database into one of their own",
        },
        Row {
            wrong: "the table is there already",
            arrange: nothing,
            run: "restore-database --repository ./local --table public.note",
            exit: 4,
            says: "error: database shop has table public.note already\n\
                   hint: rename or drop it first, or restore into a database of its own with --target-database",
        },
        Row {
            wrong: "two choices of the set",
            arrange: nothing,
            run: "restore-database --repository ./local --set 2 --at 2026-01-01T00:00:00Z",
            exit: 2,
            says: "error: the argument '--set <ID>' cannot be used with '--at <TIME>'…",
        },
    ];
    check(&Restores::new(), &rows);
}
