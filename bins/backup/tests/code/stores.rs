//! Code in a bucket, and in several repositories of which one fails.

use backstay_testkit::s3::{Effect, FaultRule};
use serde_json::Value;

use crate::bench;
use crate::support::{Bench, Bucket, files, noise};

/// More than a part of an upload.
const LARGE: usize = 12 << 20;
const SHOP: [&str; 3] = ["--scratch", "scratch", "shop"];
const FULL: [&str; 4] = ["--scratch", "scratch", "shop", "--full"];

fn in_a_bucket() -> (Bench, Bucket) {
    let (mut bench, bucket) = (bench(), Bucket::start());
    bench.commit("shop", "large", &noise(LARGE));
    bucket.lend(&mut bench);
    (bench, bucket)
}

/// Backs the shop up; what is said of it.
#[track_caller]
fn back_up(bench: &Bench, code: i32) -> Value {
    let (ended, report) = bench.json("backup-code", &SHOP);
    let ended = ended.expect(code);
    assert!(files(&bench.path("scratch")).is_empty(), "{ended:?}");
    report["repositories"][0].clone()
}

#[test]
fn a_bucket_takes_a_full_set_then_what_is_new_then_nothing() {
    let (bench, bucket) = in_a_bucket();
    assert_eq!(back_up(&bench, 0)["builds-on"], 0);
    bench.commit("shop", "new", "x\n");
    let increment = back_up(&bench, 0);
    assert_eq!(increment["builds-on"], 1);
    assert!(increment["stored-bytes"].as_u64().unwrap() < 100_000, "{increment}");
    let before = bucket.history();
    assert_eq!(back_up(&bench, 0)["outcome"], "unchanged");
    assert_eq!(bucket.history(), before);
    // Every object once, and none deleted.
    let creates =
        |line: &&str| line.starts_with("PutObject ") || line.starts_with("CompleteMultipartUpload ");
    let mut keys: Vec<_> =
        before.lines().filter(creates).map(|line| line.split(' ').nth(1).unwrap()).collect();
    keys.sort_unstable();
    let all = keys.len();
    keys.dedup();
    assert_eq!((keys.len(), before.contains("Delete")), (all, false), "{before}");
    let test = ["--scratch", "scratch", "--restore-test", "--identity-file", "key.txt"];
    let (ended, report) = bench.json("verify-backups", &test);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(report["restore-tests"][0]["passed"], true, "{report}");
}

#[test]
fn errors_of_a_store_that_pass_are_not_noticed() {
    let (bench, bucket) = in_a_bucket();
    bucket.expect_patience(&bench, "backup-code", &FULL);
}

#[test]
fn lasting_refusals_of_a_store_leave_no_set_and_are_named() {
    let (bench, bucket) = in_a_bucket();
    back_up(&bench, 0);
    bucket.expect_refusals(&bench, "backup-code", &FULL, "repository.bundle");
    assert!(files(&bench.path("scratch")).is_empty());
}

/// Two folders and a bucket, of which two are enough.
fn two_of_three() -> (Bench, Bucket) {
    let (mut bench, bucket) = (bench(), Bucket::start());
    bucket.lend_beside(&mut bench, &["one", "two"], 2);
    (bench, bucket)
}

fn manifests(bench: &Bench, repository: &str) -> usize {
    let all = files(&bench.path(repository));
    all.iter().filter(|path| path.ends_with("manifest.json")).count()
}

#[test]
fn one_of_three_repositories_may_fail_and_has_all_of_it_the_next_time() {
    let (mut bench, bucket) = two_of_three();
    assert_eq!(back_up(&bench, 0)["stored-in"].as_array().unwrap().len(), 3);
    for part in ["repository.bundle", "state.json", "manifest.json"] {
        bench.commit("shop", part, "x\n");
        bucket.fail(FaultRule::on("PutObject", Effect::AccessDenied).key_contains(part));
        let missed = back_up(&bench, 6);
        assert_eq!(missed["stored-in"], serde_json::json!(["one", "two"]), "{missed}");
        assert_eq!(
            (&missed["missing-in"][0][0], &missed["builds-on"]),
            (&"bucket".into(), &1.into()),
            "{missed}"
        );
        let before = bucket.manifests();
        bucket.heal();
        // Nothing changed, and yet not everywhere: nothing builds on that.
        let whole = back_up(&bench, 0);
        assert_eq!((&whole["outcome"], &whole["builds-on"]), (&"stored".into(), &0.into()), "{whole}");
        assert_eq!(bucket.manifests(), before + 1);
        assert_eq!(back_up(&bench, 0)["outcome"], "unchanged");
    }
    // Two of three that fail are one too many: the set is nowhere.
    bench.commit("shop", "large", &noise(LARGE));
    bench.fill_disk_of("one");
    bucket.fail(FaultRule::on("PutObject", Effect::AccessDenied).key_contains("state.json"));
    let before = (manifests(&bench, "one"), manifests(&bench, "two"), bucket.manifests());
    let refused = bench.run("backup-code", &SHOP).expect(5).stderr;
    assert!(refused.contains("\nerror: only 1 of 2 repositories needed took the data: "), "{refused}");
    assert_eq!((manifests(&bench, "one"), manifests(&bench, "two"), bucket.manifests()), before);
    assert!(files(&bench.path("scratch")).is_empty());
}

#[test]
fn a_repository_that_is_away_is_told_and_gets_a_full_set_when_it_is_back() {
    let (bench, bucket) = two_of_three();
    back_up(&bench, 0);
    let away = FaultRule::any(Effect::AccessDenied);
    bucket.fail(away.clone());
    // Also when there is nothing to store.
    assert_eq!(back_up(&bench, 6)["outcome"], "unchanged");
    bench.commit("shop", "new", "x\n");
    bucket.fail(away);
    let (ended, report) = bench.json("backup-code", &SHOP);
    ended.expect(6);
    assert_eq!(report["repositories"][0]["builds-on"], 1, "{report}");
    assert!(report["unavailable"].to_string().contains("bucket"), "{report}");
    bucket.heal();
    let back = back_up(&bench, 0);
    assert_eq!((&back["builds-on"], back["stored-in"].as_array().unwrap().len()), (&0.into(), 3), "{back}");
    assert_eq!((manifests(&bench, "one"), bucket.manifests()), (3, 2));
}
