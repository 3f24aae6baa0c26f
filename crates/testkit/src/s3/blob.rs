//! Object bytes: written once while they arrive, read in large pieces, kept in memory or in files.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures::stream;
use s3s::dto::StreamingBlob;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Size of the pieces memory objects are kept in and replies are sent in.
const PIECE: usize = 1024 * 1024;
/// Pieces read ahead of a slow client.
const READ_AHEAD: usize = 2;
/// Collects small chunks of the network into larger writes.
const WRITE_BUFFER: usize = 256 * 1024;

/// A data file; unlinked with its last user once nothing refers to it any more.
#[derive(Debug)]
pub(super) struct BlobFile {
    path: PathBuf,
    doomed: AtomicBool,
}

impl BlobFile {
    fn new(path: PathBuf, doomed: bool) -> Arc<Self> {
        Arc::new(Self { path, doomed: AtomicBool::new(doomed) })
    }
}

impl Drop for BlobFile {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a data file");
        }
    }
}

#[derive(Clone, Debug, Default)]
enum Data {
    /// Read from the journal, not yet connected to its file.
    #[default]
    Unattached,
    Memory(Arc<Vec<Bytes>>),
    File(Arc<BlobFile>),
}

/// A run of bytes: a whole object or one part of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Segment {
    name: String,
    pub(super) len: u64,
    #[serde(skip)]
    data: Data,
}

impl Segment {
    /// Connects a segment read from the journal to its file; `None` when the file does not fit.
    pub(super) fn attach(&mut self, folder: &Path) -> Option<&str> {
        let path = folder.join(&self.name);
        let fits = path.metadata().is_ok_and(|found| found.is_file() && found.len() == self.len);
        self.data = Data::File(BlobFile::new(path, false));
        fits.then_some(self.name.as_str())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Keeps the bytes beyond the life of this value.
    pub(super) fn keep(&self) {
        self.mark(false);
    }

    /// Removes the bytes as soon as nobody reads them.
    pub(super) fn discard(&self) {
        self.mark(true);
    }

    fn mark(&self, doomed: bool) {
        if let Data::File(file) = &self.data {
            file.doomed.store(doomed, Ordering::Release);
        }
    }
}

/// Receives the bytes of one segment; what is not finished and kept disappears.
pub(super) struct BlobWriter {
    name: String,
    len: u64,
    target: Target,
}

enum Target {
    Memory { done: Vec<Bytes>, current: BytesMut, expected: u64 },
    File { output: BufWriter<File>, file: Arc<BlobFile> },
}

impl BlobWriter {
    pub(super) fn memory(name: String, expected: u64) -> Self {
        Self { name, len: 0, target: Target::Memory { done: Vec::new(), current: BytesMut::new(), expected } }
    }

