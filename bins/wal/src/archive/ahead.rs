//! What a call knows of segments that were archived ahead.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use backstay_backup_core::config::Config;
use backstay_postgres_ops::wal::{HEADER_LENGTH, Segment, SegmentHeader, SystemId, WalFile};

use crate::claim::Claim;
use crate::data_directory::DataDirectory;
use crate::destination;
use crate::helper::{self, Memory};
use crate::mark::Mark;
use crate::program::ARCHIVE_WAL;
use crate::spool::Spool;

/// Held by the helper while it lives.
pub(super) const LOCK: &str = "lock";
/// How often a call looks whether the helper is done with its segment.
const LOOK: Duration = Duration::from_millis(1);
/// How long a helper has to notice a segment that the server asks for.
const NOTICE: Duration = Duration::from_millis(100);
/// How long a call waits for a living helper before it pushes by itself. Pushing twice is harmless.
const PATIENCE: Duration = Duration::from_secs(60);

/// The spool of a server's archiving, and the segment of this call.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    spool: Spool,
    data: DataDirectory,
    segment: Segment,
    system: SystemId,
    path: std::path::PathBuf,
}

impl Ahead {
    /// Of the segment at a path. `Err(None)` for files that are not looked ahead for, and outside of a server's
    /// directory; a reason where look-ahead should be possible and is not.
    ///
    /// The segment must be one of the cluster: `system`, or what the control file says.
    pub(super) fn of(
        config: &Config,
        path: &Path,
        system: Option<SystemId>,
    ) -> Result<Self, Option<io::Error>> {
        let name = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(WalFile::Segment(segment)) = name else { return Err(None) };
        let data = DataDirectory::of(path);
        if !data.is_served() {
            return Err(None);
        }
        let system = system.map_or_else(|| data.system(), Ok).map_err(|_| None)?;
        if !system_of(path).is_ok_and(|found| found == system) {
            return Err(None);
        }
        let key = destination::key(config, system, &data)?;
        let spool = Spool::open(&config.wal, data.root(), "push", key)?;
        Ok(Self { spool, data, segment, system, path: path.to_owned() })
    }

    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub(super) fn data(&self) -> &DataDirectory {
        &self.data
    }

    pub(super) fn segment(&self) -> Segment {
        self.segment
    }

    pub(super) fn system(&self) -> SystemId {
        self.system
    }

    /// Whether the segment is durable already. Waits for a helper that works on it, or is about to.
    pub(super) fn is_done_or_free(&self) -> bool {
        let begin = Instant::now();
        loop {
            if self.is_marked() {
                self.start_helper();
                return true;
            }
            let claimed = Claim::is_held(&claim_of(&self.spool, self.segment));
            let waited = begin.elapsed();
            let helper = Claim::is_held(&self.spool.file(LOCK));
            if waited > PATIENCE || !helper || !claimed && waited > NOTICE {
                // The mark may have come between the two looks.
                return self.is_marked();
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether a mark says so of this very file.
    fn is_marked(&self) -> bool {
        let Ok(text) = fs::read_to_string(self.spool.file(&Mark::name(self.segment))) else { return false };
        let fits = |mark: Mark| mark.fits(self.segment, self.system, &mut File::open(&self.path)?);
        Mark::decode(&text).is_some_and(|mark| fits(mark).unwrap_or(false))
    }

    /// Tells others that this call pushes the segment.
    pub(super) fn claim(&self) -> Option<Claim> {
        Claim::take(&claim_of(&self.spool, self.segment)).ok().flatten()
    }

    /// Leaves a helper behind, if the server waits for segments that nobody has archived and none is at work.
    pub(super) fn start_helper(&self) {
        let Ok(Some(lock)) = Claim::take(&self.spool.file(LOCK)) else { return };
        let known = |segment| segment == self.segment || self.spool.file(&Mark::name(segment)).exists();
        if self.data.has_ready(known)
            && let Err(error) = helper::start(ARCHIVE_WAL, lock, "--helper", Memory::Returned)
        {
            tracing::warn!(%error, "no look-ahead");
        }
    }
}

/// The file whose lock says who pushes a segment.
pub(super) fn claim_of(spool: &Spool, segment: Segment) -> std::path::PathBuf {
    spool.file(&format!("{segment}.claim"))
}

fn system_of(path: &Path) -> io::Result<SystemId> {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; HEADER_LENGTH];
    File::open(path)?.read_exact_at(&mut bytes, 0)?;
    SegmentHeader::parse(&bytes).map(|header| header.system).map_err(io::Error::other)
}
