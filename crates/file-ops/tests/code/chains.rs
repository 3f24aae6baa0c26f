//! Full sets and increments: what is stored, when nothing is, and what retention may remove.

use std::fs;
use std::time::Duration;

use backstay_backup_core::prune::{PrunePolicy, plan_prune};
use backstay_backup_core::retention::Rules;
use backstay_backup_core::verify::{Depth, VerifyOptions, verify_set};
use backstay_file_ops::code::{Outcome, RestoreOptions, chain};
use tokio_util::sync::CancellationToken;

use crate::support::Scene;

#[test]
fn an_unchanged_repository_stores_nothing() {
    let scene = Scene::new();
    let git = scene.git("app");
    let mut options = scene.options(git.path());
    let first = scene.back_up(&options);
    match scene.try_back_up(&options).unwrap() {
        Outcome::Unchanged { set, refs, dirty, .. } => {
            assert_eq!((set, refs, dirty), (first.receipt.manifest.set, 1, Some(false)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.sets().len(), 1);
    // Something not committed does not matter unless it is asked for.
    git.write("untracked", "x");
    assert!(matches!(scene.try_back_up(&options).unwrap(), Outcome::Unchanged { dirty: Some(true), .. }));
    options.uncommitted = true;
    scene.back_up(&options);
    std::thread::sleep(Duration::from_millis(1_100));
    scene.back_up(&options);
    assert!(matches!(scene.try_back_up(&options).unwrap(), Outcome::Unchanged { .. }));
    git.write("untracked", "y");
    scene.back_up(&options);
    // All of it anew, on request or because of its age.
    options.full = true;
    assert_eq!(scene.back_up(&options).facts.builds_on, 0);
    options.full = false;
    options.refresh_after = Some(Duration::ZERO);
    let fresh = scene.back_up(&options);
    assert!(fresh.facts.bundle && fresh.receipt.manifest.parent.is_none());
}

#[test]
fn increments_hold_what_is_new_and_a_restore_walks_them() {
    let scene = Scene::new();
    let git = scene.git("app");
    git.commit(
        "large",
        (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>(),
    );
    git.lfs(b"first");
    let options = scene.options(git.path());
    let full = scene.back_up(&options).receipt.manifest;
    let mut parent = full.set.clone();
    for number in 0..4 {
        git.commit(&format!("file{number}"), format!("{number}\n"));
        git.run(&["tag", "-a", &format!("v{number}"), "-m", "x"]);
        let report = scene.back_up(&options);
        assert_eq!((report.facts.builds_on, &report.receipt.manifest.parent), (number + 1, &Some(parent)));
        assert!(report.receipt.manifest.stored_size() * 20 < full.stored_size());
        parent = report.receipt.manifest.set.clone();
    }
    // Refs that only move to what is known, or go: no bundle, and the refs are exact all the same.
    git.run(&["reset", "-q", "--hard", "HEAD~2"]);
    git.run(&["tag", "-d", "v3"]);
    git.run(&["branch", "old", "v1"]);
    git.lfs(b"second");
    let report = scene.back_up(&options);
    assert!(!report.facts.bundle);
    assert_eq!(report.facts.lfs.stored.len(), 1);
    // History rewritten, and what was forgotten pruned: what the increment leaves out is in the sets before it.
    git.run(&["commit", "-q", "--amend", "-m", "rewritten"]);
    git.run(&["reflog", "expire", "--expire=now", "--all"]);
    git.run(&["gc", "-q", "--prune=now"]);
    fs::remove_dir_all(git.path().join(".git/lfs")).unwrap();
    git.lfs(b"second");
    let report = scene.back_up(&options);
    assert_eq!((report.facts.builds_on, report.facts.bundle), (6, true));
    let restored = scene.try_restore(&RestoreOptions::new(&scene.path("back"))).unwrap();
    assert_eq!((restored.sets, restored.state.lfs.len()), (7, 1));
    let back = crate::support::Git(scene.path("back"));
    assert_eq!(back.refs(), git.refs());
    let objects = fs::read_dir(back.path().join(".git/lfs/objects")).unwrap().count();
    assert_eq!(objects, 1, "what is no longer there is not restored");
}

#[test]
fn a_chain_ends_where_it_should() {
    let scene = Scene::new();
    let git = scene.git("app");
    let mut options = scene.options(git.path());
    options.chain = 3;
    let lengths: Vec<_> = (0..7)
        .map(|number| {
            git.commit(&format!("file{number}"), "x");
            scene.back_up(&options).facts.builds_on
        })
        .collect();
    assert_eq!(lengths, [0, 1, 2, 0, 1, 2, 0]);
    // Other readers could not read the sets before.
    let other = age::x25519::Identity::generate().to_public().to_string();
    options.recipients = backstay_backup_core::encryption::Recipients::parse([other.as_str()]).unwrap();
    git.commit("other", "x");
    assert_eq!(scene.back_up(&options).facts.builds_on, 0);
}

#[test]
fn nothing_builds_on_a_damaged_set() {
    let scene = Scene::new();
    let git = scene.git("app");
    let options = scene.options(git.path());
    scene.back_up(&options);
    git.commit("a", "a");
    scene.back_up(&options);
    let bundle = scene.sets()[0].join("repository.bundle.age");
    let good = fs::read(&bundle).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&bundle, bad).unwrap();
    // Found by a verification, the full set is not good, and neither is what builds on it.
    scene.runtime.block_on(async {
        let catalog = scene_catalog(&scene).await;
        for set in &catalog.sets {
            let verified =
                verify_set(&scene.repositories, &catalog.stanza, set, &VerifyOptions::new(Depth::Full)).await;
            verified.store_proofs(&scene.repositories, "test").await.unwrap();
        }
    });
    assert!(scene.catalog().sets.iter().all(|set| !set.is_good()));
    assert!(scene.try_restore(&RestoreOptions::new(&scene.path("back"))).is_err());
    git.commit("b", "b");
    assert_eq!(scene.back_up(&options).facts.builds_on, 0);
    assert_eq!(scene.restore("back").refs(), git.refs());
}

async fn scene_catalog(scene: &Scene) -> backstay_backup_core::catalog::Catalog {
    let stanza = backstay_backup_core::id::Stanza::parse("main").unwrap();
    backstay_backup_core::catalog::Catalog::load(&scene.repositories, &stanza).await.unwrap()
}

#[test]
fn pruning_never_removes_what_a_kept_increment_needs() {
    let scene = Scene::new();
    let git = scene.git("app");
    let mut options = scene.options(git.path());
    options.chain = 3;
    for number in 0..8 {
        git.commit(&format!("file{number}"), "x");
        scene.back_up(&options);
        // Times of arrival differ.
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = scene.sets();
    let mut rules = Rules::default();
    rules.last = 1;
    rules.min_age = backstay_backup_core::config::TimeSpan::from_secs(0);
    let policy = PrunePolicy::new(rules);
    let report = scene.runtime.block_on(async {
        let stanza = backstay_backup_core::id::Stanza::parse("main").unwrap();
        let plan = plan_prune(&scene.repositories, &stanza, &policy).await.unwrap();
        plan.apply(&scene.repositories, &CancellationToken::new()).await.unwrap()
    });
    assert_eq!(report.repositories[0].removed.len(), 6, "{report:?}");
    // The newest is the second of its chain: it and the full set stay.
    assert_eq!(scene.sets(), before[6..]);
    assert_eq!(scene.restore("back").refs(), git.refs());
    let catalog = scene.catalog();
    assert_eq!(chain(&catalog, &catalog.sets[0]).unwrap().len(), 2);
}

#[test]
fn a_chain_whose_beginning_is_gone_is_not_taken_for_a_shorter_one() {
    let scene = Scene::new();
    let git = scene.git("app");
    let options = scene.options(git.path());
    scene.back_up(&options);
    git.commit("a", "a");
    scene.back_up(&options);
    fs::remove_dir_all(&scene.sets()[0]).unwrap();
    let catalog = scene.catalog();
    assert_eq!(catalog.sets.len(), 1);
    let error = chain(&catalog, &catalog.sets[0]).unwrap_err().to_string();
    assert!(error.contains("which it builds on, is not there"), "{error}");
    assert!(
        scene.restore_set(&catalog, &catalog.sets[0], &RestoreOptions::new(&scene.path("back"))).is_err()
    );
    assert!(!scene.path("back").exists());
    // The next one builds on nothing.
    assert_eq!(scene.back_up(&options).facts.builds_on, 0);
}
