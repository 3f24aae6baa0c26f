//! Full disks and stores that fail: no half set, a clear word, and the same command works afterwards.

use std::time::Duration;

use backstay_testkit::s3::{Effect, FaultRule, Faults};

use crate::support::{Bench, Bucket, files};
use crate::{COMMON, bench};

/// Bytes that do not compress.
fn noise(length: usize) -> String {
    use rand::{RngExt as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(5);
    (0..length).map(|_| char::from(random.random_range(b' '..=b'~'))).collect()
}

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

/// Names of the objects of sets in the bucket, by what was written to it.
fn manifests(bucket: &Bucket) -> usize {
    bucket
        .history()
        .lines()
        .filter(|line| line.starts_with("PutObject") && line.ends_with("manifest.json"))
        .count()
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
    let passing = [
        ("PutObject", Effect::InternalError),
        ("PutObject", Effect::LoseReply),
        ("UploadPart", Effect::SlowDown),
        ("UploadPart", Effect::DropRequest),
        ("UploadPart", Effect::CutUpload(1000)),
        ("UploadPart", Effect::Delay(Duration::from_millis(300))),
        ("CompleteMultipartUpload", Effect::InternalError),
        ("CompleteMultipartUpload", Effect::LoseReply),
    ];
    for (number, (operation, effect)) in passing.into_iter().enumerate() {
        let rule = FaultRule::on(operation, effect.clone()).key_contains("/sets/").first(2);
        bucket.server.faults().set(Faults::default().rule(rule));
        let ended = bench.run("backup-config", &["etc", "--force"]).expect(0);
        assert!(bucket.server.faults().fired() > 0, "{operation} {effect:?}: {ended:?}");
        assert_eq!(manifests(&bucket), number + 1, "{operation} {effect:?}");
    }
    bucket.server.faults().clear();
    let (ended, list) = bench.json("verify-backups", &["--full"]);
    assert_eq!(ended.code, 0, "{list}");
}

#[test]
fn lasting_refusals_of_a_store_leave_no_set_and_are_named() {
    let (bench, bucket) = in_a_bucket();
    bench.run("backup-config", &["etc"]).expect(0);
    for (operation, part, effect, code) in [
        ("PutObject", "manifest.json", Effect::AccessDenied, 2),
        ("UploadPart", "files.tar", Effect::AccessDenied, 2),
        ("CompleteMultipartUpload", "files.tar", Effect::AccessDenied, 2),
        ("PutObject", "manifest.json", Effect::InternalError, 5),
        ("UploadPart", "files.tar", Effect::Delay(Duration::from_secs(40)), 5),
    ] {
        // All attempts at a store that is down take half a minute, and at a silent one minutes.
        if code == 5 && std::env::var_os("BACKSTAY_SOAK").is_none() {
            continue;
        }
        let rule = FaultRule::on(operation, effect).key_contains(part);
        bucket.server.faults().set(Faults::default().rule(rule));
        let ended = bench.run("backup-config", &["etc", "--force"]).expect(code);
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains("bucket"), "{}", ended.stderr);
        assert_eq!(manifests(&bucket), 1, "{operation}");
    }
    bucket.server.faults().clear();
    bench.run("backup-config", &["etc", "--force"]).expect(0);
    assert_eq!(manifests(&bucket), 2);
}
