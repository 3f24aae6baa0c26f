//! The lock under which a local store compares and swaps.
//!
//! `flock` on `.lock` in the root: released by the kernel when its holder dies, and exclusive between threads as well,
//! because every holder opens the file anew.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::folder::Root;
use super::trouble::Trouble;

const NAME: &str = ".lock";
/// Holders need milliseconds; one that was stopped must not stop everybody else for good.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Held until dropped.
pub(super) struct Lock {
    _file: OwnedFd,
}

impl Lock {
    /// For a replacement: nobody else replaces or deletes.
    pub(super) fn exclusive(root: &Root) -> Result<Self, Trouble> {
        Self::take(root, FlockOperation::NonBlockingLockExclusive)
    }

    /// For a deletion: nobody replaces.
    pub(super) fn shared(root: &Root) -> Result<Self, Trouble> {
        Self::take(root, FlockOperation::NonBlockingLockShared)
    }

    fn take(root: &Root, how: FlockOperation) -> Result<Self, Trouble> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let end = Instant::now() + PATIENCE;
        loop {
            let folder = root.handle()?;
            let file = rustix::fs::openat(&folder, NAME, flags, Mode::RUSR | Mode::WUSR)?;
            match rustix::fs::flock(&file, how) {
                // A lock on a file that somebody removed excludes nobody.
                Ok(()) if same_file(&folder, &file)? => return Ok(Self { _file: file }),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => thread::sleep(PAUSE),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn same_file(folder: &OwnedFd, file: &OwnedFd) -> Result<bool, Errno> {
    let held = rustix::fs::fstat(file)?;
    match rustix::fs::statat(folder, NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
