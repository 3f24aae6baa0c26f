//! Writes the files of a restore into the staging folder: snapshot, cut stream, manifest; each synced.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::object_reader;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::cut::{CutError, CutReport, StreamCutter};
use super::error::RestoreError;
use super::place::Owner;
use super::snapshots::StoredSnapshot;
use super::swap::{make_file, make_folder, sync_folder};
use super::synced::SyncedFile;
use super::ttl::{TtlChange, TtlPolicy};
use crate::Offset;
use crate::archive::StreamReader;
use crate::rdb::{Expiries, RdbError, ShiftExpires};
use crate::resp::StreamState;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// What all steps need.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) repositories: Repositories,
    pub(super) identities: Identities,
    pub(super) owner: Option<Owner>,
    pub(super) change: TtlChange,
    pub(super) progress: Progress,
    pub(super) cancel: CancellationToken,
}

/// The files of append-only data, for servers that replay.
#[derive(Clone, Debug)]
pub(super) struct AppendFiles {
    pub(super) base: PathBuf,
    /// Where the stream goes: a file of its own, or the end of the base.
    pub(super) stream: PathBuf,
    /// The manifest and its content, for version 7 and newer.
    pub(super) manifest: Option<(PathBuf, String)>,
}

impl AppendFiles {
    /// In a folder, for version 7 and newer.
    pub(super) fn multi_part(folder: &Path, name: &str, has_stream: bool) -> Self {
        let (base, stream) = (format!("{name}.1.base.rdb"), format!("{name}.1.incr.aof"));
        let mut manifest = format!("file {base} seq 1 type b\n");
        if has_stream {
            manifest.push_str(&format!("file {stream} seq 1 type i\n"));
        }
        Self {
            base: folder.join(base),
            stream: folder.join(stream),
            manifest: Some((folder.join(format!("{name}.manifest")), manifest)),
        }
    }

    /// One file, for older versions.
    pub(super) fn single(file: &Path) -> Self {
        Self { base: file.to_owned(), stream: file.to_owned(), manifest: None }
    }
}

impl Work {
    /// Writes the snapshot; gives its length.
    pub(super) async fn snapshot(&self, snapshot: &StoredSnapshot, path: &Path) -> Result<u64, RestoreError> {
        let reader = self.repositories.open_object(&snapshot.manifest, &snapshot.entry, &self.identities)?;
        let (work, path) = (self.clone(), path.to_owned());
        let what = format!("the snapshot of set {}", snapshot.manifest.set);
        self.progress.begin("restoring the snapshot");
        self.progress.expect_bytes(snapshot.entry.plain);
        blocking(move || {
            let file = make_file(&path, work.owner)?;
            let mut output = SyncedFile::new(file).map_err(RestoreError::io("write", &path))?;
            let length = work.copy(reader, &mut output, &what, &path)?;
            output.finish().map_err(RestoreError::io("write", &path))?;
            Ok(length)
        })
        .await
    }

    fn copy(
        &self,
        mut input: impl Read,
        output: &mut impl Write,
        what: &str,
        path: &Path,
    ) -> Result<u64, RestoreError> {
        let mut shift = match self.change.policy() {
            TtlPolicy::Keep => None,
            TtlPolicy::Shift => Some(ShiftExpires::new(Expiries::Shift(self.change.shift_millis()))),
            TtlPolicy::Strip => Some(ShiftExpires::new(Expiries::StripAfter(self.change.target_millis()))),
        };
        let damaged = |error: RdbError| RestoreError::content(what, error.to_string());
        let write = |output: &mut dyn Write, bytes: &[u8]| {
            output.write_all(bytes).map_err(RestoreError::io("write", path))?;
            Ok::<_, RestoreError>(bytes.len() as u64)
        };
        let (mut buffer, mut rewritten, mut length) = (vec![0; CHUNK], Vec::new(), 0);
        loop {
            if self.cancel.is_cancelled() {
                return Err(CoreError::Cancelled.into());
            }
            let read = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(what, error)),
            };
            self.progress.add_bytes(read as u64);
            match &mut shift {
                None => length += write(output, &buffer[..read])?,
                Some(shift) => {
                    rewritten.clear();
                    shift.push(&buffer[..read], &mut rewritten).map_err(damaged)?;
                    length += write(output, &rewritten)?;
                }
            }
        }
        if let Some(shift) = shift {
            rewritten.clear();
            shift.finish(&mut rewritten).map_err(damaged)?;
            length += write(output, &rewritten)?;
        }
        Ok(length)
    }

    /// Writes the stream up to an offset, behind what is in the file already. `received` gives for an offset when the bytes
    /// there arrived, in milliseconds; only servers before version 7 need it.
    pub(super) async fn stream(
        &self,
        mut reader: StreamReader,
        (start, state, until): (Offset, StreamState, Offset),
        path: &Path,
        received: impl Fn(Offset) -> i64,
    ) -> Result<CutReport, RestoreError> {
        let owner = self.owner;
        let file = if path.exists() {
            File::options().append(true).open(path).map_err(RestoreError::io("open", path))?
        } else {
            make_file(path, owner)?
        };
        let before = file.metadata().map_err(RestoreError::io("look at", path))?.len();
        let output = BufWriter::with_capacity(CHUNK, file);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error: CutError| cut_error(error, &path)
        };
        let mut cutter = StreamCutter::new(output, start, state, until, self.change).map_err(failed(path))?;
        self.progress.begin("restoring the stream");
        self.progress.expect_bytes(until.since(start));
        loop {
            if self.cancel.is_cancelled() {
                return Err(CoreError::Cancelled.into());
            }
            let Some(bytes) = reader.next().await? else { break };
            let at = received(cutter.offset());
            self.progress.add_bytes(bytes.len() as u64);
            let place = path.to_owned();
            cutter = blocking(move || {
                cutter.feed(&bytes, at).map_err(|error| cut_error(error, &place))?;
                Ok(cutter)
            })
            .await?;
        }
        let (output, report) = cutter.finish().map_err(failed(path))?;
        let (place, length) = (path.to_owned(), before + report.length);
        blocking(move || {
            let file =
                output.into_inner().map_err(|error| RestoreError::io("write", &place)(error.into_error()))?;
            file.set_len(length).and_then(|()| file.sync_all()).map_err(RestoreError::io("sync", &place))
        })
        .await?;
        Ok(report)
    }

    /// Writes the manifest of append-only files, last of all, and syncs their folder.
    pub(super) fn manifest(&self, files: &AppendFiles) -> Result<(), RestoreError> {
        if let Some((path, content)) = &files.manifest {
            let mut file = make_file(path, self.owner)?;
            let written = file.write_all(content.as_bytes()).and_then(|()| file.sync_all());
            written.map_err(RestoreError::io("write", path))?;
        }
        sync_folder(files.base.parent().unwrap_or(Path::new("/")))
    }

    /// Makes a folder of append-only files.
    pub(super) fn folder(&self, path: &Path) -> Result<(), RestoreError> {
        make_folder(path, self.owner)
    }
}

fn cut_error(error: CutError, path: &Path) -> RestoreError {
    match error {
        CutError::Stream { source } => RestoreError::content("the archived stream", source.to_string()),
        CutError::Write { source } => RestoreError::io("write", path)(source),
    }
}

/// Errors of the repository travel inside those of reading.
fn read_error(what: &str, error: io::Error) -> RestoreError {
    match object_reader::into_error(error) {
        Ok(error) => error.into(),
        Err(error) => RestoreError::content(what, error.to_string()),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    spawn_blocking(work).await.map_err(|error| RestoreError::lost_thread(&error))?
}
