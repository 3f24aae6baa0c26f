//! Full disks and stores that fail: no half set, a clear word, and the same command works afterwards.

use backstay_testkit::s3::{Effect, FaultRule};

use crate::support::{Bench, Bucket, files, noise, until};
use crate::{COMMON, bench};

#[test]
fn a_disk_without_room_ends_with_5_and_leaves_no_set() {
    let (mut bench, _) = bench();
    bench.write("etc/large", &noise(3 << 20));
    bench.make_full("local");
    let args = [&COMMON[..], &["etc"]].concat();
    let said = bench.run("backup-config", &args).expect(5).stderr;
    assert!(said.contains("no space left to store main/sets/") && said.contains("\nhint: "), "{said}");
    let left = files(&bench.path("local/main/sets"));
    assert!(!left.iter().any(|path| path.ends_with("manifest.json")), "{left:?}");
    // What fits is still stored.
    bench.run("backup-config", &[&args[..], &["--exclude", "large"]].concat()).expect(0);
}

fn in_a_bucket() -> (Bench, Bucket) {
    let (mut bench, _) = bench();
    bench.write("etc/large", &noise(12 << 20));
    let bucket = Bucket::start();
    bucket.lend(&mut bench);
    (bench, bucket)
}

#[test]
fn errors_of_a_store_that_pass_are_not_noticed() {
    let (bench, bucket) = in_a_bucket();
    bucket.expect_patience(&bench, "backup-config", &["etc", "--force"]);
}

#[test]
fn lasting_refusals_of_a_store_leave_no_set_and_are_named() {
    let (bench, bucket) = in_a_bucket();
    bench.run("backup-config", &["etc"]).expect(0);
    bucket.expect_refusals(&bench, "backup-config", &["etc", "--force"], "files.tar");
}

#[test]
fn a_repository_that_failed_gets_what_did_not_change_the_next_time() {
    let (mut bench, bucket) = in_a_bucket();
    bucket.lend_beside(&mut bench, &["disk"], 1);
    // Old enough that nobody expects it to change again.
    until(|| bench.run("backup-config", &["etc"]).expect(0).stdout.starts_with("unchanged "));
    bucket.fail(FaultRule::on("PutObject", Effect::AccessDenied).key_contains("manifest.json"));
    let (ended, missed) = bench.json("backup-config", &["etc", "--force"]);
    ended.expect(6);
    assert_eq!(
        (&missed["stored-in"], &missed["missing-in"][0][0]),
        (&serde_json::json!(["disk"]), &"bucket".into())
    );
    let before = bucket.manifests();
    bucket.heal();
    let whole = bench.run("backup-config", &["etc"]).expect(0).stdout;
    assert!(whole.starts_with("set "), "{whole}");
    assert_eq!(bucket.manifests(), before + 1);
    assert!(bench.run("backup-config", &["etc"]).expect(0).stdout.starts_with("unchanged "));
}
