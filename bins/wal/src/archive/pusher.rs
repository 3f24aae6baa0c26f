//! The helper: archives what the server is going to ask for next.
//!
//! It ends when there was nothing to do for a second, when the server is gone, and at the first failure: the server's own
//! call then meets the same failure and tells about it. The server's notes are read and never touched.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use backstay_backup_core::Error as CoreError;
use backstay_cli::{Context, Exit, Failure};
use backstay_postgres_ops::wal::{Segment, SystemId, WalFile};
use backstay_postgres_ops::wal_archive::{ClusterRegistry, WalArchive, WalArchiveError, WalSource};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::ahead::{Ahead, LOCK, claim_of};
use super::registered;
use crate::claim::Claim;
use crate::helper;
use crate::mark::Mark;
use crate::spool::Spool;

/// How long it looks for more before it ends.
const IDLE: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// Runs the helper.
pub(super) async fn run(ctx: &Context, path: &Path, system: Option<SystemId>) -> Result<Exit, Failure> {
    let unable = |problem: Option<io::Error>| {
        let source = problem.unwrap_or_else(|| io::Error::other("no server's segment"));
        CoreError::Source { object: path.display().to_string(), source }
    };
    let ahead = Ahead::of(&ctx.config, path, system).map_err(unable)?;
    let lock = helper::become_one(&ahead.spool().file(LOCK)).map_err(|error| unable(Some(error)))?;
    let Some(_lock) = lock else { return Ok(Exit::Conflict) };
    let opened = ctx.open_quorum().await?;
    let registry = ClusterRegistry::new(opened.repositories.clone(), ctx.stanza().clone());
    registered::ensure(&registry, ahead.system(), None, Some(ahead.spool())).await?;
    let archive = WalArchive::new(opened.repositories, ctx.stanza().clone(), ahead.system())
        .sealed_with(super::sealing(ctx)?)
        .one_at_a_time();
    let wal = &ctx.config.wal;
    let limits = Limits { lead: count(wal.look_ahead), in_flight: count(wal.in_flight) };
    // Whoever started this helper archived its own segment.
    let passed = BTreeSet::from([ahead.segment()]);
    let pusher = Pusher { ahead, archive, limits, queue: VecDeque::new(), busy: BTreeSet::new(), passed };
    pusher.run().await
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

struct Limits {
    /// Segments archived that the server has not asked for.
    lead: usize,
    /// Segments being archived.
    in_flight: usize,
}

struct Pusher {
    ahead: Ahead,
    archive: WalArchive,
    limits: Limits,
    /// Segments to archive, oldest first, as of the last look.
    queue: VecDeque<Segment>,
    /// Segments being archived.
    busy: BTreeSet<Segment>,
    /// Segments that are left to the server's calls: somebody is at them, or was, or they are gone.
    passed: BTreeSet<Segment>,
}

/// What became of a segment.
enum Outcome {
    Archived,
    /// Somebody else is at it, or it is gone.
    Passed,
    Failed,
}

impl Pusher {
    async fn run(mut self) -> Result<Exit, Failure> {
        let mut running = FuturesUnordered::new();
        let mut last = Instant::now();
        loop {
            while running.len() < self.limits.in_flight
                && let Some(segment) = self.next()
            {
                self.busy.insert(segment);
                running.push(push(self.work(segment)));
            }
            let ended = tokio::select! {
                Some(ended) = running.next(), if !running.is_empty() => Some(ended),
                () = tokio::time::sleep(LOOK) => None,
            };
            if let Some((segment, outcome)) = ended {
                self.busy.remove(&segment);
                match outcome {
                    Outcome::Archived => last = Instant::now(),
                    Outcome::Passed => drop(self.passed.insert(segment)),
                    Outcome::Failed => break,
                }
            }
            if !self.ahead.data().is_served() || running.is_empty() && last.elapsed() > IDLE {
                break;
            }
        }
        // What was begun is brought to its end, so that a call that waits for it need not begin again.
        while running.next().await.is_some() {}
        self.look();
        Ok(Exit::Done)
    }

    /// The next segment to archive.
    fn next(&mut self) -> Option<Segment> {
        if self.queue.is_empty() {
            self.look();
        }
        self.queue.pop_front()
    }

    /// Looks what the server waits for, and removes notes on what it waits for no longer.
    fn look(&mut self) {
        let spool = self.ahead.spool();
        let (Ok(ready), Ok(names)) = (self.ahead.data().ready(), spool.names()) else { return };
        let mut marked = BTreeSet::new();
        for name in names {
            let Some((segment, kind)) = name.split_once('.') else { continue };
            let Ok(segment) = segment.parse::<Segment>() else { continue };
            match kind {
                "mark" if ready.contains(&segment) => drop(marked.insert(segment)),
                // A note that stays does no harm: it is of one file, and names its every byte.
                "mark" => drop(fs::remove_file(spool.file(&name))),
                "claim" if !ready.contains(&segment) && !Claim::is_held(&spool.file(&name)) => {
                    drop(fs::remove_file(spool.file(&name)));
                }
                _ => {}
            }
        }
        let room = self.limits.lead.saturating_sub(marked.len() + self.busy.len());
        let known = [&marked, &self.busy, &self.passed];
        let wanted = ready.into_iter().filter(|segment| known.iter().all(|set| !set.contains(segment)));
        self.queue = wanted.take(room).collect();
    }

    fn work(&self, segment: Segment) -> Work {
        Work {
            segment,
            path: self.ahead.data().segment(segment),
            spool: self.ahead.spool().clone(),
            system: self.ahead.system(),
            archive: self.archive.clone(),
        }
    }
}

/// One segment to archive.
struct Work {
    segment: Segment,
    path: PathBuf,
    spool: Spool,
    system: SystemId,
    archive: WalArchive,
}

async fn push(work: Work) -> (Segment, Outcome) {
    let segment = work.segment;
    let outcome = match archive(work).await {
        Ok(true) => Outcome::Archived,
        Ok(false) => Outcome::Passed,
        Err(error) => {
            tracing::warn!(%segment, %error, "not archived ahead");
            Outcome::Failed
        }
    };
    (segment, outcome)
}

/// Archives a segment and marks it; `false` when there was nothing to do.
async fn archive(work: Work) -> Result<bool, WalArchiveError> {
    let Work { segment, path, spool, system, archive } = work;
    let name = WalFile::Segment(segment);
    let local = |source| CoreError::Source { object: name.to_string(), source };
    let Some(claim) = Claim::take(&claim_of(&spool, segment)).map_err(local)? else { return Ok(false) };
    let now = SystemTime::now();
    let source = match File::open(&path).and_then(|file| WalSource::new(name, file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(local)?,
    };
    let found = source.metadata().clone();
    let pushed = archive.push_file(source).await?;
    // Only now: the quorum has it durably.
    let mark = Mark::new(segment, system, &found, now, pushed.seal.digest);
    spool.write(&Mark::name(segment), &mark.encode()).map_err(local)?;
    drop(claim);
    Ok(true)
}
