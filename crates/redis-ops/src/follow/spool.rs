//! The spool: a folder on local disk between the socket and the repositories, so that neither an outage of a store nor the death
//! of this process costs a byte.
//!
//! ```text
//! <id>-<start>.open          being received: head, then the bytes of the stream
//! <id>-<start>-<end>.seg     complete and synced; waits for the repositories
//! <id>-<start>-<end>.up      stored; waits to be merged, or for nothing
//! <id>-<offset>.rdb.open     a snapshot being received
//! <id>-<offset>.rdb          complete and synced; waits for the repositories
//! <id>.history               where a history comes from; waits for the repositories
//! begun.json                 where the stream began anew last, behind a snapshot
//! lock                       held by the one process that works here
//! status.json                what the archiver is doing, for whoever looks
//! ```
//!
//! A head takes the first 1024 bytes of its file and holds what is known so far: at first where the file begins, in the end what the
//! stored segment will say of itself, with the other on a second line until the new name says so. Names change by renaming,
//! after a sync, and the folder is synced after that.
//!
//! | what dies | what remains |
//! |---|---|
//! | the process | everything that was received: the kernel has it. An open file goes on where it ends |
//! | the machine | closed files. An open one from before the start of the machine is not believed, and received again |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::FollowError;
use crate::archive::{Boundary, HistoryRecord, Level, Position, SegmentHead, SegmentName, Span};
use crate::{Offset, ReplicationId};

/// The file with the last beginning.
const BEGUN: &str = "begun.json";
/// Bytes of a file before its content.
const HEAD: u64 = 1024;
/// Bytes that are left free on the disk, or a quarter of it where that is less: more than is on its way at any moment.
const SPARE: u64 = 32 << 20;
/// The number of this start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The folder of one stream.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    boot: String,
    /// Locked for as long as this lives.
    lock: File,
}

/// How much of its room a spool takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes of segments in it.
    pub(super) bytes: u64,
    /// The most that there may be.
    pub(super) limit: u64,
}

/// A closed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) name: SegmentName,
    pub(super) head: SegmentHead,
    pub(super) path: PathBuf,
}

/// A whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) position: Position,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// What a spool holds when it is opened.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Segments that wait for the repositories, in the order in which they were received.
    pub(super) closed: Vec<Closed>,
    /// Segments that are stored.
    pub(super) stored: Vec<Closed>,
    /// Snapshots that wait for the repositories.
    pub(super) snapshots: Vec<Snapshot>,
    /// Records that do.
    pub(super) histories: Vec<HistoryRecord>,
    /// The segment that was being received.
    pub(super) open: Option<OpenFile>,
    /// Where the stream began anew last.
    pub(super) begun: Option<Begun>,
}

/// A beginning behind a snapshot; what was received earlier is of another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Begun {
    #[serde(flatten)]
    pub(super) position: Position,
    /// When, by the clock that segments tell.
    pub(super) at: Timestamp,
}

/// What an open file says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OpenHead {
    boot: String,
    replication_id: ReplicationId,
    first_received: Timestamp,
    /// Where it begins, if that is between two commands; nobody can go on with it otherwise.
    begin: Boundary,
    #[serde(default)]
    clock_skew_millis: Option<i64>,
}

/// A segment that is being received.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    file: File,
    pub(super) id: ReplicationId,
    pub(super) span: Span,
    pub(super) first_received: Timestamp,
    pub(super) begin: Option<Boundary>,
    pub(super) clock_skew_millis: Option<i64>,
}

impl Drop for Spool {
    fn drop(&mut self) {
        // A child that is just being started may have inherited the file.
        let _ = self.lock.unlock();
    }
}

