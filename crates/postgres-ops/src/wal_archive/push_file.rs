//! Pushes files as they lie on disk, without ever holding one in memory.
//!
//! Up to `ONE_PASS` bytes a file is read once: hashed and compressed as it is read, and only its compressed form is kept.
//! Larger segments are read twice, once for the digest that the seal begins with and once for the upload in parts.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use backstay_backup_core::key::Key;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::{Seal, SealOptions, seal_from, seal_from_then, seal_through};
use backstay_backup_core::store::{Attributes, StoreError};
use backstay_backup_core::upload::{UploadOptions, Uploader};
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::push::{MAX_TEXT, Outcome, blocking, check, refused};
use super::{PushReceipt, WalArchive, WalArchiveError};
use crate::wal::{HEADER_LENGTH, SegmentHeader, SystemId, WalError, WalFile};

/// Longest file whose compressed form is kept in memory, in bytes.
const ONE_PASS: u64 = 64 << 20;
/// Longest stored form, in bytes, that another file is compressed beside.
const LIGHT: usize = 6 << 20;
/// Bytes of a piece on its way from the compressor to an upload.
const PIECE: usize = 1 << 20;
/// Pieces that may wait for an upload.
const PIECES: usize = 2;

/// A file that was opened to be pushed.
#[derive(Debug)]
pub struct WalSource {
    name: WalFile,
    file: File,
    found: Metadata,
}

impl WalSource {
    /// Takes an open file and what it is called. Blocks for one system call.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn new(name: WalFile, file: File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { name, file, found })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> WalFile {
        self.name
    }

    /// What the file system said of it when it was opened.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.found
    }

    /// The header of a segment; `None` of other files. Blocks for one read.
    ///
    /// # Errors
    /// The file cannot be read, or is no segment.
    pub fn header(&self) -> Result<Option<SegmentHeader>, WalArchiveError> {
        if !matches!(self.name, WalFile::Segment(_) | WalFile::Partial(_)) {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_LENGTH];
        let length = self.found.len().min(HEADER_LENGTH as u64) as usize;
        let read = self.file.read_exact_at(&mut bytes[..length], 0);
        let object = self.name.to_string();
        read.map_err(|source| backstay_backup_core::Error::Source { object, source })?;
        let header = SegmentHeader::parse(&bytes[..length]);
        header.map(Some).map_err(|source| WalArchiveError::Content { file: self.name, source })
    }

    /// Whether it is compressed on its way, in two passes.
    fn is_large(&self) -> bool {
        self.found.len() > ONE_PASS
    }

    /// Whether nobody wrote to it since it was opened.
    fn is_unchanged(&self) -> io::Result<()> {
        let now = self.file.metadata()?;
        let facts = |of: &Metadata| (of.len(), of.mtime(), of.mtime_nsec());
        if facts(&now) == facts(&self.found) {
            return Ok(());
        }
        Err(io::Error::other("the file changed while it was read"))
    }
}

/// A file that is ready to be stored: checked, and compressed unless it is a large one.
#[derive(Debug)]
pub struct PreparedFile {
    name: WalFile,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// What is stored, and the turn to compress of whatever hardly compresses.
    Sealed { seal: Seal, stored: Bytes, _turn: Option<OwnedSemaphorePermit> },
    /// Compressed on its way to the repositories.
    Large(WalSource),
}

/// Checks a file of the log of `system` and compresses it, for [`WalArchive::push_prepared`]. It needs no repository, so
/// these may be opened meanwhile. Holds the compressed form of files up to 64 MiB.
///
/// # Errors
/// The file is not what its name says, cannot be read, or changes while it is read.
///
/// # Cancel safety
/// A dropped call leaves nothing behind; its thread ends when the file is compressed.
pub async fn prepare(
    source: WalSource,
    system: SystemId,
    options: &SealOptions,
) -> Result<PreparedFile, WalArchiveError> {
    prepare_in_turn(source, system, options, None).await
}

