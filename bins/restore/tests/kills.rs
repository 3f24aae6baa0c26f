//! `restore-database` killed by `kill -9` while it sends rows.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::process::Stdio;

use support::{Scene, until};

/// A table large enough to be sent by COPY from the program itself, whose rows stop half-way while there is a role
/// `brake`, in a database that is being restored.
const TABLE: &str = "
    CREATE FUNCTION brake(n int) RETURNS bool LANGUAGE plpgsql AS $$
    BEGIN
        WHILE n = 100000 AND current_database() ~ '_restoring_'
                AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'brake') LOOP
            PERFORM pg_catalog.pg_sleep(0.05);
        END LOOP;
        RETURN true;
    END $$;
    CREATE TABLE large (n int CHECK (public.brake(n)), text text);
    INSERT INTO large SELECT n, repeat(md5(n::text), 3) FROM generate_series(1, 200000) n";

const CONTENT: &str =
    "SELECT (SELECT count(*) FROM item), (SELECT count(*) FROM large), (SELECT text FROM note)";

#[test]
fn a_restore_that_was_killed_while_it_sent_rows_costs_nothing() {
    let scene = Scene::new(&[]);
    let asked = |database: &str, query: &str| scene.server.psql(database, query).unwrap();
    asked("shop", TABLE);
    scene.back_up("braked", &[]);
    let end = scene.bench.only_set("braked");
    let (staged, kept) = (
        format!("shop_restoring_{}", &end[end.len() - 10..]),
        format!("shop_before_{}", &end[end.len() - 10..]),
    );
    asked("shop", "DELETE FROM item WHERE n > 100");
    asked("postgres", "CREATE ROLE brake");
    let before = asked("shop", CONTENT);

    let replace = ["--repository", "./braked", "--replace"];
    let mut command = scene.bench.command("restore-database", &replace);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let sending = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query ~ '^COPY '";
    until(|| asked("postgres", sending) == "1");
    child.kill().unwrap();
    child.wait().unwrap();
    // A backend that does not read cannot see the end of its input.
    asked("postgres", "DROP ROLE brake");

    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^(backstay|pg_restore)'";
    until(|| asked("postgres", ours) == "0");
    assert_eq!(asked("shop", CONTENT), before, "the old database is as it was");
    assert_eq!(scene.databases(), format!("postgres shop {staged}"));
    assert_eq!(asked(&staged, "SELECT count(*) FROM large"), "0", "rows come all or none");

    let refused = scene.bench.run("restore-database", &replace).expect(4).stderr;
    let hint =
        "\nhint: if none is running, drop it (DROP DATABASE … WITH (FORCE)) and run the same command again\n";
    assert!(refused.starts_with(&format!("error: database {staged} exists: ")), "{refused}");
    assert!(refused.ends_with(hint), "{refused}");
    asked("postgres", &format!("DROP DATABASE \"{staged}\" WITH (FORCE)"));
    scene.bench.run("restore-database", &replace).expect(0);
    assert_eq!(scene.databases(), format!("postgres shop {kept}"));
    assert_eq!(asked("shop", CONTENT), "500|200000|kept");
    assert_eq!(asked(&kept, CONTENT), before);
}