impl Spool {
    /// Opens a folder, or makes it, and locks it. Blocks for a few system calls.
    pub(super) fn open(folder: &Path) -> Result<Self, FollowError> {
        let failed = |op| move |source| FollowError::Spool { op, path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed("make"))?;
        let lock = folder.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock);
        let lock = lock.map_err(failed("open"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(FollowError::Busy { path: folder.to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let boot = fs::read_to_string(BOOT).unwrap_or_default().trim().to_owned();
        Ok(Self { folder: folder.to_owned(), boot, lock })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn failed(&self, op: &'static str) -> impl Fn(io::Error) -> FollowError + use<> {
        let path = self.folder.clone();
        move |source| FollowError::Spool { op, path: path.clone(), source }
    }

    /// What is in it. Half snapshots and what cannot be used is removed: it will be received again. Blocks.
    pub(super) fn contents(&self) -> Result<Contents, FollowError> {
        let mut contents = Contents::default();
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(self.failed("list"))? {
            names.push(entry.map_err(self.failed("list"))?.path());
        }
        names.sort();
        for path in names {
            let Some((stem, kind)) = split(&path) else { continue };
            match kind {
                "seg" | "up" => match closed(&path, stem) {
                    Some(found) if kind == "seg" => contents.closed.push(found),
                    Some(found) => contents.stored.push(found),
                    None => self.discard(&path),
                },
                "rdb" => contents.snapshots.extend(snapshot(&path, stem)),
                "history" => match record(&path) {
                    Some(record) => contents.histories.push(record),
                    None => self.discard(&path),
                },
                "open" if contents.open.is_none() => match self.reopen(&path) {
                    Some(open) => contents.open = Some(open),
                    None => self.discard(&path),
                },
                "open" | "rdb.open" | "tmp" => self.discard(&path),
                _ => {}
            }
        }
        let begun = fs::read(self.folder.join(BEGUN)).ok();
        contents.begun = begun.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let order = |closed: &Closed| (closed.head.first_received, closed.name.span.start);
        contents.closed.sort_by_key(order);
        contents.stored.sort_by_key(order);
        Ok(contents)
    }

    /// Removes segments whose bytes come again; kept, they would have the names of those that come.
    pub(super) fn forget_segments(
        &self,
        contents: &mut Contents,
        again: &[PathBuf],
    ) -> Result<(), FollowError> {
        again.iter().try_for_each(|path| self.remove(path))?;
        for segments in [&mut contents.closed, &mut contents.stored] {
            segments.retain(|segment| !again.contains(&segment.path));
        }
        Ok(())
    }

    /// Bytes of all segments. A snapshot counts for none: it takes what it takes. Blocks.
    pub(super) fn bytes(&self) -> Result<u64, FollowError> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.folder).map_err(self.failed("list"))? {
            let entry = entry.map_err(self.failed("list"))?;
            let is_snapshot = split(&entry.path()).is_some_and(|(_, kind)| kind.starts_with("rdb"));
            // What has gone meanwhile takes no room.
            bytes += if is_snapshot { 0 } else { entry.metadata().map_or(0, |found| found.len()) };
        }
        Ok(bytes)
    }

    /// How full it is, at most to `limit`, and less where the disk has less. Blocks.
    pub(super) fn room(&self, limit: u64) -> Result<Room, FollowError> {
        let bytes = self.bytes()?;
        let disk = rustix::fs::statvfs(&self.folder).map_err(|error| self.failed("look at")(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(Room { bytes, limit: limit.min(takes(bytes, free)) })
    }

    fn discard(&self, path: &Path) {
        tracing::warn!(path = %path.display(), "not usable, removed; it will be received again");
        _ = fs::remove_file(path);
    }

    /// Begins a segment at `start`; at a place between two commands if `begin` says so. Blocks.
    pub(super) fn begin(
        &self,
        id: ReplicationId,
        start: Offset,
        begin: Option<Boundary>,
        received: Timestamp,
        clock_skew_millis: Option<i64>,
    ) -> Result<OpenFile, FollowError> {
        let path = self.folder.join(format!("{id}-{:020}.open", start.0));
        let create =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = create.map_err(self.failed("write"))?;
        let span = Span { start, end: start };
        let open = OpenFile { path, file, id, span, first_received: received, begin, clock_skew_millis };
        let head = self.open_head(&open);
        write_head(&open.file, &head, None).map_err(self.failed("write"))?;
        (&open.file).seek(SeekFrom::Start(HEAD)).map_err(self.failed("write"))?;
        Ok(open)
    }

    fn open_head(&self, open: &OpenFile) -> Option<OpenHead> {
        let &OpenFile { id: replication_id, first_received, begin, clock_skew_millis, .. } = open;
        let boot = self.boot.clone();
        begin.map(|begin| OpenHead { boot, replication_id, first_received, begin, clock_skew_millis })
    }

    fn reopen(&self, path: &Path) -> Option<OpenFile> {
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        // A process that died before it could change the name has left what a stored segment says on the first line.
        let heads = read_head(&file)?;
        let head: OpenHead = serde_json::from_slice(heads.rsplit(|byte| *byte == b'\n').next()?).ok()?;
        let length = file.metadata().ok()?.len().checked_sub(HEAD).filter(|length| *length > 0)?;
        // What the machine had not yet written when it died may be anything.
        if head.boot != self.boot || self.boot.is_empty() {
            return None;
        }
        (&file).seek(SeekFrom::End(0)).ok()?;
        let start = head.begin.offset;
        Some(OpenFile {
            path: path.to_owned(),
            file,
            id: head.replication_id,
            span: Span { start, end: start.plus(length) },
            first_received: head.first_received,
            begin: Some(head.begin),
            clock_skew_millis: head.clock_skew_millis,
        })
    }

    /// Closes a segment for good: what is in it is durable when this returns. Blocks for two syncs.
    pub(super) fn close(&self, open: &OpenFile, head: SegmentHead) -> Result<Closed, FollowError> {
        let failed = self.failed("write");
        let name = SegmentName { replication_id: open.id, span: head.span, level: Level::Fresh };
        write_head(&open.file, &head, self.open_head(open).as_ref()).map_err(&failed)?;
        open.file.set_len(HEAD + head.span.len()).map_err(&failed)?;
        open.file.sync_data().map_err(&failed)?;
        let path = self.segment_path(&name, "seg");
        fs::rename(&open.path, &path).map_err(&failed)?;
        self.sync().map_err(&failed)?;
        Ok(Closed { name, head, path })
    }

    /// Notes that a segment is stored. Not synced: a segment that is stored twice is no harm.
    pub(super) fn stored(&self, closed: &Closed) -> Result<Closed, FollowError> {
        let path = self.segment_path(&closed.name, "up");
        fs::rename(&closed.path, &path).map_err(self.failed("rename"))?;
        Ok(Closed { path, ..closed.clone() })
    }

    /// Forgets an open segment; its bytes will be received again, or belong to nobody.
    pub(super) fn forget(&self, open: &OpenFile) {
        _ = fs::remove_file(&open.path);
    }

    fn segment_path(&self, name: &SegmentName, kind: &str) -> PathBuf {
        let Span { start, end } = name.span;
        self.folder.join(format!("{}-{:020}-{:020}.{kind}", name.replication_id, start.0, end.0))
    }

    /// Where a snapshot is received.
    pub(super) fn begin_snapshot(&self, position: Position) -> Result<(PathBuf, File), FollowError> {
        let Position { replication_id, offset } = position;
        let path = self.folder.join(format!("{replication_id}-{:020}.rdb.open", offset.0));
        let create = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        Ok((path, create.map_err(self.failed("write"))?))
    }

    /// Closes a snapshot for good. Blocks for two syncs.
    pub(super) fn close_snapshot(
        &self,
        position: Position,
        open: &Path,
        file: &File,
    ) -> Result<Snapshot, FollowError> {
        let failed = self.failed("write");
        file.sync_data().map_err(&failed)?;
        let bytes = file.metadata().map_err(&failed)?.len();
        let path = open.with_extension("");
        fs::rename(open, &path).map_err(&failed)?;
        self.sync().map_err(&failed)?;
        Ok(Snapshot { position, path, bytes })
    }

    /// Notes that the stream begins anew. Blocks for two syncs.
    pub(super) fn begun(&self, begun: &Begun) -> Result<(), FollowError> {
        let bytes = serde_json::to_vec(begun).map_err(|error| self.failed("write")(error.into()))?;
        self.write_whole(&self.folder.join(BEGUN), &bytes, true)
    }

    /// Keeps a record until the repositories have it. Blocks for two syncs.
    pub(super) fn keep_history(&self, record: &HistoryRecord) -> Result<(), FollowError> {
        let path = self.folder.join(format!("{}.history", record.replication_id));
        self.write_whole(&path, &record.encode(), true)
    }

    /// The repositories have it.
    pub(super) fn drop_history(&self, id: ReplicationId) -> Result<(), FollowError> {
        self.remove(&self.folder.join(format!("{id}.history")))
    }

    /// Removes a file; one that is gone is no error.
    pub(super) fn remove(&self, path: &Path) -> Result<(), FollowError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove")(error)),
            _ => Ok(()),
        }
    }

    /// Writes a small file so that it is there whole or as it was.
    pub(super) fn write_whole(&self, path: &Path, content: &[u8], durable: bool) -> Result<(), FollowError> {
        let failed = self.failed("write");
        let sibling = path.with_extension("tmp");
        let mut file = OpenOptions::new();
        let mut file =
            file.write(true).create(true).truncate(true).mode(0o600).open(&sibling).map_err(&failed)?;
        file.write_all(content).map_err(&failed)?;
        if durable {
            file.sync_data().map_err(&failed)?;
        }
        fs::rename(&sibling, path).map_err(&failed)?;
        if durable { self.sync().map_err(&failed) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

impl OpenFile {
    /// Adds what was received. Blocks for one write.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.span.end = self.span.end.plus(bytes.len() as u64);
        Ok(())
    }

    /// Forgets what lies behind an offset. Blocks for two system calls.
    pub(super) fn cut(&mut self, end: Offset) -> io::Result<()> {
        if end < self.span.end {
            let end = end.max(self.span.start);
            self.file.set_len(HEAD + end.since(self.span.start))?;
            self.file.seek(SeekFrom::End(0))?;
            self.span.end = end;
        }
        Ok(())
    }

    /// The bytes from an offset on. Blocks.
    pub(super) fn read_from(&self, offset: Offset) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.span.end.since(offset)).unwrap_or_default();
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, HEAD + offset.since(self.span.start))?;
        Ok(bytes)
    }
}

impl Closed {
    /// Its bytes. Blocks.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(HEAD))?;
        let length = self.name.span.len();
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"))
    }
}

