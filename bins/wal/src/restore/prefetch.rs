//! The helper: fetches what the server is going to ask for next.
//!
//! It keeps a window of segments behind the one that the server got last, bounded in number and bytes, and removes what
//! falls out of it: after a switch of timelines, or a rewind, the window is elsewhere. It ends, and leaves nothing behind,
//! when the server is gone or asked for nothing in a minute. At the first failure it ends and leaves what it has; the
//! server's own call then meets the same failure and tells about it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_cli::{Context, Exit, Failure};
use backstay_postgres_ops::wal::{Segment, SegmentSize, WalFile};
use backstay_postgres_ops::wal_archive::{WalArchive, WalArchiveError};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use xxhash_rust::xxh3::xxh3_128;

use super::prefetched::{LOCK, Prefetched, at, claim_of, name, parse};
use crate::claim::Claim;
use crate::data_directory::DataDirectory;
use crate::helper;
use crate::spool::Spool;

/// How long it waits for the server to ask for more.
const IDLE: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the helper.
pub(super) async fn run(ctx: &Context, prefetched: Prefetched, data: DataDirectory) -> Result<Exit, Failure> {
    let Prefetched { spool, system, .. } = prefetched;
    let local = |source| CoreError::Source { object: "the spool".to_owned(), source };
    let Some(_lock) = helper::become_one(&spool.file(LOCK)).map_err(local)? else {
        return Ok(Exit::Conflict);
    };
    let identities = ctx.identities().await?;
    let opened = ctx.open_repositories().await?;
    let archive = WalArchive::new(opened.repositories, ctx.stanza().clone(), system);
    let wal = &ctx.config.wal;
    let limits = Limits {
        segments: u64::from(wal.prefetch),
        bytes: wal.prefetch_size.bytes(),
        in_flight: usize::try_from(wal.in_flight).unwrap_or(1),
    };
    Prefetcher { spool, data, archive, identities, limits }.run().await
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
        let (mut passed, mut end) = (BTreeSet::new(), None::<Segment>);
        let (mut asked, mut moved) = (None, Instant::now());
        loop {
            let now = at(&self.spool);
            if now != asked {
                // Whatever was absent or taken a moment ago is asked for anew.
                (asked, moved) = (now, Instant::now());
                passed.clear();
                end = None;
                self.tidy(&self.window(asked));
            }
            let mut wanted = self.window(asked);
            wanted.retain(|segment| end.is_none_or(|end| *segment < end));
            let kept = self.kept();
            wanted.retain(|it| !busy.contains(it) && !passed.contains(it) && !kept.contains(it));
            let room = self.limits.in_flight.saturating_sub(running.len());
            for segment in wanted.into_iter().take(room) {
                busy.insert(segment);
                let (spool, archive) = (self.spool.clone(), self.archive.clone());
                running.push(fetch(spool, archive, self.identities.clone(), segment));
            }
            tokio::select! {
                Some((segment, outcome)) = running.next(), if !running.is_empty() => {
                    busy.remove(&segment);
                    match outcome {
                        // The server may have got it elsewhere meanwhile.
                        Outcome::Fetched => self.tidy(&self.window(at(&self.spool))),
                        Outcome::Passed => drop(passed.insert(segment)),
                        Outcome::Absent => end = Some(end.map_or(segment, |end| end.min(segment))),
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
            self.tidy(&[]);
        }
        Ok(Exit::Done)
    }

    /// The segments that are there.
    fn kept(&self) -> BTreeSet<Segment> {
        let names = self.spool.names().unwrap_or_default();
        names.iter().filter_map(|name| parse(name)).map(|(segment, _)| segment).collect()
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

    /// Removes what is not in the window.
    fn tidy(&self, window: &[Segment]) {
        for name in self.spool.names().unwrap_or_default() {
            let segment = name.trim_start_matches('.').split('.').next().unwrap_or_default();
            let Ok(segment) = segment.parse::<Segment>() else { continue };
            let path = self.spool.file(&name);
            let is_of_use = window.contains(&segment) && parse(&name).is_some();
            if !is_of_use && !Claim::is_held(&claim_of(&self.spool, segment)) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

async fn fetch(
    spool: Spool,
    archive: WalArchive,
    identities: Identities,
    segment: Segment,
) -> (Segment, Outcome) {
    let outcome = match fetch_claimed(&spool, &archive, &identities, segment).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(%segment, %error, "not fetched ahead");
            Outcome::Failed
        }
    };
    (segment, outcome)
}

async fn fetch_claimed(
    spool: &Spool,
    archive: &WalArchive,
    identities: &Identities,
    segment: Segment,
) -> Result<Outcome, WalArchiveError> {
    let local = |source| CoreError::Source { object: segment.to_string(), source };
    let Some(claim) = Claim::take(&claim_of(spool, segment)).map_err(local)? else {
        return Ok(Outcome::Passed);
    };
    // A call may have fetched it since the window was looked at.
    if at(spool).is_some_and(|(asked, _)| asked >= segment && asked.timeline() == segment.timeline()) {
        return Ok(Outcome::Passed);
    }
    let Some(content) = archive.find(WalFile::Segment(segment), identities).await? else {
        return Ok(Outcome::Absent);
    };
    let spool = spool.clone();
    let keeping = tokio::task::spawn_blocking(move || keep(&spool, segment, &content));
    let kept = keeping.await.map_err(io::Error::other).and_then(|kept| kept);
    kept.map_err(local)?;
    drop(claim);
    Ok(Outcome::Fetched)
}

/// Writes a proven segment into the spool: durable first, then under the name that promises its content.
fn keep(spool: &Spool, segment: Segment, content: &Bytes) -> io::Result<()> {
    let temporary = spool.file(&format!(".{segment}.{}", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    fs::rename(&temporary, spool.file(&name(segment, xxh3_128(content))))
}
