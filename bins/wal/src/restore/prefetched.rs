//! Segments that were fetched ahead, as a call sees them.
//!
//! A segment lies in the spool under its name, beside a mark ([`Kept`]) that was written after its content was proven. A call hands over what the mark fits, and nothing else. What an archive holds never changes, so what was
//! fetched is never out of date; that something is absent is never remembered.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstay_backup_core::config::Config;
use backstay_postgres_ops::wal::{HEADER_LENGTH, Segment, SegmentHeader, SegmentSize, SystemId};

use super::boot::Boot;
use super::kept::Kept;
use super::place::{self, Beside};
use crate::claim::Claim;
use crate::data_directory::DataDirectory;
use crate::destination;
use crate::helper::{self, Memory};
use crate::program::RESTORE_WAL;
use crate::spool::Spool;

/// Held by the helper while it lives.
pub(super) const LOCK: &str = "lock";
/// The segment that the server asked for last, and the size of segments.
const AT: &str = "at";
/// How often a call looks whether the helper is done with its segment.
const LOOK: Duration = Duration::from_millis(1);
/// How many looks there are to one whether somebody is still at it, which costs more.
const LOOKS: u32 = 8;
/// What a segment takes if nobody knows better yet. It only says how far ahead the first looks go.
const USUAL_SIZE: u64 = 16 << 20;
/// How long a helper has to notice what the server asks for.
const NOTICE: Duration = Duration::from_millis(30);

/// The spool of a server's recovery, and the segment of this call.
#[derive(Clone, Debug)]
pub(super) struct Prefetched {
    pub(super) spool: Spool,
    pub(super) segment: Segment,
    pub(super) system: SystemId,
}

impl Prefetched {
    /// `Err(None)` where no server runs: whoever else asks for WAL asks for little of it.
    pub(super) fn open(
        config: &Config,
        data: &DataDirectory,
        segment: Segment,
        system: SystemId,
    ) -> Result<Self, Option<io::Error>> {
        if !data.is_served() {
            return Err(None);
        }
        let key = destination::key(config, system, data)?;
        let spool = Spool::open(&config.wal, data.root(), "get", key)?;
        Ok(Self { spool, segment, system })
    }

    /// Puts the segment where the server wants it, if it was fetched ahead; waits for a helper that fetches it.
    pub(super) fn take(&self, path: &Path, patience: Duration) -> bool {
        let begin = Instant::now();
        for look in 0u32.. {
            if self.is_handed_over(path) {
                return true;
            }
            let waited = begin.elapsed();
            if look % LOOKS == 0 && !self.is_awaited(waited, patience) {
                break;
            }
            std::thread::sleep(LOOK);
        }
        // It may have come between the two looks.
        self.is_handed_over(path)
    }

    /// Whether somebody will have the segment soon.
    fn is_awaited(&self, waited: Duration, patience: Duration) -> bool {
        let claimed = Claim::is_held(&claim_of(&self.spool, self.segment));
        waited <= patience && self.has_helper() && (claimed || waited <= NOTICE && self.is_news())
    }

    /// Whether a helper may not have seen yet what the server got last. One that did and has not begun with this segment did
    /// not find it.
    fn is_news(&self) -> bool {
        let noted = fs::metadata(self.spool.file(AT)).and_then(|found| found.modified());
        noted.is_ok_and(|noted| noted.elapsed().is_ok_and(|age| age <= NOTICE))
    }

    /// Whether the segment was there, and is in its place now.
    fn is_handed_over(&self, path: &Path) -> bool {
        self.hand_over(path).inspect(|length| self.taken(*length)).is_some()
    }

