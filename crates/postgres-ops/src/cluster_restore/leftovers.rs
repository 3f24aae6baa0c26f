//! What is in a target and in no set: found first, so that a plan can say how much, and removed when it is applied.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::FileType;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::AtFlags;

use super::ClusterRestoreError;
use super::marker;
use super::roots::{Root, Roots, TABLESPACES};
use super::set_index::SetIndex;

/// What is removed before files are restored.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Files, links and others, by root and path below it.
    files: Vec<(usize, OsString)>,
    /// Directories, the deepest last.
    directories: Vec<(usize, OsString)>,
    /// Bytes of the files.
    pub(super) bytes: u64,
}

impl Leftovers {
    /// Looks through every root. Links are never followed; one that is there is a leftover itself.
    pub(super) fn find(roots: &Roots, index: &SetIndex, version: &str) -> Result<Self, ClusterRestoreError> {
        let mut known: HashSet<&[u8]> = HashSet::new();
        known.extend(index.all_files().map(|file| file.path.as_bytes()));
        let mut directories: HashSet<&[u8]> = HashSet::new();
        for path in
            index.directories.iter().map(|it| &it.path).chain(index.all_files().map(|file| &file.path))
        {
            let bytes = path.as_bytes();
            let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            directories.extend(ends.map(|at| &bytes[..at]));
        }
        directories.extend(index.directories.iter().map(|it| it.path.as_bytes()));
        let mut search = Search { known, directories, found: Self::default(), root: 0, prefix: Vec::new() };
        search.walk(&roots.data().path, &mut Vec::new())?;
        for (number, (oid, root)) in (1..).zip(roots.tablespaces()) {
            search.root = number;
            search.prefix = format!("{TABLESPACES}/{oid}/").into_bytes();
            // Other directories beside this version's are not of this cluster.
            let mut below = version.as_bytes().to_vec();
            let path = root.path.join(version);
            if path.is_dir() {
                search.walk(&path, &mut below)?;
            }
        }
        Ok(search.found)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        (self.files.len() + self.directories.len()) as u64
    }

    /// Removes them. Blocks.
    pub(super) fn remove(&self, roots: &Roots) -> Result<(), ClusterRestoreError> {
        let roots: Vec<&Root> = roots.all().collect();
        for (root, below) in &self.files {
            remove_one(roots[*root], Path::new(below), AtFlags::empty())?;
        }
        for (root, below) in self.directories.iter().rev() {
            remove_one(roots[*root], Path::new(below), AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }
}

/// Removes a file or an empty directory; one that is gone already is fine.
pub(super) fn remove_one(root: &Root, below: &Path, flags: AtFlags) -> Result<(), ClusterRestoreError> {
    let removed = root
        .folder_of(below)
        .and_then(|(folder, name)| rustix::fs::unlinkat(&folder, name, flags).map_err(io::Error::from));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ClusterRestoreError::io("remove", &root.path.join(below))(error))
        }
        _ => Ok(()),
    }
}

struct Search<'a> {
    known: HashSet<&'a [u8]>,
    directories: HashSet<&'a [u8]>,
    found: Leftovers,
    root: usize,
    /// What stands before a path below the root to make it one of the set.
    prefix: Vec<u8>,
}

impl Search<'_> {
    fn walk(&mut self, folder: &Path, below: &mut Vec<u8>) -> Result<(), ClusterRestoreError> {
        let failed = |error| ClusterRestoreError::io("read", folder)(error);
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let length = below.len();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(entry.file_name().as_encoded_bytes());
            self.judge(&entry.path(), below, kind)?;
            below.truncate(length);
        }
        Ok(())
    }

    fn judge(&mut self, path: &Path, below: &mut Vec<u8>, kind: FileType) -> Result<(), ClusterRestoreError> {
        let name = [&self.prefix[..], below].concat();
        if self.root == 0 && (below == marker::NAME.as_bytes() || below == b"lost+found") {
            return Ok(());
        }
        if kind.is_dir() {
            if !self.directories.contains(&*name) {
                self.found.directories.push((self.root, OsString::from_vec(below.clone())));
            }
            return self.walk(path, below);
        }
        if kind.is_file() && self.known.contains(&*name) {
            return Ok(());
        }
        if kind.is_file() {
            self.found.bytes += path.symlink_metadata().map_or(0, |meta| meta.len());
        }
        self.found.files.push((self.root, OsString::from_vec(below.clone())));
        Ok(())
    }
}
