//! Unpacks an archive that anybody may have written.
//!
//! Nothing is written but below an open folder, through handles that follow no link: whatever a header says, the kernel
//! refuses to leave. On top of that, an archive that *means* to leave, or to surprise, is refused as a whole: it cannot
//! have been made by the writer. Folders get their permissions last, when nothing is written into them any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::attributes::{Attributes, Lacking, give, give_link};
use crate::error::Error;
use crate::files::Root;
use crate::path::ArchivePath;
use crate::tar::{Extent, Kind, TarEntry, TarProblem, TarReader};
use crate::walk::fold;

/// What is taken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnpackOptions {
    /// Most bytes of all files together, holes included.
    pub max_bytes: u64,
    /// Most entries.
    pub max_entries: u64,
    /// Takes names that differ in upper and lower case only.
    pub allow_case_collisions: bool,
    /// Only what lies at or below these; everything without any.
    pub only: Vec<ArchivePath>,
    /// Gives files the owners that the archive names; without it they belong to whoever unpacks.
    pub keep_owners: bool,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            max_bytes: u64::MAX,
            max_entries: 10_000_000,
            allow_case_collisions: false,
            only: Vec::new(),
            keep_owners: true,
        }
    }
}

/// What an archive holds.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Unpacked {
    /// Everything that was unpacked, in order.
    pub entries: Vec<TarEntry>,
    /// What this account could not give to the files, by path.
    pub lacking: Vec<(ArchivePath, String)>,
}

/// Unpacks below an empty folder. Blocks. The whole archive is read and checked, also what is not wanted of it.
///
/// # Errors
/// [`Error::Refused`] when it is not what the writer makes; some of it may lie below the folder then, and nothing elsewhere.
pub fn unpack(
    input: impl Read,
    folder: &Path,
    options: &UnpackOptions,
    cancel: &CancellationToken,
) -> Result<Unpacked, Error> {
    let root = Root::open(folder).map_err(|error| Error::io("open", folder, error.into()))?;
    let (checks, files, unpacked) = (Checks::default(), BTreeMap::new(), Unpacked::default());
    let mut unpacker = Unpacker { root, folder, options, checks, files, unpacked };
    let mut reader = TarReader::new(input);
    while let Some(entry) = reader.next_entry().map_err(refused)? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        unpacker.checks.check(&entry, options)?;
        unpacker.take(entry, &mut reader)?;
    }
    unpacker.finish()
}

/// Reads a whole archive and checks it as [`unpack`] does, without writing anything.
///
/// # Errors
/// As [`unpack`].
pub fn list(
    input: impl Read,
    options: &UnpackOptions,
    cancel: &CancellationToken,
    mut each: impl FnMut(&TarEntry),
) -> Result<(), Error> {
    let mut checks = Checks::default();
    let mut reader = TarReader::new(input);
    while let Some(entry) = reader.next_entry().map_err(refused)? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        checks.check(&entry, options)?;
        if is_wanted(&entry.path, options) {
            each(&entry);
        }
    }
    Ok(())
}

fn is_wanted(path: &ArchivePath, options: &UnpackOptions) -> bool {
    options.only.is_empty() || options.only.iter().any(|wanted| path.is_within(wanted))
}

