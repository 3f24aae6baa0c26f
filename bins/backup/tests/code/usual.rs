//! Sets, restore tests, refusals.

use std::fs;

use crate::support::{files, flip_a_bit};
use crate::{COMMON, bench};

const VERIFY: [&str; 7] =
    ["--repository", "./local", "--scratch", "scratch", "--restore-test", "--identity-file", "key.txt"];

#[test]
fn several_repositories_full_then_new_then_nothing() {
    let bench = bench();
    let both = [&COMMON[..], &["shop", "tools"]].concat();
    let (ended, first) = bench.json("backup-code", &both);
    assert_eq!(ended.code, 0, "{ended:?}");
    let entry = &first["repositories"][0];
    assert_eq!(
        (&entry["outcome"], &entry["name"], &entry["encrypted"], &entry["builds-on"]),
        (&"stored".into(), &"shop".into(), &true.into(), &0.into())
    );
    let said = bench.run("backup-code", &both).expect(0).stdout;
    assert!(
        said.starts_with("shop is unchanged since set ") && said.contains("\ntools is unchanged "),
        "{said}"
    );
    bench.commit("shop", "new", "x\n");
    bench.write("shop/untracked", "x\n");
    let said = bench.run("backup-code", &[&COMMON[..], &["shop"]].concat()).expect(0).stdout;
    assert!(said.starts_with("increment "), "{said}");
    assert!(said.contains("not committed: 1 untracked (not in the set, --uncommitted takes it)"), "{said}");
    let listed = bench.run("list-backups", &["--repository", "./local", "--kind", "code"]).expect(0).stdout;
    assert_eq!((listed.matches(" shop ").count(), listed.matches(" tools ").count()), (2, 1), "{listed}");
    assert!(files(&bench.path("scratch")).is_empty());
}

#[test]
fn a_restore_test_clones_every_newest_set_and_compares() {
    let bench = bench();
    bench.run("backup-code", &[&COMMON[..], &["shop", "tools"]].concat()).expect(0);
    bench.commit("shop", "new", "x\n");
    bench.write("shop/README", "changed\n");
    bench.run("backup-code", &[&COMMON[..], &["shop", "--uncommitted"]].concat()).expect(0);
    let (ended, report) = bench.json("verify-backups", &VERIFY);
    assert_eq!(ended.code, 0, "{ended:?}");
    let tests = report["restore-tests"].as_array().unwrap();
    assert_eq!(tests.len(), 2, "{report}");
    assert!(tests.iter().all(|test| test["passed"] == true), "{report}");
    assert!(files(&bench.path("scratch")).is_empty());
    // The set that the increment builds on.
    let mut bundles = files(&bench.path("local/main/sets"));
    bundles.retain(|path| path.to_string_lossy().contains("repository.bundle"));
    bundles.iter().for_each(|bundle| flip_a_bit(bundle));
    let (ended, report) = bench.json("verify-backups", &VERIFY);
    assert_eq!(ended.code, 3, "{report}");
    // The full set was not looked at by itself; a verification does.
    bench.run("verify-backups", &["--repository", "./local", "--full"]).expect(3);
    bench.run("list-backups", &["--repository", "./local", "--kind", "code", "--good"]).expect(1);
}

#[test]
fn what_stops_it_ends_with_its_code_and_says_what_to_do() {
    let mut bench = bench();
    fs::create_dir(bench.path("plain")).unwrap();
    bench.write("plain/file", "x\n");
    let refused = bench.run("backup-code", &[&COMMON[..], &["plain"]].concat()).expect(2).stderr;
    assert!(refused.contains("it is no git repository\nhint: name the top of a working tree"), "{refused}");
    // One of several does not stop the others.
    let said = bench.run("backup-code", &[&COMMON[..], &["plain", "shop"]].concat()).expect(2).stdout;
    assert!(said.starts_with("! plain was not backed up: ") && said.contains("\nfull set "), "{said}");
    let as_files = bench.run("backup-code", &[&COMMON[..], &["plain", "--files"]].concat()).expect(0).stdout;
    assert!(
        as_files
            .contains("it is no git repository, and was taken as files: restore-config --name code/plain"),
        "{as_files}"
    );
    let same = bench.run("backup-code", &[&COMMON[..], &["shop", "./shop/.git"]].concat()).expect(2).stderr;
    assert!(same.contains("two folders would be called \"shop\""), "{same}");
    bench.run("backup-code", &[&COMMON[..], &["gone"]].concat()).expect(2);
    // A damaged one.
    let objects = files(&bench.path("tools/.git/objects"));
    fs::remove_file(&objects[0]).unwrap();
    let damaged = bench.run("backup-code", &[&COMMON[..], &["tools"]].concat()).expect(3).stderr;
    assert!(
        damaged.contains("/tools is damaged: ") && damaged.contains("hint: git fsck --full"),
        "{damaged}"
    );
    // Without a key.
    bench.set("BACKSTAY_ENCRYPTION_RECIPIENTS", "");
    bench.run("backup-code", &[&COMMON[..], &["shop"]].concat()).expect(2);
    bench.commit("shop", ".env", "A=1\n");
    let plain = [&COMMON[..], &["shop", "--plaintext"]].concat();
    let stopped = bench.run("backup-code", &plain).expect(2).stderr;
    assert!(stopped.contains("/.env (environment-file)"), "{stopped}");
    let planned = bench.run("backup-code", &[&plain[..], &["--dry-run"]].concat()).expect(2).stdout;
    assert!(planned.contains("! a secret: /.env"), "{planned}");
    bench.run("backup-code", &[&plain[..], &["--allow", "/.env"]].concat()).expect(0);
    assert!(files(&bench.path("scratch")).is_empty());
}
