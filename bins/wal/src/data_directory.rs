//! The server's data directory, as far as these programs look at it. They only read.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backstay_postgres_ops::wal::{HEADER_LENGTH, Segment, SegmentHeader, SystemId};
use rustix::process::Pid;

/// The directory of a server.
#[derive(Clone, Debug)]
pub(crate) struct DataDirectory {
    root: PathBuf,
    wal: PathBuf,
}

impl DataDirectory {
    /// The one that a file of `pg_wal` belongs to, by its path; the server gives it relative to the directory. By
    /// names alone, because `pg_wal` is a link to another disk on many servers.
    pub(crate) fn of(file: &Path) -> Self {
        let or_here = |path: Option<&Path>| match path {
            Some(path) if path.as_os_str().is_empty() => PathBuf::from("."),
            Some(path) => path.to_owned(),
            None => PathBuf::from("."),
        };
        let wal = or_here(file.parent());
        let root = if wal == Path::new(".") { PathBuf::from("..") } else { or_here(wal.parent()) };
        Self { root, wal }
    }

    /// The one that the server starts its commands in.
    pub(crate) fn here() -> Self {
        Self { root: PathBuf::from("."), wal: PathBuf::from("pg_wal") }
    }

    /// Where it is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A segment in it.
    pub(crate) fn segment(&self, segment: Segment) -> PathBuf {
        self.wal.join(segment.to_string())
    }

    /// What tells it apart from every other directory of this machine.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        let found = fs::metadata(&self.root)?;
        Ok((found.dev(), found.ino()))
    }

    /// Whether its server follows another one, and so asks again for what it did not get.
    pub(crate) fn is_standby(&self) -> bool {
        self.root.join("standby.signal").exists()
    }

    /// Identity of the cluster: the first eight bytes of its control file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn system(&self) -> io::Result<SystemId> {
        let mut bytes = [0; 8];
        File::open(self.root.join("global/pg_control"))?.read_exact(&mut bytes)?;
        Ok(SystemId::new(u64::from_le_bytes(bytes)))
    }

    /// The header of some segment: all of a cluster agree about its version and the size of its segments.
    ///
    /// # Errors
    /// There is none that can be read.
    pub(crate) fn any_header(&self) -> io::Result<SegmentHeader> {
        for entry in fs::read_dir(&self.wal)? {
            let entry = entry?;
            let is_segment = entry.file_name().to_str().is_some_and(|name| name.parse::<Segment>().is_ok());
            let mut bytes = [0; HEADER_LENGTH];
            if is_segment
                && File::open(entry.path())?.read_exact(&mut bytes).is_ok()
                && let Ok(header) = SegmentHeader::parse(&bytes)
            {
                return Ok(header);
            }
        }
        Err(io::Error::other(format!("no segment in {}", self.wal.display())))
    }

    /// Whether a server runs on it, by its lock file.
    pub(crate) fn is_served(&self) -> bool {
        let lock = fs::read_to_string(self.root.join("postmaster.pid")).unwrap_or_default();
        let pid = lock.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| match rustix::process::test_kill_process(pid) {
            Ok(()) => true,
            Err(errno) => errno == rustix::io::Errno::PERM,
        })
    }

    /// Whole segments that the server waits to have archived.
    ///
    /// # Errors
    /// The folder of its notes cannot be read.
    pub(crate) fn ready(&self) -> io::Result<BTreeSet<Segment>> {
        let mut ready = BTreeSet::new();
        for entry in fs::read_dir(self.wal.join("archive_status"))? {
            ready.extend(segment_of_note(&entry?.file_name()));
        }
        Ok(ready)
    }

    /// Whether the server waits for a segment that `known` does not know.
    pub(crate) fn has_ready(&self, known: impl Fn(Segment) -> bool) -> bool {
        let Ok(entries) = fs::read_dir(self.wal.join("archive_status")) else { return false };
        let mut segments = entries.filter_map(|entry| segment_of_note(&entry.ok()?.file_name()));
        segments.any(|segment| !known(segment))
    }
}

fn segment_of_note(name: &OsStr) -> Option<Segment> {
    name.to_str()?.strip_suffix(".ready")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_found_by_the_path_of_its_segment() {
        for (file, root, wal) in [
            ("pg_wal/x", ".", "pg_wal"),
            ("./pg_wal/x", ".", "./pg_wal"),
            ("/data/pg_wal/x", "/data", "/data/pg_wal"),
            ("x", "..", "."),
        ] {
            let found = DataDirectory::of(Path::new(file));
            assert_eq!((found.root.to_str(), found.wal.to_str()), (Some(root), Some(wal)), "{file}");
        }
    }

    #[test]
    fn only_whole_segments_that_are_waited_for_are_ready() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("pg_wal/archive_status");
        fs::create_dir_all(&status).unwrap();
        for name in [
            "000000010000000000000002.ready",
            "000000010000000000000001.done",
            "00000002.history.ready",
            "000000010000000000000001.partial.ready",
        ] {
            fs::write(status.join(name), "").unwrap();
        }
        let data = DataDirectory::of(&folder.path().join("pg_wal/000000010000000000000002"));
        let second: Segment = "000000010000000000000002".parse().unwrap();
        assert_eq!(data.ready().unwrap().into_iter().collect::<Vec<_>>(), [second]);
        assert!(data.has_ready(|_| false) && !data.has_ready(|segment| segment == second));
        assert!(!data.is_served(), "there is no lock file");
        fs::write(folder.path().join("postmaster.pid"), format!("{}\n/data\n", std::process::id())).unwrap();
        assert!(data.is_served());
    }
}
