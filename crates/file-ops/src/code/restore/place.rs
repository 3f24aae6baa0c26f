//! The place of a restore, and the folder beside it in which it is made.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use super::super::error::CodeError;
use super::super::scratch;
use crate::error::Error;

/// What a living restore holds.
const LOCK: &str = "lock";
/// What is renamed in the end.
pub(super) const MADE: &str = "made";

/// A place that is free, and our folder beside it. Without [`Place::finish`] the folder is removed and nothing happened.
///
/// A restore that is killed leaves its git behind for a moment, which goes on writing where it was told to: so every
/// restore works in a folder of its own below that, which no other ever had.
#[derive(Debug)]
pub(super) struct Place {
    to: PathBuf,
    folder: PathBuf,
    own: PathBuf,
    _lock: File,
}

/// Whether something may be put there.
pub(super) fn check_free(to: &Path) -> Result<(), CodeError> {
    let conflict = |problem: &str| {
        let error = Error::Conflict { path: to.display().to_string(), problem: problem.to_owned() };
        Err(error.into())
    };
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CodeError::io("open", to, error)),
        Ok(facts) if !facts.is_dir() => conflict("it is no folder"),
        Ok(_) => {
            let mut entries = fs::read_dir(to).map_err(|error| CodeError::io("read", to, error))?;
            if entries.next().is_some() { conflict("there is something in it") } else { Ok(()) }
        }
    }
}

impl Place {
    /// Takes a place, which must be free, and makes the folder beside it anew.
    pub(super) fn begin(to: &Path) -> Result<Self, CodeError> {
        check_free(to)?;
        let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
            return Err(Error::Staging { path: to.to_owned(), problem: "it has no name".to_owned() }.into());
        };
        let folder = parent.join(format!(".{}.backstay-restore", name.to_string_lossy()));
        let failed = |op| {
            let folder = folder.clone();
            move |error| CodeError::io(op, &folder, error)
        };
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => check_ours(&folder)?,
            Err(error) => return Err(failed("create")(error)),
        }
        let lock = File::create(folder.join(LOCK)).map_err(failed("create"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let problem = "another restore to it is under way".to_owned();
            return Err(Error::Conflict { path: to.display().to_string(), problem }.into());
        }
        match scratch::empty(&folder, LOCK) {
            // What the git of a killed restore still writes is removed afterwards.
            Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
                return Err(failed("empty")(error));
            }
            _ => {}
        }
        let own = folder.join(scratch::unique_name());
        fs::create_dir(&own).and_then(|()| fs::create_dir(own.join("home"))).map_err(failed("create"))?;
        Ok(Self { to: to.to_owned(), folder, own, _lock: lock })
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.own.join(below)
    }

    /// Makes everything durable, and puts what was made to its place: at once, and only if that is still free.
    pub(super) fn finish(&self) -> Result<(), CodeError> {
        let made = self.path(MADE);
        let open = File::open(&self.folder).map_err(|error| CodeError::io("open", &self.folder, error))?;
        rustix::fs::syncfs(&open).map_err(|error| CodeError::io("sync", &made, error.into()))?;
        let moved = match renameat_with(CWD, &made, CWD, &self.to, RenameFlags::NOREPLACE) {
            // An empty folder is replaced, any other is not.
            Err(rustix::io::Errno::EXIST) if made.is_dir() => fs::rename(&made, &self.to),
            // Not every file system knows how to refuse; a folder never replaces more than an empty one.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if made.is_dir() => {
                fs::rename(&made, &self.to)
            }
            other => other.map_err(Into::into),
        };
        moved.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory => {
                let problem = "something was put there meanwhile".to_owned();
                Error::Conflict { path: self.to.display().to_string(), problem }.into()
            }
            _ => CodeError::io("rename", &self.to, error),
        })?;
        let parent =
            self.to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(|error| CodeError::io("sync", parent, error))
    }
}

/// One that a restore left which was killed; nobody else's.
fn check_ours(folder: &Path) -> Result<(), CodeError> {
    let facts = fs::symlink_metadata(folder).map_err(|error| CodeError::io("open", folder, error))?;
    let mine = facts.is_dir() && facts.uid() == rustix::process::geteuid().as_raw();
    let empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if mine && (folder.join(LOCK).is_file() || empty()) {
        return Ok(());
    }
    Err(Error::Staging { path: folder.to_owned(), problem: "it is not of an earlier restore".to_owned() }
        .into())
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = scratch::remove(&self.folder, LOCK) {
            tracing::warn!(folder = %self.folder.display(), %error, "the folder beside the restored one stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_whole_and_only_when_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("app");
        let place = Place::begin(&to).unwrap();
        fs::create_dir(place.path(MADE)).unwrap();
        fs::write(place.path(MADE).join("file"), "x").unwrap();
        assert!(matches!(Place::begin(&to), Err(CodeError::Files(Error::Conflict { .. }))), "two at once");
        fs::create_dir(&to).unwrap();
        place.finish().unwrap();
        drop(place);
        assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "x");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(check_free(&to).is_err());

        let to = folder.path().join("other");
        let place = Place::begin(&to).unwrap();
        fs::create_dir(place.path(MADE)).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(to.join("meanwhile"), "y").unwrap();
        assert!(matches!(place.finish(), Err(CodeError::Files(Error::Conflict { .. }))));
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);

        let to = folder.path().join("file");
        let place = Place::begin(&to).unwrap();
        fs::write(place.path(MADE), "ours").unwrap();
        fs::write(&to, "meanwhile").unwrap();
        assert!(matches!(place.finish(), Err(CodeError::Files(Error::Conflict { .. }))));
        assert_eq!(fs::read_to_string(&to).unwrap(), "meanwhile");
    }

    #[test]
    fn what_a_killed_restore_left_is_replaced_and_what_others_have_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(".app.backstay-restore");
        fs::create_dir_all(left.join(MADE)).unwrap();
        let to = folder.path().join("app");
        assert!(matches!(Place::begin(&to), Err(CodeError::Files(Error::Staging { .. }))));
        fs::write(left.join(LOCK), "").unwrap();
        let place = Place::begin(&to).unwrap();
        assert!(!place.path(MADE).exists() && !left.join(MADE).exists());
    }

    #[test]
    fn what_the_git_of_a_killed_restore_still_writes_is_not_in_the_way() {
        use std::sync::atomic::{AtomicBool, Ordering};
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let (left, to) = (folder.path().join(".app.backstay-restore"), folder.path().join("app"));
            let theirs = left.join(MADE);
            fs::create_dir_all(&theirs).unwrap();
            fs::write(left.join(LOCK), "").unwrap();
            let is_over = AtomicBool::new(false);
            let place = std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0_u64.. {
                        let _ = fs::write(theirs.join(number.to_string()), "late");
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
                while !theirs.join("9").exists() {}
                let place = Place::begin(&to);
                is_over.store(true, Ordering::Relaxed);
                place
            });
            let place = place.unwrap();
            assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 1, "a home");
            drop(place);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
