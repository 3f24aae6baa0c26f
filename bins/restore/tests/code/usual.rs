//! Plan, restore, one file, and what is refused.

use std::fs;

use crate::support::{files, flip_a_bit, git};
use crate::{COMMON, bench};

#[test]
fn a_plan_writes_nothing_and_a_restore_is_whole() {
    let bench = bench();
    let to = [&COMMON[..], &["--to", "back"]].concat();
    let planned = bench.run("restore-code", &to).expect(0).stdout;
    assert!(
        planned.contains(" of shop would be restored to ") && planned.contains(": 2 sets are read, "),
        "{planned}"
    );
    assert!(
        planned.contains("\nHEAD is refs/heads/main at ") && planned.contains("refs/tags/second"),
        "{planned}"
    );
    assert!(planned.ends_with("\nnothing was written; --apply does it\n"), "{planned}");
    assert!(!bench.path("back").exists());
    let (ended, done) = bench.json("restore-code", &[&to[..], &["--apply", "--uncommitted"]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!((&done["sets"], &done["refs"], &done["uncommitted"]), (&2.into(), &3.into(), &true.into()));
    assert_eq!(bench.refs("back"), bench.refs("shop"));
    assert_eq!(fs::read_to_string(bench.path("back/untracked")).unwrap(), "u\n");
    let taken = bench.run("restore-code", &[&to[..], &["--apply"]].concat()).expect(4).stderr;
    assert!(taken.contains("/back is in the way: there is something in it"), "{taken}");
    bench.run("restore-code", &to).expect(4);
}

#[test]
fn another_moment_one_file_and_what_is_not_there() {
    let bench = bench();
    let sets: Vec<_> =
        fs::read_dir(bench.path("local/main/sets")).unwrap().map(|set| set.unwrap().path()).collect();
    let first = sets.iter().find(|set| {
        let manifest = fs::read_to_string(set.join("manifest.json")).unwrap();
        !manifest.contains("\"parent\"")
    });
    let first = first.unwrap().file_name().unwrap().to_str().unwrap();
    let old = [&COMMON[..], &["--set", first, "--to", "old", "--apply", "--bare"]].concat();
    bench.run("restore-code", &old).expect(0);
    assert_eq!(git(&bench.path("old"), &["tag"]), "first\n");
    let file = |file: &str, rev: &str, to: &str| {
        let args = [&COMMON[..], &["--file", file, "--rev", rev, "--to", to, "--apply"]].concat();
        bench.run("restore-code", &args)
    };
    file("second", "main", "second").expect(0);
    assert_eq!(fs::read_to_string(bench.path("second")).unwrap(), "second");
    let absent = file("second", "first", "none").expect(1).stderr;
    assert!(absent.contains(" has no file second in commit "), "{absent}");
    let before = [&COMMON[..], &["--to", "none", "--at", "2020-01-01T00:00:00Z"]].concat();
    bench.run("restore-code", &before).expect(1);
    bench.run("restore-code", &[&COMMON[..], &["--to", "none", "--name", "other"]].concat()).expect(1);
    assert!(!bench.path("none").exists());
}

#[test]
fn damage_and_a_missing_key_leave_nothing() {
    let bench = bench();
    let closed =
        bench.run("restore-code", &["--repository", "./local", "--to", "back", "--apply"]).expect(2).stderr;
    assert!(closed.contains(" is encrypted: "), "{closed}");
    let mut bundles = files(&bench.path("local/main/sets"));
    bundles.retain(|path| path.to_string_lossy().contains("repository.bundle"));
    assert_eq!(bundles.len(), 2);
    flip_a_bit(&bundles[0]);
    let to = [&COMMON[..], &["--to", "back", "--apply"]].concat();
    let damaged = bench.run("restore-code", &to).expect(3).stderr;
    assert!(damaged.contains(" is damaged: repository.bundle.age: "), "{damaged}");
    let left: Vec<_> =
        fs::read_dir(bench.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("back.") || name == "back"), "{left:?}");
}
