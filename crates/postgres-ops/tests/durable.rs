//! What a restore calls done outlives a server that dies the next moment.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use backstay_postgres_ops::RestoreOptions;
use backstay_testkit::{PostgresOptions, SampleSize, TestPostgres, load_sample};
use scene::Scene;

/// A server that writes its log for nobody but a commit that waits.
async fn lazy_server() -> TestPostgres {
    let options = PostgresOptions::default()
        .setting("wal_writer_delay", "10s")
        .setting("wal_writer_flush_after", "1GB")
        .setting("autovacuum", "off")
        .setting("bgwriter_lru_maxpages", "0");
    TestPostgres::start(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_outlives_the_death_of_the_server() {
    let mut scene = Scene::with(lazy_server().await).await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    let report = scene.backup("shop", &scene.options()).await.unwrap();
    scene.postgres.create_database("in_place").unwrap();
    for database in ["in_place", "swapped_in"] {
        let options = RestoreOptions::default().target(database).jobs(2);
        scene.restore(&report, &options).await.unwrap();
        scene.postgres.kill9();
        scene.postgres.restart().unwrap();
        assert_eq!(content(&scene.postgres, database), content(&scene.postgres, "shop"), "{database}");
    }
    // One table, after which nothing else is done on the server.
    scene.postgres.psql("in_place", "drop table shop.documents cascade").unwrap();
    let table = RestoreOptions::default().target("in_place").tables(["shop.documents"]);
    scene.restore(&report, &table).await.unwrap();
    let restored = content(&scene.postgres, "in_place");
    scene.postgres.kill9();
    scene.postgres.restart().unwrap();
    assert_eq!(content(&scene.postgres, "in_place"), restored);
}

/// Every relation with its kind, and the rows of a few.
fn content(postgres: &TestPostgres, database: &str) -> Vec<String> {
    let relations = "select string_agg(format('%s %s', relkind, relname), ',' order by relname)
        from pg_class where oid >= 16384 and relname !~ '^pg_toast'";
    let rows = "select count(*), sum(hashtext(d::text)) from shop.documents d";
    [relations, rows].map(|sql| postgres.psql(database, sql).unwrap()).to_vec()
}
