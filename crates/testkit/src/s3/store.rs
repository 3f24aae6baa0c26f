//! The index behind one lock, with a journal beside it when it lives in a directory.
//!
//! Everything that decides (conditions, locks, parts) and everything that changes happens within one critical section:
//! look, write the journal line, apply. Bytes are written before and are only named inside, so the section is short and
//! concurrent writers of one key see each other's outcome.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use s3s::{S3Error, S3Result};

use super::Error;
use super::blob::BlobWriter;
use super::model::{Change, Index};

const JOURNAL: &str = "journal.jsonl";
const DATA: &str = "data";

#[derive(Debug)]
struct Guarded {
    index: Index,
    journal: Option<Journal>,
}

#[derive(Debug)]
pub(super) struct Store {
    guarded: Mutex<Guarded>,
    data: Option<PathBuf>,
    /// Keeps a second server out of the directory.
    _lock: Option<File>,
    nonce: u64,
    counter: AtomicU64,
}

impl Store {
    pub(super) fn memory() -> Self {
        Self::new(Guarded { index: Index::default(), journal: None }, None, None)
    }

    /// Opens the directory, creating it when it is not there. Blocks.
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let data = root.join(DATA);
        fs::create_dir_all(&data).map_err(|source| Error::Directory { path: data.clone(), source })?;
        let lock = lock_file(&root.join("lock"))?;
        let mut index = replay(&root.join(JOURNAL))?;
        attach(&mut index, &data)?;
        let journal = Journal::rewrite(root, &index)?;
        Ok(Self::new(Guarded { index, journal: Some(journal) }, Some(data), Some(lock)))
    }

    fn new(guarded: Guarded, data: Option<PathBuf>, lock: Option<File>) -> Self {
        let guarded = Mutex::new(guarded);
        Self { guarded, data, _lock: lock, nonce: rand::random(), counter: AtomicU64::new(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id never given before, that sorts after the earlier ones of this server.
    pub(super) fn new_id(&self) -> String {
        format!("{:016x}{:016x}", self.counter.fetch_add(1, Ordering::Relaxed), self.nonce)
    }

    /// A place for bytes that are about to arrive.
    pub(super) fn writer(&self, expected: u64) -> io::Result<BlobWriter> {
        match &self.data {
            None => Ok(BlobWriter::memory(self.new_id(), expected)),
            Some(folder) => BlobWriter::file(self.new_id(), folder),
        }
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.lock().index)
    }

    /// Decides and acts as one step: all changes that `decide` returns happen, or none.
    pub(super) fn transact<T>(
        &self,
        decide: impl FnOnce(&Index) -> S3Result<(Vec<Change>, T)>,
    ) -> S3Result<T> {
        let mut guard = self.lock();
        let (changes, answer) = decide(&guard.index)?;
        if let Some(journal) = &mut guard.journal
            && !changes.is_empty()
        {
            journal.append(&changes).map_err(S3Error::internal_error)?;
        }
        for change in changes {
            guard.index.apply(change);
        }
        Ok(answer)
    }
}

fn lock_file(path: &Path) -> Result<File, Error> {
    let broken = |source| Error::Directory { path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(broken)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::InUse { path: path.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(broken(source)),
    }
}

/// Reads the journal; a last line without its end is a write that never finished and is left out.
fn replay(path: &Path) -> Result<Index, Error> {
    let broken = |source| Error::Directory { path: path.to_owned(), source };
    let mut index = Index::default();
    let mut input = match File::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 20, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(index),
        Err(error) => return Err(broken(error)),
    };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(broken)? == 0 || line.last() != Some(&b'\n') {
            break;
        }
        let changes: Vec<Change> = serde_json::from_slice(&line).map_err(|source| Error::Journal {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        changes.into_iter().for_each(|change| index.apply(change));
    }
    Ok(index)
}

/// Connects the index to its data files and removes files nothing refers to.
fn attach(index: &mut Index, data: &Path) -> Result<(), Error> {
    let mut wanted = HashSet::new();
    for segment in index.segments_mut() {
        if segment.attach(data).is_none() {
            return Err(Error::MissingData { path: data.join(segment.name()), expected: segment.len });
        }
        wanted.insert(segment.name().to_owned());
    }
    let broken = |source| Error::Directory { path: data.to_owned(), source };
    for entry in fs::read_dir(data).map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if entry.file_name().to_str().is_none_or(|name| !wanted.contains(name)) {
            fs::remove_file(entry.path())
                .map_err(|source| Error::Directory { path: entry.path(), source })?;
        }
    }
    Ok(())
}

/// Changes as lines of JSON. Written to the page cache, not fsynced: it survives the server's death, not the machine's.
#[derive(Debug)]
struct Journal {
    file: File,
    len: u64,
}

impl Journal {
    /// Replaces the journal of `root` with the shortest one for `index`.
    fn rewrite(root: &Path, index: &Index) -> Result<Self, Error> {
        let (path, fresh) = (root.join(JOURNAL), root.join("journal.new"));
        let write = || -> io::Result<Self> {
            let mut output = BufWriter::new(File::create(&fresh)?);
            for change in index.changes() {
                serde_json::to_writer(&mut output, &[change])?;
                output.write_all(b"\n")?;
            }
            let mut file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
            fs::rename(&fresh, &path)?;
            Ok(Self { len: file.stream_position()?, file })
        };
        write().map_err(|source| Error::Directory { path: path.clone(), source })
    }

    fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut line = serde_json::to_vec(changes)?;
        line.push(b'\n');
        match self.file.write_all(&line) {
            Ok(()) => {
                self.len += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line must not end up in front of the next one.
                self.file.set_len(self.len)?;
                self.file.seek(SeekFrom::Start(self.len))?;
                Err(error)
            }
        }
    }
}
