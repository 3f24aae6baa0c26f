//! Partitions of partitions, restored by several sessions.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use backstay_postgres_ops::RestoreOptions;
use scene::Scene;

/// Tables with partitions of partitions; one is enough for the fault, many meet it surely.
const TABLES: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_partitions_of_partitions_are_valid_after_a_parallel_restore() {
    let scene = Scene::start().await;
    scene.postgres.create_database("layered").unwrap();
    let sql: String = (0..TABLES).map(layered_table).collect();
    scene.postgres.psql("layered", &sql).unwrap();
    let report = scene.backup("layered", &scene.options()).await.unwrap();
    for jobs in [2, 4, 8] {
        let restore = RestoreOptions::default().target("again").jobs(jobs);
        let receipt = scene.restore(&report, &restore).await.unwrap();
        assert!(receipt.comparison.is_equal(), "{:?}", receipt.comparison);
        let invalid = "select count(*) from pg_index where not indisvalid";
        assert_eq!(scene.postgres.psql("again", invalid).unwrap().trim(), "0");
        scene.postgres.psql("postgres", "drop database again").unwrap();
    }
}

/// A table with three partitions, each with two, and a table that refers to it.
fn layered_table(n: usize) -> String {
    let partition = |a: usize| {
        format!(
            "create table t{n}_{a} partition of t{n} for values in ({a}) partition by list (b);
             create table t{n}_{a}_1 partition of t{n}_{a} for values in (1);
             create table t{n}_{a}_2 partition of t{n}_{a} for values in (2);"
        )
    };
    let partitions: String = (1..=3).map(partition).collect();
    format!(
        "create table t{n} (a int, b int, primary key (a, b)) partition by list (a);
         {partitions}
         create table of_t{n} (a int, b int, foreign key (a, b) references t{n});
         insert into t{n} select a, b from generate_series(1, 3) a, generate_series(1, 2) b;
         insert into of_t{n} values (1, 2);"
    )
}
