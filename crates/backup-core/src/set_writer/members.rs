//! Which repositories are still part of a set being written, and the two steps of its commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream};

use crate::error::Error;
use crate::key::Key;
use crate::manifest::{Manifest, ObjectEntry};
use crate::replicas::Repositories;
use crate::repository::{Repository, layout};
use crate::store::{Attributes, PutMode, SharedStore, StoreError};

/// Objects of one repository that are checked at the same time.
const CHECKS: usize = 8;

/// The repositories of a set and what became of them.
#[derive(Debug)]
pub(super) struct Members {
    repositories: Repositories,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    /// Why each repository was left out, in words.
    reasons: Vec<Option<String>>,
    /// Of them, the first failure, until the set is given up.
    first: Option<Error>,
    /// Why the set was given up. Everybody who still writes an object of it says the same, whoever is heard first.
    given_up: Option<Arc<Error>>,
}

impl Failures {
    fn why_given_up(&self) -> Error {
        self.given_up.clone().map_or(Error::Cancelled, Error::Shared)
    }
}

impl Members {
    pub(super) fn new(repositories: Repositories) -> Self {
        let reasons = repositories.members().iter().map(|_| None).collect();
        Self { repositories, failures: Mutex::new(Failures { reasons, ..Failures::default() }) }
    }

    /// Positions of the repositories that have not failed.
    pub(super) fn healthy(&self) -> Vec<usize> {
        let failures = self.failures();
        let reasons = failures.reasons.iter().enumerate();
        reasons.filter(|(_, reason)| reason.is_none()).map(|(index, _)| index).collect()
    }

    /// The repository at a position.
    pub(super) fn repository(&self, index: usize) -> &Repository {
        &self.repositories.members()[index]
    }

    /// How many repositories must take every write.
    pub(super) fn quorum(&self) -> usize {
        self.repositories.quorum()
    }

    /// Leaves a repository out of the set.
    ///
    /// # Errors
    /// [`Error::Shared`] of the failure itself when there is no other repository, of [`Error::Quorum`] when too few are left.
    pub(super) fn drop_out(&self, index: usize, error: Error) -> Result<(), Error> {
        let mut failures = self.failures();
        let total = failures.reasons.len();
        if failures.reasons[index].is_none() {
            let reason = chain(&error);
            if total > 1 {
                let repository = self.repository(index).name();
                tracing::warn!(repository, reason, "repository left out of the set");
            }
            failures.reasons[index] = Some(reason);
            failures.first.get_or_insert(error);
        }
        let reached = failures.reasons.iter().filter(|reason| reason.is_none()).count();
        let needed = self.quorum();
        if reached >= needed {
            return Ok(());
        }
        // What fails after that changes nothing of the reason.
        if failures.given_up.is_none()
            && let Some(first) = failures.first.take()
        {
            failures.given_up = Some(Arc::new(match total {
                1 => first,
                _ => Error::Quorum { reached, needed, source: Box::new(first) },
            }));
        }
        Err(failures.why_given_up())
    }

    /// Why too few repositories are left, if that is so.
    pub(super) fn given_up(&self) -> Option<Error> {
        self.failures().given_up.clone().map(Error::Shared)
    }

    /// Checks that every object is there with its size; repositories where it is not drop out.
    pub(super) async fn check_objects(&self, manifest: &Manifest) -> Result<(), Error> {
        self.everywhere(|repository| check_objects(repository, manifest).boxed()).await
    }

    /// Stores the manifest.
    pub(super) async fn put_manifest(
        &self,
        key: &Key,
        bytes: &Bytes,
        attributes: &Attributes,
    ) -> Result<(), Error> {
        self.everywhere(|repository| {
            create(repository.store(), key, bytes, attributes)
                .map_err(|source| repository.failed("store manifest", source))
                .boxed()
        })
        .await
    }

    /// Does something in every healthy repository at the same time.
    async fn everywhere<'a>(
        &'a self,
        step: impl Fn(&'a Repository) -> BoxFuture<'a, Result<(), Error>>,
    ) -> Result<(), Error> {
        let healthy = self.healthy();
        if healthy.len() < self.quorum() {
            return Err(self.failures().why_given_up());
        }
        let steps: Vec<_> = healthy.iter().map(|index| step(self.repository(*index))).collect();
        drop(step);
        let mut result = Ok(());
        for (index, outcome) in healthy.into_iter().zip(join_all(steps).await) {
            if let Err(error) = outcome {
                result = result.and(self.drop_out(index, error));
            }
        }
        result
    }

    /// Names of the repositories that have the set, and of the others with the reason.
    pub(super) fn outcome(&self) -> (Vec<String>, Vec<(String, String)>) {
        let failures = self.failures();
        let mut stored = Vec::new();
        let mut missing = Vec::new();
        for (repository, reason) in self.repositories.members().iter().zip(&failures.reasons) {
            match reason {
                None => stored.push(repository.name().to_owned()),
                Some(reason) => missing.push((repository.name().to_owned(), reason.clone())),
            }
        }
        (stored, missing)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn check_objects(repository: &Repository, manifest: &Manifest) -> Result<(), Error> {
    stream::iter(0..manifest.objects.len())
        .map(|at| check_object(repository, manifest, &manifest.objects[at]))
        .buffer_unordered(CHECKS)
        .try_collect()
        .await
}

async fn check_object(
    repository: &Repository,
    manifest: &Manifest,
    entry: &ObjectEntry,
) -> Result<(), Error> {
    let key = layout::object(&manifest.stanza, &manifest.set, &entry.name)
        .map_err(|error| Error::Internal { what: error.to_string() })?;
    let (name, stored) = (repository.name(), entry.stored);
    let problem = match repository.store().head(&key).await {
        Ok(meta) if meta.size == stored => return Ok(()),
        Ok(meta) => format!("repository {name} has {} bytes where {stored} were stored", meta.size),
        // Not an answer to anybody's question: it was there a moment ago.
        Err(StoreError::Absent { .. }) => format!("repository {name} lost it after it was stored"),
        Err(source) => return Err(repository.failed("check object", source)),
    };
    Err(Error::Damaged { set: manifest.set.clone(), object: entry.name.clone(), problem })
}

/// Creates an object; when the reply is lost, looks whether it arrived.
async fn create(
    store: &SharedStore,
    key: &Key,
    bytes: &Bytes,
    attributes: &Attributes,
) -> Result<(), StoreError> {
    let error = match store.put(key, bytes.clone(), PutMode::Create, attributes).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    // The id is ours alone, so what lies there with our bytes is what we sent.
    match stored(store, key).await {
        Ok(found) if found == *bytes => Ok(()),
        _ => Err(error),
    }
}

async fn stored(store: &SharedStore, key: &Key) -> Result<Vec<u8>, StoreError> {
    let result = store.get(key, None).await?;
    result
        .body
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

/// An error with all its causes on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
