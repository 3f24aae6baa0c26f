//! Servers that cannot be used, programs that are missing or too old, configuration that is refused.

use backstay_testkit::{PostgresOptions, TestPostgres};

use super::support::Scene;
use super::support::table::{Row, Wrong, check};
use super::{Restores, into_copy, row};

pub(super) fn rows() -> Vec<Row<Restores>> {
    servers().into_iter().chain(configuration()).collect()
}

fn servers() -> Vec<Row<Restores>> {
    vec![
        row(
            Wrong::UnreachableServer,
            "the server cannot be reached",
            into_copy("--database-url postgresql://postgres@127.0.0.1:1/"),
        )
        .ends(
            5,
            "error: cannot connect to 127.0.0.1:1/…: …Connection refused…\n\
             hint: check host and port, and whether the server accepts connections from here",
        ),
        row(Wrong::Password, "the password is wrong", into_copy(""))
            .given(|bench, world| bench.url(world.url_as("postgres:guess")))
            .ends(
                2,
                "…error: 127.0.0.1:PORT/postgres refused role postgres: …password authentication failed…\n\
                 hint: check the role and its password; ~/.pgpass is a safe place for it",
            ),
        row(Wrong::MissingDatabase, "no set is of that database", into_copy("--database shopp")).ends(
            1,
            "error: no good postgres-logical set of database shopp in stanza main\n\
             hint: `list-backups` shows the sets there are",
        ),
        row(Wrong::Other, "the role may not create databases", into_copy("--no-owner"))
            .given(|bench, world| {
                let role = "CREATE ROLE guest LOGIN PASSWORD 'guest'";
                world.server().psql("postgres", role).unwrap();
                bench.url(world.url_as("guest:guest"));
            })
            .ends(
                2,
                "…error: cannot create the database …: …permission denied to create database…\n\
                 hint: give the role what it lacks, or use another one",
            ),
        row(Wrong::MissingClient, "pg_restore is missing", into_copy("--bin-dir .")).ends(
            2,
            "error: pg_restore 15 or newer was not found\n\
             hint: install the PostgreSQL 15 client, or name the folder of pg_restore with --bin-dir",
        ),
    ]
}

fn configuration() -> Vec<Row<Restores>> {
    vec![
        row(Wrong::UnknownKey, "an unknown key in the file", into_copy(""))
            .given(|bench, _| bench.write("backstay.toml", "[postgress]\nhost = \"h\"\n"))
            .ends(2, "error: unknown key `postgress` at line 1 of backstay.toml: did you mean `postgres`?"),
        row(Wrong::UnknownKey, "an unknown key in a flag", into_copy("--option encryption.identiti=x")).ends(
            2,
            "error: unknown key `encryption.identiti` in --option: did you mean `encryption.identity`?",
        ),
        row(
            Wrong::BadUrl,
            "a database address of another product",
            into_copy("--database-url mysql://u@h/d"),
        )
        .ends(2, "error: bad value of `postgres.url` in --database-url: write it as postgresql://…"),
        row(
            Wrong::BadUrl,
            "a database address with a port that is none",
            into_copy("--database-url postgresql://h:p/"),
        )
        .ends(2, "error: invalid connection setting: the URL cannot be read: invalid port number\nhint: …"),
        row(
            Wrong::BadUrl,
            "a repository in a store that is not supported",
            "restore-database --repository gs://bucket/shop --target-database copy",
        )
        .ends(
            2,
            "error: bad value of `repository` in --repository: gs:// is not supported: write a directory …",
        ),
        row(Wrong::BadRetention, "a retention that keeps nothing", into_copy(""))
            .given(|bench, _| bench.write("backstay.toml", "[retention]\nkeep-last = 0\n"))
            .ends(
                2,
                "error: bad value of `retention.keep-last` at line 2 of backstay.toml: \
                 0 is out of range: it must be at least 1",
            ),
        row(Wrong::Other, "a time that is none", into_copy("--at yesterday"))
            .ends(2, "error: invalid value 'yesterday' for '--at <TIME>': …try '--help'…"),
        row(
            Wrong::Other,
            "two choices of the set",
            "restore-database --repository ./local --set 2 --at 2026-01-01T00:00:00Z",
        )
        .ends(2, "error: the argument '--set <ID>' cannot be used with '--at <TIME>'…try '--help'…"),
    ]
}

/// The server, or the one the set is of, is newer than the client of the environment.
pub(super) fn rows_of_a_newer_server() -> Vec<Row<Restores>> {
    let client = "hint: install the PostgreSQL 17 client, or name the folder of pg_restore with --bin-dir";
    vec![
        row(Wrong::OldClient, "pg_restore is older than the server", into_copy(""))
            .ends(2, format!("…error: pg_restore 15 is older than the server, which is 17\n{client}")),
        row(
            Wrong::OldClient,
            "pg_restore is older than the pg_dump of the set",
            "restore-database --repository ./newer --target-database copy",
        )
        .given(|bench, world| {
            bench.copy_from(&world.scene.bench, &["newer"]);
            bench.url(std::fs::read_to_string(world.scene.path("old-url")).unwrap());
        })
        .ends(
            2,
            format!(
                "…error: pg_restore 15 is older than the pg_dump that made the set, which is 17\n{client}"
            ),
        ),
    ]
}

#[test]
fn servers_and_tools() {
    check(&Restores::new(), &rows());
}

#[test]
fn programs_that_are_older() {
    let mut world = Restores::new();
    let options = PostgresOptions::default().version(17).unwrap();
    let newer = TestPostgres::start_blocking(&options).unwrap();
    let old = std::mem::replace(&mut world.scene.server, newer);
    world.scene.bench.write("old-url", &old.url("postgres"));
    world.bin_dir = Some(old.install().bin().display().to_string());
    Scene::fill(world.server());
    world.scene.back_up("newer", &[]);
    world.sets.push(world.scene.bench.only_set("newer"));
    check(&world, &rows_of_a_newer_server());
    drop(old);
}
