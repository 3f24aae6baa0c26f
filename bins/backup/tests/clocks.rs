//! Clocks that are a year off: of a writer, and of a store. Neither may cost a good set, and both are told of.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;

use backstay_backup_core::clock::{Clock, ManualClock, SystemClock};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::{Codec, SetKind, Source};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_testkit::s3::{Credential, Faults, Misbehaviour, S3Options, S3Server};
use backstay_testkit::{PostgresOptions, TestPostgres};
use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::{Value, json};
use support::Bench;

const YEAR: i64 = 365 * 24 * 3600;
const LOCAL: [&str; 2] = ["--repository", "./local"];
const SETTLED: [&str; 2] = ["--option", "retention.min-age=0s"];

/// Stores a set as a host does whose clock, and whose database's clock, is off by so many seconds.
async fn write(bench: &Bench, off: i64) -> String {
    let clock = ManualClock::at(SystemClock.now() + SignedDuration::from_secs(off));
    let store = Arc::new(LocalStore::create(bench.path("local")).unwrap());
    let repository = Repository::open_or_create("local", store, &clock).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, Arc::new(clock.clone())).unwrap();
    let mut source = Source::default();
    source.database = "shop".to_owned();
    let kind = SetKind::new(SetKind::POSTGRES_LOGICAL);
    let spec = SetSpec::new(kind, Stanza::parse("main").unwrap(), "test").source(source);
    let set = SetWriter::begin(&repositories, spec, DataPath::default()).await.unwrap();
    let rows = futures::stream::iter([Ok(Bytes::from_static(b"rows"))]);
    let entry = set.object("main.0001.dump", Codec::None, rows).await.unwrap();
    let receipt = set.commit(SetContents::new(clock.now(), vec![entry])).await.unwrap();
    receipt.manifest.set.to_string()
}

fn prune(bench: &Bench, rules: &[&str]) -> Value {
    let (ended, report) = bench.json("prune-backups", &[&LOCAL, &SETTLED, rules].concat());
    ended.expect(0);
    report["repositories"][0]["removed"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_of_a_writer_with_a_wrong_clock_evict_no_good_ones() {
    let bench = Bench::new();
    let future = write(&bench, YEAR).await;
    let past = write(&bench, -YEAR).await;
    let (first, second) = (write(&bench, 0).await, write(&bench, 0).await);

    let listed = bench.run("list-backups", &LOCAL).expect(0).stdout;
    assert!(
        listed.lines().nth(1).unwrap().starts_with(&second),
        "the newest is the last that arrived\n{listed}"
    );
    let told = |set: &str, words: &str| {
        listed.lines().any(|line| line.starts_with(&format!("! {set}: ")) && line.ends_with(words))
    };
    assert!(told(&future, ": the writer's clock was wrong"), "{listed}");
    assert!(told(&past, ": the writer's clock was behind, or the set was copied"), "{listed}");
    assert_eq!(listed.lines().filter(|line| line.starts_with("! ")).count(), 2, "{listed}");

    // Counted from the claimed times, the good ones would be a year old.
    assert_eq!(prune(&bench, &["--keep-within", "30d"]), json!([]));
    // Ordered by them, the one from the future would be among the newest two.
    let removed = prune(&bench, &["--keep-last", "2"]);
    let mut removed: Vec<&str> =
        removed.as_array().unwrap().iter().map(|set| set.as_str().unwrap()).collect();
    let mut wrong = vec![future.as_str(), past.as_str()];
    removed.sort_unstable();
    wrong.sort_unstable();
    assert_eq!(removed, wrong);
    let left = bench.run("list-backups", &LOCAL).expect(0).stdout;
    assert!(left.contains(&first) && left.contains(&second) && !left.contains("\n! "), "{left}");
}

/// An S3 server, and a folder from which a database can be backed up into it.
async fn store_and_server() -> (S3Server, TestPostgres, Bench, String) {
    let options =
        S3Options::memory().bucket("backups").credential(Credential::admin("admin", "admin-secret"));
    let store = S3Server::start(options).await.unwrap();
    let place = format!("s3://backups/shop?endpoint={}&path-style=true&region=us-east-1", store.endpoint());
    let server = TestPostgres::start(PostgresOptions::default()).await.unwrap();
    let mut bench = Bench::new();
    bench.set("AWS_ACCESS_KEY_ID", "admin");
    bench.set("AWS_SECRET_ACCESS_KEY", "admin-secret");
    bench.reach(&server, "postgres");
    (store, server, bench, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_a_year_ahead_is_told_of_and_never_pruned() {
    let (store, _server, bench, place) = store_and_server().await;
    store.faults().set(Faults::default().clock_skew_seconds(YEAR));
    // A date that fits this host, or the store would refuse its signatures.
    store.faults().misbehave([Misbehaviour::WrongDate(-YEAR)]);
    let args = ["--repository", &place];
    let words = "the writer's clock was behind, or the set was copied";
    let told =
        |text: &str| text.lines().filter(|line| line.starts_with("! ") && line.ends_with(words)).count();
    for _ in 0..2 {
        let said = bench.run("backup-database", &args).expect(0).stdout;
        assert_eq!(told(&said), 1, "{said}");
    }
    let listed = bench.run("list-backups", &args).expect(0).stdout;
    assert_eq!(told(&listed), 2, "{listed}");
    let (ended, pruned) = bench.json("prune-backups", &[&args[..], &SETTLED, &["--keep-last", "1"]].concat());
    ended.expect(2);
    assert_eq!(pruned["repositories"][0]["blocked"]["reason"], "clock", "{pruned}");
    assert_eq!(bench.json("list-backups", &args).1["sets"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_a_host_with_a_wrong_clock_says_so() {
    let (store, _server, bench, place) = store_and_server().await;
    for skew in [YEAR, -YEAR] {
        store.faults().set(Faults::default().clock_skew_seconds(skew));
        for program in ["backup-database", "list-backups", "verify-backups", "prune-backups"] {
            let refused = bench.run(program, &["--repository", &place]).expect(2).stderr;
            assert!(refused.contains("clock") && refused.contains("\nhint: "), "{refused}");
        }
    }
    store.faults().clear();
    let listed = bench.run("list-backups", &["--repository", &place]).expect(2).stderr;
    assert!(listed.contains("is not a Backstay repository"), "nothing was written: {listed}");
}
