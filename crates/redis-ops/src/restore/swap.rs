//! Puts what was restored in the place of the old data, in one step, and keeps the old.
//!
//! ```text
//! D/.backstay-restore/new/<name>   written, synced
//! D/.backstay-restore/ready.json   from here on the same command only swaps
//! other formats  → D/before-restore-…/     (the server does not load them as it is configured)
//! D/<name> ⇄ D/.backstay-restore/new/<name>   one rename
//! old <name>     → D/before-restore-…/
//! D/.backstay-restore away
//! ```
//!
//! Killed at any moment, the directory holds the old data whole or the new data whole, and the same command completes. What
//! is neither, such as `nodes.conf` or a file of users, stays where it is. Everything is within one directory, so that it
//! may be a mount point.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::RestoreError;
use super::place::Owner;

const STAGING: &str = ".backstay-restore";
const READY: &str = "ready.json";
/// Largest mark that is read.
const MOST_MARK: u64 = 16 << 20;

/// What is to be swapped, written when it is complete and durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Ready {
    /// What was restored: the same command finds it again by this.
    pub(super) identity: String,
    /// Name of the file or folder in the data directory.
    pub(super) name: String,
    /// Names that are moved away with the old one.
    pub(super) others: Vec<String>,
    /// Device and inode of the new one, so that nobody swaps twice.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Where the old data goes.
    pub(super) kept: String,
    /// What the receipt will say.
    pub(super) report: Value,
}

/// The folder in which a restore is prepared.
#[derive(Clone, Debug)]
pub(super) struct Staging {
    directory: PathBuf,
    owner: Option<Owner>,
}

impl Staging {
    pub(super) fn new(directory: &Path, owner: Option<Owner>) -> Self {
        Self { directory: directory.to_owned(), owner }
    }

    fn root(&self) -> PathBuf {
        self.directory.join(STAGING)
    }

    /// Where the new file or folder is made.
    pub(super) fn unit(&self, name: &str) -> PathBuf {
        self.root().join("new").join(name)
    }

    /// A folder for a server that replays.
    pub(super) fn workshop(&self) -> PathBuf {
        self.root().join("work")
    }

