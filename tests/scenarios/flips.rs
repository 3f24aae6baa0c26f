//! Every turned-over bit of a repository is found by a full verification, by set and object, and no damaged set
//! touches the target of a restore.
//!
//! 600 bits, or 12,000 with `BACKSTAY_SOAK` in the environment, in every file in turn.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_backup_core::Class;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::hold;
use backstay_backup_core::id::SetId;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::proof::{Proof, ProofKind};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::store::SharedStore;
use backstay_backup_core::verify::{Depth, VerifyOptions, verify_set};
use backstay_postgres_ops::DumpOptions;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::scene::{Scene, catalog, open, soak, stanza, words};

const SEED: u64 = 20_261_123;
const SETS: usize = 3;
/// A key for tests; it opens nothing else.
const KEY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

/// A repository in a directory.
struct Vault {
    root: tempfile::TempDir,
    store: SharedStore,
    repositories: Repositories,
    files: Vec<PathBuf>,
}

/// One bit of a file.
#[derive(Clone, Copy, Debug)]
struct Bit {
    byte: usize,
    bit: u32,
}

impl Bit {
    fn of(content: &[u8], random: &mut StdRng) -> Self {
        Self { byte: random.random_range(0..content.len()), bit: random.random_range(0..8) }
    }

    fn turned_over(self, content: &[u8]) -> Vec<u8> {
        let mut bad = content.to_vec();
        bad[self.byte] ^= 1 << self.bit;
        bad
    }
}

impl Vault {
    async fn at(root: tempfile::TempDir) -> Self {
        let store: SharedStore = Arc::new(LocalStore::create(root.path().to_owned()).unwrap());
        let repositories = open(store.clone()).await.unwrap();
        let mut vault = Self { root, store, repositories, files: Vec::new() };
        vault.files = vault.files_below(vault.root.path());
        vault
    }

    /// Three sets: compressed with zstd, encrypted with facts and proofs and a hold, and compressed with gzip.
    async fn filled(scene: &Scene) -> Self {
        let mut vault = Self::at(tempfile::tempdir().unwrap()).await;
        let mut encrypted = DumpOptions::new(stanza()).digests(true);
        encrypted.recipients = Identities::parse(KEY).unwrap().recipients();
        let mut gzip = DumpOptions::new(stanza());
        gzip.codec = Codec::Gzip;
        let mut sets = Vec::new();
        for options in [DumpOptions::new(stanza()), encrypted, gzip] {
            sets.push(scene.backup(&vault.repositories, &options).await.unwrap().receipt.manifest.set);
        }
        vault.add_records(&sets[1]).await;
        vault.files = vault.files_below(vault.root.path());
        vault
    }

    async fn add_records(&self, set: &SetId) {
        hold::place(&self.repositories, &stanza(), set, "audit").await.unwrap();
        for kind in ProofKind::ALL {
            let now = self.repositories.clock().now();
            let proof = Proof::new(kind, stanza(), set.clone(), "scenario", now, true);
            proof.store(&self.repositories.members()[0]).await.unwrap();
        }
    }

