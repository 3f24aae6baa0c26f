//! Reads the files of a cluster into packs: the blocking half of a backup.
//!
//! Several readers take files from one list, each into a pack of its own, until the pack is long enough. A file is
//! opened before its header is written, so one that vanished leaves no trace; then exactly as many bytes as its header
//! says are stored, whatever becomes of it: what it grows by is ignored, what it is cut off by is filled up with zeros.
//! Both is what PostgreSQL's own base backup does, and WAL puts it right.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backstay_backup_core::progress::Progress;

use super::corruption::{Corruption, read_again};
use super::digest::{FileDigest, Pages};
use super::error::BackupError;
use super::frames::FrameWriter;
use super::ledger::Ledger;
use super::pace::Pace;
use super::tar::{END, Entry, EntryKind, Owner, padding};
use crate::physical::scan::{Scan, ScannedFile};
use crate::physical::{ClusterPath, ControlFile, IndexFile};

/// What a pack aims at when it is stored, in bytes.
const STORED_TARGET: u64 = 64 << 20;
/// Shortest and longest plain content that a pack aims at.
const PLAIN_TARGET: (u64, u64) = (256 << 20, 4 << 30);

/// Zeros for what a file was cut off by.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What the readers of one backup share.
#[derive(Debug)]
pub(super) struct Copying {
    pub(super) scan: Scan,
    pub(super) control: ControlFile,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) corruption: Mutex<Corruption>,
    pub(super) pace: Pace,
    pub(super) progress: Progress,
    /// Whether the checksums of pages are checked.
    pub(super) check_pages: bool,
    next: AtomicUsize,
    /// Bytes read and bytes stored by the packs that are finished.
    plain: AtomicU64,
    stored: AtomicU64,
}

/// A pack that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilledPack {
    /// Bytes of the tar stream.
    pub(super) plain: u64,
}

impl Copying {
    pub(super) fn new(scan: Scan, control: ControlFile, ledger: Ledger, progress: Progress) -> Self {
        Self {
            scan,
            control,
            ledger: Mutex::new(ledger),
            corruption: Mutex::default(),
            pace: Pace::new(None),
            progress,
            check_pages: true,
            next: AtomicUsize::new(0),
            plain: AtomicU64::new(0),
            stored: AtomicU64::new(0),
        }
    }

    /// Takes the next file of the list for one of the readers.
    pub(super) fn claim(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number < self.scan.len() { Some(number) } else { None }
    }

    /// Notes how well a pack compressed, for the length of those to come.
    pub(super) fn note_stored(&self, plain: u64, stored: u64) {
        self.plain.fetch_add(plain, Ordering::Relaxed);
        self.stored.fetch_add(stored, Ordering::Relaxed);
    }

    /// Fills a pack with `first` and the files after it that no other reader takes. Blocks.
    pub(super) fn fill(
        &self,
        pack: u32,
        first: usize,
        mut out: FrameWriter,
    ) -> Result<FilledPack, BackupError> {
        match self.write_files(pack, first, &mut out) {
            Ok(()) => {
                let plain = out.position();
                out.finish().map_err(BackupError::sending)?;
                Ok(FilledPack { plain })
            }
            Err(error) => {
                out.fail();
                Err(error)
            }
        }
    }

    fn write_files(&self, pack: u32, first: usize, out: &mut FrameWriter) -> Result<(), BackupError> {
        if pack == 1 {
            self.write_directories(out)?;
        }
        let target = pack_target(self.plain.load(Ordering::Relaxed), self.stored.load(Ordering::Relaxed));
        let mut next = Some(first);
        while let Some(number) = next {
            if let Some(file) = self.scan.file(number) {
                self.copy(pack, &file, out)?;
            }
            next = if out.position() < target { self.claim() } else { None };
        }
        out.write_all(&END).map_err(BackupError::sending)
    }

    fn write_directories(&self, out: &mut FrameWriter) -> Result<(), BackupError> {
        let owner =
            std::fs::metadata(self.scan.root()).map_or(Owner { user: 0, group: 0 }, |meta| Owner::of(&meta));
        for directory in self.scan.directories() {
            let Some(path) = directory.path()? else { continue };
            let entry = Entry {
                path: path.as_bytes(),
                kind: EntryKind::Directory,
                size: 0,
                mode: directory.mode,
                modified: 0,
                owner,
            };
            out.write_all(&entry.header()).map_err(BackupError::sending)?;
            self.ledger().directory(path, directory.mode).map_err(BackupError::sending)?;
        }
        Ok(())
    }

