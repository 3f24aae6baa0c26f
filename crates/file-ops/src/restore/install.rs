//! Puts one file in its place: a temporary one beside it, synced, renamed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom as Place};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::attributes::{Lacking, give, give_link};
use crate::files::{Root, stat_in};
use crate::path::ArchivePath;
use crate::tar::{Kind, TarEntry};
use crate::walk::State;

/// A temporary file waiting for its name.
#[derive(Debug)]
pub(super) struct Prepared {
    parent: OwnedFd,
    temporary: Vec<u8>,
    name: Vec<u8>,
}

/// Makes the folders on the way to something, as far as they are missing; returns the innermost.
pub(crate) fn make_parents(root: &Root, path: &ArchivePath) -> Result<OwnedFd, Errno> {
    match root.open_parent(path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let Some(folder) = path.parent() else { return root.open_folder(None) };
    let above = make_parents(root, &folder)?;
    match rustix::fs::mkdirat(&above, folder.name(), Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    root.open_folder(Some(&folder))
}

/// Writes the temporary file or link beside the place.
pub(super) fn prepare(
    live: &Root,
    source: &Root,
    entry: &TarEntry,
    temporary: Vec<u8>,
) -> Result<(Prepared, Lacking), Errno> {
    let parent = make_parents(live, &entry.path)?;
    let lacking = match &entry.kind {
        Kind::Symlink { target } => {
            rustix::fs::symlinkat(target.as_slice(), &parent, temporary.as_slice())?;
            give_link(&parent, &temporary, &entry.attributes)?
        }
        Kind::Hardlink { target } => {
            // The other name was installed before, or was the same.
            let other = live.open_parent(target)?;
            rustix::fs::linkat(&other, target.name(), &parent, temporary.as_slice(), AtFlags::empty())?;
            Lacking::none()
        }
        _ => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let new = rustix::fs::openat(&parent, temporary.as_slice(), flags, Mode::RUSR | Mode::WUSR)?;
            let from = source.open_file(&entry.path)?;
            copy(File::from(from), File::from(new.try_clone().map_err(|error| errno(&error))?))
                .map_err(|error| errno(&error))?;
            give(&new, &entry.attributes)?
        }
    };
    Ok((Prepared { parent, temporary, name: entry.path.name().to_vec() }, lacking))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Copies content; holes stay holes.
fn copy(mut from: File, mut to: File) -> io::Result<()> {
    let size = from.metadata()?.len();
    let mut at = 0;
    while at < size {
        let (begin, end) = match rustix::fs::seek(&from, Place::Data(at)) {
            Ok(begin) => (begin, rustix::fs::seek(&from, Place::Hole(begin)).unwrap_or(size)),
            Err(Errno::NXIO) => break,
            // No such question on this file system.
            Err(_) => (at, size),
        };
        from.seek(SeekFrom::Start(begin))?;
        to.seek(SeekFrom::Start(begin))?;
        if io::copy(&mut (&mut from).take(end - begin), &mut to)? < end - begin {
            break;
        }
        at = end;
    }
    to.set_len(size)?;
    to.flush()
}

/// Makes what was prepared durable: one call for each file system.
pub(super) fn sync<'a>(prepared: impl IntoIterator<Item = &'a Prepared>) -> Result<(), Errno> {
    let mut file_systems = BTreeMap::new();
    for one in prepared {
        let stat = rustix::fs::fstat(&one.parent)?;
        file_systems.entry(stat.st_dev).or_insert_with(|| one.parent.as_fd());
    }
    file_systems.values().try_for_each(rustix::fs::syncfs)
}

impl Prepared {
    /// Puts it in its place, if that still is as it was: `Ok(false)` when it is not, and nothing was done.
    pub(super) fn commit(&self, expected: Option<&State>) -> Result<bool, Errno> {
        let now = stat_in(&self.parent, &self.name)?.map(|stat| State::of(&stat));
        let as_expected = match (&now, expected) {
            (None, None) => true,
            (Some(now), Some(expected)) => now.is_same(expected),
            _ => false,
        };
        if !as_expected {
            self.discard();
            return Ok(false);
        }
        rustix::fs::renameat(&self.parent, self.temporary.as_slice(), &self.parent, self.name.as_slice())?;
        // Two names of one file: the system leaves both.
        self.discard();
        Ok(true)
    }

    pub(super) fn discard(&self) {
        let _ = rustix::fs::unlinkat(&self.parent, self.temporary.as_slice(), AtFlags::empty());
    }
}

/// Removes the temporary file of a run that was killed.
pub(super) fn remove_temporary(live: &Root, path: &ArchivePath, temporary: &[u8]) {
    if let Ok(parent) = live.open_parent(path) {
        let _ = rustix::fs::unlinkat(&parent, temporary, AtFlags::empty());
    }
}

/// A digest of what a file holds or where a link points; `None` when there is neither.
pub(super) fn digest(root: &Root, path: &ArchivePath) -> Result<Option<String>, Errno> {
    use rustix::fs::FileType;
    let Some(stat) = root.stat(path)? else { return Ok(None) };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let mut file = File::from(root.open_file(path)?);
            let mut digest = Sha256::new();
            digest.update(b"file\n");
            let mut buffer = vec![0; 64 << 10];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => digest.update(&buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(errno(&error)),
                }
            }
            Ok(Some(hex::encode(digest.finalize())))
        }
        FileType::Symlink => {
            let parent = root.open_parent(path)?;
            let target = rustix::fs::readlinkat(&parent, path.name(), Vec::new())?;
            let digest = Sha256::new().chain_update(b"link\n").chain_update(target.as_bytes());
            Ok(Some(hex::encode(digest.finalize())))
        }
        _ => Ok(None),
    }
}