    /// The same repository in another place.
    async fn copy(&self) -> Self {
        let root = tempfile::tempdir().unwrap();
        for file in &self.files {
            let to = root.path().join(file.strip_prefix(self.root.path()).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(file, to).unwrap();
        }
        Self::at(root).await
    }

    /// All objects, sorted; hidden files are the store's own.
    fn files_below(&self, folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                files.extend(self.files_below(&entry.path()));
            } else if !entry.file_name().to_string_lossy().starts_with('.') {
                files.push(entry.path());
            }
        }
        files.sort();
        files
    }

    fn key(&self, file: &Path) -> String {
        file.strip_prefix(self.root.path()).unwrap().display().to_string()
    }

    /// Verifies every set in full; set and object of everything that is wrong.
    async fn damage(&self) -> Vec<(String, String)> {
        let catalog = catalog(&self.repositories).await;
        assert_eq!(catalog.sets.len(), SETS, "damage does not hide a set");
        let options = VerifyOptions::new(Depth::Full).workers(1);
        let mut damage = Vec::new();
        for set in &catalog.sets {
            let report = verify_set(&self.repositories, &stanza(), set, &options).await;
            assert!(report.is_complete(), "{report:?}");
            for copy in &report.copies {
                let problems = copy.problems.iter().chain(&copy.damaged_records);
                damage.extend(problems.map(|problem| (report.set.to_string(), problem.object.clone())));
            }
        }
        damage
    }

    /// Turns one bit over, looks, and turns it back; what is missing or wrong in what was found.
    async fn flip(&self, number: usize) -> Option<String> {
        let path = &self.files[number % self.files.len()];
        let good = std::fs::read(path).unwrap();
        let bit = Bit::of(&good, &mut StdRng::seed_from_u64(SEED + number as u64));
        std::fs::write(path, bit.turned_over(&good)).unwrap();
        let key = self.key(path);
        let wrong = if key == "backstay.json" {
            let place = self.root.path().display().to_string();
            match Repository::open("only", self.store.clone()).await {
                Err(error) if error.class() == Class::Data && error.to_string().contains(&place) => None,
                other => Some(format!("{other:?}")),
            }
        } else {
            let named = self.damage().await;
            let right = |(set, object): &(String, String)| key.contains(set) && key.ends_with(object);
            let exact = !named.is_empty() && named.iter().all(right);
            (!exact).then(|| format!("named: {named:?}"))
        };
        std::fs::write(path, good).unwrap();
        wrong.map(|wrong| format!("flip {number} of seed {SEED}: {bit:?} of {key}: {wrong}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_turned_over_bits_are_all_found_and_named() {
    let scene = Scene::start(30).await;
    let vault = Arc::new(Vault::filled(&scene).await);
    assert_eq!(vault.damage().await, [], "nothing is wrong yet");
    let kinds = ["backstay.json", "/manifest.json", ".zst", ".gz", ".age", "/proofs/", "/holds/"];
    for kind in kinds {
        assert!(vault.files.iter().any(|file| vault.key(file).contains(kind)), "{kind}: {:?}", vault.files);
    }
    let flips = if soak() { 12_000 } else { 600 };
    let workers = [vault.clone(), Arc::new(vault.copy().await)];
    let mut running = tokio::task::JoinSet::new();
    for (worker, vault) in workers.iter().cloned().enumerate() {
        let runtime = tokio::runtime::Handle::current();
        running.spawn_blocking(move || {
            let numbers = (worker..flips).step_by(2);
            numbers.filter_map(|number| runtime.block_on(vault.flip(number))).collect::<Vec<_>>()
        });
    }
    let wrong: Vec<String> = running.join_all().await.concat();
    eprintln!("{flips} flips in {} files, {} not found as they should", vault.files.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    for vault in &workers {
        assert_eq!(vault.damage().await, [], "nothing is wrong any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_set_is_refused_before_the_target_is_touched() {
    let scene = Scene::start(30).await;
    let vault = Vault::filled(&scene).await;
    let sets = catalog(&vault.repositories).await.sets;
    let keys = Identities::parse(KEY).unwrap();
    let mut random = StdRng::seed_from_u64(SEED);
    let mut refused = 0;
    for set in &sets {
        let manifest = set.manifest.as_ref().unwrap();
        for file in vault.files.iter().filter(|file| vault.key(file).contains(&format!("sets/{}/", set.id))) {
            let (good, key) = (std::fs::read(file).unwrap(), vault.key(file));
            let bit = Bit::of(&good, &mut random);
            std::fs::write(file, bit.turned_over(&good)).unwrap();
            let when = format!("{bit:?} of {key}");
            if key.ends_with("manifest.json") {
                let found = catalog(&vault.repositories).await;
                let damaged = found.by_id(set.id.as_str()).unwrap();
                assert!(damaged.manifest.is_none() && !damaged.is_good(), "{when}");
            } else {
                let error =
                    scene.restore_with(&vault.repositories, manifest, "never", &keys).await.unwrap_err();
                assert_eq!(error.class(), Class::Data, "{when}: {}", words(&error));
                let object = file.file_name().unwrap().to_string_lossy();
                assert!(words(&error).contains(&*object), "{when}: {}", words(&error));
                assert!(words(&error).contains(set.id.as_str()), "{when}: {}", words(&error));
            }
            assert_eq!(scene.count_databases("never").await, "0", "{when}");
            std::fs::write(file, good).unwrap();
            refused += 1;
        }
        let receipt = scene.restore_with(&vault.repositories, manifest, "again", &keys).await.unwrap();
        assert!(receipt.comparison.is_equal(), "whole again");
    }
    assert!(refused >= 9, "{refused}");
}
