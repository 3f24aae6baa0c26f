//! What `--table` and its companions mean, for every kind of relation that can be named.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use backstay_postgres_ops::{Error, RestoreOptions, Selection, plan_backup};
use scene::Scene;

const SCHEMA: &str = "
    create table plain (n int primary key);
    create table events (at date, n int) partition by range (at);
    create table events_25 partition of events for values from ('2025-01-01') to ('2026-01-01');
    create table events_26 partition of events for values from ('2026-01-01') to ('2027-01-01')
        partition by list (n);
    create table events_26_1 partition of events_26 for values in (1);
    create view seen as select 1 as n;
    create materialized view counted as select 2 as n;
    create sequence counter start 7;
    create extension postgres_fdw;
    create server far foreign data wrapper postgres_fdw;
    create foreign table remote (n int) server far;
    insert into plain values (1), (2);
    insert into events values ('2025-05-05', 1), ('2026-05-05', 1), ('2026-06-06', 1)";

async fn scene() -> Scene {
    let scene = Scene::start().await;
    scene.postgres.create_database("shop").unwrap();
    scene.postgres.psql("shop", SCHEMA).unwrap();
    scene
}

/// Names of the relations that come back from a backup of a selection.
async fn restored(scene: &Scene, selection: Selection) -> String {
    let mut options = scene.options();
    options.selection = selection;
    options.globals = false;
    let report = scene.backup("shop", &options).await.unwrap();
    assert_eq!(report.warnings, Vec::<String>::new());
    scene.restore(&report, &RestoreOptions::default().target("again")).await.unwrap();
    let list = "select string_agg(relname, ' ' order by relname) from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f', 'S')";
    let names = scene.postgres.psql("again", list).unwrap();
    scene.postgres.psql("postgres", "drop database again").unwrap();
    names
}

fn tables(names: &[&str]) -> Selection {
    let mut selection = Selection::default();
    selection.include_tables = names.iter().map(|name| (*name).to_owned()).collect();
    selection
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_pg_dump_takes_as_a_table_can_be_named() {
    let scene = scene().await;
    for name in ["plain", "seen", "counted", "counter"] {
        assert_eq!(restored(&scene, tables(&[&format!("public.{name}")])).await, name);
    }
    let mut options = scene.options();
    options.selection = tables(&["remote", "counter"]);
    let report = scene.backup("shop", &options).await.unwrap();
    assert!(report.facts.definitions.iter().any(|definition| definition.0.contains("FOREIGN TABLE")));
    assert_eq!(report.facts.sequences[0].name, "counter");
    options.selection = tables(&["public.sean"]);
    let missing = scene.backup("shop", &options).await.unwrap_err();
    assert!(matches!(missing, Error::NothingFits { .. }), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_comes_and_goes_with_its_partitions() {
    let scene = scene().await;
    let tree = "events events_25 events_26 events_26_1";
    assert_eq!(restored(&scene, tables(&["public.events"])).await, tree);
    assert_eq!(restored(&scene, tables(&["events_26"])).await, "events events_26 events_26_1");
    let mut without = Selection::default();
    without.include_schemas = vec!["public".to_owned()];
    without.exclude_tables = vec!["events".to_owned(), "remote".to_owned()];
    assert_eq!(restored(&scene, without).await, "counted counter plain seen");
    let mut no_rows = scene.options();
    no_rows.selection.exclude_data = vec!["public.events".to_owned()];
    let report = scene.backup("shop", &no_rows).await.unwrap();
    let rows: u64 = report.facts.tables.iter().map(|table| table.rows).sum();
    assert_eq!(rows, 2, "those of plain: {:?}", report.facts.tables);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusion_that_excludes_nothing_is_told() {
    let scene = scene().await;
    let mut options = scene.options();
    options.selection.exclude_tables = vec!["public.plane".to_owned(), "seen".to_owned()];
    options.selection.exclude_schemas = vec!["Audit".to_owned()];
    let plan = plan_backup(&scene.server("shop"), &options).await.unwrap();
    let told: Vec<_> = plan.warnings.iter().map(|text| text.split(", so").next().unwrap()).collect();
    assert_eq!(
        told,
        ["--exclude-schema Audit: no schema fits", "--exclude-table public.plane: no table fits"]
    );
    let report = scene.backup("shop", &options).await.unwrap();
    assert_eq!(report.warnings, plan.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_to_a_table_that_was_left_out_is_told_and_stops_no_restore() {
    let scene = scene().await;
    let keys = "create table item (id int primary key, n int references plain, up int references item);
        create table part (id int references item)";
    scene.postgres.psql("shop", keys).unwrap();
    let mut options = scene.options();
    options.selection = tables(&["item", "part"]);
    let report = scene.backup("shop", &options).await.unwrap();
    let receipt = scene.restore(&report, &RestoreOptions::default().target("again")).await.unwrap();
    assert_eq!(
        receipt.warnings,
        ["foreign key item item_n_fkey was left out: the table that it refers to is not in the set"]
    );
    let left = "select string_agg(conname, ' ' order by conname) from pg_constraint where contype = 'f'";
    assert_eq!(scene.postgres.psql("again", left).unwrap(), "item_up_fkey part_id_fkey");
}
