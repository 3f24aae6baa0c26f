//! Puts the parts of an archiver together, and ends them in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::error::describe;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::lease::LeaseOptions;
use backstay_backup_core::sealed::SealOptions;
use backstay_backup_core::set_writer::SetSpec;
use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::again::CameTo;
use super::begin::{Begin, archived, begin_from, first_waiting, further, open_end};
use super::connection::{Follower, Place};
use super::decide::{BasePolicy, CutPolicy, MergePolicy};
use super::facts::{Queue, Shared};
use super::segmenter::Segmenter;
use super::snapshots::Snapshots;
use super::spool::{Contents, Spool};
use super::uploader::Uploader;
use super::{FollowError, FollowFacts, lease};
use crate::Offset;
use crate::archive::{Position, StreamArchive, StreamId};
use crate::resp::StreamState;
use crate::server::Attach;

/// Pieces between the socket and the spool, of 256 KiB at most.
const PIECES: usize = 64;
/// How often the state is written for whoever looks.
const TELL: Duration = Duration::from_secs(1);
/// Nothing came for so long: the server has sent what it had.
const QUIET: Duration = Duration::from_secs(1);
/// A server that never falls quiet is followed for so long when only catching up was asked for.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Longest time for storing what is left after an error.
const DRAIN_AFTER_ERROR: Duration = Duration::from_secs(5);
/// How long a look at the repositories may keep us from reading.
const GLANCE: Duration = Duration::from_secs(5);

/// How to archive.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FollowOptions {
    /// Folder of the spool; it belongs to this stream alone.
    pub spool: PathBuf,
    /// Most bytes of segments in it. Beyond that the server is detached. 4 GiB by default.
    pub spool_limit: u64,
    /// When segments end.
    pub cut: CutPolicy,
    /// When they are merged.
    pub merge: MergePolicy,
    /// When a new base is taken.
    pub base: BasePolicy,
    /// Compression and encryption of segments.
    pub sealing: SealOptions,
    /// What sets of bases say of themselves.
    pub set: SetSpec,
    /// The lease.
    pub lease: LeaseOptions,
    /// Which server of a shard is followed.
    pub attach: Attach,
    /// Which shard of a cluster.
    pub shard: Option<String>,
    /// End as soon as everything the server has is stored.
    pub until_caught_up: bool,
    /// Longest time for storing what is left in the spool, once told to stop. 20 s by default.
    pub drain: Duration,
}

impl FollowOptions {
    /// The usual ways.
    #[must_use]
    pub fn new(spool: &Path, set: SetSpec, lease: LeaseOptions) -> Self {
        Self {
            spool: spool.to_owned(),
            spool_limit: 4 << 30,
            cut: CutPolicy::default(),
            merge: MergePolicy::default(),
            base: BasePolicy::default(),
            sealing: SealOptions::default(),
            set,
            lease,
            attach: Attach::default(),
            shard: None,
            until_caught_up: false,
            drain: Duration::from_secs(20),
        }
    }
}

/// What an archiver did, once it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct FollowReport {
    /// The stream.
    pub stream: String,
    /// What it knew of itself in the end.
    #[serde(flatten)]
    pub facts: FollowFacts,
}

/// Archives until cancelled, or caught up if that is all that is wanted. Everything received is in the repositories then.
///
/// # Errors
/// Any [`FollowError`]: what cannot be mended by trying again. [`FollowError::Unfinished`] when something stays in the spool.
///
/// # Cancel safety
/// Cancel the token, and wait. A dropped call leaves the spool as a kill does: the next run goes on with it.
pub async fn follow(
    access: &Access,
    archive: &StreamArchive,
    options: &FollowOptions,
    cancel: &CancellationToken,
) -> Result<FollowReport, FollowError> {
    let spool = Arc::new(Spool::open(&options.spool)?);
    let contents = spool.contents()?;
    let mut begin = begin_from(&contents);
    match begin.known.map(|(known, _)| known).or(open_end(&contents)) {
        Some(known) => {
            // Somebody may have archived further, from elsewhere. A store that is out must not keep us from reading.
            let looking = tokio::time::timeout(GLANCE, further(archive, known)).await;
            if let Ok(Ok(Some(reached))) = looking {
                begin.known = Some(reached);
                begin.durable = first_waiting(&contents).or(Some(reached.0));
            }
        }
        None => {
            begin.known = archived(archive).await?;
            begin.durable = begin.known.map(|(known, _)| known);
        }
    }
    let (stanza, stream) = (archive.stanza().clone(), archive.stream().clone());
    let (parts, segmenter, known) =
        Parts::new(access, stanza, stream, options, spool, contents, &begin, cancel)?;
    parts.run(archive, segmenter, known).await
}

