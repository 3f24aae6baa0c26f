//! Opens files below a folder in a way that no symbolic link can lead elsewhere.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::path::ArchivePath;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A folder below which paths are looked up: never out of it, never through a link.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// Opens the folder itself; links on the way to it are followed.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        rustix::fs::openat(CWD, path, FOLDER, Mode::empty()).map(Self)
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &OwnedFd {
        &self.0
    }

    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            // A rename somewhere on the way makes the kernel unsure: it asks for another try.
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Opens something for reading; a pipe does not wait for its writer.
    pub(crate) fn open_file(&self, path: &ArchivePath) -> Result<OwnedFd, Errno> {
        self.open_beneath(path.as_path(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Opens a folder below, or this one itself.
    pub(crate) fn open_folder(&self, path: Option<&ArchivePath>) -> Result<OwnedFd, Errno> {
        let path = path.map_or(Path::new("."), ArchivePath::as_path);
        self.open_beneath(path, FOLDER)
    }

    /// Opens the folder that something lies in.
    pub(crate) fn open_parent(&self, path: &ArchivePath) -> Result<OwnedFd, Errno> {
        self.open_folder(path.parent().as_ref())
    }

    /// What something is, `None` if it is not there.
    pub(crate) fn stat(&self, path: &ArchivePath) -> Result<Option<Stat>, Errno> {
        let parent = match self.open_parent(path) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        stat_in(&parent, path.name())
    }
}

/// What the name in an open folder is, `None` if there is none.
pub(crate) fn stat_in(folder: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path of an open file as the system can be asked for it again.
pub(crate) fn handle_path(folder: impl AsFd, name: &[u8]) -> std::path::PathBuf {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;
    let folder = folder.as_fd().as_raw_fd();
    Path::new(&format!("/proc/self/fd/{folder}")).join(std::ffi::OsStr::from_bytes(name))
}
