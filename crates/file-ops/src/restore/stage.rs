//! Unpacks a set into a folder that belongs to one restore.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::{Manifest, ObjectEntry};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::config_set::{ARCHIVE, ConfigFacts, KIND};
use crate::error::Error;
use crate::path::ArchivePath;
use crate::tar::{Kind, TarEntry};
use crate::unpack::{UnpackOptions, Unpacked, list, unpack};

/// What says that a folder is one of ours.
const MARK: &str = "backstay-staging.json";
/// Where the files are.
pub(super) const FILES: &str = "files";
/// Where what was replaced is kept.
pub(super) const UNDO: &str = "undo";

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    set: String,
}

/// Where and what to stage.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StageOptions {
    /// A new or empty folder, or that of an earlier restore; its staged files are replaced, what it keeps for undoing stays.
    pub folder: PathBuf,
    /// What is taken of the archive.
    pub unpack: UnpackOptions,
}

impl StageOptions {
    /// Everything, into that folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, unpack: UnpackOptions::default() }
    }
}

/// A set that lies unpacked in a folder.
#[derive(Debug)]
#[non_exhaustive]
pub struct Staged {
    /// The folder.
    pub folder: PathBuf,
    /// The files in it, with their paths.
    pub files: PathBuf,
    /// The set.
    pub set: String,
    /// What was unpacked.
    pub entries: Vec<TarEntry>,
    /// What this account could not give to the staged files.
    pub lacking: Vec<(String, String)>,
    /// Entries that are secrets which were fetched, not files of the archive.
    pub secrets: BTreeSet<ArchivePath>,
}

impl Staged {
    /// What was unpacked into `files` below a folder by other means than [`stage`].
    #[must_use]
    pub fn unpacked(folder: PathBuf, set: &str, unpacked: Unpacked) -> Self {
        let Unpacked { entries, lacking } = unpacked;
        let lacking = lacking.into_iter().map(|(path, words)| (format!("/{path}"), words)).collect();
        let (files, set) = (folder.join(FILES), set.to_owned());
        Self { files, folder, set, entries, lacking, secrets: BTreeSet::new() }
    }
}

