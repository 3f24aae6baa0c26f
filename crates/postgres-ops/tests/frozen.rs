//! Rows that are sent by COPY from here arrive frozen: no reader and no vacuum has to write their pages again.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use backstay_postgres_ops::RestoreOptions;
use backstay_testkit::{PostgresOptions, TestPostgres};
use scene::Scene;

/// Bytes of rows from which on a table is sent from here.
const LARGE: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_large_tables_arrive_frozen() {
    // Or it might freeze what was not.
    let options = PostgresOptions::default().setting("autovacuum", "off");
    let scene = Scene::with(TestPostgres::start(options).await.unwrap()).await;
    let postgres = &scene.postgres;
    postgres.create_database("shop").unwrap();
    let row = "n, md5(n::text) as digest";
    let sql = format!(
        "create table large as select {row} from generate_series(1, 20000) n;
         create table small as select {row} from generate_series(1, 1000) n;
         create index on large (digest); create view firsts as select min(n) from large"
    );
    postgres.psql("shop", &sql).unwrap();
    let report = scene.backup("shop", &scene.options()).await.unwrap();
    let bytes = |name: &str| report.facts.tables.iter().find(|table| table.name == name).unwrap().bytes;
    assert!(bytes("small") < LARGE && bytes("large") > LARGE);
    scene.restore(&report, &RestoreOptions::default().target("again").large_table(LARGE)).await.unwrap();

    postgres.psql("again", "create extension pg_visibility").unwrap();
    let ask = |sql: &str| postgres.psql("again", sql).unwrap();
    let pages =
        "select count(*) > 100, bool_and(all_visible), bool_and(all_frozen) from pg_visibility_map('large')";
    assert_eq!(ask(pages), "t|t|t", "the map says so");
    let doubtful = "select count(*) from pg_check_frozen('large')";
    assert_eq!(ask(doubtful), "0", "and every row agrees with the map");
    // What pg_restore loads is not, so the assertions above can fail.
    assert_eq!(ask("select bool_or(all_frozen) from pg_visibility_map('small')"), "f");
}
