//! Fetches files straight to disk, without ever holding one in memory.
//!
//! ```text
//! repository ─ pieces ─▶ age ─ hash ─ zstd ─▶ file without its name ─ header fits? end fits? ─ fsync ─▶ the caller's rename
//! ```
//!
//! What is written is worth nothing until [`WalArchive::fetch_file`] returns it; then it is proven and, unless the
//! [`OpenTarget`] says that somebody else sees to that, durable.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::key::Key;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::{SealError, UnsealError, unseal_through};
use backstay_backup_core::store::{GetResult, StoreError};
use bytes::{Buf, Bytes};
use futures::{TryStreamExt, join};
use tokio::sync::mpsc;

use super::fetch::{Skipped, open_object};
use super::{WalArchive, WalArchiveError};
use crate::wal::{HEADER_LENGTH, Segment, SegmentHeader, SystemId, WalError, WalFile};

/// Pieces that may wait to be decoded. With what a store reads ahead, four or five of at most 1 MiB are in memory.
const PIECES: usize = 1;
/// Longest segment.
const LONGEST: u64 = 1 << 30;

/// Opens what a copy is written to: empty, for writing, and written to by nobody else. Called once for every copy that
/// is tried; blocks.
#[derive(Clone)]
pub struct OpenTarget {
    open: Arc<dyn Fn() -> io::Result<File> + Send + Sync>,
    is_synced: bool,
}

impl OpenTarget {
    /// A target whose content is durable before it is returned.
    #[must_use]
    pub fn new(open: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open), is_synced: true }
    }

    /// Leaves it to the caller, or to whoever gets the file, to make the content durable: for what is worth nothing
    /// after a crash, and for what its reader syncs anyway.
    #[must_use]
    pub fn without_sync(mut self) -> Self {
        self.is_synced = false;
        self
    }

    fn make_durable(&self, file: &File) -> io::Result<()> {
        if self.is_synced { file.sync_all() } else { Ok(()) }
    }
}

impl fmt::Debug for OpenTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTarget").field("is_synced", &self.is_synced).finish_non_exhaustive()
    }
}

/// A file that was fetched: proven, durable unless its target says otherwise, and still without its name.
#[derive(Debug)]
#[non_exhaustive]
pub struct FetchedFile {
    /// What the target was opened as, with all of the content.
    pub file: File,
    /// Its length in bytes.
    pub length: u64,
}

/// What is told to the decoder when a store breaks off, so that it does not take that for the end.
#[derive(Debug)]
struct Broken;

impl WalArchive {
    /// Reads one file, proves it, and writes it to what `target` opens; `None` when it is proven to be absent. Returns
    /// when the content is as durable as the target asks for. Holds some 8 MiB in memory, whatever the size of the file.
    ///
    /// # Errors
    /// As [`WalArchive::fetch`], and [`WalArchiveError::Target`].
    ///
    /// # Cancel safety
    /// A dropped call leaves a target that may still be written to for a moment.
    pub async fn fetch_file(
        &self,
        file: WalFile,
        identities: &Identities,
        target: &OpenTarget,
    ) -> Result<Option<FetchedFile>, WalArchiveError> {
        let (finding, proving) =
            (self.find_file(file, identities, target), self.prove_absence(file, identities));
        if !self.is_expected(file) {
            // Asked at the same time. What both find, it would have found at the moment of the first.
            let (found, absence) = join!(finding, proving);
            return match found? {
                Some(fetched) => Ok(Some(fetched)),
                None => absence.map(|()| None),
            };
        }
        match finding.await? {
            Some(fetched) => Ok(Some(fetched)),
            None => proving.await.map(|()| None),
        }
    }

    /// As [`WalArchive::fetch_file`], and `None` is no proof, as in [`WalArchive::find`].
    ///
    /// # Errors
    /// As [`WalArchive::fetch_file`], without the proof's.
    ///
    /// # Cancel safety
    /// As [`WalArchive::fetch_file`].
    pub async fn find_file(
        &self,
        file: WalFile,
        identities: &Identities,
        target: &OpenTarget,
    ) -> Result<Option<FetchedFile>, WalArchiveError> {
        let (WalFile::Segment(segment) | WalFile::Partial(segment)) = file else {
            return self.find_text(file, identities, target).await;
        };
        let key = self.key(file)?;
        let job = Job { file, segment, system: self.system(), identities, target };
        let mut skipped = Skipped::of(file);
        for repository in self.repositories().members() {
            match read_segment(repository, &key, &job).await {
                Ok(Some(fetched)) => return Ok(Some(fetched)),
                Ok(None) => {}
                // Another copy would not fit there either.
                Err(error @ WalArchiveError::Target { .. }) => return Err(error),
                Err(error) => skipped.add(repository, error),
            }
        }
        skipped.none()
    }

