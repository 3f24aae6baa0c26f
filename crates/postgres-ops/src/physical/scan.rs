//! Lists what belongs to a base backup, compactly: a cluster may have millions of files.
//!
//! A file takes 24 bytes and its name; paths are put together from the path of a directory and a name when they are
//! needed. A million relations take about 40 MiB.

use std::collections::HashSet;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::rules::{Fork, Place, RelationFile, belongs};
use super::{ClusterPath, ClusterPathError};

/// Permissions of a directory that is no directory on the source, such as a link to a tablespace.
const PRIVATE: u32 = 0o700;

/// Why a data directory cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// It or something in it cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path that no cluster has.
    #[error(transparent)]
    Path(#[from] ClusterPathError),
}

/// What belongs to a base backup.
#[derive(Debug, Default)]
pub struct Scan {
    directories: Vec<ScannedDirectory>,
    files: Vec<FileEntry>,
    names: Vec<u8>,
    /// Bytes of all files when they were listed.
    pub bytes: u64,
    /// Tablespaces outside the data directory: their oid, and where they are.
    pub tablespaces: Vec<(u32, PathBuf)>,
    /// Links and special files, which a base backup does not hold.
    pub strange: Vec<ClusterPath>,
    /// Files left out because their relation is unlogged.
    pub unlogged: u64,
}

/// A directory of the cluster.
#[derive(Clone, Debug)]
pub struct ScannedDirectory {
    /// Below the data directory; empty for the data directory itself.
    path: Vec<u8>,
    /// Where it is on this machine.
    location: PathBuf,
    /// Its permissions.
    pub mode: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
struct FileEntry {
    size: u64,
    /// Where its name begins, and in the lowest byte how long it is.
    name: u64,
    directory: u32,
}

/// A file as it was listed.
#[derive(Debug)]
pub struct ScannedFile<'a> {
    /// Its directory.
    pub directory: &'a ScannedDirectory,
    /// Its name.
    pub name: &'a [u8],
    /// Its bytes when it was listed.
    pub size: u64,
}

impl ScannedDirectory {
    /// Below the data directory; `None` for the data directory itself.
    ///
    /// # Errors
    /// A path that no cluster has.
    pub fn path(&self) -> Result<Option<ClusterPath>, ClusterPathError> {
        if self.path.is_empty() { Ok(None) } else { ClusterPath::parse(&self.path[..]).map(Some) }
    }

    fn child(&self, name: &[u8]) -> Vec<u8> {
        let slash: &[u8] = if self.path.is_empty() { b"" } else { b"/" };
        [&self.path, slash, name].concat()
    }
}

impl ScannedFile<'_> {
    /// Its path below the data directory.
    ///
    /// # Errors
    /// A path that no cluster has.
    pub fn path(&self) -> Result<ClusterPath, ClusterPathError> {
        ClusterPath::parse(self.directory.child(self.name))
    }

    /// Where it is on this machine.
    #[must_use]
    pub fn location(&self) -> PathBuf {
        self.directory.location.join(std::ffi::OsStr::from_bytes(self.name))
    }

    /// Which part of which relation it is, where it is one.
    #[must_use]
    pub fn relation(&self) -> Option<RelationFile> {
        if self.directory.place == Place::Relations { RelationFile::parse(self.name) } else { None }
    }
}

impl Scan {
    /// Lists a data directory and its tablespaces, of which only `PG_<major>_<catalog version>` belongs to it. Blocks;
    /// reads no file.
    ///
    /// What vanishes meanwhile is left out, as if it had never been there.
    ///
    /// # Errors
    /// Any [`ScanError`].
    pub fn read(data_directory: &Path, major: u32, catalog_version: u32) -> Result<Self, ScanError> {
        let version = format!("PG_{major}_{catalog_version}");
        let mut scan = Self::default();
        let meta = fs::metadata(data_directory).map_err(read_error(data_directory))?;
        let root = ScannedDirectory {
            path: Vec::new(),
            location: data_directory.to_owned(),
            mode: meta.mode() & 0o7777,
            place: Place::Root,
        };
        let mut open = vec![root];
        while let Some(directory) = open.pop() {
            open.extend(scan.take(directory, version.as_bytes())?);
        }
        scan.sort();
        Ok(scan)
    }

