//! The fetching task: stored bytes from the first good copy, and the next one when that fails.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;
use tokio::task::{JoinHandle, spawn_blocking};

use super::queue::Message;
use crate::error::Error;
use crate::id::SetId;
use crate::key::Key;
use crate::manifest::{ObjectEntry, Sha256Hex};
use crate::replicas::Repositories;
use crate::repository::Repository;
use crate::store::StoreError;

/// Stored objects up to this size are verified before their first byte is passed on.
const VERIFIED_FIRST: u64 = 4 << 20;
/// Bytes that are asked for, hashed and passed on together.
const RANGE: u64 = 1 << 20;
/// Ranges asked for at the same time. One reader has at most three more in memory: one being passed on, one in
/// the queue, one with the consumer.
const IN_FLIGHT: usize = 2;

/// The repositories that bytes of this object were taken from.
#[derive(Clone)]
pub(super) struct Sources {
    repositories: Repositories,
    set: SetId,
    object: String,
    used: Arc<Mutex<Vec<String>>>,
}

impl Sources {
    fn add(&self, repository: &Repository) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.iter().any(|name| name == repository.name()) {
            used.push(repository.name().to_owned());
        }
    }

    fn forget(&self) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Tells later readers to try other copies first.
    pub(super) fn distrust(&self) {
        for name in self.used.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.repositories.distrust(name, &self.set, &self.object);
        }
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "repository {}", used.join(" and "))
    }
}

/// Fetches one object.
pub(super) struct Fetch {
    repositories: Repositories,
    entry: ObjectEntry,
    key: Key,
    sources: Sources,
}

/// How far it has come.
struct Progress {
    offset: u64,
    digest: Running,
    sender: Sender<Message>,
    /// Bytes waiting for the verdict, while the object is small enough.
    held: Option<Vec<Bytes>>,
}

/// Why a copy was left.
enum Leave {
    /// The reader is gone.
    Unwanted,
    /// This copy is of no use; another may be.
    Store(StoreError),
    Damaged(String),
}

impl Fetch {
    pub(super) fn new(repositories: Repositories, set: SetId, entry: ObjectEntry, key: Key) -> Self {
        let object = entry.name.clone();
        let sources = Sources { repositories: repositories.clone(), set, object, used: Arc::default() };
        Self { repositories, entry, key, sources }
    }

    pub(super) fn sources(&self) -> Sources {
        self.sources.clone()
    }

    /// Sends the object; the last message says whether it was good.
    pub(super) async fn run(self, sender: Sender<Message>) {
        let last = match self.deliver(&sender).await {
            Ok(()) => Message::Good,
            Err(error) => Message::Failed(error),
        };
        // A reader that is gone wants no verdict.
        let _ = sender.send(last).await;
    }

    async fn deliver(&self, sender: &Sender<Message>) -> Result<(), Error> {
        let mut progress = self.start(sender);
        let mut failures = Failures::default();
        for repository in self.repositories.by_trust(&self.sources.set, &self.entry.name) {
            self.sources.add(&repository);
            let problem = match self.copy(&repository, &mut progress).await {
                Ok(()) => match self.verdict(&mut progress, &repository).await? {
                    None => return Ok(()),
                    Some(problem) => problem,
                },
                Err(Leave::Unwanted) => return Ok(()),
                Err(Leave::Store(error)) => {
                    failures.store(&repository, error);
                    continue;
                }
                Err(Leave::Damaged(problem)) => problem,
            };
            self.repositories.distrust(repository.name(), &self.sources.set, &self.entry.name);
            failures.damaged(&repository, &problem);
            if progress.held.is_some() {
                progress = self.start(sender);
                self.sources.forget();
            }
        }
        Err(failures.into_error(&self.sources.set, &self.entry.name))
    }

    fn start(&self, sender: &Sender<Message>) -> Progress {
        let held = (self.entry.stored <= VERIFIED_FIRST).then(Vec::new);
        Progress { offset: 0, digest: Running::new(), sender: sender.clone(), held }
    }

    /// Takes one copy from where the one before broke off to its end.
    async fn copy(&self, repository: &Repository, progress: &mut Progress) -> Result<(), Leave> {
        let ranges = ranges(progress.offset, self.entry.stored);
        let mut batches = stream::iter(ranges).map(|range| self.batch(repository, range)).buffered(IN_FLIGHT);
        while let Some(batch) = batches.next().await {
            progress.pass(batch?).await?;
        }
        Ok(())
    }