    /// Copies a file, unless it has vanished.
    fn copy(&self, pack: u32, listed: &ScannedFile<'_>, out: &mut FrameWriter) -> Result<(), BackupError> {
        let location = listed.location();
        let opened = File::open(&location).and_then(|file| file.metadata().map(|meta| (file, meta)));
        let (file, meta) = match opened {
            Ok((file, meta)) if meta.is_file() => (file, meta),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(BackupError::Read { path: location, source }),
        };
        let source =
            Source { file, meta, location, path: listed.path()?, first_page: self.first_page(listed) };
        self.progress.add_items(1);
        self.store(pack, &source, out)
    }

    fn store(&self, pack: u32, source: &Source, out: &mut FrameWriter) -> Result<(), BackupError> {
        let size = source.meta.len();
        let entry = source.entry(size);
        out.write_all(&entry.header()).map_err(BackupError::sending)?;
        let at = out.position();
        let pages = source.first_page.map(|first| Pages::new(self.control.block_size, first));
        let mut digest = FileDigest::new(pages);
        let copied = self.pump(source, size, &mut digest, out)?;
        let mut missing = size - copied;
        while missing > 0 {
            let zeros = &ZEROS[..usize::try_from(missing).map_or(ZEROS.len(), |left| left.min(ZEROS.len()))];
            digest.update(zeros);
            out.write_all(zeros).map_err(BackupError::sending)?;
            missing -= zeros.len() as u64;
        }
        out.write_all(&ZEROS[..padding(size)]).map_err(BackupError::sending)?;
        let (crc, blocks, suspects) = digest.finish();
        if let Some(first) = source.first_page.filter(|_| !suspects.is_empty()) {
            let wrong = read_again(&source.file, self.control.block_size, first, &suspects);
            self.corruption.lock().unwrap_or_else(PoisonError::into_inner).add(&source.path, wrong);
        }
        let (path, mode, modified) = (source.path.clone(), entry.mode, entry.modified);
        let file = IndexFile { path, pack, at, size, mode, modified, blocks };
        self.ledger().file(file, crc).map_err(BackupError::sending)
    }

    /// Moves at most `size` bytes; returns how many there were.
    fn pump(
        &self,
        source: &Source,
        size: u64,
        digest: &mut FileDigest,
        out: &mut FrameWriter,
    ) -> Result<u64, BackupError> {
        let mut offset = 0;
        while offset < size {
            if out.is_closed() {
                return Err(BackupError::Unwanted);
            }
            let bytes = out.read_from(&source.file, offset, size - offset).map_err(|error| {
                let path = source.location.clone();
                BackupError::reading(path, error)
            })?;
            if bytes.is_empty() {
                break;
            }
            digest.update(bytes);
            let read = bytes.len() as u64;
            offset += read;
            self.progress.add_bytes(read);
            self.pace.wait(read, || out.is_closed());
        }
        Ok(offset)
    }

    /// Number of a file's first page in its fork, when its pages have checksums that are to be checked.
    fn first_page(&self, file: &ScannedFile<'_>) -> Option<u32> {
        if !self.check_pages || self.control.checksum_version == 0 {
            return None;
        }
        file.relation()?.segment.checked_mul(self.control.relation_segment)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is open.
struct Source {
    file: File,
    meta: Metadata,
    location: PathBuf,
    path: ClusterPath,
    first_page: Option<u32>,
}

impl Source {
    fn entry(&self, size: u64) -> Entry<'_> {
        Entry {
            path: self.path.as_bytes(),
            kind: EntryKind::File,
            size,
            mode: self.meta.mode() & 0o7777,
            modified: self.meta.mtime(),
            owner: Owner::of(&self.meta),
        }
    }
}

/// How long a pack is to be, after packs of `plain` bytes became `stored` bytes.
fn pack_target(plain: u64, stored: u64) -> u64 {
    let (shortest, longest) = PLAIN_TARGET;
    let expected = u128::from(STORED_TARGET) * u128::from(plain) / u128::from(stored.max(1));
    u64::try_from(expected).unwrap_or(u64::MAX).clamp(shortest, longest)
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
