//! `restore-cluster` from a bucket: whole, onto an old data directory, and when requests fail now and then.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../crates/postgres-ops/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../crates/postgres-ops/tests/restored/mod.rs"]
mod restored;
mod support;

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::{Attributes, ObjectStore, PutMode};
use backstay_storage_s3::{Credentials, S3Options, S3Store};
use backstay_testkit::PostgresOptions;
use backstay_testkit::s3::{Effect, FaultRule, Faults};
use bytes::Bytes;
use cluster::{Cluster, verify};
use futures::TryStreamExt as _;
use restored::{Restored, archive_all, copy_command};
use support::{Bench, Bucket, files};
use tokio::runtime::Runtime;

/// The bucket as the programs see it.
async fn open(bucket: &Bucket) -> S3Store {
    let credentials = Credentials::Static {
        access_key_id: "admin".to_owned(),
        secret_access_key: Secret::new("admin-secret".to_owned()),
        session_token: None,
    };
    let options = S3Options::new("backups").region("us-east-1").endpoint(bucket.server.endpoint());
    S3Store::open(options.prefix(Prefix::parse("shop").unwrap()).credentials(credentials)).await.unwrap()
}

/// Copies a repository, object by object: its keys are the same everywhere.
async fn copy_to(bucket: &Bucket, cluster: &Cluster) {
    let (from, to) = (cluster.repositories.members()[0].store(), open(bucket).await);
    let listed: Vec<_> = from.list(&Prefix::root()).try_collect().await.unwrap();
    for meta in listed {
        let chunks: Vec<Bytes> = from.get(&meta.key, None).await.unwrap().body.try_collect().await.unwrap();
        let content = Bytes::from(chunks.concat());
        to.put(&meta.key, content, PutMode::Create, &Attributes::default()).await.unwrap();
    }
}

/// Changes three pages of a table and removes another.
fn age(place: &Restored<'_>, table: &str, removed: &str) {
    let file = std::fs::File::options().write(true).open(place.target.join(table)).unwrap();
    for page in [3, 300, 900] {
        file.write_all_at(&[0x5a; 8192], page * 8192).unwrap();
    }
    std::fs::remove_file(place.target.join(removed)).unwrap();
}

fn content(place: &Restored<'_>) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = files(&place.target);
    found.sort();
    found.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn a_cluster_comes_back_from_a_bucket_whole_and_onto_what_is_there() {
    let runtime = Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::start(PostgresOptions::default()));
    cluster.psql(
        "CREATE TABLE t AS SELECT g AS n, sha512(g::text::bytea) AS noise FROM generate_series(1, 150000) g",
    );
    cluster.psql("CREATE TABLE small AS SELECT 1 AS n; CHECKPOINT");
    let (table, small) = (
        cluster.psql("SELECT pg_relation_filepath('t')"),
        cluster.psql("SELECT pg_relation_filepath('small')"),
    );
    runtime.block_on(cluster.back_up(&cluster.options())).unwrap();
    cluster.psql("INSERT INTO small VALUES (2); SELECT pg_create_restore_point('here')");
    runtime.block_on(archive_all(&cluster));

    let (bucket, mut bench) = (Bucket::start(), Bench::new());
    runtime.block_on(copy_to(&bucket, &cluster));
    bucket.lend(&mut bench);
    let place = Restored::beside(&cluster.postgres, "from-a-bucket");
    let command = copy_command(&cluster);
    let target = place.target.display().to_string();
    let args =
        ["--data-directory", &target, "--target-name", "here", "--restore-command", &command, "--json"];
    let restore = |more: &[&str]| bench.run("restore-cluster", &[&args, more].concat());
    restore(&[]).expect(0);
    verify(cluster.postgres.install(), &place.target).unwrap();
    let whole = content(&place);

    // What is right stays where it is, and is not fetched.
    age(&place, &table, &small);
    let ended = restore(&["--delta"]).expect(0);
    assert!(content(&place) == whole, "{ended:?}");
    let receipt: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let (written, reused) = (&receipt["written-bytes"], &receipt["reused-bytes"]);
    assert!(written.as_u64().unwrap() < 5 << 20 && reused.as_u64().unwrap() > 30 << 20, "{receipt:#}");

    // Errors that pass are not noticed, and a lasting one leaves nothing that could start.
    age(&place, &table, &small);
    let passing = FaultRule::on("GetObject", Effect::SlowDown).probability(0.3);
    bucket.server.faults().set(Faults::default().seed(5).rule(passing));
    restore(&["--delta"]).expect(0);
    assert!(bucket.server.faults().fired() > 0 && content(&place) == whole);
    age(&place, &table, &small);
    let lasting = FaultRule::on("GetObject", Effect::AccessDenied);
    bucket.server.faults().set(Faults::default().rule(lasting.key_contains("pack-")));
    restore(&["--delta"]).expect(2);
    assert!(!place.target.join("global/pg_control").exists());
    bucket.server.faults().clear();
    // The same command completes it.
    restore(&["--delta"]).expect(0);
    assert!(content(&place) == whole);
}