/// Unpacks a set of configuration.
///
/// # Errors
/// The set is no such one, or damaged, or its archive is refused; the folder belongs to something else.
///
/// # Cancel safety
/// A dropped call leaves some staged files, which the next restore into the same folder replaces.
pub async fn stage(
    repositories: &Repositories,
    manifest: &Manifest,
    identities: &Identities,
    options: &StageOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Staged, Error> {
    let entry = archive(manifest)?;
    progress.begin("unpacking");
    let reader = repositories.open_object(manifest, entry, identities)?;
    let (options, cancel, set) = (options.clone(), cancel.clone(), manifest.set.to_string());
    let unpacking = tokio::task::spawn_blocking(move || {
        let files = prepare(&options.folder, &set)?;
        let unpacked = unpack(reader, &files, &options.unpack, &cancel)?;
        Ok(Staged::unpacked(options.folder, &set, unpacked))
    });
    unpacking.await.map_err(|error| Error::internal(&error))?
}

/// Names what a set holds, without unpacking it. The whole archive is read and checked.
///
/// # Errors
/// As [`stage`].
pub async fn list_set(
    repositories: &Repositories,
    manifest: &Manifest,
    identities: &Identities,
    options: &UnpackOptions,
    cancel: &CancellationToken,
) -> Result<Vec<TarEntry>, Error> {
    let reader = repositories.open_object(manifest, archive(manifest)?, identities)?;
    let (options, cancel) = (options.clone(), cancel.clone());
    let listing = tokio::task::spawn_blocking(move || {
        let mut entries = Vec::new();
        list(reader, &options, &cancel, |entry| entries.push(entry.clone()))?;
        Ok(entries)
    });
    listing.await.map_err(|error| Error::internal(&error))?
}

/// Unpacks a set into a throwaway folder and compares what is there with the facts of the manifest: how many were compared,
/// and the differences. The other objects are read as well.
///
/// # Errors
/// As [`stage`].
pub async fn test_restore(
    repositories: &Repositories,
    manifest: &Manifest,
    identities: &Identities,
    scratch: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(u64, Vec<String>), Error> {
    let facts: ConfigFacts = serde_json::from_value(manifest.facts.clone())
        .map_err(|error| unsuitable(manifest, &format!("has facts that cannot be read ({error})")))?;
    let mut options = StageOptions::new(scratch.to_owned());
    options.unpack.allow_case_collisions = true;
    let staged = stage(repositories, manifest, identities, &options, progress, cancel).await?;
    for entry in manifest.objects.iter().filter(|entry| !entry.name.starts_with(ARCHIVE)) {
        let mut reader = repositories.open_object(manifest, entry, identities)?;
        let reading =
            tokio::task::spawn_blocking(move || std::io::copy(&mut reader.by_ref(), &mut std::io::sink()));
        let read = reading.await.map_err(|error| Error::internal(&error))?;
        read.map_err(|error| match backstay_backup_core::object_reader::into_error(error) {
            Ok(error) => Error::Repository(error),
            Err(error) => Error::io("read", Path::new(&entry.name), error),
        })?;
    }
    let mut found = ConfigFacts::default();
    for entry in &staged.entries {
        match &entry.kind {
            Kind::File { size, extents } => {
                let stored = extents.as_ref().map(|extents| extents.iter().map(|extent| extent.length).sum());
                found.files += 1;
                found.bytes += stored.unwrap_or(*size);
            }
            Kind::Directory => found.folders += 1,
            Kind::Symlink { .. } | Kind::Hardlink { .. } => found.links += 1,
        }
    }
    let compared = [
        ("files", facts.files, found.files),
        ("folders", facts.folders, found.folders),
        ("links", facts.links, found.links),
        ("bytes", facts.bytes, found.bytes),
    ];
    let differs = compared.iter().filter(|(_, expected, found)| expected != found);
    let differences =
        differs.map(|(fact, expected, found)| format!("{fact}: expected {expected}, found {found}"));
    Ok((compared.len() as u64, differences.collect()))
}

fn unsuitable(manifest: &Manifest, problem: &str) -> Error {
    Error::Unsuitable { set: manifest.set.to_string(), problem: problem.to_owned() }
}

fn archive(manifest: &Manifest) -> Result<&ObjectEntry, Error> {
    if manifest.kind.0 != KIND {
        return Err(unsuitable(manifest, &format!("is of kind {}, not {KIND}", manifest.kind)));
    }
    let archive = manifest.objects.iter().find(|entry| entry.name.starts_with(ARCHIVE));
    archive.ok_or_else(|| unsuitable(manifest, "has no archive"))
}

/// Makes the folder one of ours, private and without staged files; returns where those go.
fn prepare(folder: &Path, set: &str) -> Result<PathBuf, Error> {
    let failed = |op| move |error| Error::io(op, folder, error);
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check_ours(folder)?,
        Err(error) => return Err(Error::io("create", folder, error)),
    }
    // Programs that run as their owner lie in it, and secrets.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed("change"))?;
    let mark = serde_json::to_vec(&Mark { format: 1, set: set.to_owned() }).unwrap_or_default();
    super::record::write_durably(&folder.join(MARK), &mark)?;
    let files = folder.join(FILES);
    match fs::remove_dir_all(&files) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("empty", &files, error)),
    }
    fs::DirBuilder::new().mode(0o700).create(&files).map_err(|error| Error::io("create", &files, error))?;
    Ok(files)
}

fn check_ours(folder: &Path) -> Result<(), Error> {
    let staging = |problem: &str| Error::Staging { path: folder.to_owned(), problem: problem.to_owned() };
    let is_folder = fs::symlink_metadata(folder).map_err(|error| Error::io("open", folder, error))?.is_dir();
    if !is_folder {
        return Err(staging("it is no folder"));
    }
    let mark = folder.join(MARK);
    match fs::read(&mark) {
        Ok(bytes) => match serde_json::from_slice::<Mark>(&bytes) {
            Ok(Mark { format: 1, .. }) => Ok(()),
            _ => Err(staging("it belongs to another version of this program")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut entries = fs::read_dir(folder).map_err(|error| Error::io("read", folder, error))?;
            if entries.next().is_some() { Err(staging("there are other things in it")) } else { Ok(()) }
        }
        Err(error) => Err(Error::io("read", &mark, error)),
    }
}
