//! Makes what was restored survive a power failure.
//!
//! One `syncfs` for each file system costs a single commit of its journal, however many files there are, and waits for
//! everything. After a delta restore that changed little, its files are synced one by one instead: others' writes to the
//! same disk are not waited for.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::ClusterRestoreError;
use super::roots::{Root, Roots, TABLESPACES};
use crate::physical::ClusterPath;

/// Files that are synced one by one; beyond that one `syncfs` is cheaper.
const FEW: usize = 256;

/// Syncs every file system that roots lie on. Blocks.
pub(super) fn sync_roots(roots: &Roots) -> Result<(), ClusterRestoreError> {
    let mut devices = BTreeSet::new();
    for root in roots.all() {
        let failed = |error: io::Error| ClusterRestoreError::io("sync", &root.path)(error);
        let device = std::fs::metadata(&root.path).map_err(failed)?.dev();
        if devices.insert(device) {
            rustix::fs::syncfs(root.fd()).map_err(|error| failed(error.into()))?;
        }
    }
    Ok(())
}

/// Syncs folders below a root. Blocks.
pub(super) fn sync_folders<'a>(
    root: &Root,
    folders: impl IntoIterator<Item = &'a str>,
) -> Result<(), ClusterRestoreError> {
    folders.into_iter().try_for_each(|folder| sync_folder(root, Path::new(folder)))
}

fn sync_folder(root: &Root, folder: &Path) -> Result<(), ClusterRestoreError> {
    let sync = || -> io::Result<()> {
        if folder.as_os_str().is_empty() {
            return Ok(rustix::fs::fsync(root.fd())?);
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        match root.open_below(folder, flags, Mode::empty()) {
            Ok(opened) => Ok(rustix::fs::fsync(&opened)?),
            // It was removed itself, and the folder it was in is synced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    };
    sync().map_err(ClusterRestoreError::io("sync", &root.path.join(folder)))
}

/// What a delta restore changed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    files: BTreeSet<ClusterPath>,
    /// Folders by the number of their root.
    folders: BTreeSet<(usize, PathBuf)>,
}

impl Touched {
    /// Notes a file.
    pub(super) fn add(&mut self, path: &ClusterPath) {
        self.files.insert(path.clone());
    }

    /// Notes a folder in which something was removed.
    pub(super) fn add_folder(&mut self, root: usize, folder: PathBuf) {
        self.folders.insert((root, folder));
    }

    /// Makes all of it durable. Blocks.
    pub(super) fn sync(&self, roots: &Roots) -> Result<(), ClusterRestoreError> {
        if self.files.len() > FEW {
            return sync_roots(roots);
        }
        let all: Vec<&Root> = roots.all().collect();
        let mut folders = self.folders.clone();
        for path in &self.files {
            let Some((root, below)) = roots.place(path) else { continue };
            let sync = || -> io::Result<()> {
                let file = root.open_below(below, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?;
                Ok(rustix::fs::fsync(&file)?)
            };
            sync().map_err(ClusterRestoreError::io("sync", &root.path.join(below)))?;
            let number = all.iter().position(|it| std::ptr::eq(*it, root)).unwrap_or_default();
            folders.insert((number, below.parent().map(Path::to_owned).unwrap_or_default()));
        }
        folders.extend((0..all.len()).map(|number| (number, PathBuf::new())));
        // The links to tablespaces are made anew each time.
        folders.insert((0, PathBuf::from(TABLESPACES)));
        folders.iter().try_for_each(|(root, folder)| sync_folder(all[*root], folder))
    }
}
