//! The sample databases load on every PostgreSQL version of this machine.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

use std::process::Command;

use backstay_testkit::{
    PostgresInstall, PostgresOptions, SampleSize, TestPostgres, load_everything, load_sample,
};

fn servers() -> impl Iterator<Item = TestPostgres> {
    let installs = PostgresInstall::all();
    assert!(!installs.is_empty(), "run scripts/setup.sh");
    installs.into_iter().map(|install| {
        println!("PostgreSQL {}", install.major());
        TestPostgres::start_blocking(&PostgresOptions::default().install(&install)).unwrap()
    })
}

#[test]
fn the_shop_has_the_asked_size_and_the_same_content_every_time() {
    let size = SampleSize::default().accounts(40).orders(300).documents(20).large_objects(3);
    let digest = "SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM shop.orders o";
    let mut digests = vec![];
    for server in servers() {
        load_sample(&server, "shop", size).unwrap();
        let counts = "SELECT count(*) FROM shop.accounts; SELECT count(*) FROM shop.orders;
            SELECT count(*) FROM shop.documents; SELECT count(*) FROM pg_largeobject_metadata;
            SELECT count(*) FROM pg_partition_tree('shop.orders') t WHERE isleaf
                AND (xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM ' || t.relid, false, true, '')))[1]::text::int > 0";
        assert_eq!(server.psql("shop", counts).unwrap(), "40\n300\n20\n3\n5");
        let intact = "SELECT count(*) FROM shop.attachments WHERE md5(lo_get(content)) = digest";
        assert_eq!(server.psql("shop", intact).unwrap(), "3");
        digests.push(server.psql("shop", digest).unwrap());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "versions differ: {digests:?}");
}

#[test]
fn everything_loads_twice_and_survives_the_stock_tools() {
    for server in servers() {
        load_everything(&server, "everything").unwrap();
        load_everything(&server, "again").unwrap();
        server.create_database("loaded").unwrap();
        let file = server.scratch().path().join("everything.dump");
        let mut dump = server.client("pg_dump").unwrap();
        succeed(dump.args(["--format=custom", "--compress=0", "--file"]).arg(&file).arg("everything"));
        let mut restore = server.client("pg_restore").unwrap();
        succeed(restore.args(["--exit-on-error", "--dbname=loaded"]).arg(&file));
        let (original, loaded) = (as_text(&server, "everything"), as_text(&server, "loaded"));
        assert!(original.len() > 1_000_000, "the dump holds the wide values");
        let difference = original.lines().zip(loaded.lines()).find(|(original, loaded)| original != loaded);
        assert_eq!(difference, None);
        assert_eq!(original.len(), loaded.len());
        let moved = "SELECT count(*) FROM main.by_hash_of_enum";
        assert_eq!(server.psql("loaded", moved).unwrap(), "30");
    }
}

/// The whole database as SQL, but for the rows that a load moves between partitions.
fn as_text(server: &TestPostgres, database: &str) -> String {
    let mut dump = server.client("pg_dump").unwrap();
    // pg_dump leaves these settings, which the original database changes, as it finds them.
    dump.env("PGOPTIONS", "-c bytea_output=hex -c TimeZone=UTC")
        .arg("--exclude-table-data=main.by_hash_of_enum*")
        .arg(database);
    // A random word that protects psql from the dump's content.
    succeed(&mut dump)
        .lines()
        .filter(|line| !line.contains("restrict "))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