    /// What an earlier run left ready.
    pub(super) fn ready(&self) -> Result<Option<Ready>, RestoreError> {
        let path = self.root().join(READY);
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RestoreError::io("look at", &path)(error)),
        };
        if metadata.len() > MOST_MARK {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(RestoreError::io("read", &path))?;
        // Written by a rename, so half a mark is somebody else's; the restore begins anew.
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// A name for the old data that nothing has yet.
    pub(super) fn name_for_old(&self, now: Timestamp) -> String {
        let name = format!("before-restore-{}", now.strftime("%Y%m%dT%H%M%SZ"));
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        names.find(|name| self.directory.join(name).symlink_metadata().is_err()).unwrap_or_default()
    }

    /// Makes the folder, and removes what an earlier run left.
    pub(super) fn begin(&self) -> Result<(), RestoreError> {
        if !self.directory.exists() {
            make_folder(&self.directory, self.owner)?;
            sync_folder(self.directory.parent().unwrap_or(Path::new("/")))?;
        }
        let root = self.root();
        remove(&root)?;
        make_folder(&root, self.owner)?;
        make_folder(&root.join("new"), self.owner)
    }

    /// Says that the new one is complete. Everything in it must be synced.
    pub(super) fn mark_ready(
        &self,
        identity: &str,
        name: &str,
        others: Vec<String>,
        kept: String,
        report: Value,
    ) -> Result<Ready, RestoreError> {
        let unit = self.unit(name);
        let metadata = unit.symlink_metadata().map_err(RestoreError::io("look at", &unit))?;
        let ready = Ready {
            identity: identity.to_owned(),
            name: name.to_owned(),
            others,
            device: metadata.dev(),
            inode: metadata.ino(),
            kept,
            report,
        };
        sync_folder(&self.root().join("new"))?;
        let place = self.root().join(READY);
        let temporary = self.root().join("ready.tmp");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(&ready)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &place)
        };
        write().map_err(RestoreError::io("write", &place))?;
        sync_folder(&self.root())?;
        sync_folder(&self.directory)?;
        Ok(ready)
    }

    /// Swaps. Gives where the old data is, if there was any.
    pub(super) fn commit(&self, ready: &Ready) -> Result<Option<PathBuf>, RestoreError> {
        let kept = self.directory.join(&ready.kept);
        if !kept.is_dir() {
            make_folder(&kept, self.owner)?;
        }
        for name in &ready.others {
            move_away(&self.directory.join(name), &kept.join(name))?;
        }
        sync_folder(&kept)?;
        self.swap_unit(ready)?;
        sync_folder(&self.directory)?;
        let old = self.unit(&ready.name);
        move_away(&old, &kept.join(&ready.name))?;
        sync_folder(&kept)?;
        self.clear(&kept)
    }

    /// Whether the new one is in its place already.
    pub(super) fn is_swapped(&self, ready: &Ready) -> bool {
        let place = self.directory.join(&ready.name).symlink_metadata();
        place.is_ok_and(|it| it.dev() == ready.device && it.ino() == ready.inode)
    }

    /// The one step that counts.
    fn swap_unit(&self, ready: &Ready) -> Result<(), RestoreError> {
        let (new, place) = (self.unit(&ready.name), self.directory.join(&ready.name));
        let current = match place.symlink_metadata() {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(RestoreError::io("look at", &place)(error)),
        };
        let flags = match current {
            Some(it) if it.dev() == ready.device && it.ino() == ready.inode => return Ok(()),
            Some(_) => RenameFlags::EXCHANGE,
            None => RenameFlags::NOREPLACE,
        };
        match renameat_with(CWD, &new, CWD, &place, flags) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::XDEV) => {
                let remedy = "move the old one elsewhere, and run the same command again";
                Err(RestoreError::target(&place, "cannot be swapped in one step on this file system", remedy))
            }
            Err(error) => Err(RestoreError::io("swap", &place)(error.into())),
        }
    }

    /// Removes the folder of the restore, and an empty folder of old data.
    fn clear(&self, kept: &Path) -> Result<Option<PathBuf>, RestoreError> {
        let mark = self.root().join(READY);
        remove(&mark)?;
        remove(&self.root())?;
        let is_empty = std::fs::read_dir(kept).map_err(RestoreError::io("read", kept))?.next().is_none();
        if is_empty {
            std::fs::remove_dir(kept).map_err(RestoreError::io("remove", kept))?;
        }
        sync_folder(&self.directory)?;
        Ok((!is_empty).then(|| kept.to_owned()))
    }

    /// Removes what an unfinished restore left; the old data is untouched.
    pub(super) fn discard(&self) -> Result<(), RestoreError> {
        remove(&self.root())
    }
}

/// Moves something, unless it is gone already. What is there stays there.
fn move_away(from: &Path, to: &Path) -> Result<(), RestoreError> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        // File systems without this flag: nothing of that name is there but in a run that was disturbed.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.exists() => {
            std::fs::rename(from, to).map_err(RestoreError::io("move away", from))
        }
        Err(error) => Err(RestoreError::io("move away", from)(error.into())),
    }
}

pub(super) fn make_folder(path: &Path, owner: Option<Owner>) -> Result<(), RestoreError> {
    DirBuilder::new().mode(0o700).create(path).map_err(RestoreError::io("make", path))?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(path, private).map_err(RestoreError::io("protect", path))?;
    owner.map_or(Ok(()), |owner| owner.give(path))
}

/// Creates a file that nobody else may read.
pub(super) fn make_file(path: &Path, owner: Option<Owner>) -> Result<File, RestoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(RestoreError::io("create", path))?;
    owner.map_or(Ok(()), |owner| owner.give(path))?;
    Ok(file)
}

pub(super) fn sync_folder(path: &Path) -> Result<(), RestoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(RestoreError::io("sync", path))
}

