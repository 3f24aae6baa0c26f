//! Every flipped bit is noticed.

use std::fs;

use backstay_file_ops::restore::StageOptions;
use rand::RngExt as _;

use crate::support::Scene;

const FLIPS: usize = 1_000;

#[test]
fn any_of_a_thousand_flipped_bits_is_found() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..20 {
        fs::write(tree.join(format!("{number}")), format!("setting {number}\n").repeat(30)).unwrap();
    }
    scene.back_up(&scene.options(&[tree]));
    let files: Vec<_> =
        fs::read_dir(scene.set_folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let options = StageOptions::new(scene.path("staging"));
    let restore = || {
        let manifest = scene.newest().map_err(|error| error.to_string())?;
        scene.stage(&manifest, &options).map_err(|error| error.to_string())
    };
    restore().unwrap();
    let mut random = rand::rng();
    for _ in 0..FLIPS {
        let path = &files[random.random_range(0..files.len())];
        let good = fs::read(path).unwrap();
        let mut bad = good.clone();
        let at = random.random_range(0..bad.len());
        bad[at] ^= 1 << random.random_range(0..8);
        fs::write(path, bad).unwrap();
        assert!(restore().is_err(), "byte {at} of {}", path.display());
        fs::write(path, good).unwrap();
    }
    restore().unwrap();
}

#[test]
fn a_restore_test_compares_and_reads_the_lists_too() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content\n").unwrap();
    std::os::unix::fs::symlink("file", tree.join("link")).unwrap();
    // A problem, so that there is an object beside the archive: sockets are not stored.
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let manifest = scene.back_up(&scene.options(&[tree])).receipt.manifest;
    assert_eq!(scene.test_restore(&manifest).unwrap(), [] as [&str; 0]);
    for (fact, found) in [("files", 1), ("folders", 1), ("links", 1), ("bytes", 8)] {
        let mut other = manifest.clone();
        assert_eq!(other.facts[fact], found);
        other.facts[fact] = 77.into();
        assert_eq!(scene.test_restore(&other).unwrap(), [format!("{fact}: expected 77, found {found}")]);
    }
    for object in &manifest.objects {
        let path = scene.set_folder().join(&object.name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(scene.test_restore(&manifest).is_err(), "{}", object.name);
        fs::write(&path, good).unwrap();
    }
    assert_eq!(manifest.objects.len(), 2);
}
