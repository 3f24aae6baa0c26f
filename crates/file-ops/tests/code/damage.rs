//! Damage is found: in what is stored, and in what was to be stored.

use std::fs;
use std::path::PathBuf;

use backstay_backup_core::Class;
use backstay_backup_core::error::Classified as _;
use backstay_file_ops::code::{CodeError, RestoreOptions};
use rand::RngExt as _;

use crate::support::{Git, Scene};

/// A thousand with `BACKSTAY_SOAK` in the environment: each is a restore of a chain.
fn flips() -> usize {
    if std::env::var_os("BACKSTAY_SOAK").is_some() { 1_000 } else { 100 }
}

/// Flips a bit and asks whether anybody notices.
fn flip(path: &PathBuf, noticed: impl FnOnce() -> bool) {
    let mut random = rand::rng();
    let good = fs::read(path).unwrap();
    let mut bad = good.clone();
    let at = random.random_range(0..bad.len());
    bad[at] ^= 1 << random.random_range(0..8);
    fs::write(path, bad).unwrap();
    assert!(noticed(), "byte {at} of {}", path.display());
    fs::write(path, good).unwrap();
}

#[test]
fn any_flipped_bit_of_a_stored_set_is_found() {
    let scene = Scene::new();
    let git = scene.git("app");
    git.commit("code", "fn main() {}\n".repeat(50));
    git.lfs(b"large");
    git.write("untracked", "u");
    git.write("README", "changed\n");
    let mut options = scene.options(git.path());
    options.uncommitted = true;
    scene.back_up(&options);
    git.commit("more", "more\n");
    let newest = scene.back_up(&options).receipt.manifest.set;
    let mut to = RestoreOptions::new(&scene.path("back"));
    to.uncommitted = true;
    let fine = || {
        // This very set: without it, a restore of the newest good one would take the one before, and say so.
        let catalog = scene.catalog();
        let restored = catalog
            .by_id(newest.as_str())
            .is_ok_and(|set| set.is_good() && scene.restore_set(&catalog, set, &to).is_ok());
        let there = scene.path("back").exists();
        let _ = fs::remove_dir_all(scene.path("back"));
        assert_eq!(restored, there);
        restored
    };
    assert!(fine());
    let sets = scene.sets();
    let needed = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Of a set that others build on, a restore reads bundle, LFS objects and manifest.
        path.starts_with(&sets[1])
            || ["repository", "lfs", "manifest"].iter().any(|part| name.starts_with(part))
    };
    let mut files: Vec<_> = sets
        .iter()
        .flat_map(|set| fs::read_dir(set).unwrap().map(|entry| entry.unwrap().path()))
        .filter(needed)
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    let mut random = rand::rng();
    for _ in 0..flips() {
        let path = &files[random.random_range(0..files.len())];
        flip(path, || !fine());
    }
    assert!(fine());
}

fn damage(scene: &Scene, git: &Git, path: &PathBuf, at: impl Fn(usize) -> usize) -> CodeError {
    let good = fs::read(path).unwrap();
    let mut bad = good.clone();
    let at = at(bad.len());
    // All bits of a byte: up to seven at the end of a compressed object mean nothing, and git reads it as before.
    bad[at] = !bad[at];
    fs::remove_file(path).unwrap();
    fs::write(path, bad).unwrap();
    let error = scene.try_back_up(&scene.options(git.path())).unwrap_err();
    fs::remove_file(path).unwrap();
    fs::write(path, good).unwrap();
    error
}

#[test]
fn a_damaged_pack_of_the_source_is_found_before_a_set_counts() {
    let scene = Scene::new();
    let git = scene.git("app");
    for number in 0..30 {
        git.commit(&format!("file{number}"), format!("{number}\n").repeat(400));
    }
    git.run(&["gc", "-q", "--prune=now"]);
    let packs = git.path().join(".git/objects/pack");
    let pack = fs::read_dir(packs).unwrap().map(|entry| entry.unwrap().path());
    let pack = pack.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "pack")).unwrap();
    let mut found = 0;
    // Behind the header of the pack, before its digest.
    for share in 1..20 {
        let error = damage(&scene, &git, &pack, |length| 12 + (length - 32) * share / 20);
        assert_eq!(error.class(), Class::Data, "{error}");
        assert!(matches!(error, CodeError::Damaged { .. }), "{error}");
        found += 1;
    }
    println!("{found} of 19 damaged packs found at the time of the backup");
    assert!(scene.sets().is_empty());
    assert!(scene.catalog().sets.is_empty());
    scene.back_up(&scene.options(git.path()));
}

#[test]
fn a_missing_object_a_broken_ref_and_a_damaged_lfs_object_are_told() {
    let scene = Scene::new();
    let git = scene.git("app");
    let blob = git.run(&["rev-parse", "HEAD:README"]);
    let blob = blob.trim();
    let path = git.path().join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]));
    let good = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let error = scene.try_back_up(&scene.options(git.path())).unwrap_err();
    assert!(matches!(error, CodeError::Damaged { .. }), "{error}");
    fs::write(&path, good).unwrap();

    fs::write(git.path().join(".git/refs/heads/empty"), "").unwrap();
    let error = scene.try_back_up(&scene.options(git.path())).unwrap_err();
    assert!(error.to_string().contains("refs/heads/empty"), "{error}");
    fs::remove_file(git.path().join(".git/refs/heads/empty")).unwrap();

    let id = git.lfs(b"large content");
    fs::write(git.path().join(format!(".git/lfs/objects/{}/{}/{id}", &id[..2], &id[2..4])), b"Large content")
        .unwrap();
    let report = scene.back_up(&scene.options(git.path()));
    assert!(!report.receipt.manifest.complete);
    assert!(report.problems[0].reason.contains("damaged"), "{:?}", report.problems);
    assert!(scene.with_newest(|_, _| ()).is_err(), "an incomplete set is not good");
}