/// Goes on receiving into a spool that was begun, without any repository, until `until` is done: for the time in which none
/// can be opened, because of `problem`. `None` when there is nothing to go on from, or it was cancelled.
///
/// # Errors
/// Any [`FollowError`].
///
/// # Cancel safety
/// As [`follow`].
pub async fn receive_until<T>(
    access: &Access,
    (stanza, stream): (&Stanza, &StreamId),
    options: &FollowOptions,
    problem: &str,
    until: impl Future<Output = T>,
    cancel: &CancellationToken,
) -> Result<Option<T>, FollowError> {
    let spool = Arc::new(Spool::open(&options.spool)?);
    let contents = spool.contents()?;
    let begin = begin_from(&contents);
    if begin.known.is_none() && contents.open.is_none() {
        return Ok(None);
    }
    let (stanza, stream) = (stanza.clone(), stream.clone());
    let (parts, segmenter, known) =
        Parts::new(access, stanza, stream, options, spool, contents, &begin, cancel)?;
    tracing::error!(problem, "no repository can be opened; what is received waits in the spool");
    parts.shared.store_problem(Some(problem.to_owned()));
    let (mut receiving, detach) = parts.receive(segmenter, known);
    let done = tokio::select! {
        done = until => Some(done),
        ended = first(&mut receiving) => { ended?; None }
        never = parts.tell() => { never?; None }
    };
    detach.cancel();
    all(&mut receiving).await.map(|()| done)
}

/// Everything the tasks need.
struct Parts<'a> {
    access: &'a Access,
    stanza: Stanza,
    stream: StreamId,
    options: &'a FollowOptions,
    spool: Arc<Spool>,
    shared: Shared,
    cancel: &'a CancellationToken,
}

/// Where the stream goes on, and what holds there.
type Known = Option<(Position, StreamState)>;

type Tasks = JoinSet<Result<(), FollowError>>;

impl<'a> Parts<'a> {
    #[expect(clippy::too_many_arguments, reason = "called twice, by the two ways to begin")]
    fn new(
        access: &'a Access,
        stanza: Stanza,
        stream: StreamId,
        options: &'a FollowOptions,
        spool: Arc<Spool>,
        mut contents: Contents,
        begin: &Begin,
        cancel: &'a CancellationToken,
    ) -> Result<(Self, Segmenter, Known), FollowError> {
        spool.forget_segments(&mut contents, &begin.again)?;
        let Contents { closed, stored, snapshots, histories, open, begun: _ } = contents;
        let pending = !snapshots.is_empty();
        let queue = Queue {
            closed: closed.into_iter().map(|closed| (0, closed)).collect(),
            stored: stored.into(),
            snapshots: snapshots.into(),
            histories: histories.into(),
        };
        let shared = Shared::new(queue);
        let mut known = begin.known;
        shared.change(|facts| {
            (facts.durable, facts.base_pending) = (begin.durable, pending);
            facts.received = known.map(|(known, _)| known);
            facts.last_write = known.map_or(Offset(0), |(known, _)| known.offset);
        });
        let room = spool.room(options.spool_limit)?;
        shared.spool(room.bytes, room.limit);
        let mut segmenter = Segmenter::new(spool.clone(), shared.clone(), options.cut, options.spool_limit);
        if let Some(open) = open {
            match known {
                // Others have archived further, or the open segment is of another time.
                Some((known, _)) if known.offset > open.span.start || known.replication_id != open.id => {
                    spool.forget(&open);
                }
                _ => known = segmenter.adopt(open)?.or(known),
            }
        }
        Ok((Self { access, stanza, stream, options, spool, shared, cancel }, segmenter, known))
    }

