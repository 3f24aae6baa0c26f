//! Targets that are in the way, in use, or out of room.

use std::process::{Child, Stdio};

use backstay_testkit::TestPostgres;

use super::support::table::{Row, Wrong, check};
use super::support::{Bench, until};
use super::{Restores, into_copy, row};

const REPLACE: &str = "restore-database --repository ./local --replace";

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

/// Makes an empty database `NAME_WHAT_END`, as a restore of the set does.
fn leave(bench: &mut Bench, world: &Restores, name: &str) {
    let end = bench.only_set("local");
    let database = format!("{name}_{}", &end[end.len() - 10..]);
    world.server().psql("postgres", &format!("DROP DATABASE IF EXISTS {database}")).unwrap();
    world.server().psql("postgres", &format!("CREATE DATABASE {database}")).unwrap();
}

pub(super) fn rows() -> Vec<Row<Restores>> {
    let long = "n".repeat(64);
    vec![
        row(Wrong::TargetFilled, "the target is not empty", "restore-database --repository ./local").ends(
            4,
            "error: database shop exists and is not empty\n\
             hint: give another name with --target-database, or --replace, which keeps the old database under another name",
        ),
        row(Wrong::TargetFilled, "the same is said by a dry run", "restore-database --repository ./local --dry-run")
            .ends(4, "error: database shop exists and is not empty\nhint: …"),
        row(Wrong::TargetExists, "the table is there already", "restore-database --repository ./local --table public.note")
            .ends(
                4,
                "error: database shop has table public.note already\n\
                 hint: rename or drop it first, or restore into a database of its own with --target-database",
            ),
        row(
            Wrong::TargetExists,
            "a template of the server",
            "restore-database --repository ./local --target-database template0",
        )
        .ends(2, "error: database template0 on 127.0.0.1:PORT does not accept connections\nhint: name another one…"),
        row(Wrong::Other, "one table would take the place of the database", format!("{REPLACE} --table public.note"))
            .ends(
                2,
                "error: set SET would replace database shop by a part of it\n\
                 hint: without --replace the tables go into the database as it is; \
                 with --target-database into one of their own",
            ),
        row(
            Wrong::Other,
            "a name that PostgreSQL would cut",
            format!("restore-database --repository ./local --target-database {long}"),
        )
        .ends(
            2,
            format!("error: database name {long} has 64 bytes, PostgreSQL takes 63\nhint: give a shorter name; …"),
        ),
        // What these leave behind is in the way of others.
        row(Wrong::TargetExists, "the database that another restore filled is still there", into_copy(""))
            .given(|bench, world| leave(bench, world, "copy_restoring"))
            .ends(
                4,
                "error: database copy_restoring_END exists: another restore of the same set left it there, or is running\n\
                 hint: if none is running, drop it (DROP DATABASE … WITH (FORCE)) and run the same command again",
            ),
        row(Wrong::TargetExists, "the name for the old database is taken", REPLACE)
            .given(|bench, world| leave(bench, world, "shop_before"))
            .ends(
                4,
                "error: database shop_before_END exists: an earlier restore of the same set kept the old database there\n\
                 hint: drop or rename it and run the same command again",
            ),
        row(Wrong::TargetInUse, "somebody uses the database to be replaced", REPLACE)
            .given(|bench, world| bench.keep(Session::open(world.server(), "shop")))
            .ends(
                4,
                "error: database shop is in use by 1 session\n\
                 hint: end them, or let --disconnect end them when the restored database takes its place",
            ),
    ]
}

/// The tablespace `small` is a disk on which there is no room for a second copy of its table.
pub(super) fn rows_of_a_full_disk() -> Vec<Row<Restores>> {
    let spaced = "restore-database --repository ./spaced --target-database copy";
    vec![
        row(Wrong::FullDisk, "the disk of the server is full", spaced)
            .given(|bench, world| bench.copy_from(&world.scene.bench, &["spaced"]))
            .ends(
                5,
                "…error: cannot load rows in database copy_restoring_END: …No space left on device…\n\
                 hint: make room on the server's disk; a restore beside a database needs room for both",
            ),
    ]
}

#[test]
fn targets() {
    check(&Restores::new(), &rows());
}

#[test]
fn a_server_without_room() {
    let mut world = Restores::new();
    let made = world.scene.bench.make_disk("small", "40m");
    assert!(made, "this test needs a small disk, and only root may mount one: run it as root");
    let folder = world.scene.path("small/data");
    std::fs::create_dir(&folder).unwrap();
    if let Some(account) = world.server().account() {
        std::os::unix::fs::chown(&folder, Some(account.uid()), Some(account.gid())).unwrap();
    }
    let server = world.server();
    server.psql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", folder.display())).unwrap();
    let table = "CREATE TABLE big TABLESPACE small AS
        SELECT n, repeat(md5(n::text), 3) AS text FROM generate_series(1, 200000) n";
    server.psql("shop", table).unwrap();
    world.scene.back_up("spaced", &[]);
    world.sets.push(world.scene.bench.only_set("spaced"));
    check(&world, &rows_of_a_full_disk());
}
