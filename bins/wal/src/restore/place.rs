//! Gives a proven file its name, whole or not at all.
//!
//! A file is written beside its place, under a lock, so that a call that a killed server left behind never writes into the
//! file of the next one.
//!
//! Content and name are durable before this returns, with two exceptions that PostgreSQL sees to itself. The two names that
//! it uses are not synced: whatever has them is removed before the server asks, and what it got it renames with
//! `durable_rename`. Nor is the content of a segment under such a name: the server syncs it before it reads the first
//! record, and to sync the same 16 MiB twice would cost a fifth of the speed. Histories, which it reads before it
//! syncs them, and whatever other callers ask for (`pg_rewind`, people, scripts) are durable.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay_postgres_ops::wal_archive::OpenTarget;
use rustix::fs::OFlags;

use super::folder_of;

/// What PostgreSQL calls a file that it is about to take over.
const TAKEN_OVER: [&str; 2] = ["RECOVERYXLOG", "RECOVERYHISTORY"];

/// A file on its way to its name; removed if it does not get there.
#[derive(Debug)]
pub(super) struct Beside {
    path: PathBuf,
    temporary: PathBuf,
    /// Whether the temporary file is ours.
    opened: Arc<AtomicBool>,
}

impl Beside {
    /// The name is always the same, so that a crash leaves one behind at most.
    pub(super) fn of(path: &Path) -> Self {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".backstay");
        Self { path: path.to_owned(), temporary: temporary.into(), opened: Arc::default() }
    }

    /// Opens it, empty.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] while another process writes it.
    pub(super) fn open(&self) -> io::Result<File> {
        open(&self.temporary, &self.opened)
    }

    /// Opens it as [`Beside::open`] does, from anywhere.
    pub(super) fn target(&self) -> OpenTarget {
        let (temporary, opened) = (self.temporary.clone(), self.opened.clone());
        let target =
            OpenTarget::new(move || open(&temporary, &opened).map_err(|error| named(&temporary, &error)));
        if is_synced_by_server(&self.path) { target.without_sync() } else { target }
    }

    /// Gives it its name. Its content is durable already, if it has to be.
    pub(super) fn publish(self) -> io::Result<()> {
        publish(&self.temporary, &self.path, true).map_err(|error| named(&self.path, &error))?;
        self.opened.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.opened.load(Ordering::Relaxed) {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The same error, with the path that it is about.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn open(path: &Path, opened: &AtomicBool) -> io::Result<File> {
    loop {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
        // Where the file system has no locks we do without: a server makes one call at a time.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another restore-wal writes it"));
        }
        let facts = |found: &fs::Metadata| (found.dev(), found.ino());
        match fs::symlink_metadata(path) {
            Ok(found) if facts(&found) == facts(&file.metadata()?) => {}
            // Whoever held the lock before gave it its name, or removed it.
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        opened.store(true, Ordering::Relaxed);
        file.set_len(0)?;
        return Ok(file);
    }
}

/// Renames a proven file to its name, durably unless the server does that itself. `is_durable` tells whether the content
/// was synced before.
pub(super) fn publish(from: &Path, path: &Path, is_durable: bool) -> io::Result<()> {
    let is_taken_over = is_taken_over(path);
    if !is_durable && !is_synced_by_server(path) {
        File::open(from)?.sync_all()?;
    }
    fs::rename(from, path)?;
    if is_taken_over { Ok(()) } else { File::open(folder_of(path))?.sync_all() }
}

/// Whether the server makes the content durable before it reads it: of a segment; of a history only afterwards.
pub(super) fn is_synced_by_server(path: &Path) -> bool {
    path.file_name().is_some_and(|found| found == TAKEN_OVER[0])
}

/// Whether the server renames durably what it asked for under this name.
fn is_taken_over(path: &Path) -> bool {
    TAKEN_OVER.iter().any(|name| path.file_name().is_some_and(|found| found == *name))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_does_not_get_its_name_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let beside = Beside::of(&path);
        beside.open().unwrap().write_all(b"half").unwrap();
        drop(beside);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let beside = Beside::of(&path);
        beside.open().unwrap().write_all(b"whole").unwrap();
        beside.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nobody_writes_into_the_file_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let (first, second) = (Beside::of(&path), Beside::of(&path));
        let mut writing = first.open().unwrap();
        writing.write_all(b"first").unwrap();
        assert_eq!(second.open().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        // Who could not open it does not remove it either.
        drop(second);
        first.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let third = Beside::of(&path);
        third.open().unwrap().write_all(b"third").unwrap();
        writing.write_all(b" goes on").unwrap();
        third.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
    }

    #[test]
    fn what_a_crash_left_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(folder.path().join("x.backstay"), "longer than what comes").unwrap();
        let beside = Beside::of(&path);
        beside.open().unwrap().write_all(b"short").unwrap();
        beside.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