    /// One range as a whole: a slow consumer then holds no connection open for more than what comes next.
    async fn batch(&self, repository: &Repository, range: Range<u64>) -> Result<Vec<Bytes>, Leave> {
        let stored = self.entry.stored;
        // An empty range cannot be asked for, and a small object needs none.
        let asked = (range != (0..stored)).then(|| range.clone());
        let result = repository.store().get(&self.key, asked).await.map_err(Leave::Store)?;
        if result.meta.size != stored {
            return Err(Leave::Damaged(format!("{} bytes long instead of {stored}", result.meta.size)));
        }
        let batch: Vec<Bytes> = result.body.try_collect().await.map_err(Leave::Store)?;
        let end = range.start + len(&batch);
        if end != range.end {
            return Err(Leave::Damaged(format!("it ends after {end} of {stored} bytes")));
        }
        Ok(batch)
    }

    /// Compares the digest: nothing if it is right, the problem if another copy may be tried.
    async fn verdict(
        &self,
        progress: &mut Progress,
        repository: &Repository,
    ) -> Result<Option<String>, Error> {
        let found = progress.digest.value().await?;
        if found == self.entry.sha256 {
            if let Some(held) = progress.held.take() {
                let _ = progress.sender.send(Message::Bytes(held)).await;
            }
            return Ok(None);
        }
        let problem = format!("its digest is {found} instead of {}", self.entry.sha256);
        if progress.held.is_some() {
            return Ok(Some(problem));
        }
        tracing::warn!(repository = repository.name(), object = self.entry.name, "copy is damaged");
        self.sources.distrust();
        Err(Error::Damaged {
            set: self.sources.set.clone(),
            object: self.entry.name.clone(),
            problem: format!("{problem}, read from {}", self.sources),
        })
    }
}

impl Progress {
    /// Hashes a batch and passes it on.
    async fn pass(&mut self, batch: Vec<Bytes>) -> Result<(), Leave> {
        self.offset += len(&batch);
        self.digest.update(batch.clone()).await;
        match &mut self.held {
            Some(held) => held.extend(batch),
            None => self.sender.send(Message::Bytes(batch)).await.map_err(|_| Leave::Unwanted)?,
        }
        Ok(())
    }
}

fn len(batch: &[Bytes]) -> u64 {
    batch.iter().map(|chunk| chunk.len() as u64).sum()
}

/// What to ask for, in order; an empty object is one empty range.
fn ranges(offset: u64, stored: u64) -> impl Iterator<Item = Range<u64>> {
    let step = usize::try_from(RANGE).expect("a range fits memory");
    let starts = (offset..stored).step_by(step);
    let empty = (stored == 0).then_some(0);
    starts.chain(empty).map(move |start| start..stored.min(start + RANGE))
}

/// A digest that is computed on blocking threads while the next bytes are fetched.
struct Running(Option<State>);

enum State {
    Idle(Sha256),
    Busy(JoinHandle<Sha256>),
}

impl Running {
    fn new() -> Self {
        Self(Some(State::Idle(Sha256::new())))
    }

    async fn update(&mut self, batch: Vec<Bytes>) {
        if let Some(mut hasher) = self.idle().await {
            let hash = move || {
                batch.iter().for_each(|chunk| hasher.update(chunk));
                hasher
            };
            self.0 = Some(State::Busy(spawn_blocking(hash)));
        }
    }

    /// `None` once a worker was lost, which happens only when the runtime shuts down.
    async fn idle(&mut self) -> Option<Sha256> {
        match self.0.take()? {
            State::Idle(hasher) => Some(hasher),
            State::Busy(job) => job.await.ok(),
        }
    }

    async fn value(&mut self) -> Result<Sha256Hex, Error> {
        let hasher = self.idle().await.ok_or(Error::Cancelled)?;
        Ok(Sha256Hex(hasher.finalize().into()))
    }
}

/// What was wrong with the copies tried.
#[derive(Default)]
pub(super) struct Failures {
    unreachable: Option<Error>,
    problems: Vec<String>,
}

impl Failures {
    pub(super) fn store(&mut self, repository: &Repository, error: StoreError) {
        if error.is_absent() {
            self.problems.push(format!("missing in repository {}", repository.name()));
            return;
        }
        tracing::warn!(repository = repository.name(), %error, "copy skipped");
        self.unreachable.get_or_insert(repository.failed("read object", error));
    }

    pub(super) fn damaged(&mut self, repository: &Repository, problem: &str) {
        tracing::warn!(repository = repository.name(), problem, "damaged copy skipped");
        self.problems.push(format!("in repository {}: {problem}", repository.name()));
    }

    /// A store that could not be asked is named first: its copy may be good.
    pub(super) fn into_error(self, set: &SetId, object: &str) -> Error {
        self.unreachable.unwrap_or_else(|| Error::Damaged {
            set: set.clone(),
            object: object.to_owned(),
            problem: self.problems.join("; "),
        })
    }
}
