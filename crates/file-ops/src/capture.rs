//! Reads what a walk found into one tar archive.
//!
//! Files up to a mebibyte are read whole before their header is written, and read again when they changed meanwhile. A larger one
//! is written while it is read; if it changed, that is noted, and the set is an incomplete one. So nothing torn is taken for
//! whole.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;

use backstay_backup_core::progress::Progress;
use rustix::fs::{FileType, SeekFrom as Place};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;
use crate::attributes::{self, Attributes};
use crate::files::{Root, handle_path};
use crate::frames::FrameSink;
use crate::path::ArchivePath;
use crate::scan::Scanner;
use crate::tar::{END, Entry, EntryKind, Extent, encode, padding};
use crate::walk::{Found, Problem, ProblemKind, State};

/// Largest file that is read whole first.
const WHOLE: u64 = 1 << 20;
/// How often a file that changes is read.
const TRIES: u32 = 4;
/// Longest tick of the clock that files get their times from.
const TICK: std::time::Duration = std::time::Duration::from_millis(10);
/// Most pieces of a file with holes; one with more is stored with zeros in their place.
const PIECES: usize = 100_000;

/// What an archive holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured {
    pub(crate) files: u64,
    pub(crate) folders: u64,
    pub(crate) links: u64,
    pub(crate) bytes: u64,
    pub(crate) problems: Vec<Problem>,
    /// Something was not as the walk had seen it.
    pub(crate) moved_on: bool,
}

/// Why there is no archive.
pub(crate) enum Stopped {
    Cancelled,
    Io(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes the archive of what was found below a folder. Blocks.
///
/// # Errors
/// Nobody takes it any more, or it was told to stop.
pub(crate) fn capture(
    folder: &Path,
    found: &[Found],
    scanner: Option<&Scanner>,
    sink: &mut FrameSink,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Captured, Stopped> {
    let root = Root::open(folder).map_err(io::Error::from)?;
    let accounts = Accounts::of(Path::new("/"));
    let mut capture = Capture {
        root,
        accounts,
        scanner,
        sink,
        progress,
        header: Vec::new(),
        content: Vec::new(),
        first_names: HashMap::new(),
        captured: Captured::default(),
    };
    for found in found {
        if cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        capture.take(found)?;
        progress.add_items(1);
    }
    capture.sink.write(&END)?;
    Ok(capture.captured)
}

struct Capture<'a> {
    root: Root,
    accounts: Accounts,
    scanner: Option<&'a Scanner>,
    sink: &'a mut FrameSink,
    progress: &'a Progress,
    header: Vec<u8>,
    content: Vec<u8>,
    /// Where the content of a file with several names is.
    first_names: HashMap<(u64, u64), ArchivePath>,
    captured: Captured,
}

/// How reading a small file ended.
enum Small {
    Read(State, Attributes),
    Large,
    Changed(State, Attributes),
}

impl Capture<'_> {
    fn take(&mut self, found: &Found) -> Result<(), Stopped> {
        let taken = match found.state.file_type() {
            FileType::Directory => self.folder(found),
            FileType::Symlink => self.link(found),
            _ => return self.file(found),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(Refused::Errno(error)) => {
                self.refused(found, error);
                Ok(())
            }
            Err(Refused::Sink(error)) => Err(error.into()),
        }
    }

    fn refused(&mut self, found: &Found, error: Errno) {
        self.captured.moved_on = true;
        // What is another kind of thing now is not what was found either.
        let gone = matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP);
        let kind = if gone { ProblemKind::Vanished } else { ProblemKind::Unreadable };
        let reason = io::Error::from(error).to_string();
        self.captured.problems.push(Problem::new(kind, &found.path, reason));
    }

