//! Files that are missing, unreadable, or change while they are read.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay_file_ops::Error;
use backstay_file_ops::config_set::ProblemKind;
use backstay_file_ops::restore::StageOptions;

use crate::support::Scene;

#[test]
fn a_missing_listed_file_makes_an_incomplete_set_that_no_restore_chooses() {
    let scene = Scene::new();
    fs::write(scene.path("there"), "x").unwrap();
    let report =
        scene.back_up(&scene.options(&[scene.path("there"), scene.path("gone"), scene.path("none-*")]));
    let kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Missing, ProblemKind::Missing]);
    assert!(!report.receipt.manifest.complete);
    assert_eq!(report.facts.fingerprint, None);
    assert!(scene.newest().is_err());
    // It can still be looked at on purpose.
    scene.stage(&report.receipt.manifest, &StageOptions::new(scene.path("staging"))).unwrap();
    // Nothing at all is no set.
    assert!(matches!(scene.try_back_up(&scene.options(&[scene.path("gone")])), Err(Error::Nothing { .. })));
}

#[test]
fn what_is_left_out_and_what_cannot_be_stored() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    for folder in ["cache", "kept", "node_modules/x", "keep/node_modules"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
        fs::write(tree.join(folder).join("file"), "x").unwrap();
        fs::write(tree.join(folder).join("file.log"), "x").unwrap();
    }
    fs::write(tree.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    fs::write(tree.join("kept/CACHEDIR.TAG"), "not really\n").unwrap();
    let _socket = UnixListener::bind(tree.join("socket")).unwrap();
    let mut options = scene.options(std::slice::from_ref(&tree));
    options.selection.excludes =
        ["*.log", "node_modules", "!**/kept/file.log", &format!("!{}/keep/node_modules", tree.display())]
            .map(str::to_owned)
            .to_vec();
    let report = scene.back_up(&options);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(report.problems[0].kind, ProblemKind::Special);
    assert!(report.receipt.manifest.complete);
    let staged = scene.stage(&report.receipt.manifest, &StageOptions::new(scene.path("staging"))).unwrap();
    let base = tree.strip_prefix("/").unwrap();
    let names: Vec<_> = staged
        .entries
        .iter()
        .map(|entry| entry.path.as_path().strip_prefix(base).unwrap().display().to_string())
        .collect();
    let expected = [
        "",
        "cache",
        "cache/CACHEDIR.TAG",
        "keep",
        "keep/node_modules",
        "keep/node_modules/file",
        "kept",
        "kept/CACHEDIR.TAG",
        "kept/file",
        "kept/file.log",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_file_whose_content_is_kept_elsewhere_is_left_out_also_where_it_is_listed_itself() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("password"), "k7mQx92wp").unwrap();
    fs::write(tree.join("settings"), "x").unwrap();
    std::os::unix::fs::symlink("tree/password", scene.path("link")).unwrap();
    for left_out in [tree.join("password"), scene.path("link")] {
        let mut options = scene.options(&[tree.join("password"), tree.clone()]);
        options.selection.left_out = vec![left_out];
        options.force = true;
        let report = scene.back_up(&options);
        assert!(report.receipt.manifest.complete, "{:?}", report.problems);
        let staged =
            scene.stage(&report.receipt.manifest, &StageOptions::new(scene.path("staging"))).unwrap();
        let names: Vec<_> = staged.entries.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(!names.iter().any(|name| name.ends_with("password")), "{names:?}");
    }
}

/// Backs up while something happens to the files again and again.
fn while_busy(
    scene: &Scene,
    disturb: impl Fn() + Send + Sync,
    mut check: impl FnMut(&backstay_file_ops::config_set::ConfigReport),
) {
    let stop = AtomicBool::new(false);
    /// Also when a check fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                disturb();
            }
        });
        let _stop = Stop(&stop);
        let mut options = scene.options(&[scene.path("tree")]);
        options.force = true;
        for _ in 0..15 {
            check(&scene.back_up(&options));
        }
    });
}

/// Content of which every version is told from every mixture of two.
fn version(number: u8, length: usize) -> Vec<u8> {
    vec![number; length]
}

#[test]
fn torn_files_are_never_taken_for_whole_ones() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    for (name, length) in [("small", 1_000_000), ("large", 3 << 20)] {
        fs::write(tree.join(name), version(0, length)).unwrap();
        let path = tree.join(name);
        let number = std::sync::atomic::AtomicU8::new(1);
        // In place, so that a reader can see half of it.
        let disturb = || {
            let content = version(number.fetch_add(1, Ordering::Relaxed), length);
            let mut file = File::options().write(true).open(&path).unwrap();
            content.chunks(4096).for_each(|chunk| file.write_all(chunk).unwrap());
        };
        while_busy(&scene, disturb, |report| {
            let staged =
                scene.stage(&report.receipt.manifest, &StageOptions::new(scene.path("staging"))).unwrap();
            let content = fs::read(staged.files.join(path.strip_prefix("/").unwrap())).unwrap();
            // Between two writes it begins with the new version and ends with the one before: anything else never was.
            let parts: Vec<_> = content.chunk_by(|one, other| one == other).map(|part| part[0]).collect();
            let torn = match parts[..] {
                [_] => false,
                [new, before] => before != new.wrapping_sub(1),
                _ => true,
            };
            assert!(!torn || !report.receipt.manifest.complete, "{name} is torn, and nobody says so");
            assert_eq!(content.len(), length);
        });
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn files_that_grow_shrink_or_vanish_are_noted() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("steady"), "x").unwrap();
    let log = tree.join("log");
    fs::write(&log, vec![b'a'; 4 << 20]).unwrap();
    let mut noted = 0;
    let grow = || File::options().append(true).open(&log).unwrap().write_all(&[b'a'; 100]).unwrap();
    while_busy(&scene, grow, |report| {
        noted += report.problems.iter().filter(|problem| problem.kind == ProblemKind::Grew).count();
        assert!(report.receipt.manifest.complete, "{:?}", report.problems);
    });
    assert!(noted > 0, "it grew all the time");
    fs::remove_file(&log).unwrap();

    let comes_and_goes = tree.join("temporary");
    let blink = || {
        fs::write(&comes_and_goes, "x").unwrap();
        fs::remove_file(&comes_and_goes).unwrap();
    };
    while_busy(&scene, blink, |report| {
        scene.stage(&report.receipt.manifest, &StageOptions::new(scene.path("staging"))).unwrap();
    });
}
