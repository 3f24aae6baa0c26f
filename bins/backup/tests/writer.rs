//! The writing side as programs, under a role that may create and read and nothing else (P2): what the access log of
//! the S3 server says about it.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod support;

use std::collections::BTreeMap;

use backstay_testkit::s3::{AccessRecord, Credential, S3Options, S3Server};
use backstay_testkit::{PostgresOptions, TestPostgres};
use support::Bench;

const ADMIN: (&str, &str) = ("admin", "admin-secret-4Gd");
const WRITER: (&str, &str) = ("writer", "writer-secret-8Pw");

struct Scene {
    _postgres: TestPostgres,
    s3: S3Server,
    bench: Bench,
    place: String,
}

impl Scene {
    /// A table that fills several parts of an upload and is large enough for a stream of its own.
    async fn start() -> Self {
        let postgres = TestPostgres::start(PostgresOptions::default()).await.unwrap();
        postgres.psql("postgres", "create database shop").unwrap();
        let fill = "create table entries as select g as id, md5(g::text) || md5((-g)::text) as body \
                    from generate_series(1, 180000) g; create table small as select 1 as id";
        postgres.psql("shop", fill).unwrap();
        let options = S3Options::memory()
            .bucket("backups")
            .credential(Credential::admin(ADMIN.0, ADMIN.1))
            .credential(Credential::writer(WRITER.0, WRITER.1));
        let s3 = S3Server::start(options).await.unwrap();
        let place = format!("s3://backups/shop?endpoint={}&path-style=true&region=us-east-1", s3.endpoint());
        let mut bench = Bench::new();
        bench.reach(&postgres, "shop");
        Self { _postgres: postgres, s3, bench, place }
    }

    fn become_role(&mut self, (access_key, secret): (&str, &str)) {
        self.bench.set("AWS_ACCESS_KEY_ID", access_key);
        self.bench.set("AWS_SECRET_ACCESS_KEY", secret);
    }

    fn run(&self, program: &str, args: &[&str]) -> serde_json::Value {
        let (ended, report) = self.bench.json(program, &[&["--repository", &self.place], args].concat());
        ended.expect(0);
        report
    }

    /// The requests since the last call, by operation.
    fn requests(&self) -> Vec<AccessRecord> {
        assert_eq!(self.s3.access_log_dropped(), 0);
        let log = self.s3.access_log();
        self.s3.clear_access_log();
        log
    }
}

fn of_lease(record: &AccessRecord) -> bool {
    record.key.as_deref().is_some_and(|key| key.contains("/leases/"))
}

/// What must not be in the log of a writer's work.
fn is_offence(record: &AccessRecord) -> bool {
    record.is_denied() || record.operation.starts_with("Delete") || record.overwrote && !of_lease(record)
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_a_writer_are_denied_nothing_and_overwrite_nothing() {
    let mut scene = Scene::start().await;
    scene.become_role(WRITER);
    let plain = ["--option", "compression.codec=none"];
    scene.run("backup-database", &plain);
    let parallel = scene.run("backup-database", &[&plain[..], &["--jobs", "2", "--digests"]].concat());
    scene.run("backup-database", &[]);
    let listed = scene.run("list-backups", &[]);
    assert_eq!(listed["sets"].as_array().unwrap().len(), 3, "{listed}");
    scene.run("verify-backups", &[]);
    scene.run("verify-backups", &["--full"]);
    let set = parallel["sets"][0]["set"].as_str().unwrap();
    scene.run("prune-backups", &["--hold", set, "--reason", "audit"]);

    let log = scene.requests();
    assert!(log.iter().all(|record| record.access_key.as_deref() == Some(WRITER.0)));
    let mut counts = BTreeMap::new();
    log.iter().for_each(|record| *counts.entry(record.operation.clone()).or_insert(0_u32) += 1);
    let replaced = log.iter().filter(|record| record.overwrote).count();
    eprintln!("{} requests {counts:?}, {replaced} of them replaced the record of a lease", log.len());
    for operation in [
        "PutObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "GetObject",
        "HeadObject",
    ] {
        assert!(counts.contains_key(operation), "{operation} was not needed: {counts:?}");
    }
    assert!(log.iter().any(|record| record.key.as_deref().is_some_and(|key| key.contains("/data-1."))));
    // Each of the three backups releases its lease, and takes the one before over.
    assert!(replaced >= 5, "{replaced}");
    let offences: Vec<_> = log.iter().filter(|record| is_offence(record)).collect();
    assert!(offences.is_empty(), "{offences:#?}");

    scene.become_role(ADMIN);
    scene.run("verify-backups", &["--full", "--content"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probes_of_a_writer_touch_only_their_own_keys() {
    let mut scene = Scene::start().await;
    scene.become_role(WRITER);
    scene.run("backup-database", &[]);
    scene.requests();
    let place = scene.place.clone();
    let (_, report) = scene.bench.json("check-storage", &["--repository", &place, "--role", "writer"]);
    assert_eq!(report["stores"][0]["verdict"], "safe", "{report}");
    let log = scene.requests();
    let offences: Vec<_> = log.iter().filter(|record| is_offence(record)).collect();
    // To find out whether it may delete or overwrite it has to try, on what it wrote itself.
    assert!(!offences.is_empty());
    let strange: Vec<_> = offences
        .iter()
        .filter(|record| record.overwrote || !record.key.as_deref().is_some_and(|key| key.contains("probe")))
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
    let listed = scene.run("list-backups", &["--good"]);
    assert_eq!(listed["sets"].as_array().unwrap().len(), 1, "{listed}");
}