    /// Texts are short, and what they must be is seen of the whole.
    async fn find_text(
        &self,
        file: WalFile,
        identities: &Identities,
        target: &OpenTarget,
    ) -> Result<Option<FetchedFile>, WalArchiveError> {
        let Some(content) = self.find(file, identities).await? else { return Ok(None) };
        let target = target.clone();
        let writing = move || {
            let mut output = (target.open)()?;
            output.write_all(&content)?;
            target.make_durable(&output)?;
            Ok(FetchedFile { file: output, length: content.len() as u64 })
        };
        let written = tokio::task::spawn_blocking(writing).await;
        let written = written.map_err(|error| CoreError::Internal { what: error.to_string() })?;
        written.map(Some).map_err(|source| WalArchiveError::Target { file, source })
    }
}

/// What is wanted, and where.
struct Job<'a> {
    file: WalFile,
    segment: Segment,
    system: SystemId,
    identities: &'a Identities,
    target: &'a OpenTarget,
}

/// One copy; `None` when this repository proved that it has none.
async fn read_segment(
    repository: &Repository,
    key: &Key,
    job: &Job<'_>,
) -> Result<Option<FetchedFile>, WalArchiveError> {
    let Some(object) = open_object(repository, key).await? else { return Ok(None) };
    let (sender, receiver) = mpsc::channel(PIECES);
    let (target, identities) = (job.target.clone(), job.identities.clone());
    let (segment, system) = (job.segment, job.system);
    let pieces = Pieces { receiver, current: Bytes::new() };
    let writing = tokio::task::spawn_blocking(move || write(&target, pieces, &identities, (segment, system)));
    let (fed, written) = tokio::join!(feed(object, sender), writing);
    let written = written.map_err(|error| CoreError::Internal { what: error.to_string() })?;
    let file = job.file;
    match (written, fed) {
        (Err(Trouble::Target(source)), _) => Err(WalArchiveError::Target { file, source }),
        (_, Err(source)) => Err(repository.failed("read WAL", source).into()),
        (Err(Trouble::Content(source)), _) => Err(WalArchiveError::Content { file, source }),
        (Err(Trouble::Object(source)), _) => {
            Err(WalArchiveError::Damaged { file, repository: repository.name().to_owned(), source })
        }
        (Ok(fetched), Ok(())) => Ok(Some(fetched)),
    }
}

/// Hands on what a store gives, until it ends or nobody wants more.
async fn feed(mut object: GetResult, sender: mpsc::Sender<Result<Bytes, Broken>>) -> Result<(), StoreError> {
    loop {
        let piece = match object.body.try_next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(()),
            Err(error) => {
                // Who is gone has found a reason of its own.
                let _ = sender.send(Err(Broken)).await;
                return Err(error);
            }
        };
        if sender.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
}

/// Why a copy was not written.
enum Trouble {
    Target(io::Error),
    Object(SealError),
    Content(WalError),
}

/// Decodes a segment into the target, proves it, and makes it durable if the target wants that. Blocks.
fn write(
    target: &OpenTarget,
    stored: Pieces,
    identities: &Identities,
    (segment, system): (Segment, SystemId),
) -> Result<FetchedFile, Trouble> {
    let mut output = Output { file: (target.open)().map_err(Trouble::Target)?, beginning: Vec::new() };
    let unsealed = unseal_through(stored, identities, LONGEST, &mut output);
    let seal = unsealed.map_err(|error| match error {
        UnsealError::Output { source } => Trouble::Target(source),
        UnsealError::Object(source) => Trouble::Object(source),
        other => Trouble::Object(SealError::Damaged { problem: other.to_string() }),
    })?;
    let header = SegmentHeader::parse(&output.beginning);
    let checked = header.and_then(|header| header.check(segment, seal.length, system));
    checked.map_err(Trouble::Content)?;
    target.make_durable(&output.file).map_err(Trouble::Target)?;
    Ok(FetchedFile { file: output.file, length: seal.length })
}

/// The target; what it begins with is kept for a look at the header.
struct Output {
    file: File,
    beginning: Vec<u8>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let missing = HEADER_LENGTH.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&bytes[..written.min(missing)]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pieces of an object as a blocking reader; ends when the store said so, and fails when it broke off.
struct Pieces {
    receiver: mpsc::Receiver<Result<Bytes, Broken>>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(Broken)) => return Err(io::ErrorKind::BrokenPipe.into()),
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