fn refused(problem: TarProblem) -> Error {
    match problem {
        TarProblem::Refused { name, problem } => Error::Refused { name, problem },
        TarProblem::Io(error) => match backstay_backup_core::object_reader::into_error(error) {
            Ok(error) => Error::Repository(error),
            Err(error) => Error::io("read", Path::new("the archive"), error),
        },
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    File,
    Folder,
    /// A folder that something lies in, without an entry of its own so far.
    ImpliedFolder,
    Link,
}

/// What must be true of all entries together.
#[derive(Debug, Default)]
struct Checks {
    met: BTreeMap<ArchivePath, Met>,
    folded: BTreeSet<Vec<u8>>,
    entries: u64,
    bytes: u64,
}

impl Checks {
    fn check(&mut self, entry: &TarEntry, options: &UnpackOptions) -> Result<(), Error> {
        let path = &entry.path;
        let refuse = |problem: &str| Error::Refused { name: path.to_string(), problem: problem.to_owned() };
        self.entries += 1;
        if self.entries > options.max_entries {
            return Err(refuse("the archive has more entries than may be"));
        }
        for folder in path.ancestors() {
            match self.met.get(&folder) {
                None => self.meet(folder, Met::ImpliedFolder, options)?,
                Some(Met::Folder | Met::ImpliedFolder) => break,
                Some(Met::Link) => return Err(refuse("it lies below a link")),
                Some(Met::File) => return Err(refuse("it lies below a file")),
            }
        }
        let met = match &entry.kind {
            Kind::Directory => Met::Folder,
            Kind::Symlink { .. } => Met::Link,
            Kind::File { size, .. } => {
                self.bytes = self.bytes.saturating_add(*size);
                if self.bytes > options.max_bytes {
                    return Err(refuse("with it the archive needs more room than there may be"));
                }
                Met::File
            }
            Kind::Hardlink { target } => match self.met.get(target) {
                Some(Met::File) => Met::File,
                _ => return Err(refuse("it is a further name of no file of the archive")),
            },
        };
        match (self.met.get(path), met) {
            (None, met) => self.meet(path.clone(), met, options),
            (Some(Met::ImpliedFolder), Met::Folder) => {
                self.met.insert(path.clone(), met);
                Ok(())
            }
            (Some(_), _) => Err(refuse("it is there twice")),
        }
    }

    fn meet(&mut self, path: ArchivePath, met: Met, options: &UnpackOptions) -> Result<(), Error> {
        if !options.allow_case_collisions && !self.folded.insert(fold(path.as_bytes())) {
            let problem = "its name differs from another one in upper and lower case only".to_owned();
            return Err(Error::Refused { name: path.to_string(), problem });
        }
        self.met.insert(path, met);
        Ok(())
    }
}

struct Unpacker<'a> {
    root: Root,
    folder: &'a Path,
    options: &'a UnpackOptions,
    checks: Checks,
    /// Where files stand in the entries.
    files: BTreeMap<ArchivePath, usize>,
    unpacked: Unpacked,
}

