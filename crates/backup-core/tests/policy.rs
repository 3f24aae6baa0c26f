//! The life of sets in directories: written, listed, damaged, found, proven, held, pruned; and leases between processes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::Error;
use backstay_backup_core::catalog::{Catalog, Filter};
use backstay_backup_core::clock::{Clock, SystemClock};
use backstay_backup_core::config::TimeSpan;
use backstay_backup_core::hold;
use backstay_backup_core::id::{SetId, Stanza};
use backstay_backup_core::lease::{Lease, LeaseError, LeaseMode, LeaseOptions};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::{Codec, SetKind, Source};
use backstay_backup_core::proof::{Proof, ProofKind};
use backstay_backup_core::prune::{PrunePolicy, PruneReport, plan_prune};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::retention::Rules;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_backup_core::verify::{Depth, Outcome, VerifyOptions, verify_set};
use bytes::Bytes;
use futures::stream;
use tokio_util::sync::CancellationToken;

fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

async fn open(root: &Path, names: &[&str]) -> Repositories {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut members = Vec::new();
    for name in names {
        let store = Arc::new(LocalStore::create(root.join(name)).unwrap());
        members.push(Repository::open_or_create(name, store, &*clock).await.unwrap());
    }
    Repositories::new(members, 1, clock).unwrap()
}

async fn begin(repositories: &Repositories) -> SetWriter {
    let source = Source::default();
    let spec = SetSpec::new(SetKind::new("test"), stanza(), "test 1.0").source(source);
    SetWriter::begin(repositories, spec, DataPath::default().workers(1)).await.unwrap()
}

async fn write(repositories: &Repositories) -> SetId {
    let writer = begin(repositories).await;
    let mut objects = Vec::new();
    for (name, len) in [("globals.sql", 2_000), ("db/shop.dump", 70_000)] {
        let body: Vec<u8> = (0..len).map(|n: u32| (n % 251) as u8).collect();
        let input = stream::iter([Ok(Bytes::from(body))]);
        objects.push(writer.object(name, Codec::Zstd, input).await.unwrap());
    }
    let point = repositories.clock().now();
    writer.commit(SetContents::new(point, objects)).await.unwrap().manifest.set
}

async fn catalog(repositories: &Repositories) -> Catalog {
    Catalog::load(repositories, &stanza()).await.unwrap()
}

fn at_once(last: u32) -> PrunePolicy {
    let none = TimeSpan::from_secs(0);
    PrunePolicy::new(Rules::default().last(last).min_age(none)).grace(none)
}

async fn prune(repositories: &Repositories, policy: &PrunePolicy) -> PruneReport {
    let plan = plan_prune(repositories, &stanza(), policy).await.unwrap();
    plan.apply(repositories, &CancellationToken::new()).await.unwrap()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    let mut found: Vec<_> = paths.flat_map(below).collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_set_is_written_listed_proven_held_and_pruned() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), &["near", "far"]).await;
    let mut sets = Vec::new();
    for _ in 0..4 {
        sets.push(write(&repositories).await);
    }
    let loaded = catalog(&repositories).await;
    assert_eq!(loaded.newest_good(&Filter::default()).unwrap().id, sets[3]);
    for set in &loaded.sets {
        let report = verify_set(&repositories, &stanza(), set, &VerifyOptions::new(Depth::Full)).await;
        assert!(report.is_clean() && report.is_complete(), "{report:?}");
        report.store_proofs(&repositories, "test 1.0").await.unwrap();
    }
    let at = repositories.clock().now();
    let proof = Proof::new(ProofKind::RestoreTest, stanza(), sets[3].clone(), "test 1.0", at, true);
    proof.store(&repositories.members()[0]).await.unwrap();
    hold::place(&repositories, &stanza(), &sets[0], "audit").await.unwrap();

    let policy = at_once(1).rules_of("far", Rules::default().last(3).min_age(TimeSpan::from_secs(0)));
    let report = prune(&repositories, &policy).await;
    assert!(report.is_complete(), "{report:?}");
    let removed: Vec<_> = report.repositories.iter().map(|report| report.removed.len()).collect();
    assert_eq!(removed, [2, 0]);
    let near = root.path().join("near");
    let left: BTreeSet<_> = std::fs::read_dir(near.join("main/sets"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| !files(&entry.path()).is_empty())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, BTreeSet::from([sets[0].to_string(), sets[3].to_string()]));
    assert!(files(&near.join("main/proofs").join(sets[1].as_str())).is_empty());
    let report = catalog(&repositories).await.report(repositories.clock().now());
    assert_eq!(report.sets.len(), 4, "the far repository still has them all");
    assert!(report.sets[0].proven.as_ref().unwrap().passed);
    assert!(report.sets.iter().all(|set| set.good && set.problems.is_empty()), "{report:?}");
}

