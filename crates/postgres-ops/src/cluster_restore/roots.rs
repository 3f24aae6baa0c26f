//! Where files go: the data directory and one directory for each tablespace, none of which is ever left.
//!
//! A file is opened below the open directory of its root, with the kernel's promise (`openat2`) that no symbolic link
//! and no `..` is followed on the way. So neither an old data directory, whose links may lead into a living cluster, nor
//! somebody who swaps directories while root restores can send a write elsewhere.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};

use super::ClusterRestoreError;
use crate::account::Account;
use crate::physical::ClusterPath;

/// Where links to tablespaces lie.
pub(super) const TABLESPACES: &str = "pg_tblspc";

/// How often the kernel may ask to look again because something was renamed meanwhile.
const TRIES: u32 = 8;

/// Open roots.
#[derive(Debug)]
pub(crate) struct Roots {
    data: Root,
    tablespaces: BTreeMap<u32, Root>,
    owner: Option<Account>,
}

/// One directory that files are restored into.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    directory: OwnedFd,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, ClusterRestoreError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| ClusterRestoreError::io("open", path)(error.into()))?;
        Ok(Self { path: path.to_owned(), directory })
    }

    /// Opens something below without following a link.
    pub(super) fn open_below(&self, below: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            tries += 1;
            match rustix::fs::openat2(&self.directory, below, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(rustix::io::Errno::AGAIN) if tries < TRIES => {}
                opened => return Ok(opened?),
            }
        }
    }

    /// The directory that holds something below, and its name there.
    pub(super) fn folder_of<'a>(&self, below: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = below.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = match below.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            None => self.directory.try_clone()?,
            Some(parent) => self.open_below(parent, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?,
        };
        Ok((folder, name))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Roots {
    /// Opens directories that exist.
    pub(super) fn open(
        data: &Path,
        tablespaces: &BTreeMap<u32, PathBuf>,
        owner: Option<Account>,
    ) -> Result<Self, ClusterRestoreError> {
        let open = |(oid, path): (&u32, &PathBuf)| Ok((*oid, Root::open(path)?));
        let tablespaces = tablespaces.iter().map(open).collect::<Result<_, ClusterRestoreError>>()?;
        Ok(Self { data: Root::open(data)?, tablespaces, owner })
    }

    /// The data directory.
    pub(super) fn data(&self) -> &Root {
        &self.data
    }

    /// All of them, the data directory first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Root> {
        std::iter::once(&self.data).chain(self.tablespaces.values())
    }

    /// Tablespaces by oid.
    pub(super) fn tablespaces(&self) -> impl Iterator<Item = (u32, &Root)> {
        self.tablespaces.iter().map(|(oid, root)| (*oid, root))
    }

    /// The root of a path, and where below it; `None` for a tablespace itself and for one that nobody mapped.
    pub(super) fn place<'a>(&self, path: &'a ClusterPath) -> Option<(&Root, &'a Path)> {
        match tablespace_of(path) {
            None => Some((&self.data, path.as_path())),
            Some((oid, below)) => {
                let root = self.tablespaces.get(&oid)?;
                below.map(|below| (root, below))
            }
        }
    }

    /// Makes a directory, or leaves the one that is there; its parents too.
    pub(super) fn make_directory(&self, path: &ClusterPath, mode: u32) -> Result<(), ClusterRestoreError> {
        let Some((root, below)) = self.place(path) else { return Ok(()) };
        let failed = |error: io::Error| ClusterRestoreError::io("make", &root.path.join(below))(error);
        let mut whole = PathBuf::new();
        for part in below.components() {
            whole.push(part);
            let is_last = whole == below;
            self.make_one(root, &whole, if is_last { mode } else { 0o700 }, is_last).map_err(failed)?;
        }
        Ok(())
    }

    fn make_one(&self, root: &Root, below: &Path, mode: u32, is_last: bool) -> io::Result<()> {
        let (folder, name) = root.folder_of(below)?;
        match rustix::fs::mkdirat(&folder, name, permissions(mode)) {
            Ok(()) => self.give(&folder, name)?,
            Err(rustix::io::Errno::EXIST) if !is_last => return Ok(()),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let made = root.open_below(below, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        Ok(rustix::fs::fchmod(&made, permissions(mode))?)
    }

    /// Creates a file that must not be there.
    pub(super) fn create_file(&self, path: &ClusterPath, mode: u32) -> Result<File, ClusterRestoreError> {
        self.open_file(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode, "create")
    }

    /// Opens a file to compare and change it, or creates it.
    pub(super) fn open_to_change(&self, path: &ClusterPath, mode: u32) -> Result<File, ClusterRestoreError> {
        self.open_file(path, OFlags::RDWR | OFlags::CREATE, mode, "open")
    }

    fn open_file(
        &self,
        path: &ClusterPath,
        flags: OFlags,
        mode: u32,
        op: &'static str,
    ) -> Result<File, ClusterRestoreError> {
        let (root, below) = self.place(path).ok_or_else(|| unmapped(path))?;
        let failed = |error: io::Error| ClusterRestoreError::io(op, &root.path.join(below))(error);
        let file = root.open_below(below, flags | OFlags::NOFOLLOW, permissions(mode)).map_err(failed)?;
        rustix::fs::fchmod(&file, permissions(mode)).map_err(|error| failed(error.into()))?;
        if let Some(owner) = self.owner {
            let (uid, gid) = owner.ids();
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(|error| failed(error.into()))?;
        }
        Ok(file.into())
    }

    /// Opens a file to read it; `None` when there is no such file.
    pub(super) fn open_to_read(&self, path: &ClusterPath) -> Result<Option<File>, ClusterRestoreError> {
        let (root, below) = self.place(path).ok_or_else(|| unmapped(path))?;
        match root.open_below(below, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClusterRestoreError::io("open", &root.path.join(below))(error)),
        }
    }

    fn give(&self, folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        let (uid, gid) = owner.ids();
        Ok(rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes the link of a tablespace, in the place of one that is there.
    pub(super) fn link_tablespace(&self, oid: u32, target: &Path) -> Result<(), ClusterRestoreError> {
        let below = Path::new(TABLESPACES).join(oid.to_string());
        let failed = |error: io::Error| ClusterRestoreError::io("link", &self.data.path.join(&below))(error);
        let link = || -> io::Result<()> {
            let (folder, name) = self.data.folder_of(&below)?;
            match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            rustix::fs::symlinkat(target, &folder, name)?;
            self.give(&folder, name)
        };
        link().map_err(failed)
    }
}

/// Makes a directory and gives it to the owner; its parents are made too and stay open to all. One that is there
/// is given only when it is root's.
pub(super) fn make_root(path: &Path, owner: Option<Account>) -> Result<(), ClusterRestoreError> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let make = || -> io::Result<()> {
        if !path.is_dir() {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::DirBuilder::new().mode(0o700).create(path)?;
        }
        let Some(owner) = owner.filter(|_| path.metadata().is_ok_and(|meta| meta.uid() == 0)) else {
            return Ok(());
        };
        let (uid, gid) = owner.ids();
        Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    };
    make().map_err(ClusterRestoreError::io("make", path))
}

/// The tablespace of a path and what is below it.
pub(super) fn tablespace_of(path: &ClusterPath) -> Option<(u32, Option<&Path>)> {
    let bytes = path.as_bytes().strip_prefix(TABLESPACES.as_bytes())?.strip_prefix(b"/")?;
    let mut parts = bytes.splitn(2, |byte| *byte == b'/');
    let oid = str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    Some((oid, parts.next().map(|below| Path::new(OsStr::from_bytes(below)))))
}

fn unmapped(path: &ClusterPath) -> ClusterRestoreError {
    ClusterRestoreError::Unsuitable {
        problem: format!("{path} is of a tablespace that the set does not describe"),
        remedy: "restore another set",
    }
}

/// Only what a file of a cluster may have: no set-user-id.
fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}