    /// How many files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A file by its number, in the order of their paths.
    #[must_use]
    pub fn file(&self, number: usize) -> Option<ScannedFile<'_>> {
        let entry = self.files.get(number)?;
        let directory = &self.directories[entry.directory as usize];
        Some(ScannedFile { directory, name: self.name(entry), size: entry.size })
    }

    /// All directories, each before what is in it; the first is the data directory itself.
    #[must_use]
    pub fn directories(&self) -> &[ScannedDirectory] {
        &self.directories
    }

    /// Bytes of the files whose paths begin so, a `/` at the end.
    #[must_use]
    pub fn bytes_below(&self, prefix: &str) -> u64 {
        let inside: Vec<bool> = self
            .directories
            .iter()
            .map(|directory| directory.child(b"").starts_with(prefix.as_bytes()))
            .collect();
        self.files.iter().filter(|file| inside[file.directory as usize]).map(|file| file.size).sum()
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.directories.first().map_or(Path::new("."), |root| &root.location)
    }

    fn name(&self, entry: &FileEntry) -> &[u8] {
        let at = usize::try_from(entry.name >> 8).unwrap_or(usize::MAX);
        &self.names[at..][..usize::from(entry.name as u8)]
    }

    fn sort(&mut self) {
        let mut files = std::mem::take(&mut self.files);
        files.sort_unstable_by(|a, b| (a.directory, self.name(a)).cmp(&(b.directory, self.name(b))));
        self.files = files;
    }

    /// Takes what is in one directory; returns the directories in it.
    fn take(
        &mut self,
        directory: ScannedDirectory,
        version: &[u8],
    ) -> Result<Vec<ScannedDirectory>, ScanError> {
        let first = self.files.len();
        let mut below = Vec::new();
        let mut unlogged = HashSet::new();
        for entry in entries(&directory)? {
            let entry = entry.map_err(read_error(&directory.location))?;
            let name = entry.file_name().into_vec();
            let path = entry.path();
            let Some(meta) = unless_vanished(entry.metadata()).map_err(read_error(&path))? else { continue };
            if directory.place == Place::Tablespace && name != version
                || !belongs(directory.place, &name, !meta.is_file())
            {
                continue;
            }
            if meta.is_file() {
                match RelationFile::parse(&name) {
                    Some(init) if init.fork == Fork::Init => drop(unlogged.insert(init.number)),
                    _ => {}
                }
                self.push(&name, meta.size());
            } else {
                match self.inner(&directory, &name, path, &meta)? {
                    Some(inner) => below.push(inner),
                    None => self.strange.push(ClusterPath::parse(directory.child(&name))?),
                }
            }
        }
        if directory.place == Place::Relations && !unlogged.is_empty() {
            self.drop_unlogged(first, &unlogged);
        }
        self.directories.push(directory);
        Ok(below)
    }

    /// A directory in a directory, or what stands for one; `None` for what a base backup cannot hold.
    fn inner(
        &mut self,
        parent: &ScannedDirectory,
        name: &[u8],
        path: PathBuf,
        meta: &Metadata,
    ) -> Result<Option<ScannedDirectory>, ScanError> {
        let place = parent.place.inside(name);
        let mut inner = ScannedDirectory { path: parent.child(name), location: path, mode: PRIVATE, place };
        if meta.is_dir() {
            inner.mode = meta.mode() & 0o7777;
            return Ok(Some(inner));
        }
        if !meta.is_symlink() {
            return Ok(None);
        }
        match (place, std::str::from_utf8(name).ok().and_then(|oid| oid.parse().ok())) {
            // What is at the other end is no part of the backup, or only its directories are.
            (Place::Wal | Place::Emptied, _) => Ok(Some(inner)),
            (Place::Tablespace, Some(oid)) => {
                let target = fs::read_link(&inner.location).map_err(read_error(&inner.location))?;
                inner.location = parent.location.join(target);
                self.tablespaces.push((oid, inner.location.clone()));
                Ok(Some(inner))
            }
            _ => Ok(None),
        }
    }

    fn push(&mut self, name: &[u8], size: u64) {
        let directory = u32::try_from(self.directories.len()).unwrap_or(u32::MAX);
        let at = self.names.len() as u64;
        self.names.extend_from_slice(name);
        // No file system has names beyond 255 bytes.
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.files.push(FileEntry { size, name: at << 8 | u64::from(length), directory });
        self.bytes += size;
    }

    /// Of unlogged relations only the forks that they begin as after a crash are kept.
    fn drop_unlogged(&mut self, first: usize, unlogged: &HashSet<u32>) {
        let mut kept = self.files.split_off(first);
        let listed: u64 = kept.iter().map(|entry| entry.size).sum();
        let before = kept.len();
        kept.retain(|entry| match RelationFile::parse(self.name(entry)) {
            Some(file) => file.fork == Fork::Init || !unlogged.contains(&file.number),
            None => true,
        });
        self.unlogged += (before - kept.len()) as u64;
        self.bytes -= listed - kept.iter().map(|entry| entry.size).sum::<u64>();
        self.files.append(&mut kept);
    }
}

