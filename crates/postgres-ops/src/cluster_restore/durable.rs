//! Makes what was restored survive a power failure.
//!
//! One `syncfs` for each file system costs a single commit of its journal, however many files there are, and waits for
//! everything. That is also what blocks need that were right already: a restore that was killed, a server that crashed
//! or a copy made a moment ago leaves them in memory only, and reading them back does not tell. Errors of writing are
//! reported too, since roots were opened before anything was written.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::roots::{Root, Roots};
use super::{ClusterRestoreError, marker};

/// Syncs every file system that roots lie on, or gives up what was restored. Blocks.
///
/// A kernel that could not write reports it once and keeps the pages as if they had been written. Who reads them back
/// would find all of it right; so without the marker nobody completes such a directory, until a power failure takes the
/// pages, and brings back the marker.
pub(super) fn sync_roots(roots: &Roots) -> Result<(), ClusterRestoreError> {
    sync_file_systems(roots).inspect_err(|_| {
        let _ = rustix::fs::unlinkat(roots.data().fd(), marker::NAME, rustix::fs::AtFlags::empty());
    })
}

fn sync_file_systems(roots: &Roots) -> Result<(), ClusterRestoreError> {
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