    /// Length of the segment that is now in its place; `None` when there is none that is good.
    fn hand_over(&self, path: &Path) -> Option<u64> {
        let mark = self.spool.file(&Kept::name(self.segment));
        let mark = Kept::decode(&fs::read_to_string(mark).ok()?)?;
        let from = self.spool.file(&self.segment.to_string());
        let file = File::open(&from).ok()?;
        let length = match self.prove(&mark, &file) {
            Ok(length) => length,
            Err(error) => {
                tracing::warn!(segment = %self.segment, %error, "a segment fetched ahead is fetched again");
                let _ = fs::remove_file(&from);
                return None;
            }
        };
        if self.is_newest(length) {
            match self.copy_over(&mark, &file, path) {
                Ok(()) => return Some(length),
                // Where there is no room for a second one, the one there is goes.
                Err(error) => {
                    tracing::warn!(segment = %self.segment, %error, "what was fetched ahead is moved, not copied");
                }
            }
            self.prove(&mark, &file).ok()?;
        }
        let placed = match place::publish(&from, path, false) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy_over(&mark, &file, path).inspect(|()| drop(fs::remove_file(&from)))
            }
            placed => placed,
        };
        placed.ok().map(|()| length)
    }

    /// Whether nothing behind it is there or on its way. A server that has come to the end of the log asks for its last
    /// segment once more, so that one stays in the spool.
    fn is_newest(&self, length: u64) -> bool {
        let next = SegmentSize::new(length).ok().and_then(|size| self.segment.next(size));
        next.is_none_or(|next| {
            !self.spool.file(&next.to_string()).exists() && !Claim::is_held(&claim_of(&self.spool, next))
        })
    }

    /// Length of a file that is the segment, as the mark and its own header say.
    fn prove(&self, mark: &Kept, file: &File) -> io::Result<u64> {
        let boot =
            Boot::current().ok_or_else(|| io::Error::other("the system does not say when it started"))?;
        if !mark.fits(self.segment, self.system, boot, file)? {
            return Err(io::Error::other(
                "it was changed, or exchanged, or is older than the system's start",
            ));
        }
        let mut beginning = [0; HEADER_LENGTH];
        file.read_exact_at(&mut beginning, 0)?;
        let length = file.metadata()?.len();
        let header = SegmentHeader::parse(&beginning).map_err(io::Error::other)?;
        header.check(self.segment, length, self.system).map_err(io::Error::other)?;
        Ok(length)
    }

    /// A copy: what did not change until its end was read is what was marked.
    fn copy_over(&self, mark: &Kept, mut file: &File, path: &Path) -> io::Result<()> {
        let beside = Beside::of(path);
        let mut output = beside.open()?;
        file.rewind()?;
        let copied = io::copy(&mut file, &mut output)?;
        if copied != self.prove(mark, file)? {
            return Err(io::Error::other("it became shorter"));
        }
        if !place::is_synced_by_server(path) {
            output.sync_all()?;
        }
        beside.publish()
    }

    /// Whether somebody fetches ahead.
    pub(super) fn has_helper(&self) -> bool {
        Claim::is_held(&self.spool.file(LOCK))
    }

    /// Tells others that this call fetches the segment.
    pub(super) fn claim(&self) -> Option<Claim> {
        Claim::take(&claim_of(&self.spool, self.segment)).ok().flatten()
    }

    /// Has the segments behind this one fetched while this call fetches it itself: when a recovery begins, nobody has
    /// looked ahead yet. A call that fails leaves a note, so that the next one does not begin anew.
    pub(super) fn begin(&self) {
        if at(&self.spool).is_none() {
            self.taken(USUAL_SIZE);
        }
    }

    /// Notes that the server has the segment, and sees to it that somebody fetches the next.
    pub(super) fn taken(&self, length: u64) {
        if self.spool.write(AT, &format!("{} {length}\n", self.segment)).is_err() {
            return;
        }
        let Ok(Some(lock)) = Claim::take(&self.spool.file(LOCK)) else { return };
        if let Err(error) = helper::start(RESTORE_WAL, lock, "--helper", Memory::Reused) {
            tracing::warn!(%error, "no prefetch");
        }
    }
}

/// The segment that the server got last, and the size of segments.
pub(super) fn at(spool: &Spool) -> Option<(Segment, SegmentSize)> {
    let text = fs::read_to_string(spool.file(AT)).ok()?;
    let (segment, size) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((segment.parse().ok()?, SegmentSize::new(size.parse().ok()?).ok()?))
}

/// The file whose lock says who fetches a segment.
pub(super) fn claim_of(spool: &Spool, segment: Segment) -> PathBuf {
    spool.file(&format!("{segment}.claim"))
}