/// What is in a directory; nothing when it has vanished, as a database that was dropped has.
fn entries(
    directory: &ScannedDirectory,
) -> Result<Box<dyn Iterator<Item = io::Result<DirEntry>>>, ScanError> {
    if directory.place == Place::Emptied {
        return Ok(Box::new(std::iter::empty()));
    }
    let read = unless_vanished(fs::read_dir(&directory.location)).map_err(read_error(&directory.location))?;
    Ok(Box::new(read.into_iter().flatten()))
}

/// `None` for what is no longer there.
fn unless_vanished<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ScanError {
    move |source| ScanError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(root: &Path, path: &str, size: usize) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![1; size]).unwrap();
    }

    fn paths(scan: &Scan) -> Vec<String> {
        (0..scan.len()).map(|number| scan.file(number).unwrap().path().unwrap().to_string()).collect()
    }

    fn directories(scan: &Scan) -> Vec<String> {
        let mut all: Vec<_> =
            scan.directories().iter().filter_map(|dir| Some(dir.path().unwrap()?.to_string())).collect();
        all.sort();
        all
    }

    #[test]
    fn a_cluster_is_listed_without_what_does_not_belong() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        for (path, size) in [
            ("PG_VERSION", 3),
            ("postmaster.pid", 9),
            ("base/5/1259", 8192),
            ("base/5/16384", 16),
            ("base/5/16384.1", 16),
            ("base/5/16384_fsm", 16),
            ("base/5/16384_init", 7),
            ("base/5/163840", 5),
            ("base/5/t3_99", 4),
            ("base/pgsql_tmp/pgsql_tmp1.0", 4),
            ("global/pg_control", 8192),
            ("pg_wal/000000010000000000000001", 99),
            ("pg_wal/archive_status/000000010000000000000001.done", 1),
            ("pg_notify/0000", 8),
        ] {
            write(&root, path, size);
        }
        let scan = Scan::read(&root, 15, 202_209_061).unwrap();
        assert_eq!(paths(&scan), ["PG_VERSION", "base/5/1259", "base/5/163840", "base/5/16384_init"]);
        assert_eq!((scan.bytes, scan.unlogged), (8192 + 3 + 7 + 5, 3));
        let kept = ["base", "base/5", "global", "pg_notify", "pg_wal", "pg_wal/archive_status"];
        assert_eq!(directories(&scan), kept);
    }

    #[test]
    fn links_lead_to_tablespaces_of_this_version_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (root, space) = (folder.path().join("data"), folder.path().join("space"));
        write(&root, "PG_VERSION", 3);
        write(&root, "pg_tblspc/16500/PG_15_202209061/5/1", 2);
        write(&space, "PG_15_202209061/5/16390", 10);
        write(&space, "PG_14_202107181/5/16390", 10);
        write(&space, "stranger", 10);
        write(folder.path(), "wal/archive_status/x", 1);
        symlink(&space, root.join("pg_tblspc/16385")).unwrap();
        symlink(folder.path().join("wal"), root.join("pg_wal")).unwrap();
        symlink("/etc/passwd", root.join("passwd")).unwrap();
        symlink(&space, root.join("pg_tblspc/name")).unwrap();
        let scan = Scan::read(&root, 15, 202_209_061).unwrap();
        let expected =
            ["PG_VERSION", "pg_tblspc/16385/PG_15_202209061/5/16390", "pg_tblspc/16500/PG_15_202209061/5/1"];
        let mut found = paths(&scan);
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(scan.tablespaces, [(16_385, space)]);
        let strange: Vec<_> = scan.strange.iter().map(ToString::to_string).collect();
        assert!(strange.contains(&"passwd".to_owned()) && strange.contains(&"pg_tblspc/name".to_owned()));
        assert!(directories(&scan).contains(&"pg_wal/archive_status".to_owned()));
    }
}
