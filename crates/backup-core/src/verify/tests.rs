//! Every flipped bit, every missing, short and long object is found and named; what cannot be read is never good.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::catalog::Catalog;
use crate::catalog::fixture::{DAY, Shape, Site, entry, get, id, overwrite, put, stanza};
use crate::fault::{ErrorKind, Mishap, Operation};
use crate::hold;
use crate::key::Key;
use crate::manifest::{Codec, FORMAT_MAJOR, SetKind};
use crate::repository::layout;
use crate::set_writer::{DataPath, SetContents, SetSpec, SetWriter};

async fn catalog(site: &Site) -> Catalog {
    Catalog::load(&site.repositories, &stanza()).await.unwrap()
}

async fn verify(site: &Site, number: u32, options: &VerifyOptions) -> VerifyReport {
    let catalog = catalog(site).await;
    let set = catalog.by_id(id(number).as_str()).unwrap();
    verify_set(&site.repositories, &stanza(), set, options).await
}

fn full() -> VerifyOptions {
    VerifyOptions::new(Depth::Full)
}

fn quick() -> VerifyOptions {
    VerifyOptions::new(Depth::Quick)
}

/// Names of the objects with problems, of the first copy.
fn named(report: &VerifyReport) -> Vec<String> {
    let copy = &report.copies[0];
    copy.problems.iter().chain(&copy.damaged_records).map(|problem| problem.object.clone()).collect()
}

#[tokio::test]
async fn a_whole_set_passes_and_its_proof_is_kept() {
    let site = Site::daily(1).await;
    let report = verify(&site, 0, &full()).await;
    assert!(report.is_clean() && report.is_complete());
    let copy = &report.copies[0];
    assert_eq!((copy.outcome, copy.checked.objects, copy.checked.bytes), (Outcome::Passed, 3, 390));
    report.store_proofs(&site.repositories, "test").await.unwrap();
    report.store_proofs(&site.repositories, "test").await.unwrap();
    let verified = catalog(&site).await.sets[0].verified().unwrap();
    assert_eq!((verified.kind, verified.passed), (ProofKind::VerifyFull, true));
    let proofs = site.keys(0).await.into_iter().filter(|key| key.as_str().contains("/proofs/")).count();
    assert_eq!(proofs, 2);
}

/// Which name a problem with this key must have.
fn expected_name(key: &Key) -> String {
    let folder = layout::set(&stanza(), &id(0));
    key.as_str().strip_prefix(folder.as_str()).unwrap_or(key.as_str()).to_owned()
}

#[tokio::test]
async fn every_flipped_bit_of_a_repository_is_found_and_named() {
    let site = Site::daily(1).await;
    let near = site.repository(0);
    verify(&site, 0, &full()).await.store_proofs(&site.repositories, "test").await.unwrap();
    hold::place(&site.repositories, &stanza(), &id(0), "audit").await.unwrap();
    let keys: Vec<Key> =
        site.keys(0).await.into_iter().filter(|key| key.as_str().starts_with("main/")).collect();
    assert_eq!(keys.len(), 5, "two objects, a manifest, a proof, a hold");
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    for flip in 0..1500 {
        let key = &keys[flip % keys.len()];
        let whole = get(near, key).await;
        let bit = random.random_range(0..whole.len() * 8);
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        overwrite(near, key, &flipped).await;
        let report = verify(&site, 0, &full()).await;
        let place = format!("seed {seed}, bit {bit} of {key}");
        assert!(!report.is_clean(), "{place}");
        assert_eq!(named(&report), [expected_name(key)], "{place}");
        overwrite(near, key, &whole).await;
    }
    assert!(verify(&site, 0, &full()).await.is_clean());
}

