//! `check-storage` and addresses of S3 repositories, on a server of our own.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use backstay_testkit::s3::{Credential, S3Options, S3Server};
use support::{Bench, files};

#[test]
fn a_directory_is_probed_and_left_clean() {
    let bench = Bench::new();
    let report = bench.run("check-storage", &["--repository", "./new"]).expect(0).stdout;
    assert!(report.lines().next().unwrap().ends_with(": safe"), "{report}");
    assert!(report.contains("create-race"), "{report}");
    let left: Vec<_> = files(&bench.path("new"));
    assert!(left.iter().all(|path| path.ends_with(".lock")), "{left:?}");
}

#[tokio::test]
async fn a_bucket_is_reached_through_its_address_and_judged_by_role() {
    let options = S3Options::memory()
        .bucket("backups")
        .credential(Credential::admin("admin", "admin-secret"))
        .credential(Credential::writer("writer", "writer-secret"));
    let server = S3Server::start(options).await.unwrap();
    let place = format!("s3://backups/shop?endpoint={}&path-style=true&region=us-east-1", server.endpoint());
    let mut bench = Bench::new();
    bench.set("AWS_ACCESS_KEY_ID", "writer");
    bench.set("AWS_SECRET_ACCESS_KEY", "writer-secret");
    let probe =
        |bench: &Bench, role: &str| bench.json("check-storage", &["--repository", &place, "--role", role]);
    let (ended, report) = probe(&bench, "writer");
    let finding = |name: &str| {
        let findings = report["stores"][0]["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["probe"] == name).unwrap()["status"].clone()
    };
    assert_eq!(finding("create-only"), "safe", "{}", ended.stderr);
    assert_eq!(finding("delete-permission"), "safe");
    let (ended, report) = probe(&bench, "maintainer");
    ended.expect(1);
    assert_eq!(report["stores"][0]["verdict"], "unsafe", "a writer cannot prune");
    bench.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let listed = bench.run("list-backups", &["--repository", &place]).expect(2);
    assert!(listed.stderr.contains("hint: check the credentials and permissions"), "{}", listed.stderr);
}