    /// Starts the tasks that fill the spool; they end when the token is cancelled, or the caller's is.
    fn receive(
        &self,
        segmenter: Segmenter,
        known: Option<(Position, StreamState)>,
    ) -> (Tasks, CancellationToken) {
        let (pieces, received) = mpsc::channel(PIECES);
        let handle = Handle::current();
        let mut receiving = JoinSet::new();
        receiving.spawn_blocking(move || segmenter.run(&handle, received));
        let detach = self.cancel.child_token();
        let mut follower = Follower {
            place: self.place(),
            stanza: self.stanza.clone(),
            stream: self.stream.clone(),
            tool: self.options.set.tool.clone(),
            once: self.options.until_caught_up,
            shared: self.shared.clone(),
            pieces,
            known,
            came_to: CameTo::default(),
        };
        let until = detach.clone();
        receiving.spawn(async move { follower.run(&until).await });
        (receiving, detach)
    }

    /// Starts the tasks that empty it. They end when `drained` is cancelled and nothing is left, or `stop` is.
    fn store(&self, archive: &StreamArchive, drained: &CancellationToken, stop: &CancellationToken) -> Tasks {
        let mut storing = JoinSet::new();
        let uploader = self.uploader(archive);
        let (until, hard) = (drained.clone(), stop.clone());
        storing.spawn(async move { uploader.run(&until, &hard).await });
        let snapshots = self.snapshots(archive);
        let (until, hard) = (drained.clone(), stop.clone());
        storing.spawn(async move { snapshots.run(&until, &hard).await });
        storing
    }

    async fn run(
        &self,
        archive: &StreamArchive,
        segmenter: Segmenter,
        known: Option<(Position, StreamState)>,
    ) -> Result<FollowReport, FollowError> {
        // An end goes in this order: the connection; the storing, when everything is in the spool; the lease.
        let (mut receiving, detach) = self.receive(segmenter, known);
        let (drained, stop, release) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let mut storing = self.store(archive, &drained, &stop);
        let (lease, shared, until) = (self.options.lease.clone(), self.shared.clone(), release.clone());
        let (held, mut holding) = (archive.clone(), JoinSet::new());
        holding.spawn(async move { lease::hold(&held, &lease, &shared, &until).await });

        let mut ended = tokio::select! {
            ended = first(&mut receiving) => ended,
            ended = first(&mut storing) => ended,
            ended = first(&mut holding) => ended,
            () = self.caught_up() => Ok(()),
            never = self.tell() => never,
        };
        detach.cancel();
        ended = ended.and(all(&mut receiving).await);
        if ended.as_ref().is_err_and(is_full) {
            // What is stored already makes room for the next run.
            self.shared.change(|facts| facts.pressed = true);
        }
        drained.cancel();
        if ended.as_ref().is_err_and(lease::is_held) {
            stop.cancel();
        }
        let drain = tokio::select! {
            drain = all(&mut storing) => drain,
            () = self.drain_time(ended.is_ok()) => Ok(()),
        };
        stop.cancel();
        ended = ended.and(drain);
        ended = ended.and(all(&mut storing).await);
        release.cancel();
        ended = ended.and(all(&mut holding).await);
        self.write_status();
        ended.and_then(|()| self.report())
    }

    /// How long storing what is left may take. Whoever only catches up has the time it takes; after an error the next run
    /// should begin soon, because nobody reads meanwhile.
    async fn drain_time(&self, is_well: bool) {
        if self.options.until_caught_up && is_well {
            self.cancel.cancelled().await;
        }
        let most = if is_well { self.options.drain } else { self.options.drain.min(DRAIN_AFTER_ERROR) };
        tokio::time::sleep(most).await;
    }

    fn place(&self) -> Place {
        let (access, attach, shard) = (self.access.clone(), self.options.attach, self.options.shard.clone());
        Place { access, attach, shard }
    }

