//! Walks the tree of a local store in ascending byte order of whole keys.
//!
//! A folder is sorted as its name with a `/` behind it: `a-b` and `a.b` come before everything below `a/`, because `-`
//! and `.` are smaller than `/`. Only the names of the folders on the way to the current one are held in memory.
//! A walk that begins behind a key opens no folder that lies wholly before it. What is no key (dot files, links, devices, odd names) is not seen.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::folder::{Root, link_or, open_folder};
use super::trouble::Trouble;
use super::{object, segments, temporary};
use crate::key::{Key, Prefix};
use crate::store::{ObjectMeta, PendingUpload, UploadId};

/// File systems put this beside the data of whoever uses the top of a volume, readable by root alone.
const LOST_AND_FOUND: &str = "lost+found";

/// A walk in progress.
pub(super) struct Walk {
    stack: Vec<Level>,
    /// Nothing up to here is wanted.
    after: String,
}

struct Level {
    fd: OwnedFd,
    /// Path below the root: empty, or ending in `/`.
    path: String,
    /// What is left of it, the next one last.
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    folder: bool,
}

/// One thing found.
pub(super) enum Found {
    Object(ObjectMeta),
    Upload(PendingUpload),
}

impl Walk {
    /// Begins below a prefix, and behind a key.
    pub(super) fn begin(root: &Root, prefix: &Prefix, after: Option<&Key>) -> Result<Self, Trouble> {
        let after = after.map(|key| key.as_str().to_owned()).unwrap_or_default();
        let mut walk = Self { stack: Vec::new(), after };
        if let Some(folder) = root.find(&segments(prefix.as_str()))? {
            let fd = rustix::io::fcntl_dupfd_cloexec(folder.fd(), 0)?;
            walk.enter(fd, prefix.as_str().to_owned())?;
        }
        Ok(walk)
    }

    /// The next object or upload.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Trouble> {
        while let Some(level) = self.stack.last_mut() {
            let Some(entry) = level.entries.pop() else {
                self.stack.pop();
                continue;
            };
            if entry.folder {
                let path = format!("{}{}/", level.path, entry.name);
                match open_folder(level.fd.as_fd(), &entry.name) {
                    Ok(fd) => self.enter(fd, path)?,
                    // Removed, or replaced by something that is no folder, since its parent was read.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(Errno::ACCESS) if path.strip_suffix('/') == Some(LOST_AND_FOUND) => {}
                    Err(errno) => return Err(link_or(errno)),
                }
            } else if let Some(found) = level.look_at(&entry.name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn enter(&mut self, fd: OwnedFd, path: String) -> Result<(), Trouble> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let kind = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno.into()),
                },
                known => known,
            };
            match kind {
                FileType::Directory if !name.starts_with('.') => {
                    entries.push(Entry { name: name.to_owned(), folder: true });
                }
                FileType::RegularFile => entries.push(Entry { name: name.to_owned(), folder: false }),
                _ => {}
            }
        }
        entries.retain(|entry| self.is_wanted(&path, entry));
        entries.sort_unstable_by(|a, b| b.order().cmp(a.order()));
        self.stack.push(Level { fd, path, entries });
        Ok(())
    }

    fn is_wanted(&self, path: &str, entry: &Entry) -> bool {
        let after = self.after.as_str();
        if after.is_empty() {
            return true;
        }
        if entry.folder {
            let below = format!("{path}{}/", entry.name);
            return below.as_str() > after || after.starts_with(&below);
        }
        format!("{path}{}", entry.name).as_str() > after
    }
}

impl Entry {
    fn order(&self) -> impl Iterator<Item = u8> {
        self.name.bytes().chain(self.folder.then_some(b'/'))
    }
}

impl Level {
    fn look_at(&self, name: &str) -> Result<Option<Found>, Trouble> {
        let (target, upload) = match temporary::parse(name) {
            Some((target, id)) => (target, Some(id)),
            None => (name, None),
        };
        let Ok(key) = Key::parse(format!("{}{target}", self.path)) else {
            return Ok(None);
        };
        let stat = match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if object::is_file(&stat) => stat,
            Ok(_) | Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        Ok(Some(match upload {
            None => Found::Object(object::meta_of(key, &stat)),
            Some(id) => Found::Upload(PendingUpload {
                key,
                upload: UploadId(id.to_owned()),
                started: object::modified(&stat),
            }),
        }))
    }
}
