//! What a restore gives back besides content, and what stops it before anything is written.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified;
use backstay_postgres_ops::{Error, RestoreOptions};
use backstay_testkit::{SampleSize, load_sample};
use scene::{Scene, names};

const PRIVILEGES: &str =
    "select array(select a::text from unnest(datacl) a order by 1) from pg_database where datname = ";

#[tokio::test(flavor = "multi_thread")]
async fn privileges_on_the_database_come_back_and_are_compared() {
    let scene = Scene::start().await;
    let postgres = &scene.postgres;
    let prepare = "create role shop_owner; create role \"odd \"\"role=/\"; create role reader;
        create database shop owner shop_owner;
        revoke all on database shop from public; grant connect on database shop to reader;
        grant create, temporary on database shop to \"odd \"\"role=/\" with grant option;
        alter database shop set work_mem = '5MB'; alter database shop connection limit 7;
        comment on database shop is 'the shop'";
    prepare.split(';').for_each(|statement| drop(postgres.psql("postgres", statement).unwrap()));
    let passed_on = "set role \"odd \"\"role=/\"; grant temporary on database shop to reader";
    postgres.psql("postgres", passed_on).unwrap();
    postgres.psql("shop", "create table item (n int); insert into item values (1)").unwrap();
    let mut report = scene.backup("shop", &scene.options()).await.unwrap();

    let receipt = scene.restore(&report, &RestoreOptions::default().target("again")).await.unwrap();
    assert_eq!(receipt.warnings, Vec::<String>::new());
    let of = |database: &str| postgres.psql("postgres", &format!("{PRIVILEGES}'{database}'")).unwrap();
    assert_eq!(of("again"), of("shop"));
    assert_eq!(of("shop").matches("odd").count(), 2, "{}", of("shop"));

    let mut options = RestoreOptions::default().target("without");
    options.no_privileges = true;
    scene.restore(&report, &options).await.unwrap();
    assert_eq!(of("without"), "{}");

    // A grant that the server refuses is told, and costs nothing else.
    let facts = &mut report.receipt.manifest.facts["database"];
    let recorded = facts["privileges"].clone();
    facts["privileges"].as_array_mut().unwrap().push("ghost=c/shop_owner".into());
    let receipt = scene.restore(&report, &RestoreOptions::default().target("warned")).await.unwrap();
    assert!(
        receipt.warnings.iter().any(|warning| warning.contains("\"ghost\" does not exist")),
        "{:?}",
        receipt.warnings
    );

    // Properties of the database are compared like everything else.
    let facts = &mut report.receipt.manifest.facts["database"];
    facts["privileges"] = recorded;
    facts["extensions"]["ghost"] = "1.0".into();
    let differs = scene.restore(&report, &RestoreOptions::default().target("differs")).await.unwrap_err();
    assert!(
        matches!(differs, Error::NotEqual { .. }) && differs.to_string().contains("extensions"),
        "{differs}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_tablespace_is_named_before_anything_is_made() {
    let scene = Scene::start().await;
    let postgres = &scene.postgres;
    let folder = postgres.scratch().subdirectory("fast", postgres.account()).unwrap();
    postgres.psql("postgres", &format!("create tablespace fast location '{}'", folder.display())).unwrap();
    postgres.psql("postgres", "create database shop").unwrap();
    let fill = "create table item (n int) tablespace fast; create index on item (n) tablespace fast;
        insert into item select generate_series(1, 100)";
    postgres.psql("shop", fill).unwrap();
    let report = scene.backup("shop", &scene.options()).await.unwrap();
    let same = scene.restore(&report, &RestoreOptions::default().target("same")).await.unwrap();
    assert!(same.comparison.is_equal());
    for statement in ["drop database same", "drop database shop", "drop tablespace fast"] {
        postgres.psql("postgres", statement).unwrap();
    }
    let before = names(postgres);
    let refused = scene.restore(&report, &RestoreOptions::default()).await.unwrap_err();
    assert_eq!(refused.class(), Class::Usage);
    assert!(refused.to_string().contains("needs tablespace fast, which 127.0.0.1:"), "{refused}");
    assert!(refused.hint().unwrap().contains("--no-tablespaces"));
    assert_eq!(names(postgres), before);
    let mut options = RestoreOptions::default();
    options.no_tablespaces = true;
    let receipt = scene.restore(&report, &options).await.unwrap();
    assert!(receipt.comparison.is_equal() && receipt.warnings.is_empty(), "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_neither_overwrites_nor_takes_the_place_of_the_whole() {
    let scene = Scene::start().await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    let report = scene.backup("shop", &scene.options()).await.unwrap();
    let count = || scene.postgres.psql("shop", "select count(*) from shop.documents").unwrap();
    let table = RestoreOptions::default().tables(["shop.documents"]);
    let there = scene.restore(&report, &table).await.unwrap_err();
    assert_eq!(there.class(), Class::Conflict, "{there}");
    assert!(there.to_string().contains("has table shop.documents"), "{there}");
    let mut schema = RestoreOptions::default();
    schema.schemas = vec!["shop".to_owned()];
    let there = scene.restore(&report, &schema).await.unwrap_err();
    assert!(
        there.to_string().contains("has schema shop, table shop.")
            && there.to_string().contains(" more already"),
        "{there}"
    );
    let whole = scene.restore(&report, &table.replace(true)).await.unwrap_err();
    assert_eq!(whole.class(), Class::Usage, "{whole}");
    assert_eq!(count(), "200");
}