#[tokio::test]
async fn every_flipped_bit_on_disk_is_found_and_named() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), &["near"]).await;
    let set = write(&repositories).await;
    let folder = root.path().join("near/main/sets").join(set.as_str());
    let summary = catalog(&repositories).await.sets.remove(0);
    let mut flips = 0;
    for path in files(&folder) {
        let whole = std::fs::read(&path).unwrap();
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap();
        for bit in (0..whole.len() * 8).step_by((whole.len() * 8 / 200).max(1)) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            let options = VerifyOptions::new(Depth::Full);
            let report = verify_set(&repositories, &stanza(), &summary, &options).await;
            assert_eq!(report.copies[0].outcome, Outcome::Failed, "bit {bit} of {name}");
            let named: Vec<_> = report.copies[0].problems.iter().map(|p| p.object.as_str()).collect();
            assert_eq!(named, [name]);
            flips += 1;
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(flips >= 600, "{flips}");
}

#[tokio::test]
async fn what_a_killed_writer_leaves_is_pruned_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let repositories = open(root.path(), &["near"]).await;
    write(&repositories).await;
    let before = files(&root.path().join("near/main/sets"));
    // Dropped in the middle of its second object, as if killed.
    let writer = begin(&repositories).await;
    writer.object("first", Codec::Zstd, stream::iter([Ok(Bytes::from(vec![1; 5000]))])).await.unwrap();
    let endless = stream::unfold(0_u64, |n| async move {
        tokio::task::yield_now().await;
        let noise: Vec<u8> =
            (0..1 << 16).map(|i: u64| (i.wrapping_mul(n * 2_654_435_761 + 1) >> 13) as u8).collect();
        Some((Ok(Bytes::from(noise)), n + 1))
    });
    let path = writer.object("second", Codec::None, endless);
    assert!(tokio::time::timeout(Duration::from_secs(2), path).await.is_err());
    drop(writer);
    assert!(files(&root.path().join("near/main/sets")).len() > before.len());

    let patient = at_once(5).grace(TimeSpan::from_secs(3600));
    let report = prune(&repositories, &patient).await;
    assert!(report.repositories[0].litter.is_empty(), "it may be a running backup");
    let report = prune(&repositories, &at_once(5)).await;
    assert!(report.is_complete() && !report.repositories[0].litter.is_empty(), "{report:?}");
    assert_eq!(files(&root.path().join("near/main/sets")), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_gets_the_lease_of_a_directory() {
    let root = tempfile::tempdir().unwrap();
    open(root.path(), &["near"]).await;
    let mut tokens = BTreeSet::new();
    for _ in 0..10 {
        let contenders = (0..8).map(|number| {
            let root = root.path().to_owned();
            // A store of its own each, as processes have.
            tokio::spawn(async move {
                let repositories = open(&root, &["near"]).await;
                let options = LeaseOptions::new(&format!("process {number}"));
                Lease::acquire(&repositories.members()[0], &stanza(), "backup", &options).await
            })
        });
        let mut held = Vec::new();
        for result in futures::future::join_all(contenders).await {
            match result.unwrap() {
                Ok(lease) => held.push(lease),
                Err(Error::Lease(LeaseError::Held { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(held.len(), 1);
        let lease = held.remove(0);
        assert_eq!(lease.mode(), LeaseMode::CompareAndSwap);
        assert!(tokens.insert(lease.token()));
        lease.check().await.unwrap();
        lease.release().await.unwrap();
    }
    assert_eq!(tokens.into_iter().collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}
