//! Code out of a bucket, and out of several repositories of which some are damaged.

use std::fs;

use backstay_testkit::s3::FaultRule;

use crate::fill;
use crate::support::{Bench, Bucket, files, flip_a_bit, folder, place_in, repositories};
use crate::support::{unreadable, unreadable_for_now};

const APPLY: [&str; 6] = ["--identity-file", "key.txt", "--to", "back", "--apply", "--uncommitted"];

/// Nothing of a restore is left, neither in its place nor beside it.
#[track_caller]
fn assert_nothing(bench: &Bench) {
    let left = fs::read_dir(bench.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> =
        left.filter(|name| name.to_string_lossy().contains("back.") || name == "back").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The restored repository is the shop; it is removed.
#[track_caller]
fn take_back(bench: &Bench) {
    assert_eq!(bench.refs("back"), bench.refs("shop"));
    assert_eq!(fs::read_to_string(bench.path("back/untracked")).unwrap(), "u\n");
    fs::remove_dir_all(bench.path("back")).unwrap();
}

#[test]
fn errors_of_a_store_that_pass_are_not_noticed_and_lasting_ones_leave_nothing() {
    let (mut bench, bucket) = (Bench::new(), Bucket::start());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let repositories = repositories([place_in(&bucket).await]).await;
        Box::pin(fill(&bench, &repositories)).await;
    });
    bucket.lend(&mut bench);
    for part in ["repository.bundle", "state.json"] {
        for (effect, code) in unreadable() {
            bucket.fail(FaultRule::on("GetObject", effect.clone()).key_contains(part));
            let ended = bench.run("restore-code", &APPLY);
            assert_eq!(ended.code, code, "{part} {effect:?}: {ended:?}");
            bucket.heal();
            assert_nothing(&bench);
        }
    }
    for effect in unreadable_for_now() {
        bucket.fail(FaultRule::on("GetObject", effect.clone()).first(2));
        let ended = bench.run("restore-code", &APPLY);
        assert_eq!(ended.code, 0, "{effect:?}: {ended:?}");
        bucket.heal();
        take_back(&bench);
    }
}

/// The bundles of a folder, those of the full set first.
fn bundles(bench: &Bench, repository: &str) -> Vec<std::path::PathBuf> {
    let mut found = files(&bench.path(repository));
    found.retain(|path| path.to_string_lossy().contains("repository.bundle"));
    found.sort();
    assert_eq!(found.len(), 2);
    found
}

#[test]
fn each_object_comes_from_a_repository_that_has_it_whole() {
    let (mut bench, bucket) = (Bench::new(), Bucket::start());
    let folders = ["one", "two"].map(|name| folder(&bench, name));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let stores = folders.into_iter().chain([place_in(&bucket).await]);
        let repositories = repositories(stores).await;
        Box::pin(fill(&bench, &repositories)).await;
    });
    bucket.lend_beside(&mut bench, &["one", "two"], 1);
    // The full set is damaged here, the increment there, and a third one is away.
    bucket.fail(FaultRule::any(backstay_testkit::s3::Effect::AccessDenied));
    flip_a_bit(&bundles(&bench, "one")[0]);
    flip_a_bit(&bundles(&bench, "two")[1]);
    bench.run("restore-code", &APPLY).expect(0);
    take_back(&bench);
    // Now nobody has the full set whole, but for the third one.
    flip_a_bit(&bundles(&bench, "two")[0]);
    let damaged = bench.run("restore-code", &APPLY).expect(3).stderr;
    assert!(damaged.contains(" is damaged: repository.bundle.age: "), "{damaged}");
    assert_nothing(&bench);
    bucket.heal();
    bench.run("restore-code", &APPLY).expect(0);
    take_back(&bench);
}
