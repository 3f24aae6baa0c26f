//! The helper: fetches what the server is going to ask for next.
//!
//! It keeps a window of segments behind the one that the server got last, bounded in number and bytes, and removes what
//! falls out of it: after a switch of timelines, or a rewind, the window is elsewhere. It ends, and leaves nothing behind,
//! when the server is gone or asked for nothing in a minute. At the first failure it ends and leaves what it has; the
//! server's own call then meets the same failure and tells about it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_cli::{Context, Exit, Failure};
use backstay_postgres_ops::wal::{Segment, SegmentSize, SystemId, WalFile};
use backstay_postgres_ops::wal_archive::{FetchedFile, OpenTarget, WalArchive, WalArchiveError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::boot::Boot;
use super::kept::Kept;
use super::prefetched::{LOCK, Prefetched, at, claim_of};
use crate::claim::Claim;
use crate::data_directory::DataDirectory;
use crate::helper;
use crate::spool::Spool;

/// How long it waits for the server to ask for more.
const IDLE: Duration = Duration::from_secs(60);
/// How long what was absent is not asked for again.
const ABSENT: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the helper.
pub(super) async fn run(ctx: &Context, prefetched: Prefetched, data: DataDirectory) -> Result<Exit, Failure> {
    let Prefetched { spool, system, .. } = prefetched;
    let local = |source| CoreError::Source { object: "the spool".to_owned(), source };
    let Some(_lock) = helper::become_one(&spool.file(LOCK)).map_err(local)? else {
        return Ok(Exit::Conflict);
    };
    helper::step_back();
    let identities = ctx.identities().await?;
    let opened = ctx.open_repositories().await?;
    let archive = WalArchive::new(opened.repositories, ctx.stanza().clone(), system);
    let wal = &ctx.config.wal;
    let limits = Limits {
        segments: u64::from(wal.prefetch),
        bytes: wal.prefetch_size.bytes(),
        in_flight: usize::try_from(wal.in_flight).unwrap_or(1),
    };
    Prefetcher { spool, system, data, archive, identities, limits }.run().await
}

struct Limits {
    /// Segments in the spool.
    segments: u64,
    /// Bytes that they may take.
    bytes: u64,
    /// Segments being fetched.
    in_flight: usize,
}

struct Prefetcher {
    spool: Spool,
    system: SystemId,
    data: DataDirectory,
    archive: WalArchive,
    identities: Identities,
    limits: Limits,
}

/// What became of a segment.
enum Outcome {
    Fetched,
    /// Somebody else is at it.
    Passed,
    /// The archive does not have it yet.
    Absent,
    Failed,
}

impl Prefetcher {
    async fn run(self) -> Result<Exit, Failure> {
        let mut running = FuturesUnordered::new();
        let (mut busy, mut failed) = (BTreeSet::new(), false);
        // Taken by a call, and the first one that the archive does not have.
        let (mut passed, mut end) = (BTreeSet::new(), None::<(Segment, Instant)>);
        let (mut asked, mut moved, mut changed) = (None, Instant::now(), true);
        loop {
            let now = at(&self.spool);
            if now != asked {
                // Whatever was taken a moment ago is asked for anew, and in a while what was absent.
                (asked, moved, changed) = (now, Instant::now(), true);
                passed.clear();
                end = end.filter(|(end, since)| is_still_end(*end, since.elapsed(), now));
                self.tidy(asked);
            }
            // The spool is looked through only when there may be something new in it.
            if std::mem::take(&mut changed) {
                let mut wanted = self.window(asked);
                let kept = self.kept();
                wanted.retain(|segment| end.is_none_or(|(end, _)| *segment < end));
                wanted.retain(|it| !busy.contains(it) && !passed.contains(it) && !kept.contains(it));
                let room = self.limits.in_flight.saturating_sub(running.len());
                for segment in wanted.into_iter().take(room) {
                    busy.insert(segment);
                    running.push(fetch(self.work(segment)));
                }
            }
            tokio::select! {
                Some((segment, outcome)) = running.next(), if !running.is_empty() => {
                    changed = true;
                    busy.remove(&segment);
                    match outcome {
                        // The server may have got it elsewhere meanwhile.
                        Outcome::Fetched => self.tidy(at(&self.spool)),
                        Outcome::Passed => drop(passed.insert(segment)),
                        Outcome::Absent if end.is_some_and(|(end, _)| end <= segment) => {}
                        Outcome::Absent => end = Some((segment, Instant::now())),
                        Outcome::Failed => failed = true,
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            if failed || !self.data.is_served() || running.is_empty() && moved.elapsed() > IDLE {
                break;
            }
        }
        while running.next().await.is_some() {}
        // What is there is of most use while the archive is not: the next helper tidies up.
        if !failed {
            self.tidy(None);
        }
        Ok(Exit::Done)
    }

    /// The segments that are there, with their marks.
    fn kept(&self) -> BTreeSet<Segment> {
        let names: BTreeSet<String> = self.spool.names().unwrap_or_default().into_iter().collect();
        let marked = names.iter().filter_map(|name| Kept::parse_name(name));
        marked.filter(|segment| names.contains(&segment.to_string())).collect()
    }

    fn work(&self, segment: Segment) -> Work {
        Work {
            segment,
            spool: self.spool.clone(),
            system: self.system,
            archive: self.archive.clone(),
            identities: self.identities.clone(),
        }
    }

    /// The segments to have, in order.
    fn window(&self, asked: Option<(Segment, SegmentSize)>) -> Vec<Segment> {
        let Some((mut segment, size)) = asked else { return Vec::new() };
        let mut window = Vec::new();
        for _ in 0..self.limits.segments.min(self.limits.bytes / size.bytes()) {
            let Some(next) = segment.next(size) else { break };
            window.push(next);
            segment = next;
        }
        window
    }

    /// Removes what is not in the window, and what is not whole. What the server got last may stay while nothing behind it
    /// is there: at the end of the log it is asked for once more.
    fn tidy(&self, asked: Option<(Segment, SegmentSize)>) {
        let (kept, mut window) = (self.kept(), self.window(asked));
        if !window.iter().any(|segment| kept.contains(segment)) {
            window.extend(asked.map(|(segment, _)| segment));
        }
        for name in self.spool.names().unwrap_or_default() {
            let segment = name.trim_start_matches('.').split('.').next().unwrap_or_default();
            let Ok(segment) = segment.parse::<Segment>() else { continue };
            let is_whole = name == segment.to_string() || name == Kept::name(segment);
            let is_of_use = is_whole && window.contains(&segment) && kept.contains(&segment);
            if !is_of_use && !Claim::is_held(&claim_of(&self.spool, segment)) {
                let _ = fs::remove_file(self.spool.file(&name));
            }
        }
    }
}

/// Whether what was absent so long ago is not asked for yet. The server's own calls ask in any case.
fn is_still_end(end: Segment, since: Duration, asked: Option<(Segment, SegmentSize)>) -> bool {
    let is_ahead = asked.is_some_and(|(asked, _)| asked < end && asked.timeline() == end.timeline());
    is_ahead && since < ABSENT
}

/// One segment to fetch.
struct Work {
    segment: Segment,
    spool: Spool,
    system: SystemId,
    archive: WalArchive,
    identities: Identities,
}

async fn fetch(work: Work) -> (Segment, Outcome) {
    let segment = work.segment;
    let outcome = match fetch_claimed(work).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(%segment, %error, "not fetched ahead");
            Outcome::Failed
        }
    };
    (segment, outcome)
}

async fn fetch_claimed(work: Work) -> Result<Outcome, WalArchiveError> {
    let Work { segment, spool, system, archive, identities } = work;
    let local = |source| CoreError::Source { object: segment.to_string(), source };
    let Some(claim) = Claim::take(&claim_of(&spool, segment)).map_err(local)? else {
        return Ok(Outcome::Passed);
    };
    // A call may have fetched it since the window was looked at.
    if at(&spool).is_some_and(|(asked, _)| asked >= segment && asked.timeline() == segment.timeline()) {
        return Ok(Outcome::Passed);
    }
    let temporary = spool.file(&format!(".{segment}.{}", std::process::id()));
    let path = temporary.clone();
    // After a crash the mark fits nothing, and so the file need not be durable.
    let target = OpenTarget::new(move || fs::File::create(&path)).without_sync();
    let fetched = archive.find_file(WalFile::Segment(segment), &identities, &target).await;
    let Some(fetched) = fetched.inspect_err(|_| drop(fs::remove_file(&temporary)))? else {
        return Ok(Outcome::Absent);
    };
    let keeping = tokio::task::spawn_blocking(move || keep(&spool, segment, system, &fetched, &temporary));
    let kept = keeping.await.map_err(io::Error::other).and_then(|kept| kept);
    kept.map_err(local)?;
    drop(claim);
    Ok(Outcome::Fetched)
}

/// Gives a proven segment its name in the spool, and marks it. A mark of an earlier file goes first, so that
/// nobody compares the two.
fn keep(
    spool: &Spool,
    segment: Segment,
    system: SystemId,
    fetched: &FetchedFile,
    temporary: &Path,
) -> io::Result<()> {
    let mark = Kept::name(segment);
    match fs::remove_file(spool.file(&mark)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(temporary, spool.file(&segment.to_string()))?;
    // A rename is a change: only what the file system says now will still be so when the server asks.
    let Some(boot) = Boot::current() else {
        return Err(io::Error::other("the system does not say when it started"));
    };
    spool.write(&mark, &Kept::new(segment, system, boot, &fetched.file.metadata()?).encode())
}
