//! Reads every stored byte of a set before its target is touched.

use std::sync::Arc;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::manifest::{Manifest, ObjectEntry, Sha256Hex};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::repository::layout;
use futures::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::client::lost_thread;
use crate::error::Error;

/// Objects read at the same time.
const PARALLEL: usize = 2;
/// Bytes hashed at once on a blocking thread.
const BATCH: usize = 4 << 20;

/// Checks that every object of the set has a good copy in some repository.
///
/// # Errors
/// [`CoreError::Damaged`] naming the first object without one.
pub(super) async fn preflight(
    repositories: &Repositories,
    manifest: &Arc<Manifest>,
    progress: &Progress,
) -> Result<(), Error> {
    progress.expect_bytes(manifest.stored_size());
    stream::iter(0..manifest.objects.len())
        .map(|at| has_good_copy(repositories, manifest, &manifest.objects[at], progress))
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

async fn has_good_copy(
    repositories: &Repositories,
    manifest: &Manifest,
    entry: &ObjectEntry,
    progress: &Progress,
) -> Result<(), Error> {
    let mut problems = Vec::new();
    for repository in repositories.members() {
        match check_copy(repository, manifest, entry, progress).await? {
            None => return Ok(()),
            Some(problem) => problems.push(format!("{problem} in repository {}", repository.name())),
        }
    }
    let problem = problems.join(", ");
    Err(CoreError::Damaged { set: manifest.set.clone(), object: entry.name.clone(), problem }.into())
}

/// What is wrong with one copy of an object; `None` for a good one.
async fn check_copy(
    repository: &Repository,
    manifest: &Manifest,
    entry: &ObjectEntry,
    progress: &Progress,
) -> Result<Option<String>, Error> {
    let Ok(key) = layout::object(&manifest.stanza, &manifest.set, &entry.name) else {
        return Ok(Some("an impossible name".to_owned()));
    };
    let mut body = match repository.store().get(&key, None).await {
        Ok(result) if result.meta.size != entry.stored => {
            return Ok(Some(format!("{} bytes instead of {}", result.meta.size, entry.stored)));
        }
        Ok(result) => result.body,
        Err(error) if error.is_absent() => return Ok(Some("missing".to_owned())),
        Err(error) => return Ok(Some(format!("unreadable ({error})"))),
    };
    let mut hash = Sha256::new();
    let mut batch = Vec::new();
    let mut waiting = 0;
    while let Some(piece) = body.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Ok(Some(format!("unreadable ({error})"))),
        };
        waiting += piece.len();
        progress.add_bytes(piece.len() as u64);
        batch.push(piece);
        if waiting >= BATCH {
            hash = hash_all(hash, std::mem::take(&mut batch)).await?;
            waiting = 0;
        }
    }
    let digest = Sha256Hex(hash_all(hash, batch).await?.finalize().into());
    Ok((digest != entry.sha256).then(|| "not the stored bytes any more (SHA-256 differs)".to_owned()))
}

async fn hash_all(mut hash: Sha256, pieces: Vec<bytes::Bytes>) -> Result<Sha256, Error> {
    let hashing = tokio::task::spawn_blocking(move || {
        pieces.iter().for_each(|piece| hash.update(piece));
        hash
    });
    hashing.await.map_err(|error| lost_thread("the check", &error))
}
