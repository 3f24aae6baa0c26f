//! Segments that were fetched ahead, as a call sees them.
//!
//! A file in the spool is called `<segment>.<XXH3-128 of its content>` and got that name after its content was proven
//! and durable. It is verified once more, byte by byte, before the server gets it. What an archive holds never changes,
//! so what was fetched is never out of date; that something is absent is never remembered.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstay_backup_core::config::Config;
use backstay_postgres_ops::wal::{Segment, SegmentHeader, SegmentSize, SystemId};
use xxhash_rust::xxh3::Xxh3;

use super::place;
use crate::claim::Claim;
use crate::data_directory::DataDirectory;
use crate::spool::Spool;
use crate::{destination, helper};

/// Held by the helper while it lives.
pub(super) const LOCK: &str = "lock";
/// The segment that the server asked for last, and the size of segments.
const AT: &str = "at";
/// How often a call looks whether the helper is done with its segment.
const LOOK: Duration = Duration::from_millis(1);
/// How long a helper has to notice what the server asks for.
const NOTICE: Duration = Duration::from_millis(30);
/// Bytes that are read and hashed at a time: small enough for a processor's cache.
const AT_ONCE: usize = 256 << 10;

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
        loop {
            if let Some(length) = self.hand_over(path) {
                self.taken(length);
                return true;
            }
            let waited = begin.elapsed();
            let claimed = Claim::is_held(&claim_of(&self.spool, self.segment));
            let helper = Claim::is_held(&self.spool.file(LOCK));
            if waited > patience || !helper || !claimed && waited > NOTICE {
                // It may have come between the two looks.
                return self.hand_over(path).is_some_and(|length| {
                    self.taken(length);
                    true
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Length of the segment that is now in its place; `None` when there is none that is good.
    fn hand_over(&self, path: &Path) -> Option<u64> {
        let (file, digest) = find(&self.spool, self.segment)?;
        match self.verify(&file, digest, io::sink()) {
            Ok(length) => match place::publish(&file, path) {
                Ok(()) => Some(length),
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    self.copy_over(&file, digest, path).ok()
                }
                Err(_) => None,
            },
            Err(error) => {
                tracing::warn!(%error, "a segment fetched ahead is fetched again");
                let _ = fs::remove_file(&file);
                None
            }
        }
    }

    /// Another file system than the server's: what is copied is verified as it is read.
    fn copy_over(&self, file: &Path, digest: u128, path: &Path) -> io::Result<u64> {
        let (temporary, mut output) = place::create_beside(path)?;
        let copied = self.verify(file, digest, &mut output);
        let copied = copied.and_then(|length| output.sync_all().map(|()| length));
        let length = copied.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        place::publish(&temporary, path)?;
        let _ = fs::remove_file(file);
        Ok(length)
    }

    /// Reads a file that should be the segment, and gives it on.
    fn verify(&self, file: &Path, digest: u128, mut output: impl Write) -> io::Result<u64> {
        let mut input = File::open(file)?;
        let length = input.metadata()?.len();
        let (mut hasher, mut buffer, mut first) = (Xxh3::new(), vec![0; AT_ONCE], true);
        loop {
            let read = input.read(&mut buffer)?;
            if first {
                let header = SegmentHeader::parse(&buffer[..read]).map_err(io::Error::other)?;
                header.check(self.segment, length, self.system).map_err(io::Error::other)?;
                first = false;
            }
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            output.write_all(&buffer[..read])?;
        }
        if hasher.digest128() == digest { Ok(length) } else { Err(io::Error::other("its content changed")) }
    }

    /// Tells others that this call fetches the segment.
    pub(super) fn claim(&self) -> Option<Claim> {
        Claim::take(&claim_of(&self.spool, self.segment)).ok().flatten()
    }

    /// Notes that the server has the segment, and sees to it that somebody fetches the next.
    pub(super) fn taken(&self, length: u64) {
        if self.spool.write(AT, &format!("{} {length}\n", self.segment)).is_err() {
            return;
        }
        let Ok(Some(lock)) = Claim::take(&self.spool.file(LOCK)) else { return };
        if let Err(error) = helper::start(lock, "--helper") {
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

/// A segment in the spool, and the digest that it should have.
pub(super) fn find(spool: &Spool, segment: Segment) -> Option<(PathBuf, u128)> {
    let names = spool.names().ok()?;
    names.iter().find_map(|name| match parse(name) {
        Some((found, digest)) if found == segment => Some((spool.file(name), digest)),
        _ => None,
    })
}

/// The name of a segment with this digest.
pub(super) fn name(segment: Segment, digest: u128) -> String {
    format!("{segment}.{digest:032x}")
}

/// Segment and digest of a name in the spool.
pub(super) fn parse(name: &str) -> Option<(Segment, u128)> {
    let (segment, digest) = name.split_once('.')?;
    let is_digest = digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((segment.parse().ok()?, u128::from_str_radix(digest, 16).ok().filter(|_| is_digest)?))
}

/// The file whose lock says who fetches a segment.
pub(super) fn claim_of(spool: &Spool, segment: Segment) -> PathBuf {
    spool.file(&format!("{segment}.claim"))
}
