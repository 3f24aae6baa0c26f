//! Looks at the data directory that is to be restored: what a server would load from it now, and whether one does.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::configuration::ServerConfiguration;
use super::error::RestoreError;

/// What a restore puts into the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Shape {
    /// A folder with snapshot, stream and manifest, which the server replays itself. Version 7 and newer with `appendonly`.
    MultiPart,
    /// One append-only file that begins with the snapshot. Before version 7 with `appendonly`.
    SingleFile,
    /// A snapshot. Without `appendonly`.
    Snapshot,
}

impl Shape {
    /// What a server of that major version loads with that configuration.
    #[must_use]
    pub fn of(configuration: &ServerConfiguration, major: u32) -> Self {
        match (configuration.append_only, major) {
            (false, _) => Self::Snapshot,
            (true, ..=6) => Self::SingleFile,
            (true, _) => Self::MultiPart,
        }
    }

    /// The name in the data directory that the server loads.
    #[must_use]
    pub fn active(self, configuration: &ServerConfiguration) -> &str {
        match self {
            Self::MultiPart => &configuration.append_directory,
            Self::SingleFile => &configuration.append_file,
            Self::Snapshot => &configuration.snapshot_file,
        }
    }

    /// Names that it would load if it were configured otherwise. They must go: the day somebody changes a setting, the
    /// server would come up with them.
    pub(super) fn inactive(self, configuration: &ServerConfiguration) -> Vec<String> {
        let all = [&configuration.append_directory, &configuration.append_file, &configuration.snapshot_file];
        let active = self.active(configuration);
        all.into_iter().filter(|name| *name != active).cloned().collect()
    }
}

/// Who owns a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid() }
    }

    /// An account of this machine, by name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn find(name: &str) -> Result<Self, RestoreError> {
        let path = Path::new("/etc/passwd");
        let accounts = std::fs::read_to_string(path).map_err(RestoreError::io("read", path))?;
        let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.filter(|fields| fields.first() == Some(&name)).find_map(|fields| {
            Some(Self { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
        });
        found.ok_or_else(|| {
            RestoreError::usage(format!("there is no account {name} on this machine"), "check --owner")
        })
    }

    /// Gives a file or directory to it, where it is another's.
    pub(super) fn give(self, path: &Path) -> Result<(), RestoreError> {
        let current = path.symlink_metadata().map_err(RestoreError::io("look at", path))?;
        if Self::of(&current) == self {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .map_err(RestoreError::io("give away", path))
    }
}

/// Something in the data directory that a server would load, or might one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Present {
    /// Its name.
    pub name: String,
    /// Bytes in it.
    pub bytes: u64,
    /// Whether it is what the server loads with its configuration as it is.
    pub active: bool,
}

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Place {
    /// The directory.
    pub directory: PathBuf,
    /// Whether it exists.
    pub exists: bool,
    /// Data of a server in it, which is kept.
    pub present: Vec<Present>,
    /// Free bytes of its file system.
    pub free_bytes: u64,
    /// Who owns it, or will.
    pub owner: Option<Owner>,
}

