//! The index of a set, read and checked: what is written where comes from it alone.
//!
//! It is trusted because the manifest has its digest, and doubted all the same: paths that leave the directory, files that
//! overlap, files that are also directories, content that is not in the pack, names that a restore makes itself. Headers
//! of the tar streams are never looked at, so nothing in them can matter.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead, BufReader};

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::SetId;
use backstay_backup_core::manifest::{Manifest, ObjectEntry};
use backstay_backup_core::object_reader::into_error;
use backstay_backup_core::replicas::Repositories;

use super::ClusterRestoreError;
use super::roots::{TABLESPACES, tablespace_of};
use crate::physical::{
    BLOCK, ClusterFacts, ClusterPath, IndexDirectory, IndexEnd, IndexFile, IndexLine, IndexPack,
};

/// How the index is called, without suffixes.
const INDEX: &str = "index";
/// Longest line: a file of 1 GiB has a thousand digests.
const LONGEST_LINE: u64 = 64 << 20;
/// The file without which no server starts.
pub(super) const CONTROL: &str = "global/pg_control";
/// What restores make themselves, or must not be there at all.
const OURS: [&str; 6] = [
    super::marker::NAME,
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "postmaster.pid",
    "backup_manifest",
];

/// All files of a set.
#[derive(Debug)]
pub(crate) struct SetIndex {
    pub(super) packs: Vec<Pack>,
    pub(super) directories: Vec<IndexDirectory>,
    /// Files.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// A pack and the files in it, in the order in which they lie there.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(super) pack: IndexPack,
    pub(super) entry: ObjectEntry,
    pub(super) files: Vec<IndexFile>,
}

impl SetIndex {
    /// Reads and checks the index of a set.
    pub(super) async fn load(
        repositories: &Repositories,
        manifest: &Manifest,
        identities: &Identities,
        facts: &ClusterFacts,
    ) -> Result<Self, ClusterRestoreError> {
        let entry = find_object(manifest, INDEX).ok_or_else(|| ClusterRestoreError::Index {
            set: manifest.set.clone(),
            problem: "there is none".to_owned(),
        })?;
        let reader = repositories.open_object(manifest, entry, identities)?;
        let (manifest, facts) = (manifest.clone(), facts.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut collector = Collector::default();
            read_lines(reader, &mut collector).map_err(|problem| problem.of(&manifest.set))?;
            collector.finish(&manifest, &facts).map_err(|problem| Problem::Index(problem).of(&manifest.set))
        });
        reading.await.map_err(|error| CoreError::Internal { what: error.to_string() })?
    }

    /// Whether the source let its group read.
    pub(super) fn is_group_readable(&self) -> bool {
        self.all_files().any(|file| file.path.as_bytes() == b"PG_VERSION" && file.mode & 0o040 != 0)
    }

    /// Folders that hold files, the outermost first.
    pub(super) fn folders_of_files(&self) -> BTreeSet<ClusterPath> {
        let folder = |file: &IndexFile| {
            let bytes = file.path.as_bytes();
            let end = bytes.iter().rposition(|byte| *byte == b'/')?;
            ClusterPath::parse(&bytes[..end]).ok()
        };
        let known: HashSet<&[u8]> = self.directories.iter().map(|it| it.path.as_bytes()).collect();
        self.all_files().filter_map(folder).filter(|folder| !known.contains(folder.as_bytes())).collect()
    }

    /// All files.
    pub(super) fn all_files(&self) -> impl Iterator<Item = &IndexFile> {
        self.packs.iter().flat_map(|pack| &pack.files)
    }
}

/// The object of that name, whatever suffixes say how to open it.
pub(super) fn find_object<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a ObjectEntry> {
    let stem = |entry: &&ObjectEntry| {
        let name = entry.name.strip_suffix(".age").unwrap_or(&entry.name);
        name.strip_suffix(entry.codec.suffix()).unwrap_or(name).to_owned()
    };
    manifest.objects.iter().find(|entry| stem(entry) == name)
}

enum Problem {
    Index(String),
    Reading(std::io::Error),
}

impl Problem {
    fn of(self, set: &SetId) -> ClusterRestoreError {
        match self {
            Self::Index(problem) => ClusterRestoreError::Index { set: set.clone(), problem },
            Self::Reading(error) => read_error(set, error),
        }
    }
}

/// An error of reading an object.
pub(super) fn read_error(set: &SetId, error: std::io::Error) -> ClusterRestoreError {
    match into_error(error) {
        Ok(error) => error.into(),
        Err(other) => ClusterRestoreError::Index { set: set.clone(), problem: other.to_string() },
    }
}

fn read_lines(reader: impl std::io::Read, collector: &mut Collector) -> Result<(), Problem> {
    let mut reader = BufReader::with_capacity(1 << 20, reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = std::io::Read::take(&mut reader, LONGEST_LINE);
        if limited.read_until(b'\n', &mut line).map_err(Problem::Reading)? == 0 {
            return Ok(());
        }
        let parsed = serde_json::from_slice(&line)
            .map_err(|error| Problem::Index(format!("line {}: {error}", collector.lines + 1)))?;
        collector.add(parsed).map_err(Problem::Index)?;
    }
}

#[derive(Default)]
struct Collector {
    lines: u64,
    packs: Vec<IndexPack>,
    directories: Vec<IndexDirectory>,
    files: Vec<IndexFile>,
    end: Option<IndexEnd>,
}