    fn attributes(
        &self,
        state: &State,
        extended: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Attributes {
        let mut attributes = Attributes {
            mode: state.raw_mode & 0o7777,
            user: state.user,
            group: state.group,
            modified: i64::try_from(state.modified.div_euclid(1_000_000_000)).unwrap_or(0),
            modified_nanos: u32::try_from(state.modified.rem_euclid(1_000_000_000)).unwrap_or(0),
            extended,
            ..Attributes::default()
        };
        self.accounts.name(&mut attributes);
        attributes
    }

    fn entry(&mut self, path: &ArchivePath, kind: EntryKind<'_>, attributes: &Attributes) -> io::Result<()> {
        self.header.clear();
        encode(&Entry { path, kind, attributes }, &mut self.header);
        self.sink.write(&self.header)
    }

    fn folder(&mut self, found: &Found) -> Result<(), Refused> {
        let open = self.root.open_folder(Some(&found.path))?;
        let state = State::of(&rustix::fs::fstat(&open)?);
        let attributes = self.attributes(&state, attributes::extended(&open)?);
        self.captured.moved_on |= !state.is_same(&found.state);
        self.entry(&found.path, EntryKind::Directory, &attributes).map_err(Refused::Sink)?;
        self.captured.folders += 1;
        Ok(())
    }

    fn link(&mut self, found: &Found) -> Result<(), Refused> {
        let parent = self.root.open_parent(&found.path)?;
        let target = rustix::fs::readlinkat(&parent, found.path.name(), Vec::new())?;
        let extended = attributes::extended_of_link(&handle_path(&parent, found.path.name()))?;
        let state = crate::files::stat_in(&parent, found.path.name())?.ok_or(Errno::NOENT)?;
        let state = State::of(&state);
        if state.file_type() != FileType::Symlink {
            return Err(Refused::Errno(Errno::NOENT));
        }
        self.captured.moved_on |= !state.is_same(&found.state);
        let mut attributes = self.attributes(&state, extended);
        attributes.mode = 0o777;
        self.entry(&found.path, EntryKind::Symlink(target.as_bytes()), &attributes).map_err(Refused::Sink)?;
        self.captured.links += 1;
        Ok(())
    }

    fn file(&mut self, found: &Found) -> Result<(), Stopped> {
        let first = self.first_names.get(&(found.state.device, found.state.inode)).cloned();
        let is_still = |stat: &rustix::fs::Stat| State::of(stat).is_same(&found.state);
        if let Some(first) = first
            && self.root.stat(&found.path).is_ok_and(|stat| stat.as_ref().is_some_and(is_still))
        {
            let attributes = self.attributes(&found.state, std::collections::BTreeMap::new());
            self.entry(&found.path, EntryKind::Hardlink(&first), &attributes)?;
            self.captured.links += 1;
            return Ok(());
        }
        for attempt in 1..=TRIES {
            let read = self.root.open_file(&found.path).and_then(|file| {
                let small = self.read_small(&file)?;
                Ok((file, small))
            });
            match read {
                Err(error) => {
                    self.refused(found, error);
                    return Ok(());
                }
                Ok((_, Small::Changed(..))) if attempt < TRIES => self.captured.moved_on = true,
                Ok((_, Small::Changed(state, attributes))) => {
                    self.problem(ProblemKind::Changed, found, "it changed each time it was read");
                    return self.store_small(found, &state, &attributes);
                }
                Ok((_, Small::Read(state, attributes))) => {
                    return self.store_small(found, &state, &attributes);
                }
                Ok((file, Small::Large)) => return self.store_large(found, File::from(file)),
            }
        }
        Ok(())
    }

    fn problem(&mut self, kind: ProblemKind, found: &Found, reason: &str) {
        self.captured.moved_on = true;
        self.captured.problems.push(Problem::new(kind, &found.path, reason));
    }

    /// Reads a file of one piece up to [`WHOLE`] into `content`.
    fn read_small(&mut self, file: &std::os::fd::OwnedFd) -> Result<Small, Errno> {
        let (before, in_flux) = settled(file)?;
        if before.file_type() != FileType::RegularFile {
            return Err(Errno::NOENT);
        }
        if before.size > WHOLE || has_holes(&before) {
            return Ok(Small::Large);
        }
        self.content.clear();
        let size = usize::try_from(before.size).unwrap_or(0);
        self.content.reserve(size + 1);
        loop {
            match rustix::io::read(file, rustix::buffer::spare_capacity(&mut self.content)) {
                Ok(0) => break,
                Ok(_) if self.content.len() > size => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        let extended = attributes::extended(file)?;
        let after = State::of(&rustix::fs::fstat(file)?);
        let attributes = self.attributes(&after, extended);
        if after.is_same(&before) && self.content.len() == size && !in_flux {
            return Ok(Small::Read(after, attributes));
        }
        Ok(Small::Changed(after, attributes))
    }

    fn store_small(&mut self, found: &Found, state: &State, attributes: &Attributes) -> Result<(), Stopped> {
        let same = state.is_same(&found.state);
        self.captured.moved_on |= !same;
        let looked_at_again = self.scanner.filter(|_| !same);
        if let Some(scanner) = looked_at_again
            && !scanner.scan(&found.path, self.content.as_slice())?.is_empty()
        {
            self.problem(ProblemKind::Withheld, found, "it became a secret after the look for secrets");
            return Ok(());
        }
        let size = self.content.len() as u64;
        self.header.clear();
        let kind = EntryKind::File(size);
        encode(&Entry { path: &found.path, kind, attributes }, &mut self.header);
        self.sink.write(&self.header)?;
        self.sink.write(&self.content)?;
        self.sink.write(&END[..padding(size)])?;
        self.stored(found, state, size);
        Ok(())
    }

    fn stored(&mut self, found: &Found, state: &State, size: u64) {
        self.captured.files += 1;
        self.captured.bytes += size;
        self.progress.add_bytes(size);
        if state.links > 1 {
            self.first_names.insert((state.device, state.inode), found.path.clone());
        }
    }

    fn store_large(&mut self, found: &Found, mut file: File) -> Result<(), Stopped> {
        let opened = settled(&file).and_then(|settled| Ok((settled, attributes::extended(&file)?)));
        let ((before, in_flux), extended) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.refused(found, error);
                return Ok(());
            }
        };
        if self.scanner.is_some() && !before.is_same(&found.state) {
            self.problem(ProblemKind::Withheld, found, "it changed after the look for secrets");
            return Ok(());
        }
        let attributes = self.attributes(&before, extended);
        let extents = if has_holes(&before) { extents(&file, before.size) } else { None };
        let whole = [Extent { offset: 0, length: before.size }];
        match &extents {
            Some(extents) => self.entry(&found.path, EntryKind::Sparse(before.size, extents), &attributes)?,
            None => self.entry(&found.path, EntryKind::File(before.size), &attributes)?,
        }
        let mut stored = 0;
        let mut torn = None;
        for extent in extents.as_deref().unwrap_or(&whole) {
            torn = torn.or(self.copy(&mut file, extent)?);
            stored += extent.length;
        }
        self.sink.write(&END[..padding(stored)])?;
        let after = rustix::fs::fstat(&file).map(|stat| State::of(&stat)).map_err(io::Error::from)?;
        match torn {
            Some(reason) => self.problem(ProblemKind::Changed, found, &reason),
            None if after.size > before.size => self.problem(
                ProblemKind::Grew,
                found,
                "it grew while it was read; what it had at the beginning is stored",
            ),
            None if in_flux || !after.is_same(&before) => {
                self.problem(ProblemKind::Changed, found, "it changed while it was read");
            }
            None => {}
        }
        self.captured.moved_on |= !before.is_same(&found.state);
        self.stored(found, &before, stored);
        Ok(())
    }

    /// Copies one piece. What cannot be read any more is filled with zeros, because its length was promised; why is told.
    fn copy(&mut self, file: &mut File, extent: &Extent) -> io::Result<Option<String>> {
        let mut left = extent.length;
        let mut torn = file.seek(SeekFrom::Start(extent.offset)).err().map(|error| error.to_string());
        self.content.resize(256 << 10, 0);
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.content.len());
            let read = match &torn {
                Some(_) => {
                    self.content[..wanted].fill(0);
                    wanted
                }
                None => match file.read(&mut self.content[..wanted]) {
                    Ok(0) => {
                        torn = Some("it became shorter while it was read".to_owned());
                        continue;
                    }
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        torn = Some(error.to_string());
                        continue;
                    }
                },
            };
            self.sink.write(&self.content[..read])?;
            left -= read as u64;
        }
        Ok(torn)
    }
}

