//! A private folder that is gone afterwards, also when its run was killed: the next run finds that nobody holds it.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::CodeError;

/// Beginning of the names of such folders.
const PREFIX: &str = "backstay-code-";
/// The file that a living run holds.
const LOCK: &str = "lock";
/// How often one is made that another run removes at once.
const TRIES: u32 = 4;

/// The folder.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one below a folder, and removes what runs that were killed left there. Blocks.
    pub(super) fn create(below: &Path) -> Result<Self, CodeError> {
        sweep(below);
        let mut tries = TRIES;
        loop {
            let folder = below.join(format!("{PREFIX}{}", unique_name()));
            tries -= 1;
            match Self::make(&folder) {
                Ok(scratch) => return Ok(scratch),
                // Another run took it for one that nobody holds, in the moment before we held it.
                Err(_) if folder.parent().is_some_and(Path::is_dir) && !folder.exists() && tries > 0 => {}
                Err(error) => return Err(CodeError::io("create", &folder, error)),
            }
        }
    }

    fn make(folder: &Path) -> std::io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).create(folder)?;
        let lock = File::create(folder.join(LOCK))?;
        // Whoever holds it instead is removing the folder.
        flock(&lock, FlockOperation::LockExclusive)?;
        fs::create_dir(folder.join("home"))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }
}

/// A name that no folder of any run has.
pub(super) fn unique_name() -> String {
    format!("{}-{:08x}", std::process::id(), unique())
}

/// Differs from one folder to the next of a process.
fn unique() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos().wrapping_add(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// Removes folders of ours that nobody holds.
fn sweep(below: &Path) {
    let Ok(entries) = fs::read_dir(below) else { return };
    let user = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|facts| facts.is_dir() && facts.uid() == user);
        let folder = entry.path();
        let is_free = |lock: &File| flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        match File::open(folder.join(LOCK)) {
            Ok(lock) if ours && is_free(&lock) => {
                let _ = remove(&folder, LOCK);
            }
            // Killed before it had a lock, or after; or just being made, which is then done again. Anything in it keeps it.
            Err(_) if ours => {
                let _ = fs::remove_dir(&folder);
            }
            _ => {}
        }
    }
}

/// Removes a folder and the lock in it last, so that a kill meanwhile leaves one that is known.
pub(super) fn remove(folder: &Path, lock: &str) -> std::io::Result<()> {
    empty(folder, lock)?;
    fs::remove_file(folder.join(lock))?;
    fs::remove_dir(folder)
}

/// Removes everything in a folder but its lock.
pub(super) fn empty(folder: &Path, lock: &str) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != lock {
            let path = entry.path();
            let is_folder = entry.file_type()?.is_dir();
            let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed?;
        }
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder, LOCK) {
            tracing::warn!(folder = %self.folder.display(), %error, "a temporary folder stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_a_living_one_holds_is_not() {
        let below = tempfile::tempdir().unwrap();
        let dead = below.path().join("backstay-code-1-0");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::create_dir(below.path().join("backstay-code-of-somebody")).unwrap();
        fs::write(below.path().join("backstay-code-of-somebody/file"), "").unwrap();
        fs::create_dir(below.path().join("backstay-code-2-0")).unwrap();
        let living = Scratch::create(below.path()).unwrap();
        let another = Scratch::create(below.path()).unwrap();
        assert!(!dead.exists());
        assert!(living.path("home").exists() && another.path("home").exists());
        assert_eq!(fs::metadata(living.path("")).unwrap().mode() & 0o777, 0o700, "patches lie in it");
        drop((living, another));
        assert_eq!(fs::read_dir(below.path()).unwrap().count(), 1);
    }
}
