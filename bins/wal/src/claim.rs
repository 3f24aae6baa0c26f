//! Who works on what: a lock on a file, which the kernel takes back from whoever dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A lock that is held until it is dropped, or handed to a helper.
#[derive(Debug)]
pub(crate) struct Claim(File);

impl Claim {
    /// Takes the lock; `None` when somebody else has it.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        Self::of(file)
    }

    /// The lock of an open file; also succeeds where that very opening of it holds the lock already.
    pub(crate) fn of(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether somebody holds the lock. A file that does not exist is locked by nobody.
    pub(crate) fn is_held(path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        // Shared, so that two that look at the same time do not see each other.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The open file: whoever inherits it holds the lock as well.
    pub(crate) fn into_file(self) -> File {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_exclusive_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claim");
        assert!(!Claim::is_held(&path));
        let first = Claim::take(&path).unwrap().unwrap();
        assert!(Claim::is_held(&path) && Claim::take(&path).unwrap().is_none());
        drop(first);
        assert!(!Claim::is_held(&path) && Claim::take(&path).unwrap().is_some());
    }
}