/// As [`prepare`], with a place among those that compress.
async fn prepare_in_turn(
    source: WalSource,
    system: SystemId,
    options: &SealOptions,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<PreparedFile, WalArchiveError> {
    let name = source.name;
    let refuse = |source| WalArchiveError::Content { file: name, source };
    let length = source.found.len();
    match name {
        WalFile::Segment(segment) | WalFile::Partial(segment) => {
            let header = source.header()?.expect("segments have headers");
            header.check(segment, length, system).map_err(refuse)?;
        }
        WalFile::History(_) | WalFile::Backup(..) if length > MAX_TEXT => {
            return Err(refuse(WalError::NotWal { what: "it is not a short text" }));
        }
        WalFile::History(_) | WalFile::Backup(..) => {}
    }
    let form = if source.is_large() {
        Form::Large(source)
    } else {
        sealed(source, system, options.clone(), turn).await?
    };
    Ok(PreparedFile { name, form })
}

/// Reads a file once: hashes and compresses it.
async fn sealed(
    source: WalSource,
    system: SystemId,
    options: SealOptions,
    mut turn: Option<OwnedSemaphorePermit>,
) -> Result<Form, WalArchiveError> {
    let name = source.name;
    let is_text = matches!(name, WalFile::History(_) | WalFile::Backup(..));
    let sealed = blocking(name, move || {
        let mut reader = FromStart::of(&source);
        let mut text = Vec::new();
        let sealed = if is_text {
            reader.read_to_end(&mut text)?;
            seal_from(&text[..], &options)?
        } else {
            // What hardly compresses is stored before the next one is compressed: two at once are too much memory.
            let at_end = |stored| drop(turn.take_if(|_| stored <= LIGHT));
            seal_from_then(&mut reader, &options, at_end)?
        };
        source.is_unchanged()?;
        Ok((sealed, text, turn))
    });
    let ((seal, stored), text, turn) = sealed.await?;
    if is_text {
        check(name, &text, system).map_err(|source| WalArchiveError::Content { file: name, source })?;
    }
    Ok(Form::Sealed { seal, stored, _turn: turn })
}

impl WalArchive {
    /// Archives one file as [`WalArchive::push`] does, in bounded memory: the compressed form of files up to 64 MiB, and
    /// some 25 MiB for each repository beyond that.
    ///
    /// # Errors
    /// Any [`WalArchiveError`]; a file that changes while it is read is never acknowledged.
    ///
    /// # Cancel safety
    /// As [`WalArchive::push`].
    pub async fn push_file(&self, source: WalSource) -> Result<PushReceipt, WalArchiveError> {
        let turn = if source.is_large() { None } else { self.turn().await };
        let prepared = prepare_in_turn(source, self.system(), self.sealing(), turn).await?;
        self.push_prepared(prepared).await
    }

    /// Archives a file that was prepared for this system, with the options of this archive.
    ///
    /// # Errors
    /// As [`WalArchive::push_file`].
    ///
    /// # Cancel safety
    /// As [`WalArchive::push`].
    pub async fn push_prepared(&self, file: PreparedFile) -> Result<PushReceipt, WalArchiveError> {
        let name = file.name;
        match file.form {
            Form::Sealed { seal, stored, _turn } => self.store(name, seal, stored).await,
            Form::Large(source) => self.push_large(source).await,
        }
    }

    async fn push_large(&self, source: WalSource) -> Result<PushReceipt, WalArchiveError> {
        let _turn = self.turn().await;
        let name = source.name;
        let source = Arc::new(source);
        let first = source.clone();
        let seal = blocking(name, move || Seal::of_reader(FromStart::of(&first))).await?;
        let key = self.key(name)?;
        let members = self.repositories().members();
        let uploads = members
            .iter()
            .map(|repository| stream(repository, &key, source.clone(), seal, self.sealing().clone()));
        self.receipt(name, seal, join_all(uploads).await)
    }
}

/// Uploads one file into one repository, in parts.
async fn stream(
    repository: &Repository,
    key: &Key,
    source: Arc<WalSource>,
    seal: Seal,
    options: SealOptions,
) -> Result<Outcome, WalArchiveError> {
    let name = source.name;
    // A conflict, or the same again, is found before hundreds of megabytes are sent.
    if repository.store().head(key).await.is_ok() {
        let there = StoreError::AlreadyExists { key: key.clone() };
        return refused(repository, key, name, seal, there).await;
    }
    let (pieces, mut arriving) = mpsc::channel(PIECES);
    let reading = blocking(name, move || {
        let mut output = Pieces { buffer: BytesMut::new(), pieces };
        seal_through(seal, FromStart::of(&source), &options, &mut output)?;
        source.is_unchanged()?;
        output.flush()
    });
    let attributes = Attributes::default();
    let mut upload =
        Uploader::new(repository.store().clone(), key.clone(), attributes, UploadOptions::default());
    // Moved in, so that an upload that breaks closes the channel, and the reader stops.
    let storing = async move {
        while let Some(piece) = arriving.recv().await {
            upload.write(piece).await?;
        }
        Ok::<_, StoreError>(upload)
    };
    let (read, stored) = tokio::join!(reading, storing);
    let stored = match (read, stored) {
        (Ok(()), Ok(upload)) => upload.finish().await,
        (Err(error), Ok(upload)) => {
            upload.abort().await;
            return Err(error.into());
        }
        (_, Err(error)) => Err(error),
    };
    match stored {
        Ok(_) => Ok(Outcome::Stored),
        Err(error) => refused(repository, key, name, seal, error).await,
    }
}

/// Reads a file from its beginning, whoever else reads it.
struct FromStart<'a> {
    source: &'a WalSource,
    at: u64,
}

impl<'a> FromStart<'a> {
    fn of(source: &'a WalSource) -> Self {
        Self { source, at: 0 }
    }
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Collects small writes and hands them on.
struct Pieces {
    buffer: BytesMut,
    pieces: mpsc::Sender<Bytes>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = self.buffer.split().freeze();
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload ended early");
        if piece.is_empty() { Ok(()) } else { self.pieces.blocking_send(piece).map_err(gone) }
    }
}
