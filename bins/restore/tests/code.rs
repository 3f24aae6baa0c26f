//! `restore-code` as it is run: plan, restore, one file, and what it refuses.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::process::{CommandRunner, SystemRunner};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_file_ops::code::{CodeOptions, backup_code};
use support::{Bench, files, flip_a_bit, key_text};
use tokio_util::sync::CancellationToken;

fn git(folder: &Path, args: &[&str]) -> String {
    let done = Command::new("git")
        .args(["-c", "user.name=somebody", "-c", "user.email=s@localhost"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// A full set and an increment of `shop`, encrypted to the key in `key.txt`.
fn bench() -> Bench {
    let bench = Bench::new();
    let key = age::x25519::Identity::generate();
    bench.write_secret("key.txt", &key_text(&key));
    let shop = bench.path("shop");
    fs::create_dir(&shop).unwrap();
    fs::create_dir(bench.path("scratch")).unwrap();
    git(&shop, &["init", "-q", "-b", "main"]);
    let recipient = key.to_public().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for file in ["first", "second"] {
        bench.write(&format!("shop/{file}"), file);
        git(&shop, &["add", file]);
        git(&shop, &["commit", "-q", "-m", file]);
        git(&shop, &["tag", file]);
        bench.write("shop/untracked", "u\n");
        runtime.block_on(Box::pin(store(&bench, &recipient)));
    }
    bench
}

async fn store(bench: &Bench, recipient: &str) {
    let store = Arc::new(LocalStore::create(bench.path("local")).unwrap());
    let repository = Repository::open_or_create("local", store, &SystemClock).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
    let stanza = Stanza::parse("main").unwrap();
    let mut options = CodeOptions::new(stanza, "shop", &bench.path("shop"), &bench.path("scratch"));
    options.recipients = Recipients::parse([recipient]).unwrap();
    options.uncommitted = true;
    let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let runner: Arc<dyn CommandRunner> = Arc::new(SystemRunner::new(&environment));
    backup_code(&repositories, &options, &runner, &Progress::new(), &CancellationToken::new()).await.unwrap();
}

const COMMON: [&str; 4] = ["--repository", "./local", "--identity-file", "key.txt"];

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
    let refs = |folder: &str| git(&bench.path(folder), &["show-ref", "--head"]);
    assert_eq!(refs("back"), refs("shop"));
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
