//! Servers that cannot be used, and programs that are missing or too old.

use backstay_testkit::{PostgresOptions, TestPostgres};

use super::support::table::{Row, Wrong, check};
use super::{Backups, fill, row};

const NEW: &str = "backup-database --repository ./new";

pub(super) fn rows() -> Vec<Row<Backups>> {
    let no_database = "…error: database shopp does not exist on 127.0.0.1:PORT\n\
                       hint: check the name; `psql --list` shows the databases there are";
    let long = "n".repeat(64);
    vec![
        row(
            Wrong::UnreachableServer,
            "the server cannot be reached",
            format!("{NEW} --database-url postgresql://postgres@127.0.0.1:1/shop"),
        )
        .ends(
            5,
            "error: cannot connect to 127.0.0.1:1/shop: …Connection refused…\n\
             hint: check host and port, and whether the server accepts connections from here",
        ),
        row(Wrong::Password, "the password is wrong", NEW)
            .given(|bench, world| {
                bench.url(format!("postgresql://postgres:guess@127.0.0.1:{}/shop", world.server.port()));
            })
            .ends(
                2,
                "…error: 127.0.0.1:PORT/shop refused role postgres: …password authentication failed…\n\
                 hint: check the role and its password; ~/.pgpass is a safe place for it",
            ),
        row(Wrong::Password, "there is no such role", NEW)
            .given(|bench, world| {
                bench.url(format!("postgresql://nobody:guess@127.0.0.1:{}/shop", world.server.port()));
            })
            .ends(2, "…error: 127.0.0.1:PORT/shop refused role nobody: …\nhint: check the role and its password; …"),
        row(Wrong::MissingDatabase, "there is no such database", NEW)
            .given(|bench, world| bench.url(world.server.url("shopp")))
            .ends(2, no_database),
        row(Wrong::MissingDatabase, "there is no database of that name", format!("{NEW} --database shopp"))
            .ends(2, no_database),
        row(Wrong::MissingDatabase, "no set is of that database", "list-backups --repository ./local --database shopp")
            .ends(1, "no such set in stanza main"),
        row(
            Wrong::MissingDatabase,
            "no set of that database can be verified",
            "verify-backups --repository ./local --database shopp",
        )
        .ends(1, "no such set in stanza main"),
        row(
            Wrong::MissingDatabase,
            "no set of that database can be restored for a test",
            "verify-backups --repository ./local --restore-test --database shopp",
        )
        .ends(
            1,
            "error: no good postgres-logical set of database shopp in stanza main\n\
             hint: `list-backups` shows the sets there are",
        ),
        row(Wrong::Other, "a name that PostgreSQL would cut", format!("{NEW} --database {long}")).ends(
            2,
            format!("…error: database name {long} has 64 bytes, PostgreSQL takes 63\nhint: give a shorter name…"),
        ),
        row(Wrong::Other, "a role that PostgreSQL would cut", format!("{NEW} --username {long}"))
            .given(|bench, _| bench.url("postgresql://127.0.0.1:1/shop"))
            .ends(2, format!("…error: role name {long} has 64 bytes, PostgreSQL takes 63\nhint: give a shorter name…")),
        row(Wrong::Other, "a database that lets nobody in", format!("{NEW} --database template0")).ends(
            2,
            "…error: database template0 on 127.0.0.1:PORT does not accept connections\nhint: name another one…",
        ),
        row(Wrong::Other, "there is no such table", format!("{NEW} --table public.itme"))
            .ends(2, "error: no table of database shop fits \"public.itme\"\nhint: check the name, …"),
        row(Wrong::Other, "there is no such schema", format!("{NEW} --schema sales"))
            .ends(2, "error: no schema of database shop fits \"sales\"\nhint: check the name, …"),
        row(Wrong::Other, "the role may not read", "backup-database --repository ./local")
            .given(|bench, world| {
                let role = "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN PASSWORD 'guest'";
                role.split("; ").for_each(|sql| drop(world.server.psql("postgres", sql).unwrap()));
                bench.url(format!("postgresql://guest:guest@127.0.0.1:{}/shop", world.server.port()));
            })
            .ends(2, "…error: pg_dump ended with …: …permission denied for table item…\nhint: …"),
        row(Wrong::MissingClient, "pg_dump is missing", format!("{NEW} --bin-dir .")).ends(
            2,
            "…error: pg_dump 15 or newer was not found\n\
             hint: install the PostgreSQL 15 client, or name the folder of pg_dump with --bin-dir",
        ),
        row(
            Wrong::MissingClient,
            "the server's programs for a restore test are missing",
            "verify-backups --repository ./local --restore-test --scratch . --bin-dir .",
        )
        .ends(
            2,
            "SET not tested (database shop)\n! initdb 15 or newer was not found\n  \
             → install the PostgreSQL 15 server, or name the folder of initdb with --bin-dir\n…",
        ),
    ]
}

/// The sets of `newer` are of a server for which the client of the environment is too old.
pub(super) fn rows_of_a_newer_server() -> Vec<Row<Backups>> {
    vec![
        row(Wrong::OldClient, "pg_dump is too old", NEW).ends(
            2,
            "…error: pg_dump 15 is older than the server, which is 17\n\
             hint: install the PostgreSQL 17 client, or name the folder of pg_dump with --bin-dir",
        ),
        row(
            Wrong::OldClient,
            "the server's programs for a restore test are too old",
            "verify-backups --repository ./newer --restore-test --scratch .",
        )
        .given(|bench, world| bench.copy_from(&world.prepared, &["newer"]))
        .ends(
            2,
            "SET not tested (database shop)\n! initdb 15 is older than the server of the set, which is 17\n  \
             → install the PostgreSQL 17 server, or name the folder of initdb with --bin-dir\n…",
        ),
    ]
}

#[test]
fn servers_and_tools() {
    check(&Backups::new(), &rows());
}

#[test]
fn programs_that_are_older_than_the_server() {
    let mut world = Backups::new();
    let old = world.server.install().bin().display().to_string();
    let options = PostgresOptions::default().version(17).unwrap();
    world.server = TestPostgres::start_blocking(&options).unwrap();
    fill(&world.server);
    world.prepared.reach(&world.server, "shop");
    world.back_up("newer", &[]);
    world.bin_dir = Some(old);
    check(&world, &rows_of_a_newer_server());
}
