//! Backup and restore against real servers: equality, refusals, and what is left after failures.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use backstay_backup_core::Class;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_postgres_ops::{
    ConnectError, DumpOptions, Error, RestoreOptions, SqlCheck, ThrowawayOptions, ToolSearch, plan_backup,
    plan_restore, test_restore,
};
use backstay_testkit::{PostgresOptions, SampleSize, TestPostgres, load_everything, load_sample};
use scene::{Scene, names};

#[tokio::test(flavor = "multi_thread")]
async fn one_of_everything_comes_back_equal() {
    let scene = Scene::start().await;
    load_everything(&scene.postgres, "every").unwrap();
    // With 0, every table is sent by COPY from here instead of by pg_restore.
    for (jobs, large) in [(1, 16 << 20), (2, 16 << 20), (2, 0)] {
        let options = scene.options().jobs(jobs).digests(true);
        let report = scene.backup("every", &options).await.unwrap();
        let restore = RestoreOptions::default().target("again").jobs(jobs).large_table(large);
        let receipt = scene.restore(&report, &restore).await.unwrap();
        assert!(receipt.comparison.is_equal() && receipt.comparison.by_content);
        assert!(receipt.comparison.compared > 50, "{:?}", receipt.comparison);
        assert_eq!(receipt.warnings, Vec::<String>::new());
        let list = "select count(*) from pg_class where oid >= 16384";
        assert_eq!(scene.postgres.psql("every", list).unwrap(), scene.postgres.psql("again", list).unwrap());
        scene.postgres.psql("postgres", "drop database again").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_streams_split_large_tables_and_come_back_equal() {
    let scene = Scene::start().await;
    scene.postgres.create_database("big").unwrap();
    let sql = "create table a(id int primary key, t text); create table \"b b\"(id int, t text); create index on \"b b\"(t);
        create table child(a int references a, x text);
        insert into a select g, repeat(md5(g::text), 8) from generate_series(1, 120000) g;
        insert into \"b b\" select g, repeat(md5(g::text), 10) from generate_series(1, 90000) g;
        insert into child select g, 'x' from generate_series(1, 1000) g; vacuum analyze";
    for statement in sql.split(';') {
        scene.postgres.psql("big", statement).unwrap();
    }
    let report = scene.backup("big", &scene.options().jobs(2)).await.unwrap();
    assert_eq!(report.facts.archives.len(), 2, "two streams");
    let receipt = scene.restore(&report, &RestoreOptions::default().target("big2").jobs(2)).await.unwrap();
    assert_eq!((receipt.comparison.tables, receipt.comparison.rows), (3, 211_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filled_database_is_refused_and_replaced_only_by_a_swap() {
    let scene = Scene::start().await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    let report = scene.backup("shop", &scene.options()).await.unwrap();
    scene.postgres.psql("shop", "drop table shop.documents cascade; create table mark(x int)").unwrap();
    let refused = scene.restore(&report, &RestoreOptions::default()).await.unwrap_err();
    assert_eq!(refused.class(), Class::Conflict);
    assert_eq!(scene.postgres.psql("shop", "select count(*) from mark").unwrap(), "0");

    let receipt = scene.restore(&report, &RestoreOptions::default().replace(true)).await.unwrap();
    let kept = receipt.kept_as.unwrap();
    assert_eq!(scene.postgres.psql(&kept, "select count(*) from mark").unwrap(), "0");
    assert_eq!(scene.postgres.psql("shop", "select count(*) from shop.documents").unwrap(), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_comes_back_into_the_living_database() {
    let scene = Scene::start().await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    let report = scene.backup("shop", &scene.options()).await.unwrap();
    scene.postgres.psql("shop", "drop table shop.documents cascade").unwrap();
    let receipt =
        scene.restore(&report, &RestoreOptions::default().tables(["shop.documents"])).await.unwrap();
    assert_eq!((receipt.comparison.tables, receipt.comparison.rows), (1, 200));
    let missing =
        scene.restore(&report, &RestoreOptions::default().target("x").tables(["nothing.here"])).await;
    assert!(matches!(missing, Err(Error::Unsuitable { .. })));
    assert!(!names(&scene.postgres).contains(&"x".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_set_needs_its_key_before_anything_is_made() {
    let scene = Scene::start().await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    let key = age::x25519::Identity::generate();
    let other = age::x25519::Identity::generate();
    let recipients = [key.to_public().to_string(), other.to_public().to_string()];
    let recipients = Recipients::parse(recipients.iter().map(String::as_str)).unwrap();
    let report = scene.backup("shop", &scene.options().recipients(recipients)).await.unwrap();
    let before = names(&scene.postgres);
    let none = scene.restore(&report, &RestoreOptions::default().target("again")).await.unwrap_err();
    assert_eq!(none.class(), Class::Usage, "{none}");
    let stranger = Identities::parse(&scene::identity_text(&age::x25519::Identity::generate())).unwrap();
    let wrong = scene.restore_with(&report, &stranger, &RestoreOptions::default().target("again")).await;
    assert_eq!(wrong.unwrap_err().class(), Class::Usage);
    assert_eq!(names(&scene.postgres), before);
    let right = Identities::parse(&scene::identity_text(&key)).unwrap();
    scene.restore_with(&report, &right, &RestoreOptions::default().target("again")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_set_is_refused_before_the_target_is_touched() {
    let scene = Scene::start().await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    let report = scene.backup("shop", &scene.options()).await.unwrap();
    scene.flip_a_bit(&report, 0);
    let before = names(&scene.postgres);
    let error = scene.restore(&report, &RestoreOptions::default().target("again")).await.unwrap_err();
    assert_eq!(error.class(), Class::Data, "{error}");
    assert_eq!(names(&scene.postgres), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_sources_are_refused_in_their_own_words_and_write_nothing() {
    let scene = Scene::start().await;
    let options = scene.options();
    let server = scene.server("nowhere");
    assert!(matches!(
        plan_backup(&server, &options).await,
        Err(Error::Connect(ConnectError::NoDatabase { .. }))
    ));
    let wrong =
        scene.server("postgres").with_password(Some(backstay_backup_core::secret::Secret::new("no".into())));
    assert!(matches!(plan_backup(&wrong, &options).await, Err(Error::Connect(ConnectError::Refused { .. }))));
    let mut gone = scene.server("postgres");
    gone.port = scene.unused_port();
    let unreachable = plan_backup(&gone, &options).await.unwrap_err();
    assert_eq!(unreachable.class(), Class::Temporary);
    let empty = scene.folder("no-tools");
    let without = scene.options().tools(ToolSearch::only(empty));
    assert!(matches!(plan_backup(&scene.server("postgres"), &without).await, Err(Error::NoTool { .. })));
    assert_eq!(scene.object_count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_dies_leaves_no_set_and_tells_its_last_words() {
    let scene = Scene::start().await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    for (script, words) in [
        (
            "cat <(head -c 300000 | tr x y) >/dev/null; \"$REAL\" \"$@\" | head -c 200000; echo disk exploded >&2; exit 3",
            "disk exploded",
        ),
        ("\"$REAL\" \"$@\" | head -c 200000; exit 0", ""),
        ("kill -9 $$", "signal"),
    ] {
        let tools = scene.fake_pg_dump(script);
        let error = scene.backup("shop", &scene.options().tools(tools)).await.unwrap_err();
        assert!(scene::chain(&error).contains(words), "{}", scene::chain(&error));
        assert!(scene.sets().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_test_proves_a_set_and_leaves_nothing_running() {
    let scene = Scene::start().await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    let report = scene.backup("shop", &scene.options().digests(true)).await.unwrap();
    let checks = [("accounts", "select count(*) > 0 from shop.accounts"), ("lies", "select false")]
        .map(|(name, sql)| SqlCheck { name: name.into(), sql: sql.into() });
    let scratch = scene.folder("scratch");
    let options = ThrowawayOptions::new(15, &scratch);
    let (progress, cancel) = scene::idle();
    let tested = test_restore(
        &scene.repositories,
        &report.receipt.manifest,
        &Identities::none(),
        &checks,
        &options,
        &progress,
        &cancel,
    )
    .await
    .unwrap();
    assert!(tested.receipt.comparison.is_equal());
    assert_eq!(tested.checks.iter().map(|check| check.passed).collect::<Vec<_>>(), [true, false]);
    assert!(!tested.passed());
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_touches_nothing() {
    let scene = Scene::start().await;
    load_sample(&scene.postgres, "shop", SampleSize::default()).unwrap();
    let plan = plan_backup(&scene.server("shop"), &scene.options()).await.unwrap();
    assert_eq!((plan.streams.len(), plan.local_disk), (1, 0));
    assert_eq!(scene.object_count().await, 0);
    let report = scene.backup("shop", &scene.options()).await.unwrap();
    let before = names(&scene.postgres);
    let options = RestoreOptions::default().replace(true);
    let plan = plan_restore(&scene.server("postgres"), &report.receipt.manifest, &options).await.unwrap();
    assert_eq!(plan.target.database, "shop");
    assert_eq!(names(&scene.postgres), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_encodings_keep_names_and_contents() {
    let options = PostgresOptions::default().locale("C", "LATIN1");
    let scene = Scene::with(TestPostgres::start(options).await.unwrap()).await;
    scene.postgres.create_database("latin").unwrap();
    let sql = "set client_encoding = utf8; create table \"Größe\"(\"wert für\" text); insert into \"Größe\" values ('äöü'), ('ß')";
    scene.postgres.psql("latin", sql).unwrap();
    let report = scene.backup("latin", &scene.options().digests(true)).await.unwrap();
    assert_eq!(report.facts.tables[0].name, "Größe");
    let receipt = scene.restore(&report, &RestoreOptions::default().target("again")).await.unwrap();
    assert!(receipt.comparison.is_equal());
    let _ = DumpOptions::new("x".parse().unwrap());
}