impl Unpacker<'_> {
    fn error(&self, op: &'static str, path: &ArchivePath, error: impl Into<std::io::Error>) -> Error {
        Error::io(op, &self.folder.join(path.as_path()), error.into())
    }

    fn take<R: Read>(&mut self, mut entry: TarEntry, reader: &mut TarReader<R>) -> Result<(), Error> {
        if !is_wanted(&entry.path, self.options) {
            return Ok(());
        }
        if !self.options.keep_owners {
            entry.attributes.user = rustix::process::geteuid().as_raw();
            entry.attributes.group = rustix::process::getegid().as_raw();
        }
        let parent = self.parent(&entry.path)?;
        let name = entry.path.name().to_vec();
        let mut lacking = Lacking::none();
        match &entry.kind {
            Kind::Directory => match rustix::fs::mkdirat(&parent, name.as_slice(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.error("create", &entry.path, error)),
            },
            Kind::Symlink { target } => {
                lacking = rustix::fs::symlinkat(target.as_slice(), &parent, name.as_slice())
                    .and_then(|()| give_link(&parent, &name, &entry.attributes))
                    .map_err(|error| self.error("create", &entry.path, error))?;
            }
            Kind::Hardlink { target } if !is_wanted(target, self.options) => {
                let problem =
                    format!("it is a further name of /{target}, which was not asked for: ask for that too");
                return Err(Error::Unsuitable { set: entry.path.to_string(), problem });
            }
            Kind::Hardlink { target } => {
                let from =
                    self.root.open_parent(target).map_err(|error| self.error("open", target, error))?;
                rustix::fs::linkat(&from, target.name(), &parent, name.as_slice(), AtFlags::empty())
                    .map_err(|error| self.error("create", &entry.path, error))?;
                // A further name has no attributes of its own.
                if let Some(first) = self.files.get(target) {
                    entry.attributes = self.unpacked.entries[*first].attributes.clone();
                }
            }
            Kind::File { size, extents } => {
                lacking = self.file(&entry, *size, extents.as_deref(), &parent, reader)?;
            }
        }
        self.note(&entry.path, &lacking);
        if matches!(entry.kind, Kind::File { .. } | Kind::Hardlink { .. }) {
            self.files.insert(entry.path.clone(), self.unpacked.entries.len());
        }
        self.unpacked.entries.push(entry);
        Ok(())
    }

    /// The folder that something lies in; folders on the way are made.
    fn parent(&self, path: &ArchivePath) -> Result<OwnedFd, Error> {
        match self.root.open_parent(path) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|error| self.error("open", path, error)),
        }
        let Some(folder) = path.parent() else {
            return self.root.open_folder(None).map_err(|error| self.error("open", path, error));
        };
        let above = self.parent(&folder)?;
        match rustix::fs::mkdirat(&above, folder.name(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(self.error("create", &folder, error)),
        }
        self.root.open_folder(Some(&folder)).map_err(|error| self.error("open", &folder, error))
    }

    fn file<R: Read>(
        &self,
        entry: &TarEntry,
        size: u64,
        extents: Option<&[Extent]>,
        parent: &OwnedFd,
        reader: &mut TarReader<R>,
    ) -> Result<Lacking, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let created = rustix::fs::openat(parent, entry.path.name(), flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(created.map_err(|error| self.error("create", &entry.path, error))?);
        let whole = [Extent { offset: 0, length: size }];
        let mut buffer = vec![0; 256 << 10];
        for extent in extents.unwrap_or(&whole) {
            let mut left = extent.length;
            if extents.is_some() {
                file.seek(SeekFrom::Start(extent.offset))
                    .map_err(|error| self.error("write", &entry.path, error))?;
            }
            while left > 0 {
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let read = reader.read_content(&mut buffer[..wanted]).map_err(refused)?;
                file.write_all(&buffer[..read]).map_err(|error| self.error("write", &entry.path, error))?;
                left -= read as u64;
            }
        }
        if extents.is_some() {
            file.set_len(size).map_err(|error| self.error("write", &entry.path, error))?;
        }
        give(&file, &entry.attributes).map_err(|error| self.error("change", &entry.path, error))
    }

    fn note(&mut self, path: &ArchivePath, lacking: &Lacking) {
        if let Some(words) = lacking_words(lacking) {
            self.unpacked.lacking.push((path.clone(), words));
        }
    }

    /// Gives folders what is theirs, the innermost first.
    fn finish(mut self) -> Result<Unpacked, Error> {
        let mut folders: Vec<(ArchivePath, Attributes)> = self
            .unpacked
            .entries
            .iter()
            .filter(|entry| entry.kind == Kind::Directory)
            .map(|entry| (entry.path.clone(), entry.attributes.clone()))
            .collect();
        folders.sort_by(|one, other| other.0.cmp(&one.0));
        for (path, attributes) in folders {
            let open =
                self.root.open_folder(Some(&path)).map_err(|error| self.error("open", &path, error))?;
            let lacking = give(&open, &attributes).map_err(|error| self.error("change", &path, error))?;
            self.note(&path, &lacking);
        }
        Ok(self.unpacked)
    }
}

pub(crate) fn lacking_words(lacking: &Lacking) -> Option<String> {
    if lacking.is_nothing() {
        return None;
    }
    let mut words = Vec::new();
    if lacking.owner {
        words.push("its owner".to_owned());
    }
    words.extend(lacking.extended.iter().map(|name| crate::path::printable(name)));
    Some(format!("this account may not set {}", words.join(", ")))
}