    fn uploader(&self, archive: &StreamArchive) -> Uploader {
        Uploader {
            archive: archive.clone(),
            spool: self.spool.clone(),
            shared: self.shared.clone(),
            sealing: self.options.sealing.clone(),
            merging: self.options.merge,
            clock: archive.repositories().clock().clone(),
        }
    }

    fn snapshots(&self, archive: &StreamArchive) -> Snapshots {
        Snapshots {
            place: self.place(),
            archive: archive.clone(),
            spool: self.spool.clone(),
            shared: self.shared.clone(),
            spec: self.options.set.clone(),
            policy: self.options.base,
        }
    }

    /// Ends when everything the server had is in the spool, if that is all that is wanted.
    async fn caught_up(&self) {
        if !self.options.until_caught_up {
            return std::future::pending().await;
        }
        let mut facts = self.shared.watch();
        let attached = facts.wait_for(|facts| facts.continued + facts.full_syncs > 0).await;
        drop(attached);
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        loop {
            let before = self.shared.get(|facts| facts.received);
            tokio::time::sleep(QUIET).await;
            let in_snapshot = self.shared.get(|facts| facts.receiving_base || facts.received.is_none());
            let is_quiet = before.is_some() && self.shared.get(|facts| facts.received) == before;
            if !in_snapshot && (is_quiet || tokio::time::Instant::now() >= deadline) {
                return;
            }
        }
    }

    /// Writes the state for whoever looks, for ever.
    async fn tell(&self) -> Result<(), FollowError> {
        loop {
            self.write_status();
            tokio::time::sleep(TELL).await;
        }
    }

    fn write_status(&self) {
        let status = Status {
            process: std::process::id(),
            at: Timestamp::now(),
            report: FollowReport {
                stream: self.stream.to_string(),
                facts: self.shared.get(FollowFacts::clone),
            },
        };
        let written = serde_json::to_vec(&status)
            .map_err(|error| self.spool.failed("write")(error.into()))
            .and_then(|bytes| self.spool.write_whole(&self.spool.folder().join(STATUS), &bytes, false));
        if let Err(error) = written {
            tracing::warn!(problem = describe(&error), "the state cannot be told");
        }
    }

    fn report(&self) -> Result<FollowReport, FollowError> {
        let facts = self.shared.get(FollowFacts::clone);
        if !self.shared.queue().is_idle() {
            let (waiting, spool) = (facts.waiting, self.spool.folder().display());
            tracing::warn!(waiting, %spool, "not everything could be stored; the rest waits in the spool");
            return Err(FollowError::Unfinished {
                waiting: facts.waiting,
                stream: self.stream.clone(),
                path: self.spool.folder().to_owned(),
                problem: facts.store_problem,
            });
        }
        Ok(FollowReport { stream: self.stream.to_string(), facts })
    }
}

/// The file with the state.
const STATUS: &str = "status.json";

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    process: u32,
    at: Timestamp,
    #[serde(flatten)]
    report: FollowReport,
}

/// What an archiver last told of itself in the spool, once a second while it runs; `None` when there never was one.
///
/// # Errors
/// It cannot be read.
pub fn read_status(spool: &Path) -> Result<Option<serde_json::Value>, FollowError> {
    let path = spool.join(STATUS);
    let failed = |source| FollowError::Spool { op: "read", path: path.clone(), source };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Whether the disk of the spool has no room left.
fn is_full(error: &FollowError) -> bool {
    matches!(error, FollowError::Spool { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
}

/// How the first task ended.
async fn first(tasks: &mut Tasks) -> Result<(), FollowError> {
    match tasks.join_next().await {
        Some(ended) => joined(ended),
        None => std::future::pending().await,
    }
}

/// Waits for all tasks; the first error counts.
async fn all(tasks: &mut Tasks) -> Result<(), FollowError> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        result = result.and(joined(ended));
    }
    result
}

fn joined(ended: Result<Result<(), FollowError>, tokio::task::JoinError>) -> Result<(), FollowError> {
    match ended {
        // That the others are ending is no reason of its own.
        Ok(Err(FollowError::Ended)) => Ok(()),
        Ok(ended) => ended,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(FollowError::Ended),
        },
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
