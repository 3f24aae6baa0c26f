//! Finds everything that a selection means, without reading any of it.
//!
//! The result is sorted, so that the same tree gives the same archive: each folder is followed by the files in it, and then
//! by its folders with what lies in them. Only one folder is open at a time.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io::Read as _;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{Dir, FileType, Stat};
use rustix::io::Errno;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::files::{Root, stat_in};
use crate::path::{ArchivePath, printable_path};
use crate::selection::Selection;

/// What a cache says of itself (bford.info/cachedir).
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// A file changed this lately may change again and show the same time.
const SETTLED: i128 = 1_000_000_000;

/// Something that was found, as it was then.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: ArchivePath,
    pub(crate) state: State,
}

/// What tells whether something was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u64,
    pub(crate) raw_mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) size: u64,
    /// 512-byte blocks that it takes.
    pub(crate) blocks: u64,
    /// Nanoseconds since 1970.
    pub(crate) modified: i128,
    pub(crate) changed: i128,
}

impl State {
    pub(crate) fn of(stat: &Stat) -> Self {
        let nanos = |seconds: i64, nanos: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            raw_mode: stat.st_mode,
            user: stat.st_uid,
            group: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            modified: nanos(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanos(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.raw_mode)
    }

    /// Whether it has the content and the attributes that it had then. Reading changes neither.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Self { links: other.links, blocks: other.blocks, ..*self } == *other
    }

    fn digest(&self, path: &ArchivePath, digest: &mut Sha256) {
        digest.update((path.as_bytes().len() as u64).to_le_bytes());
        digest.update(path.as_bytes());
        for number in [self.device, self.inode, self.size] {
            digest.update(number.to_le_bytes());
        }
        for number in [self.raw_mode, self.user, self.group] {
            digest.update(number.to_le_bytes());
        }
        digest.update(self.modified.to_le_bytes());
        digest.update(self.changed.to_le_bytes());
    }
}

/// What went otherwise than wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Problem {
    /// Where.
    pub path: String,
    /// What kind.
    pub kind: ProblemKind,
    /// In words.
    pub reason: String,
}

/// Kinds of problems; the first four make a set an incomplete one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// It was listed and is not there.
    Missing,
    /// It is there and could not be read.
    Unreadable,
    /// It was changed while it was read, again and again: what is stored may never have been its content.
    Changed,
    /// It became a secret after the look for secrets; only its place was stored.
    Withheld,
    /// It grew while it was read; what it had at the beginning is stored.
    Grew,
    /// It was gone before it was read.
    Vanished,
    /// A socket, pipe or device: those are not stored.
    Special,
}

impl ProblemKind {
    /// Whether a set with it is not what was asked for.
    #[must_use]
    pub fn is_grave(self) -> bool {
        matches!(self, Self::Missing | Self::Unreadable | Self::Changed | Self::Withheld)
    }
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, path: &ArchivePath, reason: impl Into<String>) -> Self {
        Self { path: format!("/{path}"), kind, reason: reason.into() }
    }
}

/// Everything that a selection means.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) found: Vec<Found>,
    pub(crate) problems: Vec<Problem>,
    /// Names that differ in upper and lower case only.
    pub(crate) case_collisions: u64,
}

impl Tree {
    /// Bytes of all files, names of the same file once.
    pub(crate) fn bytes(&self) -> u64 {
        let files = self.found.iter().filter(|found| found.state.file_type() == FileType::RegularFile);
        files.map(|found| found.state.size).sum()
    }

    /// A digest of what the system says of every file, without reading any. `None` when something was changed so lately that
    /// it may change again unnoticed.
    pub(crate) fn fingerprint(&self, now: Timestamp, more: &[&[u8]]) -> Option<String> {
        let settled = now.as_nanosecond() - SETTLED;
        let mut digest = Sha256::new();
        digest.update(b"backstay tree 1\n");
        for part in more {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        for found in &self.found {
            if found.state.changed > settled {
                return None;
            }
            found.state.digest(&found.path, &mut digest);
        }
        Some(hex::encode(digest.finalize()))
    }
}

/// Walks. Blocks.
///
/// # Errors
/// `/` cannot be opened, or the walk was cancelled. Everything else is a problem of the tree.
pub(crate) fn walk(selection: &Selection, cancel: &CancellationToken) -> Result<Tree, Error> {
    let root = Root::open(Path::new("/")).map_err(|error| Error::io("open", Path::new("/"), error.into()))?;
    let mut walker = Walker { selection, root, tree: Tree::default(), pending: Vec::new(), cancel };
    for (path, reason) in &selection.missing {
        let path = printable_path(path);
        walker.tree.problems.push(Problem { path, kind: ProblemKind::Missing, reason: reason.clone() });
    }
    for path in &selection.roots {
        walker.begin(path)?;
    }
    Ok(walker.tree)
}

struct Walker<'a> {
    selection: &'a Selection,
    root: Root,
    tree: Tree,
    /// Folders still to be read, the next one last, with the file system that is not left.
    pending: Vec<Pending>,
    cancel: &'a CancellationToken,
}

/// A folder to be read; `/` itself has no name and is not part of the tree.
struct Pending {
    folder: Option<Found>,
    device: u64,
}