impl Collector {
    fn add(&mut self, line: IndexLine) -> Result<(), String> {
        self.lines += 1;
        if self.end.is_some() {
            return Err("something follows its end".to_owned());
        }
        match line {
            IndexLine::Pack(pack) => self.packs.push(pack),
            IndexLine::Directory(directory) => self.directories.push(directory),
            IndexLine::File(file) => self.files.push(file),
            IndexLine::End(end) => self.end = Some(end),
        }
        Ok(())
    }

    fn finish(mut self, manifest: &Manifest, facts: &ClusterFacts) -> Result<SetIndex, String> {
        let found = IndexEnd {
            files: self.files.len() as u64,
            directories: self.directories.len() as u64,
            packs: u32::try_from(self.packs.len()).unwrap_or(u32::MAX),
        };
        match self.end {
            None => return Err("it is cut off".to_owned()),
            Some(end) if end != found => return Err(format!("it holds {found:?} and says {end:?}")),
            Some(_) => {}
        }
        check_paths(&self.files, &self.directories, facts)?;
        self.packs.sort_by_key(|pack| pack.number);
        let mut packs = Vec::with_capacity(self.packs.len());
        for pack in std::mem::take(&mut self.packs) {
            let entry = check_pack(&pack, manifest)?;
            if packs.last().is_some_and(|last: &Pack| last.pack.number == pack.number) {
                return Err(format!("there are two packs {}", pack.number));
            }
            packs.push(Pack { pack, entry, files: Vec::new() });
        }
        let (files, mut bytes) = (self.files.len() as u64, 0_u64);
        for file in self.files {
            bytes = bytes.saturating_add(file.size);
            let at = packs.binary_search_by_key(&file.pack, |pack| pack.pack.number);
            let at = at.map_err(|_| format!("{} is in pack {}, which there is not", file.path, file.pack))?;
            packs[at].files.push(file);
        }
        packs.iter_mut().try_for_each(check_files)?;
        Ok(SetIndex { packs, directories: self.directories, files, bytes })
    }
}

fn check_pack(pack: &IndexPack, manifest: &Manifest) -> Result<ObjectEntry, String> {
    let name = &pack.object;
    let entry = manifest.object(name).ok_or_else(|| format!("the manifest has no pack {name}"))?;
    if entry.plain != pack.plain {
        return Err(format!("{name} has {} plain bytes, its index says {}", entry.plain, pack.plain));
    }
    if pack.frame == 0 || pack.stored.len() as u64 != pack.plain.div_ceil(pack.frame) {
        return Err(format!("{name} has {} frames of {} bytes", pack.stored.len(), pack.frame));
    }
    let stored: u64 = pack.stored.iter().map(|length| u64::from(*length)).sum();
    let differs = if entry.recipients.is_empty() { stored != entry.stored } else { stored > entry.stored };
    if differs {
        return Err(format!("the frames of {name} are {stored} bytes, stored are {}", entry.stored));
    }
    Ok(entry.clone())
}

/// Files lie one behind the other, whole, and have a digest for each block.
fn check_files(pack: &mut Pack) -> Result<(), String> {
    pack.files.sort_by_key(|file| (file.at, file.size));
    let mut free = 0;
    for file in &pack.files {
        let end = file.at.checked_add(file.size).filter(|end| *end <= pack.pack.plain);
        let end = end.ok_or_else(|| format!("{} reaches beyond {}", file.path, pack.pack.object))?;
        if file.at < free {
            return Err(format!("{} overlaps the file before it in {}", file.path, pack.pack.object));
        }
        if file.blocks.len() as u64 != file.size.div_ceil(BLOCK) {
            return Err(format!("{} has {} digests for {} bytes", file.path, file.blocks.len(), file.size));
        }
        free = end;
    }
    Ok(())
}

fn check_paths(
    files: &[IndexFile],
    directories: &[IndexDirectory],
    facts: &ClusterFacts,
) -> Result<(), String> {
    let known: BTreeSet<u32> = facts.tablespaces.iter().map(|tablespace| tablespace.oid).collect();
    let mut names: HashSet<&[u8]> = HashSet::with_capacity(files.len());
    for file in files {
        check_name(&file.path, &known)?;
        if file.path.as_bytes().starts_with(b"pg_wal/") {
            return Err(format!("it has {}, and sets hold no WAL", file.path));
        }
        if !names.insert(file.path.as_bytes()) {
            return Err(format!("{} is there twice", file.path));
        }
    }
    for path in directories.iter().map(|directory| &directory.path) {
        check_name(path, &known)?;
        if names.contains(path.as_bytes()) {
            return Err(format!("{path} is a file and a directory"));
        }
    }
    let paths =
        files.iter().map(|file| &file.path).chain(directories.iter().map(|directory| &directory.path));
    for path in paths {
        let bytes = path.as_bytes();
        let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        if let Some(at) = slashes.into_iter().find(|at| names.contains(&bytes[..*at])) {
            return Err(format!("{path} is below {}, a file", String::from_utf8_lossy(&bytes[..at])));
        }
    }
    for needed in [CONTROL, "PG_VERSION", "backup_label"] {
        if !names.contains(needed.as_bytes()) {
            return Err(format!("it has no {needed}"));
        }
    }
    Ok(())
}

fn check_name(path: &ClusterPath, tablespaces: &BTreeSet<u32>) -> Result<(), String> {
    if OURS.iter().any(|ours| path.as_bytes() == ours.as_bytes()) {
        return Err(format!("it has {path}, which no set holds"));
    }
    let is_below = path.as_bytes().starts_with(format!("{TABLESPACES}/").as_bytes());
    match tablespace_of(path) {
        Some((oid, _)) if tablespaces.contains(&oid) => Ok(()),
        None if !is_below => Ok(()),
        _ => Err(format!("{path} is of a tablespace that the set does not describe")),
    }
}