enum Refused {
    Errno(Errno),
    Sink(io::Error),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        Self::Errno(error)
    }
}

/// What a file is, and whether it is being changed at this moment. A change in the same tick of the clock leaves the same time,
/// so one that was changed in the present tick is waited for.
fn settled(file: impl AsFd) -> Result<(State, bool), Errno> {
    let file = file.as_fd();
    for _ in 0..TRIES {
        // The clock that the system takes the times of files from.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let now = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        let state = State::of(&rustix::fs::fstat(file)?);
        // One far in the future comes from a clock that was wrong, and waiting does not help.
        if !(now..now + 1_000_000_000).contains(&state.changed) {
            return Ok((state, false));
        }
        std::thread::sleep(TICK);
    }
    Ok((State::of(&rustix::fs::fstat(file)?), true))
}

/// Whether fewer blocks are there than the size would take. Some file systems keep short files without any block.
fn has_holes(state: &State) -> bool {
    state.size > 4096 && state.blocks.saturating_mul(512) < state.size
}

/// The pieces of a file that are there. `None` where the file system does not tell, or where they are too many.
fn extents(file: &File, size: u64) -> Option<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(file, Place::Data(at)) {
            Ok(begin) if begin < size => begin,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = rustix::fs::seek(file, Place::Hole(begin)).ok()?.min(size);
        if end <= begin || extents.len() >= PIECES {
            return None;
        }
        extents.push(Extent { offset: begin, length: end - begin });
        at = end;
    }
    // A piece of nothing at the end tells other programs how large the file is.
    if extents.last().is_none_or(|last| last.offset + last.length < size) {
        extents.push(Extent { offset: size, length: 0 });
    }
    Some(extents)
}