impl Place {
    /// Looks at a directory. `owner` is for one that does not exist; one that does keeps its own.
    ///
    /// # Errors
    /// It is no directory, or cannot be looked at; its parent is missing.
    pub fn examine(
        directory: &Path,
        shape: Shape,
        configuration: &ServerConfiguration,
        owner: Option<Owner>,
    ) -> Result<Self, RestoreError> {
        let directory = std::path::absolute(directory).map_err(RestoreError::io("find", directory))?;
        let metadata = match directory.metadata() {
            Ok(metadata) if metadata.is_dir() => Some(metadata),
            Ok(_) => {
                return Err(RestoreError::target(&directory, "is no directory", "name the data directory"));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(RestoreError::io("look at", &directory)(error)),
        };
        let Some(metadata) = metadata else {
            let parent = directory.parent().unwrap_or(Path::new("/"));
            let free_bytes = free_bytes(parent)?;
            return Ok(Self { directory, exists: false, present: Vec::new(), free_bytes, owner });
        };
        let active = shape.active(configuration);
        let mut present = Vec::new();
        for name in std::iter::once(active.to_owned()).chain(shape.inactive(configuration)) {
            let path = directory.join(&name);
            match path.symlink_metadata() {
                Ok(_) => {
                    let (bytes, active) = (size_of(&path), name == active);
                    present.push(Present { name, bytes, active });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(RestoreError::io("look at", &path)(error)),
            }
        }
        let free_bytes = free_bytes(&directory)?;
        Ok(Self { directory, exists: true, present, free_bytes, owner: Some(Owner::of(&metadata)) })
    }

    /// Refuses a directory that a server works in. Servers change into their data directory, so it shows.
    ///
    /// # Errors
    /// A process has it as its working directory.
    pub fn refuse_if_used(&self) -> Result<(), RestoreError> {
        let Some(user) = self.user() else { return Ok(()) };
        let problem = format!("is in use by {user}");
        let remedy = "stop the server first, and keep it stopped; at its own stop it would write over what is restored";
        Err(RestoreError::target(&self.directory, problem, remedy))
    }

    /// The server that works in it now, in words.
    pub(super) fn user(&self) -> Option<String> {
        let (process, name) = find_user(&self.directory.metadata().ok()?)?;
        Some(format!("process {process} ({name})"))
    }

    /// Refuses a file system without room for that much beside what is there.
    ///
    /// # Errors
    /// There is too little room.
    pub fn refuse_if_full(&self, needed: u64) -> Result<(), RestoreError> {
        if self.free_bytes >= needed {
            return Ok(());
        }
        let problem =
            format!("has {} bytes free, and the restore needs {needed} beside the old data", self.free_bytes);
        Err(RestoreError::Io {
            op: "restore into",
            path: self.directory.clone(),
            source: std::io::Error::new(ErrorKind::StorageFull, problem),
        })
    }
}

fn find_user(directory: &Metadata) -> Option<(u32, String)> {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").ok()?;
    for entry in processes.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(cwd) = std::fs::metadata(entry.path().join("cwd")) else { continue };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        // A shell may stand there; servers are called redis-server, valkey-server, keydb-server.
        let is_server = name.contains("redis") || name.contains("valkey") || name.contains("server");
        let is_there = cwd.dev() == directory.dev() && cwd.ino() == directory.ino();
        if process != own && is_there && is_server {
            return Some((process, name.trim().to_owned()));
        }
    }
    None
}

pub(super) fn free_bytes(path: &Path) -> Result<u64, RestoreError> {
    let found = rustix::fs::statvfs(path)
        .map_err(|error| RestoreError::io("look at the file system of", path)(error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of a file, or of the files of a folder without its sub-folders: append-only files have none.
pub(super) fn size_of(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_follows_from_configuration_and_version() {
        let mut configuration = ServerConfiguration::usual(true, "test");
        assert_eq!(Shape::of(&configuration, 7), Shape::MultiPart);
        assert_eq!(Shape::of(&configuration, 6), Shape::SingleFile);
        assert_eq!(Shape::MultiPart.active(&configuration), "appendonlydir");
        assert_eq!(Shape::MultiPart.inactive(&configuration), ["appendonly.aof", "dump.rdb"]);
        configuration.append_only = false;
        assert_eq!(Shape::of(&configuration, 8), Shape::Snapshot);
    }

    #[test]
    fn a_directory_is_examined_without_being_touched() {
        let folder = tempfile::tempdir().unwrap();
        let configuration = ServerConfiguration::usual(true, "test");
        std::fs::create_dir(folder.path().join("appendonlydir")).unwrap();
        std::fs::write(folder.path().join("appendonlydir/x"), "12345").unwrap();
        std::fs::write(folder.path().join("dump.rdb"), "123").unwrap();
        std::fs::write(folder.path().join("nodes.conf"), "mine").unwrap();
        let place = Place::examine(folder.path(), Shape::MultiPart, &configuration, None).unwrap();
        let found: Vec<_> = place.present.iter().map(|it| (&*it.name, it.bytes, it.active)).collect();
        assert_eq!(found, [("appendonlydir", 5, true), ("dump.rdb", 3, false)]);
        place.refuse_if_used().unwrap();
        assert!(place.refuse_if_full(u64::MAX).is_err());
        let file = folder.path().join("dump.rdb");
        assert!(Place::examine(&file, Shape::Snapshot, &configuration, None).is_err());
        let missing = folder.path().join("new");
        assert!(!Place::examine(&missing, Shape::Snapshot, &configuration, None).unwrap().exists);
    }
}
