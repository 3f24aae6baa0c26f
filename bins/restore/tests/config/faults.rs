//! A full disk while files are installed, and stores that fail: the live tree stays whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use backstay_testkit::s3::FaultRule;

use crate::support::{Bench, Bucket, files, place_in, unreadable, unreadable_for_now};
use crate::{COMMON, etc, in_a_folder, prepare, store_in};

/// More than are prepared together.
const FILES: usize = 600;

fn content(word: &str, number: usize) -> String {
    format!("{word} {number}\n").repeat(if word == "old" { 100 } else { 2000 })
}

fn fill(folder: &Path, word: &str) {
    fs::create_dir_all(folder).unwrap();
    (0..FILES).for_each(|number| fs::write(folder.join(number.to_string()), content(word, number)).unwrap());
}

fn everything(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_disk_that_fills_up_while_files_are_installed_leaves_the_live_tree_whole() {
    let mut bench = Bench::new();
    let options = prepare(&bench);
    fill(&bench.path("etc/many"), "new");
    in_a_folder(&bench, &options);
    // The live system is a small disk of its own: there is room for what it has, not for all of the new files.
    let has_disk = bench.make_disk("live", "9m");
    assert!(has_disk || !rustix::process::geteuid().is_root(), "root can mount");
    let live = bench.path("live").join(etc(&bench).strip_prefix("/").unwrap()).join("many");
    fill(&live, "old");
    if !has_disk {
        bench.wrap(&["prlimit", "--fsize=15000", "--", "env", "--ignore-signal=XFSZ"]);
    }
    let before = everything(&live);
    let args = [&COMMON[..], &["--staging", "staging", "--root", "live", "--apply"]].concat();
    let ended = bench.run("restore-config", &args);
    if has_disk {
        let said = ended.expect(5).stderr;
        assert!(said.contains("cannot write beside ") && said.contains("No space left on device"), "{said}");
    }
    let after = everything(&live);
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>(),
        "temporary files are left"
    );
    let (mut old, mut new) = (0, 0);
    for number in 0..FILES {
        let found = &after[&live.join(number.to_string())];
        let is = |word: &str| found == content(word, number).as_bytes();
        assert!(is("old") || is("new"), "{number} is torn");
        (old, new) = (old + usize::from(is("old")), new + usize::from(is("new")));
    }
    println!("{old} files are the old ones, {new} the new ones");
    assert!(old > 0 && (new > 0 || !has_disk), "it did fit, or nothing did");
    // Whatever was installed can be taken back.
    for run in fs::read_dir(bench.path("staging/undo")).into_iter().flatten().flatten() {
        bench.run("restore-config", &["--undo", run.path().to_str().unwrap()]).expect(0);
    }
    assert_eq!(everything(&live), before);
}

/// The same set in a bucket.
fn in_a_bucket() -> (Bench, Bucket) {
    let (mut bench, bucket) = (Bench::new(), Bucket::start());
    let options = prepare(&bench);
    fill(&bench.path("etc/many"), "new");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        Box::pin(store_in(place_in(&bucket).await, &options)).await;
    });
    bucket.lend(&mut bench);
    fs::remove_dir_all(bench.path("etc/many")).unwrap();
    (bench, bucket)
}

const APPLY: [&str; 5] = ["--identity-file", "key.txt", "--staging", "staging", "--apply"];

#[test]
fn errors_of_a_store_that_pass_are_not_noticed_and_lasting_ones_touch_nothing() {
    let (bench, bucket) = in_a_bucket();
    let live = bench.path("etc");
    let before = everything(&live);
    for (effect, code) in unreadable() {
        bucket.fail(FaultRule::on("GetObject", effect.clone()).key_contains("files.tar"));
        let ended = bench.run("restore-config", &APPLY);
        assert_eq!(ended.code, code, "{effect:?}: {ended:?}");
        bucket.heal();
        assert!(everything(&live) == before, "{effect:?}");
    }
    for effect in unreadable_for_now() {
        bucket.fail(FaultRule::on("GetObject", effect.clone()).first(2));
        let ended = bench.run("restore-config", &APPLY);
        assert_eq!(ended.code, 0, "{effect:?}: {ended:?}");
        bucket.heal();
        assert_eq!(files(&bench.path("etc/many")).len(), FILES, "{effect:?}");
        fs::remove_dir_all(bench.path("etc/many")).unwrap();
    }
}
