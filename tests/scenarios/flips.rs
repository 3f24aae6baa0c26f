//! Every turned-over bit of a repository is found by a full verification, by set and object.

use std::sync::Arc;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::hold;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::proof::{Proof, ProofKind};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::store::SharedStore;
use backstay_backup_core::verify::{Depth, VerifyOptions, verify_set};
use backstay_postgres_ops::DumpOptions;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::scene::{Scene, open, soak, stanza};

const SEED: u64 = 20_261_123;
const FLIPS: usize = 10_000;

/// Verifies every set in full; set and object of everything that is wrong.
async fn damage(repositories: &Repositories) -> Vec<(String, String)> {
    let catalog = Catalog::load(repositories, &stanza()).await.unwrap();
    assert_eq!(catalog.sets.len(), 1, "damage does not hide a set");
    let options = VerifyOptions::new(Depth::Full).workers(1);
    let mut damage = Vec::new();
    for set in &catalog.sets {
        let report = verify_set(repositories, &stanza(), set, &options).await;
        assert!(report.is_complete(), "{report:?}");
        for copy in &report.copies {
            let problems = copy.problems.iter().chain(&copy.damaged_records);
            damage.extend(problems.map(|problem| (report.set.to_string(), problem.object.clone())));
        }
    }
    damage
}

#[tokio::test]
async fn ten_thousand_turned_over_bits_are_all_found_and_named() {
    let scene = Scene::start(30).await;
    let root = tempfile::tempdir().unwrap();
    let store: SharedStore = Arc::new(LocalStore::create(root.path().to_owned()).unwrap());
    let repositories = open(store.clone()).await.unwrap();
    let report = scene.backup(&repositories, &DumpOptions::new(stanza())).await.unwrap();
    let (set, now) = (&report.receipt.manifest.set, repositories.clock().now());
    hold::place(&repositories, &stanza(), set, "audit").await.unwrap();
    let proof = Proof::new(ProofKind::RestoreTest, stanza(), set.clone(), "scenario", now, true);
    proof.store(&repositories.members()[0]).await.unwrap();
    assert_eq!(damage(&repositories).await, [], "nothing is wrong yet");

    let mut files = Vec::new();
    collect(root.path(), &mut files);
    let mut random = StdRng::seed_from_u64(SEED);
    let flips = if soak() { 10 * FLIPS } else { FLIPS };
    for number in 0..flips {
        // Every file in turn, so that the small ones get their share.
        let path = &files[number % files.len()];
        let good = std::fs::read(path).unwrap();
        let (at, bit) = (random.random_range(0..good.len()), random.random_range(0..8));
        let mut bad = good.clone();
        bad[at] ^= 1 << bit;
        std::fs::write(path, bad).unwrap();
        let key = path.strip_prefix(root.path()).unwrap().display().to_string();
        let when = format!("flip {number} of seed {SEED}: bit {bit} of byte {at} of {key}");
        if key == "backstay.json" {
            let opened = Repository::open("only", store.clone()).await;
            assert!(opened.is_err(), "{when}: not found");
        } else {
            let named = damage(&repositories).await;
            let found = named
                .iter()
                .any(|(set, object)| key.contains(set.as_str()) && key.ends_with(object.as_str()));
            assert!(found, "{when}: found only {named:?}");
            assert!(named.iter().all(|(set, _)| key.contains(set.as_str())), "{when}: {named:?}");
        }
        std::fs::write(path, good).unwrap();
    }
    assert_eq!(damage(&repositories).await, [], "nothing is wrong any more");
}

fn collect(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), files);
        } else if !entry.file_name().to_string_lossy().starts_with('.') {
            files.push(entry.path());
        }
    }
}
