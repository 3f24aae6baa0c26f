//! One copy: manifest, listing, objects, records.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::object::{self, Finding};
use super::{Depth, Outcome, VerifiedCopy, VerifyOptions};
use crate::error::{Error, describe};
use crate::hold::{self, HoldEvent};
use crate::id::{SetId, Stanza};
use crate::key::Key;
use crate::manifest::{Manifest, ManifestError, ObjectEntry};
use crate::proof::{self, Problem, READS};
use crate::replicas::Repositories;
use crate::repository::{ReadError, Repository, layout, record};
use crate::store::StoreError;

/// Verifies the copy in the only repository of `only`.
pub(super) async fn verify(
    only: &Repositories,
    stanza: &Stanza,
    set: &SetId,
    options: &VerifyOptions,
) -> VerifiedCopy {
    let repository = &only.members()[0];
    let started = Instant::now();
    let mut copy = VerifiedCopy::new(repository.name(), Outcome::Passed);
    if let Some(manifest) = read_manifest(repository, stanza, set, &mut copy).await {
        let present = compare_listing(repository, &manifest, &mut copy).await;
        if options.depth == Depth::Full {
            read_objects(only, &manifest, present, options, &mut copy).await;
        }
    }
    if options.depth == Depth::Full {
        copy.damaged_records = check_records(repository, stanza, set, &mut copy.unchecked).await;
    }
    copy.checked.millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    copy.conclude();
    copy
}

async fn read_manifest(
    repository: &Repository,
    stanza: &Stanza,
    set: &SetId,
    copy: &mut VerifiedCopy,
) -> Option<Manifest> {
    match repository.manifest(stanza, set).await {
        Ok(manifest) => {
            copy.checked.objects += 1;
            return Some(manifest);
        }
        Err(Error::Store { source, .. }) => match Finding::of(&source) {
            Finding::Bad(problem) => copy.problems.push(Problem::new(layout::MANIFEST, problem)),
            Finding::Unchecked(problem) | Finding::Locked(problem) => {
                copy.unchecked.push(Problem::new(layout::MANIFEST, problem));
            }
        },
        // Not damaged: a bad result kept beside it would make the set doubtful to those who can read it.
        Err(error @ Error::Manifest { source: ManifestError::TooNew { .. }, .. }) => {
            copy.newer = true;
            copy.unchecked.push(Problem::new(layout::MANIFEST, describe(&error)));
        }
        Err(error) => copy.problems.push(Problem::new(layout::MANIFEST, describe(&error))),
    }
    None
}

/// Compares names and sizes with the store; returns the objects that have the right size.
async fn compare_listing<'a>(
    repository: &Repository,
    manifest: &'a Manifest,
    copy: &mut VerifiedCopy,
) -> Vec<&'a ObjectEntry> {
    let mut expected: HashMap<Key, &ObjectEntry> = HashMap::new();
    for entry in &manifest.objects {
        match layout::object(&manifest.stanza, &manifest.set, &entry.name) {
            Err(error) => copy.problems.push(Problem::new(&entry.name, error.to_string())),
            Ok(key) => {
                if expected.insert(key, entry).is_some() {
                    copy.problems.push(Problem::new(&entry.name, "the manifest names it twice"));
                }
            }
        }
    }
    let mut present = Vec::new();
    let folder = layout::set(&manifest.stanza, &manifest.set);
    let manifest_key = layout::manifest(&manifest.stanza, &manifest.set);
    let mut listing = repository.store().list(&folder);
    loop {
        match listing.try_next().await {
            Ok(Some(meta)) => match expected.remove(&meta.key) {
                Some(entry) => compare_size(entry, meta.size, copy, &mut present),
                None if meta.key != manifest_key => copy.strays += 1,
                None => {}
            },
            Ok(None) => break,
            Err(error) => {
                copy.unchecked.push(Problem::new("*", describe(&error)));
                return present;
            }
        }
    }
    // Missing is said only when the store proves it for the very key.
    for (key, entry) in expected {
        match repository.store().head(&key).await {
            Ok(meta) => compare_size(entry, meta.size, copy, &mut present),
            Err(error) => match Finding::of(&error) {
                Finding::Bad(problem) => copy.problems.push(Problem::new(&entry.name, problem)),
                Finding::Unchecked(problem) | Finding::Locked(problem) => {
                    copy.unchecked.push(Problem::new(&entry.name, problem));
                }
            },
        }
    }
    present
}