#[tokio::test]
async fn missing_short_and_long_objects_are_named() {
    let site = Site::daily(1).await;
    let near = site.repository(0);
    let key = layout::object(&stanza(), &id(0), "db/shop.dump").unwrap();
    let whole = get(near, &key).await;
    let longer = [whole.clone(), vec![0]].concat();
    for (bytes, words) in [
        (Some(&whole[..299]), "it is 299 bytes long, the manifest says 300"),
        (Some(&longer[..]), "it is 301 bytes long, the manifest says 300"),
        (Some(&[]), "it is 0 bytes long, the manifest says 300"),
        (None, "it is missing"),
    ] {
        near.store().delete(&key).await.unwrap();
        if let Some(bytes) = bytes {
            put(near, &key, bytes).await;
        }
        for options in [quick(), full()] {
            let report = verify(&site, 0, &options).await;
            assert_eq!(report.copies[0].problems, [Problem::new("db/shop.dump", words)]);
            assert_eq!(report.copies[0].outcome, Outcome::Failed);
        }
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_listed_is_found() {
    let site = Site::daily(1).await;
    for (after, words) in [(10, "it ends after 10 of 90 bytes"), (0, "it ends after 0 of 90 bytes")] {
        let catalog = catalog(&site).await;
        // The manifest is read first, then the objects in their order.
        let gets = site.faults[0].count(Operation::Get);
        site.faults[0].on(Operation::Get, gets + 2, Mishap::Cut { after, loud: false });
        let options = full().workers(1);
        let report = verify_set(&site.repositories, &stanza(), &catalog.sets[0], &options).await;
        assert_eq!(report.copies[0].problems.len(), 1, "{report:?}");
        let problem = &report.copies[0].problems[0];
        assert!(problem.problem == words || problem.problem.contains("of 300 bytes"), "{problem:?}");
    }
}

#[tokio::test]
async fn strays_are_counted_and_do_no_harm() {
    let site = Site::daily(1).await;
    let stray = layout::object(&stanza(), &id(0), "left-over").unwrap();
    put(site.repository(0), &stray, b"x").await;
    let report = verify(&site, 0, &full()).await;
    assert!(report.is_clean());
    assert_eq!(report.copies[0].strays, 1);
}

#[tokio::test]
async fn hostile_manifests_are_reported() {
    let site = Site::new(&["near"]).await;
    let mut shape = Shape::new(0, site.now());
    shape.manifest.objects.push(entry("../../escape", b"x"));
    shape.manifest.objects.push(entry("manifest.json", b"x"));
    let twice = shape.manifest.objects[0].clone();
    shape.manifest.objects.push(twice);
    site.write(&shape).await;
    let report = verify(&site, 0, &full()).await;
    assert_eq!(named(&report), ["../../escape", "globals.sql", "manifest.json"]);
}

#[tokio::test]
async fn each_copy_is_judged_by_itself() {
    let site = Site::new(&["near", "far"]).await;
    site.write(&Shape::new(0, site.now())).await;
    let key = layout::object(&stanza(), &id(0), "globals.sql").unwrap();
    overwrite(site.repository(1), &key, &[0; 90]).await;
    let report = verify(&site, 0, &full()).await;
    let outcomes: Vec<_> =
        report.copies.iter().map(|copy| (copy.repository.as_str(), copy.outcome)).collect();
    assert_eq!(outcomes, [("near", Outcome::Passed), ("far", Outcome::Failed)]);
    report.store_proofs(&site.repositories, "test").await.unwrap();
    let catalog = catalog(&site).await;
    assert!(catalog.sets[0].is_good(), "one good copy is enough");
    assert!(!catalog.sets[0].verified().unwrap().passed, "but the bad one is shown");
}

#[tokio::test]
async fn what_cannot_be_read_is_neither_good_nor_bad() {
    let site = Site::daily(1).await;
    let catalog = catalog(&site).await;
    let fault = &site.faults[0];
    let before = fault.calls().len() as u64;
    verify_set(&site.repositories, &stanza(), &catalog.sets[0], &full()).await;
    let calls = fault.calls().len() as u64 - before;
    for kind in [ErrorKind::Temporary, ErrorKind::Denied, ErrorKind::Missing, ErrorKind::Failed] {
        for call in 1..=calls {
            fault.on_call(fault.calls().len() as u64 + call, Mishap::Error(kind));
            let report = verify_set(&site.repositories, &stanza(), &catalog.sets[0], &full()).await;
            fault.calm();
            let copy = &report.copies[0];
            assert_eq!(copy.outcome, Outcome::Unchecked, "{kind:?} at {call}: {copy:?}");
            assert!(report.proof(copy, "test", site.now()).is_none());
            assert!(report.is_clean() && !report.is_complete());
        }
    }
}

#[tokio::test]
async fn a_set_of_a_newer_version_is_not_called_bad() {
    let site = Site::daily(1).await;
    let mut manifest = Shape::new(0, site.now()).manifest;
    manifest.format = FORMAT_MAJOR + 1;
    let key = layout::manifest(&stanza(), &id(0));
    overwrite(site.repository(0), &key, &manifest.encode().unwrap()).await;
    let report = verify(&site, 0, &full()).await;
    let copy = &report.copies[0];
    assert_eq!((copy.outcome, copy.newer), (Outcome::Unchecked, true));
    assert!(report.proof(copy, "test", site.now()).is_none(), "or its own version would doubt it");
}

#[tokio::test]
async fn what_was_verified_lately_is_skipped() {
    let site = Site::daily(1).await;
    let week = TimeSpan::from_secs(7 * 86_400);
    let outcome =
        async |options: VerifyOptions| verify(&site, 0, &options.recheck_after(week)).await.copies[0].outcome;
    assert_eq!(outcome(full()).await, Outcome::Passed);
    verify(&site, 0, &quick()).await.store_proofs(&site.repositories, "test").await.unwrap();
    assert_eq!((outcome(quick()).await, outcome(full()).await), (Outcome::Skipped, Outcome::Passed));
    verify(&site, 0, &full()).await.store_proofs(&site.repositories, "test").await.unwrap();
    assert_eq!((outcome(quick()).await, outcome(full()).await), (Outcome::Skipped, Outcome::Skipped));
    site.pass(DAY * 8);
    assert_eq!((outcome(quick()).await, outcome(full()).await), (Outcome::Passed, Outcome::Passed));
    // A host clock from the past does not make an old proof a fresh one.
    site.host_clock.advance(-DAY * 100);
    assert_eq!(outcome(full()).await, Outcome::Passed);
}

#[tokio::test]
async fn a_failed_copy_is_looked_at_again_however_lately_it_failed() {
    let site = Site::daily(1).await;
    let key = layout::object(&stanza(), &id(0), "globals.sql").unwrap();
    let whole = get(site.repository(0), &key).await;
    verify(&site, 0, &full()).await.store_proofs(&site.repositories, "test").await.unwrap();
    overwrite(site.repository(0), &key, &[0; 90]).await;
    site.pass(SignedDuration::from_mins(1));
    verify(&site, 0, &full()).await.store_proofs(&site.repositories, "test").await.unwrap();
    overwrite(site.repository(0), &key, &whole).await;
    site.pass(SignedDuration::from_mins(1));
    let options = full().recheck_after(TimeSpan::from_secs(86_400));
    assert_eq!(verify(&site, 0, &options).await.copies[0].outcome, Outcome::Passed);
}

mod content {
    use super::*;
    use crate::encryption::Recipients;

    const KEY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

    async fn write(site: &Site, recipients: Recipients) -> SetId {
        let spec = SetSpec::new(SetKind::new("test"), stanza(), "test").recipients(recipients);
        let writer = SetWriter::begin(&site.repositories, spec, DataPath::default()).await.unwrap();
        let body = stream::iter([Ok(Bytes::from(vec![7; 200_000]))]);
        let entry = writer.object("data", Codec::Zstd, body).await.unwrap();
        let receipt = writer.commit(SetContents::new(site.now(), vec![entry])).await.unwrap();
        receipt.manifest.set
    }

    async fn outcome(site: &Site, set: &SetId, identities: Identities) -> VerifiedCopy {
        let catalog = catalog(site).await;
        let summary = catalog.by_id(set.as_str()).unwrap();
        let options = full().content(identities);
        verify_set(&site.repositories, &stanza(), summary, &options).await.copies.remove(0)
    }

    #[tokio::test]
    async fn content_is_decrypted_and_decompressed() {
        let site = Site::new(&["near"]).await;
        let mine = Identities::parse(KEY).unwrap();
        let set = write(&site, mine.recipients()).await;
        assert_eq!(outcome(&site, &set, mine).await.outcome, Outcome::Passed);
        let without = outcome(&site, &set, Identities::none()).await;
        assert_eq!(without.outcome, Outcome::Unchecked);
        assert!(without.unchecked[0].problem.contains("not decrypted"), "{without:?}");
    }

    #[tokio::test]
    async fn content_that_does_not_decode_is_bad_though_its_digest_is_right() {
        let site = Site::new(&["near"]).await;
        let mut shape = Shape::new(0, site.now());
        shape.manifest.objects[1].codec = Codec::Zstd;
        site.write(&shape).await;
        assert_eq!(verify(&site, 0, &full()).await.copies[0].outcome, Outcome::Passed);
        let copy = outcome(&site, &id(0), Identities::none()).await;
        assert_eq!(copy.outcome, Outcome::Failed);
        assert_eq!(copy.problems[0].object, "db/shop.dump");
    }

    #[tokio::test]
    async fn a_flip_is_found_in_content_too() {
        let site = Site::new(&["near"]).await;
        let set = write(&site, Recipients::none()).await;
        let key = layout::object(&stanza(), &set, "data").unwrap();
        let whole = get(site.repository(0), &key).await;
        for bit in (0..whole.len() * 8).step_by(3) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            overwrite(site.repository(0), &key, &flipped).await;
            let copy = outcome(&site, &set, Identities::none()).await;
            assert_eq!(copy.outcome, Outcome::Failed, "bit {bit}: {copy:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_are_read_in_bounded_pieces() {
    let site = Arc::new(Site::new(&["near"]).await);
    let mut shape = Shape::new(0, site.now());
    shape.objects = (0..6).map(|n| (format!("part-{n}"), vec![n; 5 << 20])).collect();
    shape.manifest.objects = shape.objects.iter().map(|(name, bytes)| entry(name, bytes)).collect();
    site.write(&shape).await;
    let progress = Progress::default();
    let report = verify(&site, 0, &full().progress(progress.clone())).await;
    assert!(report.is_clean());
    assert_eq!(report.copies[0].checked.bytes, 30 << 20);
    let shown = progress.snapshot();
    assert_eq!((shown.bytes_done, shown.items_done), (30 << 20, 6));
}