impl Walker<'_> {
    fn begin(&mut self, path: &Path) -> Result<(), Error> {
        let Some(place) = ArchivePath::of_absolute(path) else {
            // The root itself: it has no name in an archive.
            let device = rustix::fs::fstat(self.root.folder()).map_or(0, |stat| stat.st_dev);
            self.pending.push(Pending { folder: None, device });
            return self.descend();
        };
        match self.root.stat(&place) {
            Ok(_) if self.selection.leaves_out(&place) => {}
            Ok(Some(stat)) => self.take(place, State::of(&stat), stat.st_dev),
            Ok(None) => {
                self.tree.problems.push(Problem::new(ProblemKind::Missing, &place, "it is not there"));
            }
            Err(error) => self.unreadable(&place, error),
        }
        self.descend()
    }

    fn descend(&mut self) -> Result<(), Error> {
        while let Some(Pending { folder, device }) = self.pending.pop() {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let path = folder.as_ref().map(|folder| folder.path.clone());
            // Right before what lies in it: tar gives a folder its time when it sees something that lies elsewhere.
            self.tree.found.extend(folder);
            let folder = path;
            if let Err(error) = self.read(folder.as_ref(), device) {
                match &folder {
                    Some(folder) if error == Errno::NOENT => self.vanished(folder),
                    Some(folder) => self.unreadable(folder, error),
                    None => return Err(Error::io("read", Path::new("/"), error.into())),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, folder: Option<&ArchivePath>, device: u64) -> Result<(), Errno> {
        let open = self.root.open_folder(folder)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&open)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        if !self.selection.with_caches && is_cache(&self.root, folder, &names) {
            names.retain(|name| name.to_bytes() == CACHE_TAG);
        }
        self.count_collisions(&names);
        let first = self.pending.len();
        for name in names {
            let name = name.to_bytes();
            let joined = folder.map_or_else(|| ArchivePath::parse(name), |folder| folder.join(name));
            let Ok(path) = joined else {
                let place = format!("/{}", crate::path::printable(name));
                let reason = "its path is too long for an archive".to_owned();
                self.tree.problems.push(Problem { path: place, kind: ProblemKind::Unreadable, reason });
                continue;
            };
            match stat_in(&open, name) {
                Ok(Some(stat)) => self.meet(path, &stat, device),
                Ok(None) => self.vanished(&path),
                Err(error) => self.unreadable(&path, error),
            }
        }
        // The last one is taken next.
        self.pending[first..].reverse();
        Ok(())
    }

    fn meet(&mut self, path: ArchivePath, stat: &Stat, device: u64) {
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if self.selection.excludes(&path, is_folder) || self.selection.is_root(&path) {
            return;
        }
        self.take(path, State::of(stat), device);
    }

    fn take(&mut self, path: ArchivePath, state: State, device: u64) {
        match state.file_type() {
            FileType::Directory => {
                // A place where another file system is mounted is stored as an empty folder.
                if self.selection.cross_file_systems || state.device == device {
                    self.pending.push(Pending { folder: Some(Found { path, state }), device: state.device });
                    return;
                }
            }
            FileType::RegularFile | FileType::Symlink => {}
            other => {
                let reason = format!("it is {}", describe(other));
                self.tree.problems.push(Problem::new(ProblemKind::Special, &path, reason));
                return;
            }
        }
        self.tree.found.push(Found { path, state });
    }

    fn count_collisions(&mut self, names: &[std::ffi::CString]) {
        let has_capitals =
            |name: &CStr| !name.to_bytes().iter().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        if !names.iter().any(|name| has_capitals(name)) {
            return;
        }
        let folded: BTreeSet<_> = names.iter().map(|name| fold(name.to_bytes())).collect();
        self.tree.case_collisions += (names.len() - folded.len()) as u64;
    }

    fn unreadable(&mut self, path: &ArchivePath, error: Errno) {
        let reason = std::io::Error::from(error).to_string();
        self.tree.problems.push(Problem::new(ProblemKind::Unreadable, path, reason));
    }

    fn vanished(&mut self, path: &ArchivePath) {
        self.tree.problems.push(Problem::new(ProblemKind::Vanished, path, "it was gone"));
    }
}

fn is_cache(root: &Root, folder: Option<&ArchivePath>, names: &[std::ffi::CString]) -> bool {
    let Some(folder) = folder else { return false };
    if names.binary_search_by(|name| name.to_bytes().cmp(CACHE_TAG)).is_err() {
        return false;
    }
    let Ok(file) =
        folder.join(CACHE_TAG).map_err(|_| ()).and_then(|tag| root.open_file(&tag).map_err(|_| ()))
    else {
        return false;
    };
    let mut begin = Vec::new();
    let read = std::fs::File::from(file).take(CACHE_SIGNATURE.len() as u64).read_to_end(&mut begin);
    read.is_ok() && begin == CACHE_SIGNATURE
}

/// A name as file systems see it that do not tell upper from lower case.
pub(crate) fn fold(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => text.to_lowercase().into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "a socket",
        FileType::Fifo => "a named pipe",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_was_changed_a_moment_ago_has_no_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let stat = rustix::fs::stat(folder.path()).unwrap();
        let found = Found { path: ArchivePath::parse(b"x").unwrap(), state: State::of(&stat) };
        let at = |nanos: i128| Timestamp::from_nanosecond(found.state.changed + nanos).unwrap();
        let tree = Tree { found: vec![found.clone()], ..Tree::default() };
        assert_eq!(tree.fingerprint(at(SETTLED - 1), &[]), None);
        // Nor one that will be changed, as clocks have it that were set back.
        assert_eq!(tree.fingerprint(at(-SETTLED), &[]), None);
        let settled = tree.fingerprint(at(SETTLED), &[]);
        assert!(settled.is_some());
        assert_ne!(tree.fingerprint(at(SETTLED), &[b"more"]), settled);
    }

    #[test]
    fn whatever_makes_a_set_less_than_was_asked_for_is_grave() {
        use ProblemKind::{Changed, Grew, Missing, Special, Unreadable, Vanished, Withheld};
        assert!([Missing, Unreadable, Changed, Withheld].iter().all(|kind| kind.is_grave()));
        assert!(![Grew, Vanished, Special].iter().any(|kind| kind.is_grave()));
    }
}
