//! Directories of a local store: walking to them without following links, making them durable, removing empty ones.
//!
//! Every operation starts at the root's path and checks that it still is the directory that was opened: a disk that was
//! unmounted leaves an empty mount point behind, and writing into that would fill the wrong disk with backups nobody
//! finds again.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::trouble::Trouble;

/// Directories are for the owner alone, whatever the umask.
const FOLDER_MODE: Mode = Mode::RWXU;
/// Attempts at making a directory that another process keeps removing because it is empty.
const RACES: usize = 64;
/// Directories remembered as durable; a bound on memory, nothing more.
const REMEMBERED: usize = 4096;

/// The root directory, known by its identity.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    identity: (u64, u64),
    /// Folders whose entry in their parent is known to be on disk: path below the root → inode.
    durable: Mutex<HashMap<String, u64>>,
}

/// An open folder and the open folders above it, up to the root.
pub(super) struct Folder {
    names: Vec<String>,
    /// One more than the names: the root comes first.
    chain: Vec<OwnedFd>,
}

impl Root {
    /// Opens an existing directory.
    pub(super) fn open(path: PathBuf) -> Result<Self, Trouble> {
        // The process may change its working directory later.
        let path = std::path::absolute(path).map_err(os)?;
        let fd = open_root(&path)?;
        let identity = identity(&rustix::fs::fstat(&fd)?);
        Ok(Self { path, identity, durable: Mutex::default() })
    }

    /// Makes the directory and what is missing above it; an existing one is fine.
    pub(super) fn create(path: PathBuf) -> Result<Self, Trouble> {
        let mut missing = Vec::new();
        let mut at = path.as_path();
        while !at.as_os_str().is_empty() && !at.try_exists().map_err(os)? {
            missing.push(at);
            at = at.parent().unwrap_or(Path::new(""));
        }
        for folder in missing.into_iter().rev() {
            match rustix::fs::mkdir(folder, FOLDER_MODE) {
                Ok(()) => rustix::fs::chmod(folder, FOLDER_MODE)?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = fs::File::open(parent.unwrap_or(Path::new("."))).map_err(os)?;
            rustix::fs::fsync(&parent)?;
        }
        Self::open(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the root, if it still is the one that was opened first.
    pub(super) fn handle(&self) -> Result<OwnedFd, Trouble> {
        let fd = open_root(&self.path)?;
        if identity(&rustix::fs::fstat(&fd)?) == self.identity {
            return Ok(fd);
        }
        let gone = io::Error::new(io::ErrorKind::NotFound, "another directory has taken its place");
        Err(Trouble::RootGone(gone))
    }

    /// The folder of these names; `None` if absence is proven.
    pub(super) fn find(&self, names: &[&str]) -> Result<Option<Folder>, Trouble> {
        let mut folder = Folder { names: Vec::new(), chain: vec![self.handle()?] };
        for name in names {
            match open_folder(folder.fd(), name) {
                Ok(fd) => folder.push(name, fd),
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    // Below a root that vanished meanwhile everything looks absent.
                    self.handle()?;
                    return Ok(None);
                }
                Err(errno) => return Err(link_or(errno)),
            }
        }
        Ok(Some(folder))
    }

    /// Makes the folder and works in it; starts again when somebody removed the empty folder in between.
    pub(super) fn work_in<T>(
        &self,
        names: &[&str],
        mut work: impl FnMut(&Folder) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        for _ in 0..RACES {
            match self.make(names) {
                Err(Trouble::Os(Errno::NOENT)) => continue,
                Err(trouble) => return Err(trouble),
                Ok(folder) => match work(&folder) {
                    Err(Trouble::Os(Errno::NOENT)) => continue,
                    Err(trouble) => {
                        folder.remove_if_empty();
                        return Err(trouble);
                    }
                    Ok(done) => return Ok(done),
                },
            }
        }
        self.handle()?;
        Err(Errno::AGAIN.into())
    }

    fn make(&self, names: &[&str]) -> Result<Folder, Trouble> {
        let mut folder = Folder { names: Vec::new(), chain: vec![self.handle()?] };
        for name in names {
            let fd = match open_folder(folder.fd(), name) {
                Err(Errno::NOENT) => make_folder(folder.fd(), name)?,
                Err(Errno::NOTDIR) => return Err(Trouble::Refused("an object is in the way of a folder")),
                other => other.map_err(link_or)?,
            };
            folder.push(name, fd);
        }
        Ok(folder)
    }

    /// Makes the folder's entries durable, and those of the folders above it that were not yet known to be.
    pub(super) fn sync(&self, folder: &Folder) -> Result<(), Trouble> {
        rustix::fs::fsync(folder.fd())?;
        for depth in (1..folder.chain.len()).rev() {
            let path = folder.names[..depth].join("/");
            let inode = rustix::fs::fstat(&folder.chain[depth])?.st_ino;
            // Whoever made the folder may not have come to its own fsync yet, so existing is not enough.
            if self.durable(|known| known.get(&path) == Some(&inode)) {
                break;
            }
            rustix::fs::fsync(&folder.chain[depth - 1])?;
            self.durable(|known| {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(path, inode)
            });
        }
        Ok(())
    }

    fn durable<T>(&self, with: impl FnOnce(&mut HashMap<String, u64>) -> T) -> T {
        with(&mut self.durable.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Folder {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.chain.last().expect("the root is always there").as_fd()
    }

    fn push(&mut self, name: &str, fd: OwnedFd) {
        self.names.push(name.to_owned());
        self.chain.push(fd);
    }

    /// Removes the folder and those above it as far as they are empty; never the root. Best effort: an empty folder
    /// is no harm, and the next writer may already be using it.
    pub(super) fn remove_if_empty(&self) {
        for (depth, name) in self.names.iter().enumerate().rev() {
            if rustix::fs::unlinkat(&self.chain[depth], name, AtFlags::REMOVEDIR).is_err() {
                return;
            }
        }
    }
}

/// Opens a directory below another; `LOOP` for a symbolic link, which is never followed.
pub(super) fn open_folder(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        // Linux says NOTDIR for a link, too; to call that absent would hide everything behind the link.
        Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => Err(Errno::LOOP),
            Ok(_) => Err(Errno::NOTDIR),
            Err(errno) => Err(errno),
        },
        other => other,
    }
}

/// The trouble behind an error of opening something: links get words of their own.
pub(super) fn link_or(errno: Errno) -> Trouble {
    match errno {
        Errno::LOOP => Trouble::Refused("a symbolic link is in the way, and links are not followed"),
        errno => Trouble::Os(errno),
    }
}

fn make_folder(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Trouble> {
    match rustix::fs::mkdirat(parent, name, FOLDER_MODE) {
        // The umask may have taken bits away that the owner needs.
        Ok(()) => rustix::fs::chmodat(parent, name, FOLDER_MODE, AtFlags::empty())?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    open_folder(parent, name).map_err(link_or)
}

fn open_root(path: &Path) -> Result<OwnedFd, Trouble> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => Err(Trouble::RootGone(errno.into())),
        Err(errno) => Err(errno.into()),
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn os(error: io::Error) -> Trouble {
    match Errno::from_io_error(&error) {
        Some(errno) => Trouble::Os(errno),
        None => Trouble::RootGone(error),
    }
}
