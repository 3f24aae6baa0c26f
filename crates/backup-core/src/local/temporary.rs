//! Temporary files of a local store, and their publication.
//!
//! A temporary file is a sibling of the object it will become: `.<object>.<id>.part`. The leading dot keeps it from
//! ever being a key, the object's name makes it a pending upload of that key to whoever finds it after a crash.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::folder::Folder;
use super::trouble::Trouble;

/// Objects are for the owner alone, whatever the umask.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const SUFFIX: &str = ".part";
const ID_LEN: usize = 16;

/// Whether publication may replace an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    /// Fails with `EXIST`, atomically.
    New,
    /// Replaces, atomically; the caller holds the lock.
    Over,
}

/// A temporary file that is removed again unless it is published or kept.
pub(super) struct Temporary<'a> {
    folder: &'a Folder,
    name: String,
    file: OwnedFd,
    armed: bool,
}

impl<'a> Temporary<'a> {
    /// Creates the file for the object `target` and returns it with its id.
    pub(super) fn create(folder: &'a Folder, target: &str) -> Result<(Self, String), Trouble> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let id = format!("{:016x}", rand::random::<u64>());
        let name = file_name(target, &id);
        let file = rustix::fs::openat(folder.fd(), &name, flags, FILE_MODE)?;
        let temporary = Self { folder, name, file, armed: true };
        rustix::fs::fchmod(&temporary.file, FILE_MODE)?;
        Ok((temporary, id))
    }

    /// Opens the file of an upload that was begun; it is kept, whatever happens, until it is published.
    pub(super) fn open(folder: &'a Folder, target: &str, id: &str) -> Result<Option<Self>, Trouble> {
        if !is_id(id) {
            return Ok(None);
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = file_name(target, id);
        match rustix::fs::openat(folder.fd(), &name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(Self { folder, name, file, armed: false })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Leaves the file for the parts to come, and returns it open.
    pub(super) fn keep(mut self) -> Result<OwnedFd, Trouble> {
        let file = rustix::io::fcntl_dupfd_cloexec(&self.file, 0)?;
        self.armed = false;
        Ok(file)
    }

    /// Writes all bytes at an offset.
    pub(super) fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Trouble> {
        #[cfg(target_os = "linux")]
        {
            let written = super::direct::write(&self.file, offset, bytes)?;
            bytes = &bytes[written..];
            offset += written as u64;
        }
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.file, bytes, offset) {
                Ok(0) => return Err(Errno::IO.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Has the kernel begin to write a part to disk without waiting for it, so that the fsync at the end does not have
    /// to write everything, and a large backup does not push other data out of the page cache.
    pub(super) fn begin_writeback(&self, offset: u64, len: usize) {
        #[cfg(target_os = "linux")]
        if let Some(len) = std::num::NonZeroU64::new(len as u64) {
            // Advice: whether it is followed changes nothing but speed.
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), rustix::fs::Advice::DontNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }

    /// Makes the bytes durable and gives them their name. The folder's entry is not durable yet.
    pub(super) fn publish(&mut self, target: &str, publish: Publish) -> Result<(), Trouble> {
        // Parts may have been written long ago; the object's time is the moment it is complete.
        touch(&self.file)?;
        rustix::fs::fsync(&self.file)?;
        let folder = self.folder.fd();
        match publish {
            Publish::Over => rustix::fs::renameat(folder, &self.name, folder, target)?,
            Publish::New => rename_new(folder, &self.name, target)?,
        }
        self.armed = false;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.armed {
            // What cannot be removed is listed as a pending upload.
            let _ = rustix::fs::unlinkat(self.folder.fd(), &self.name, AtFlags::empty());
        }
    }
}

/// Removes the file of an upload; an unknown one is fine.
pub(super) fn remove(folder: &Folder, target: &str, id: &str) -> Result<(), Trouble> {
    if !is_id(id) {
        return Ok(());
    }
    match rustix::fs::unlinkat(folder.fd(), file_name(target, id), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Name of the object and id of the upload, if a file name is that of a temporary file.
pub(super) fn parse(file_name: &str) -> Option<(&str, &str)> {
    let (target, id) = file_name.strip_prefix('.')?.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    (is_id(id) && !target.is_empty()).then_some((target, id))
}

fn file_name(target: &str, id: &str) -> String {
    format!(".{target}.{id}{SUFFIX}")
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn touch(file: impl AsFd) -> Result<(), Errno> {
    let moment = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = Timestamps { last_access: moment(UTIME_OMIT), last_modification: moment(UTIME_NOW) };
    rustix::fs::futimens(file, &times)
}

/// Renames unless the target exists, with a hard link where the file system cannot do it in one step.
fn rename_new(folder: impl AsFd, from: &str, to: &str) -> Result<(), Trouble> {
    let folder = folder.as_fd();
    match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_new(folder, from, to),
        Err(errno) => Err(errno.into()),
    }
}

fn link_new(folder: impl AsFd, from: &str, to: &str) -> Result<(), Trouble> {
    let folder = folder.as_fd();
    match rustix::fs::linkat(folder, from, folder, to, AtFlags::empty()) {
        Ok(()) => Ok(rustix::fs::unlinkat(folder, from, AtFlags::empty())?),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
            Err(Trouble::Refused("the file system has neither hard links nor a rename that does not replace"))
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn both_ways_of_publication_refuse_an_existing_object() {
        type Way = fn(&File, &str, &str) -> Result<(), Trouble>;
        let ways: [Way; 2] = [|at, from, to| rename_new(at, from, to), |at, from, to| link_new(at, from, to)];
        for publish in ways {
            let folder = tempfile::tempdir().unwrap();
            let at = File::open(folder.path()).unwrap();
            let content = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
            fs::write(folder.path().join("first"), "1").unwrap();
            publish(&at, "first", "object").unwrap();
            assert_eq!((content("first"), content("object").as_deref()), (None, Some("1")));
            fs::write(folder.path().join("second"), "2").unwrap();
            let refused = publish(&at, "second", "object");
            assert!(matches!(refused, Err(Trouble::Os(Errno::EXIST))), "{refused:?}");
            assert_eq!((content("second").as_deref(), content("object").as_deref()), (Some("2"), Some("1")));
        }
    }

    #[test]
    fn only_names_of_our_own_making_are_temporary_files() {
        let name = file_name("a.b", "0123456789abcdef");
        assert_eq!(parse(&name), Some(("a.b", "0123456789abcdef")));
        for other in
            ["a.b", ".a.part", ".a.0123456789ABCDEF.part", "..0123456789abcdef.part", ".a.0123456789abcdef"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(!is_id("../../etc/passwd"), "an id becomes part of a path");
    }
}