    pub(super) fn file(name: String, folder: &Path) -> io::Result<Self> {
        let path = folder.join(&name);
        let output = BufWriter::with_capacity(WRITE_BUFFER, File::create_new(&path)?);
        Ok(Self { name, len: 0, target: Target::File { output, file: BlobFile::new(path, true) } })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn write(&mut self, mut chunk: &[u8]) -> io::Result<()> {
        self.len += chunk.len() as u64;
        match &mut self.target {
            Target::File { output, .. } => output.write_all(chunk),
            Target::Memory { done, current, expected } => {
                while !chunk.is_empty() {
                    if current.capacity() == current.len() {
                        if !current.is_empty() {
                            done.push(std::mem::take(current).freeze());
                        }
                        let missing = usize::try_from(*expected).unwrap_or(PIECE).max(chunk.len());
                        current.reserve(missing.clamp(1, PIECE));
                    }
                    let (now, later) = chunk.split_at(chunk.len().min(current.capacity() - current.len()));
                    current.extend_from_slice(now);
                    *expected = expected.saturating_sub(now.len() as u64);
                    chunk = later;
                }
                Ok(())
            }
        }
    }

    pub(super) fn finish(self) -> io::Result<Segment> {
        let data = match self.target {
            Target::Memory { mut done, current, .. } => {
                if !current.is_empty() {
                    done.push(current.freeze());
                }
                Data::Memory(Arc::new(done))
            }
            Target::File { mut output, file } => {
                output.flush()?;
                Data::File(file)
            }
        };
        Ok(Segment { name: self.name, len: self.len, data })
    }
}

/// A piece of an object still to be sent.
enum Source {
    Memory(Bytes),
    File { file: Arc<BlobFile>, offset: u64, len: u64 },
}

/// Streams `range` of the object made of `segments`; must be called within a tokio runtime.
pub(super) fn stream(segments: &[Segment], range: Range<u64>) -> StreamingBlob {
    let sources = select(segments, range);
    if sources.iter().all(|source| matches!(source, Source::Memory(_))) {
        let pieces = sources.into_iter().filter_map(|source| match source {
            Source::Memory(bytes) => Some(Ok::<_, io::Error>(bytes)),
            Source::File { .. } => None,
        });
        return StreamingBlob::wrap(stream::iter(pieces.collect::<Vec<_>>()));
    }
    let (sender, mut receiver) = mpsc::channel(READ_AHEAD);
    // Ends by itself when the client goes away: the next send fails.
    tokio::task::spawn_blocking(move || read_into(sources, &sender));
    StreamingBlob::wrap(stream::poll_fn(move |context| receiver.poll_recv(context)))
}

fn select(segments: &[Segment], range: Range<u64>) -> VecDeque<Source> {
    let mut sources = VecDeque::new();
    let mut start = 0;
    for segment in segments {
        let end = start + segment.len;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            select_within(segment, from - start..to - start, &mut sources);
        }
        start = end;
    }
    sources
}

fn select_within(segment: &Segment, range: Range<u64>, sources: &mut VecDeque<Source>) {
    match &segment.data {
        Data::Unattached => {}
        Data::File(file) => {
            let (offset, len) = (range.start, range.end - range.start);
            sources.push_back(Source::File { file: Arc::clone(file), offset, len });
        }
        Data::Memory(pieces) => {
            let mut start = 0;
            for piece in pieces.iter() {
                let end = start + piece.len() as u64;
                let (from, to) = (range.start.max(start), range.end.min(end));
                if from < to {
                    let index =
                        |at: u64| usize::try_from(at - start).expect("a piece is at most one MiB long");
                    sources.push_back(Source::Memory(piece.slice(index(from)..index(to))));
                }
                start = end;
            }
        }
    }
}

fn read_into(sources: VecDeque<Source>, sender: &mpsc::Sender<io::Result<Bytes>>) {
    for source in sources {
        let outcome = match source {
            Source::Memory(bytes) => sender.blocking_send(Ok(bytes)).map_err(|_| None),
            Source::File { file, offset, len } => read_file(&file, offset, len, sender),
        };
        match outcome {
            Ok(()) => {}
            Err(None) => return,
            Err(Some(error)) => {
                // The receiver may be gone as well; then nobody needs the error.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        }
    }
}

/// `Err(None)` means that the reader went away.
fn read_file(
    file: &BlobFile,
    offset: u64,
    mut len: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), Option<io::Error>> {
    let mut input = File::open(&file.path).map_err(Some)?;
    input.seek(SeekFrom::Start(offset)).map_err(Some)?;
    while len > 0 {
        let size = len.min(PIECE as u64);
        let mut piece = Vec::with_capacity(usize::try_from(size).unwrap_or(PIECE));
        let read = Read::by_ref(&mut input).take(size).read_to_end(&mut piece).map_err(Some)?;
        if read == 0 {
            return Err(Some(io::ErrorKind::UnexpectedEof.into()));
        }
        len -= read as u64;
        sender.blocking_send(Ok(Bytes::from(piece))).map_err(|_| None)?;
    }
    Ok(())
}