/// What a disk takes that has so much free: not its last bytes, which are for what comes until it is looked at again.
pub(super) fn takes(bytes: u64, free: u64) -> u64 {
    let all = bytes.saturating_add(free);
    all - SPARE.min(all / 4)
}

/// Writes a head in the bytes reserved for it, padded so that it is text.
fn write_head(file: &File, head: &impl Serialize, open: Option<&OpenHead>) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(head)?;
    if let Some(open) = open {
        bytes.push(b'\n');
        bytes.extend(serde_json::to_vec(open)?);
    }
    if bytes.len() as u64 >= HEAD {
        return Err(io::Error::other("the head is too long"));
    }
    bytes.resize(HEAD as usize - 1, b' ');
    bytes.push(b'\n');
    file.write_all_at(&bytes, 0)
}

fn read_head(file: &File) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEAD as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes.trim_ascii().to_vec())
}

fn split(path: &Path) -> Option<(&str, &str)> {
    path.file_name()?.to_str()?.split_once('.')
}

fn closed(path: &Path, stem: &str) -> Option<Closed> {
    let mut parts = stem.split('-');
    let replication_id = parts.next()?.parse().ok()?;
    let span = Span { start: parts.next()?.parse().ok()?, end: parts.next()?.parse().ok()? };
    let name = SegmentName { replication_id, span, level: Level::Fresh };
    let file = File::open(path).ok()?;
    let is_whole = file.metadata().ok()?.len() == HEAD + span.len();
    let heads = read_head(&file)?;
    let head = SegmentHead::decode(heads.split(|byte| *byte == b'\n').next()?, &name).ok()?;
    is_whole.then(|| Closed { name, head, path: path.to_owned() })
}

fn snapshot(path: &Path, stem: &str) -> Option<Snapshot> {
    let (id, offset) = stem.split_once('-')?;
    let position = Position::new(id.parse().ok()?, offset.parse().ok()?);
    Some(Snapshot { position, path: path.to_owned(), bytes: fs::metadata(path).ok()?.len() })
}

fn record(path: &Path) -> Option<HistoryRecord> {
    backstay_backup_core::manifest::unseal(&fs::read(path).ok()?).ok()
}