/// Removes a file or folder, or nothing.
pub(super) fn remove(path: &Path) -> Result<(), RestoreError> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(RestoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(path: PathBuf) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn staged(data: &Path) -> (Staging, Ready) {
        let staging = Staging::new(data, None);
        staging.begin().unwrap();
        write(staging.unit("appendonlydir").join("x"), "new");
        let others = vec!["dump.rdb".to_owned()];
        let ready = staging.mark_ready("id", "appendonlydir", others, "before".to_owned(), Value::Null);
        (staging, ready.unwrap())
    }

    #[test]
    fn old_data_is_swapped_for_new_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        write(data.join("appendonlydir/x"), "old");
        write(data.join("dump.rdb"), "older");
        write(data.join("nodes.conf"), "mine");
        let (staging, ready) = staged(&data);
        assert_eq!(staging.ready().unwrap(), Some(ready.clone()));
        let kept = staging.commit(&ready).unwrap().unwrap();
        assert_eq!(read(data.join("appendonlydir/x")), "new");
        assert_eq!(read(kept.join("appendonlydir/x")), "old");
        assert_eq!(read(kept.join("dump.rdb")), "older");
        assert_eq!(read(data.join("nodes.conf")), "mine");
        assert!(!data.join("dump.rdb").exists() && !data.join(STAGING).exists());
    }

    #[test]
    fn what_lies_where_old_data_is_to_be_kept_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        write(data.join("dump.rdb"), "older");
        let (staging, ready) = staged(&data);
        write(data.join("before/dump.rdb"), "oldest");
        assert!(staging.commit(&ready).is_err());
        assert_eq!(read(data.join("before/dump.rdb")), "oldest");
        assert_eq!(read(data.join("dump.rdb")), "older");
        assert!(!data.join("appendonlydir").exists(), "nothing was swapped");
    }

    #[test]
    fn an_empty_directory_gets_the_new_data_and_no_folder_of_old() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (staging, ready) = staged(&data);
        assert_eq!(staging.commit(&ready).unwrap(), None);
        assert_eq!(read(data.join("appendonlydir/x")), "new");
        assert!(!data.join("before").exists());
    }

    #[test]
    fn a_swap_that_was_interrupted_is_not_undone_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        write(data.join("appendonlydir/x"), "old");
        let (staging, ready) = staged(&data);
        staging.swap_unit(&ready).unwrap();
        // As after a kill: everything from the mark on once more.
        let ready = staging.ready().unwrap().unwrap();
        let kept = staging.commit(&ready).unwrap().unwrap();
        assert_eq!(read(data.join("appendonlydir/x")), "new");
        assert_eq!(read(kept.join("appendonlydir/x")), "old");
    }

    #[test]
    fn old_data_gets_a_name_that_nothing_has() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::new(folder.path(), None);
        let now = Timestamp::UNIX_EPOCH;
        let mut names = Vec::new();
        for _ in 0..3 {
            let name = staging.name_for_old(now);
            // A link that leads nowhere has the name as well.
            std::os::unix::fs::symlink("/nowhere", folder.path().join(&name)).unwrap();
            names.push(name);
        }
        let name = "before-restore-19700101T000000Z";
        assert_eq!(names, [name.to_owned(), format!("{name}-2"), format!("{name}-3")]);
    }

    #[test]
    fn what_an_earlier_run_prepared_is_no_part_of_the_next_and_half_a_mark_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        write(data.join("appendonlydir/x"), "old");
        let (staging, _) = staged(&data);
        write(staging.unit("appendonlydir").join("left"), "over");
        let (staging, ready) = staged(&data);
        assert!(!staging.unit("appendonlydir").join("left").exists());
        let mark = staging.root().join(READY);
        let whole = std::fs::read(&mark).unwrap();
        std::fs::write(&mark, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(staging.ready().unwrap(), None);
        std::fs::write(&mark, &whole).unwrap();
        assert_eq!(staging.ready().unwrap(), Some(ready));
        staging.discard().unwrap();
        assert_eq!((staging.ready().unwrap(), read(data.join("appendonlydir/x"))), (None, "old".to_owned()));
    }
}