fn compare_size<'a>(
    entry: &'a ObjectEntry,
    size: u64,
    copy: &mut VerifiedCopy,
    present: &mut Vec<&'a ObjectEntry>,
) {
    copy.checked.objects += 1;
    if size == entry.stored {
        present.push(entry);
    } else {
        let problem = format!("it is {size} bytes long, the manifest says {}", entry.stored);
        copy.problems.push(Problem::new(&entry.name, problem));
    }
}

async fn read_objects(
    only: &Repositories,
    manifest: &Manifest,
    entries: Vec<&ObjectEntry>,
    options: &VerifyOptions,
    copy: &mut VerifiedCopy,
) {
    options.progress.expect_bytes(entries.iter().map(|entry| entry.stored).sum());
    options.progress.expect_items(entries.len() as u64);
    let reads = stream::iter(0..entries.len()).map(|at| {
        let entry = entries[at];
        async move {
            let result = object::verify(only, manifest, entry, options).await;
            options.progress.add_items(1);
            (entry, result)
        }
    });
    let mut results = reads.buffer_unordered(options.workers.max(1));
    while let Some((entry, result)) = results.next().await {
        match result {
            Ok(bytes) => copy.checked.bytes += bytes,
            Err(Finding::Bad(problem)) => copy.problems.push(Problem::new(&entry.name, problem)),
            Err(Finding::Unchecked(problem)) => copy.unchecked.push(Problem::new(&entry.name, problem)),
            Err(Finding::Locked(problem)) => {
                copy.locked = true;
                copy.unchecked.push(Problem::new(&entry.name, problem));
            }
        }
    }
}

/// Reads every proof and hold of the set; returns the damaged ones.
async fn check_records(
    repository: &Repository,
    stanza: &Stanza,
    set: &SetId,
    unchecked: &mut Vec<Problem>,
) -> Vec<Problem> {
    let mut damaged = Vec::new();
    for (below, all) in [
        (layout::proofs(stanza, set), layout::all_proofs(stanza)),
        (layout::holds(stanza, set), layout::all_holds(stanza)),
    ] {
        let listing = repository.store().list(&below);
        let checks = listing.map(|meta| {
            let all = &all;
            async move {
                let key = meta.map_err(|error| ("*".to_owned(), ReadError::Store(error)))?.key;
                let name = layout::split(all, &key).map(|(_, name)| name).unwrap_or_default();
                check_record(repository, stanza, set, &key, &name)
                    .await
                    .map_err(|error| (key.as_str().to_owned(), error))
            }
        });
        let mut checks = checks.buffer_unordered(READS);
        while let Some(check) = checks.next().await {
            match check {
                Ok(()) => {}
                Err((key, ReadError::Content(error))) => damaged.push(Problem::new(&key, error.to_string())),
                Err((_, ReadError::Store(StoreError::Absent { .. }))) => {}
                Err((key, ReadError::Store(error))) => unchecked.push(Problem::new(&key, describe(&error))),
            }
        }
    }
    damaged
}

/// Names that are none of ours are left alone.
async fn check_record(
    repository: &Repository,
    stanza: &Stanza,
    set: &SetId,
    key: &Key,
    name: &str,
) -> Result<(), ReadError> {
    if let Some(kind) = proof::kind_of(name) {
        proof::read(repository, stanza, set, kind, key).await?;
    } else if hold::is_event(name) {
        let event: HoldEvent = record::read(repository, key).await?;
        hold::belongs(&event, stanza, set).map_err(ReadError::Content)?;
    }
    Ok(())
}
