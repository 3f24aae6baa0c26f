//! Backups of files and what becomes of them, and snapshots of trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backstay_backup_core::catalog::Filter;
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::manifest::Manifest;
use backstay_backup_core::progress::Progress;
use backstay_file_ops::config_set::{ConfigOptions, ConfigReport, Outcome, backup_config};
use backstay_file_ops::restore::{StageOptions, Staged, stage, test_restore};
use backstay_file_ops::{Error, SelectionOptions};
use tokio_util::sync::CancellationToken;

pub use crate::scene::{Scene, is_root, shell};

impl Scene {
    pub fn options(&self, paths: &[PathBuf]) -> ConfigOptions {
        let mut selection = SelectionOptions::default();
        selection.paths = paths.to_vec();
        let mut options = ConfigOptions::new(Self::stanza(), selection);
        options.recipients = self.recipients();
        options
    }

    /// The same without encryption.
    pub fn plain(&self, paths: &[PathBuf]) -> ConfigOptions {
        let mut options = self.options(paths);
        options.recipients = Recipients::none();
        options.plaintext = true;
        options
    }

    pub fn try_back_up(&self, options: &ConfigOptions) -> Result<Outcome, Error> {
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        self.runtime.block_on(Box::pin(backup_config(&self.repositories, options, &progress, &cancel)))
    }

    #[track_caller]
    pub fn back_up(&self, options: &ConfigOptions) -> ConfigReport {
        match self.try_back_up(options).unwrap() {
            Outcome::Stored(report) => *report,
            other => panic!("nothing was stored: {other:?}"),
        }
    }

    pub fn stage(&self, manifest: &Manifest, options: &StageOptions) -> Result<Staged, Error> {
        let (progress, cancel, identities) = (Progress::new(), CancellationToken::new(), self.identities());
        let staging = stage(&self.repositories, manifest, &identities, options, &progress, &cancel);
        self.runtime.block_on(Box::pin(staging))
    }

    /// Unpacks into a throwaway folder and compares: the differences.
    pub fn test_restore(&self, manifest: &Manifest) -> Result<Vec<String>, Error> {
        let (progress, cancel, identities) = (Progress::new(), CancellationToken::new(), self.identities());
        let scratch = self.path("test");
        let testing = test_restore(&self.repositories, manifest, &identities, &scratch, &progress, &cancel);
        let tested = self.runtime.block_on(Box::pin(testing));
        let _ = fs::remove_dir_all(scratch);
        tested.map(|(_, differences)| differences)
    }

    /// The newest good set that the repository shows now, read anew.
    pub fn newest(&self) -> Result<Manifest, backstay_backup_core::Error> {
        let catalog = self.try_catalog()?;
        let newest = catalog.newest_good(&Filter::default())?;
        Ok(newest.manifest.as_deref().unwrap().clone())
    }

    /// The folder of the only set.
    pub fn set_folder(&self) -> PathBuf {
        let mut sets = self.sets();
        assert_eq!(sets.len(), 1);
        sets.remove(0)
    }
}

/// Everything that can be told of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub kind: u32,
    pub mode: u32,
    pub owner: (u32, u32),
    pub modified: (i64, i64),
    pub content: Vec<u8>,
    pub extended: BTreeMap<Vec<u8>, Vec<u8>>,
    pub blocks: u64,
    /// The first path that is the same file.
    pub same_as: Option<Vec<u8>>,
}

/// Everything below a folder.
pub fn snapshot(folder: &Path) -> BTreeMap<Vec<u8>, Snapshot> {
    let mut found = BTreeMap::new();
    collect(folder, folder, &mut found);
    let mut firsts = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    for path in found.keys() {
        let facts = fs::symlink_metadata(folder.join(std::ffi::OsStr::from_bytes(path))).unwrap();
        if facts.is_file() {
            let first = firsts.entry(facts.ino()).or_insert_with(|| path.clone()).clone();
            inodes.insert(path.clone(), first);
        }
    }
    for (path, snapshot) in &mut found {
        snapshot.same_as = inodes.remove(path).filter(|first| first != path);
    }
    found
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<Vec<u8>, Snapshot>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let facts = fs::symlink_metadata(&path).unwrap();
        let content = if facts.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if facts.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let is_folder = facts.is_dir();
        let snapshot = Snapshot {
            kind: facts.mode() & 0o170_000,
            mode: if facts.is_symlink() { 0 } else { facts.mode() & 0o7777 },
            owner: (facts.uid(), facts.gid()),
            modified: (facts.mtime(), facts.mtime_nsec()),
            content,
            extended: extended(&path),
            blocks: if facts.is_file() && facts.size() > 1 << 20 { facts.blocks() } else { 0 },
            same_as: None,
        };
        found.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), snapshot);
        if is_folder {
            collect(root, &path, found);
        }
    }
}

fn extended(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut all = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        all.insert(name.to_vec(), value[..length].to_vec());
    }
    all
}

/// Compares two trees and says where they differ, not with what.
#[track_caller]
pub fn assert_same(one: &BTreeMap<Vec<u8>, Snapshot>, other: &BTreeMap<Vec<u8>, Snapshot>) {
    let names = |tree: &BTreeMap<Vec<u8>, Snapshot>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one).len(), names(other).len());
    for (path, snapshot) in one {
        let found = other.get(path).unwrap_or_else(|| panic!("{} is missing", String::from_utf8_lossy(path)));
        if found != snapshot {
            let short = |snapshot: &Snapshot| Snapshot { content: Vec::new(), ..snapshot.clone() };
            let equal = found.content == snapshot.content;
            let path = String::from_utf8_lossy(path);
            panic!("{path} (same content: {equal}):\n{:?}\n{:?}", short(snapshot), short(found));
        }
    }
}

/// All files below a folder, none where there is none.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let below = |path: PathBuf| {
        if path.symlink_metadata().unwrap().is_dir() { files_in(&path) } else { vec![path] }
    };
    entries.flatten().flat_map(|entry| below(entry.path())).collect()
}
