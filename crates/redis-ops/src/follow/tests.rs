//! The spool and what is cut from a stream, without a server: kills are drops here, and a reboot is another number in a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use backstay_backup_core::Class;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::SealOptions;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::FollowError;
use super::begin::begin_from;
use super::decide::{CutPolicy, MergePolicy};
use super::facts::{Queue, Shared};
use super::segmenter::{Piece, Received, Segmenter};
use super::spool::{Begun, Contents, Spool, takes};
use super::uploader::Uploader;
use crate::archive::{Boundary, HistoryRecord, Position, Span, StreamArchive, StreamId};
use crate::resp::{CommandScanner, StreamState};
use crate::{Offset, ReplicationId};

/// All pieces of a test wait at once.
const ROOM: usize = 10_000;

pub(super) fn id(digit: char) -> ReplicationId {
    String::from(digit).repeat(40).parse().unwrap()
}

pub(super) fn set(number: u32) -> Vec<u8> {
    format!("*3\r\n$3\r\nSET\r\n$4\r\nkey0\r\n$6\r\n{number:06}\r\n").into_bytes()
}

/// Pieces as the connection makes them of these bytes.
pub(super) fn pieces(start: u64, bytes: &[u8], size: usize) -> Vec<Piece> {
    let state = StreamState { database: Some(0), in_transaction: false };
    let mut scanner = CommandScanner::new(Offset(start), state);
    let mut pieces = vec![Piece::Stream {
        position: Position::new(id('a'), Offset(start)),
        state,
        anew: Some(Timestamp::UNIX_EPOCH),
        record: None,
        clock_skew_millis: Some(5),
    }];
    for chunk in bytes.chunks(size) {
        let (mut first, mut last_write, mut commands) = (None, None, 0);
        scanner
            .scan(chunk, |command| {
                commands += 1;
                first.get_or_insert(Boundary::at(command.end, command.after));
                if !command.is_filler() {
                    last_write = Some(command.end);
                }
            })
            .unwrap();
        let last = Boundary::at(scanner.boundary(), scanner.state());
        let bytes = Bytes::copy_from_slice(chunk);
        let received = Received { at: Timestamp::now(), bytes, commands, first, last, last_write };
        pieces.push(Piece::Bytes(Box::new(received)));
    }
    pieces
}

/// Hands pieces to a segmenter; with `kill` the process ends in the middle of it.
pub(super) async fn receive(folder: &Path, policy: CutPolicy, pieces: Vec<Piece>, kill: bool) {
    let spool = Arc::new(Spool::open(folder).unwrap());
    let shared = Shared::new(Queue::default());
    let (sender, receiver) = mpsc::channel(ROOM);
    for piece in pieces {
        sender.send(piece).await.unwrap();
    }
    if kill {
        // What a killed process leaves is what it had handed to the kernel: the same pieces without the end.
        let copy = folder.with_extension("killed");
        let segmenter = Segmenter::new(spool, shared.clone(), policy, 1 << 30);
        let handle = Handle::current();
        let work = tokio::task::spawn_blocking(move || segmenter.run(&handle, receiver));
        while sender.capacity() < ROOM {
            tokio::task::yield_now().await;
        }
        // One more that waits behind the others says that they were taken.
        sender.send(Piece::SnapshotEnd).await.unwrap();
        while sender.capacity() < ROOM {
            tokio::task::yield_now().await;
        }
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        drop(sender);
        work.await.unwrap().unwrap();
        return;
    }
    let segmenter = Segmenter::new(spool, shared, policy, 1 << 30);
    let handle = Handle::current();
    drop(sender);
    tokio::task::spawn_blocking(move || segmenter.run(&handle, receiver)).await.unwrap().unwrap();
}

/// Cuts nothing by itself, however slow the machine is.
pub(super) fn patient() -> CutPolicy {
    CutPolicy { interval: std::time::Duration::from_secs(3600), ..CutPolicy::default() }
}

pub(super) fn contents(folder: &Path) -> (Spool, Contents) {
    let spool = Spool::open(folder).unwrap();
    let contents = spool.contents().unwrap();
    (spool, contents)
}

fn joined(contents: &Contents) -> Vec<u8> {
    contents.closed.iter().flat_map(|closed| closed.read().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_follow_one_another_and_hold_every_byte() {
    let root = tempfile::tempdir().unwrap();
    let stream: Vec<u8> = (0..500).flat_map(set).collect();
    let policy = CutPolicy { bytes: 3000, ..CutPolicy::default() };
    for size in [7, 41, 1000, 100_000] {
        let folder = root.path().join(size.to_string());
        receive(&folder, policy, pieces(700, &stream, size), false).await;
        let (_, contents) = contents(&folder);
        assert_eq!(joined(&contents), stream, "pieces of {size}");
        assert!(contents.open.is_none() && contents.closed.len() > 1 || size > 1000);
        let mut at = Offset(700);
        for closed in &contents.closed {
            let head = &closed.head;
            assert_eq!((head.span.start, head.clock_skew_millis), (at, Some(5)));
            assert_eq!(head.first.unwrap().offset, at, "it begins between two commands");
            assert_eq!(head.last.unwrap().offset, head.span.end);
            assert_eq!(head.commands, head.span.len() / set(0).len() as u64);
            at = head.span.end;
        }
    }
}

/// A value that is longer than a segment may be.
#[tokio::test(flavor = "multi_thread")]
async fn segments_that_lie_within_one_command_claim_no_place_between_two() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let long = format!("*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n$9000\r\n{}\r\n", "x".repeat(9000)).into_bytes();
    let stream = [set(0), long.clone(), set(1)].concat();
    let (begin, end) = (set(0).len() as u64, (set(0).len() + long.len()) as u64);
    let policy = CutPolicy { bytes: 1000, at_most: 2000, ..patient() };
    receive(&folder, policy, pieces(0, &stream, 500), false).await;
    let (spool, contents) = contents(&folder);
    assert_eq!(joined(&contents), stream);
    let places = [0, begin, end, stream.len() as u64].map(Offset);
    let mut within = 0;
    for closed in &contents.closed {
        let (span, head) = (closed.head.span, &closed.head);
        let mut inside = places.iter().filter(|at| span.start <= **at && **at <= span.end);
        let (first, last) = (inside.next(), inside.next_back());
        assert_eq!(head.first.map(|it| it.offset).as_ref(), first, "{span}");
        assert_eq!(head.last.map(|it| it.offset).as_ref(), last.or(first), "{span}");
        within += u32::from(first.is_none());
        let mode = fs::metadata(&closed.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "nobody else reads what was written to the server");
    }
    assert!(within > 1, "{within} segments lie within it");
    drop(spool);
}

/// Half a write is no filler: acknowledged, a server that stops would not wait for the rest of it.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_write_is_not_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let whole = set(0).len() as u64;
    let stream = [set(0), set(1)[..11].to_vec()].concat();
    let spool = Arc::new(Spool::open(root.path()).unwrap());
    let shared = Shared::new(Queue::default());
    let (sender, receiver) = mpsc::channel(ROOM);
    for piece in pieces(0, &stream, 1000) {
        sender.send(piece).await.unwrap();
    }
    drop(sender);
    let segmenter = Segmenter::new(spool, shared.clone(), patient(), 1 << 30);
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || segmenter.run(&handle, receiver)).await.unwrap().unwrap();
    shared.change(|facts| facts.durable = Some(Position::new(id('a'), Offset(whole))));
    assert_eq!(shared.get(|facts| facts.received), Some(Position::new(id('a'), Offset(stream.len() as u64))));
    assert_eq!(shared.acknowledged(), Offset(whole));
    // A base that is not stored yet: without it nothing of the stream is of use.
    shared.change(|facts| facts.base_pending = true);
    assert_eq!(shared.acknowledged(), Offset(0));
}

/// What was received before a snapshot began the stream anew is stored, and not gone on from.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_began_anew_goes_on_from_there() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let stream: Vec<u8> = (0..20).flat_map(set).collect();
    receive(&folder, patient(), pieces(0, &stream, 64), false).await;
    let end = Position::new(id('a'), Offset(stream.len() as u64));
    let known = |folder: &Path| begin_from(&contents(folder).1).known.map(|(position, _)| position);
    assert_eq!(known(&folder), Some(end));
    let position = Position::new(id('b'), Offset(7));
    let at = Timestamp::now();
    contents(&folder).0.begun(&Begun { position, at }).unwrap();
    assert_eq!(known(&folder), Some(position));
    assert_eq!(contents(&folder).1.closed.len(), 1, "it is stored all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_had_received_is_gone_on_with_behind_its_last_whole_command() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let mut stream: Vec<u8> = (0..20).flat_map(set).collect();
    let whole = stream.len() as u64;
    stream.extend(&set(20)[..11]);
    receive(&folder, patient(), pieces(0, &stream, 64), true).await;
    let killed = folder.with_extension("killed");
    let (spool, contents) = contents(&killed);
    let open = contents.open.unwrap();
    assert_eq!(open.span, Span::new(0, stream.len() as u64));
    let shared = Shared::new(Queue::default());
    let mut segmenter = Segmenter::new(Arc::new(spool), shared.clone(), CutPolicy::default(), 1 << 30);
    let (position, state) = segmenter.adopt(open).unwrap().unwrap();
    assert_eq!(position, Position::new(id('a'), Offset(whole)));
    assert_eq!(state.database, Some(0));
    assert_eq!(shared.get(|facts| facts.last_write), Offset(whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_from_before_a_reboot_and_a_cut_off_segment_are_not_believed() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let stream: Vec<u8> = (0..20).flat_map(set).collect();
    receive(&folder, patient(), pieces(0, &stream, 64), true).await;
    let find = |folder: &Path, kind: &str| {
        let mut found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        found.find(|path| path.to_string_lossy().ends_with(kind)).unwrap()
    };
    let open = find(&folder.with_extension("killed"), ".open");
    let text = fs::read(&open).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let at = text.windows(36).position(|bytes| bytes == boot.trim().as_bytes()).unwrap();
    let mut other = text.clone();
    other[at] = if other[at] == b'0' { b'1' } else { b'0' };
    fs::write(&open, other).unwrap();
    let (_, before) = contents(&folder.with_extension("killed"));
    assert!(before.open.is_none() && !open.exists());
    // The orderly end closed it.
    let segment = find(&folder, ".seg");
    let length = fs::metadata(&segment).unwrap().len();
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(length - 1).unwrap();
    let (_, after) = contents(&folder);
    assert!(after.closed.is_empty() && !segment.exists());
}

/// The name changes after the head, and a kill may come between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_being_closed_is_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let stream: Vec<u8> = (0..20).flat_map(set).collect();
    receive(&folder, patient(), pieces(700, &stream, 64), false).await;
    let closed = contents(&folder).1.closed.remove(0);
    let open = folder.join(format!("{}-{:020}.open", id('a'), 700));
    fs::rename(&closed.path, &open).unwrap();
    let (spool, contents) = contents(&folder);
    assert!(contents.closed.is_empty());
    let found = contents.open.unwrap();
    assert_eq!(found.span, closed.name.span);
    assert_eq!(found.read_from(Offset(700)).unwrap(), stream);
    let again = spool.close(&found, closed.head.clone()).unwrap();
    assert_eq!((again.head, again.path), (closed.head, closed.path));
}

#[test]
fn one_process_works_in_a_spool() {
    let root = tempfile::tempdir().unwrap();
    let first = Spool::open(root.path()).unwrap();
    assert!(matches!(Spool::open(root.path()), Err(FollowError::Busy { .. })));
    drop(first);
    Spool::open(root.path()).unwrap();
}

/// An archive on a store that misbehaves, and an uploader of a spool into it.
pub(super) async fn uploader(folder: &Path) -> (Uploader, Arc<Fault>) {
    let clock = Arc::new(SystemClock);
    let fault = Arc::new(Fault::new(Arc::new(MemoryStore::new(clock.clone())), 1));
    let repository = Repository::create("r", fault.clone(), &*clock).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, clock.clone()).unwrap();
    let archive = StreamArchive::new(repositories, Stanza::parse("shop").unwrap(), StreamId::default());
    let (spool, contents) = contents(folder);
    let queue = Queue {
        closed: contents.closed.into_iter().map(|closed| (0, closed)).collect(),
        stored: contents.stored.into(),
        ..Queue::default()
    };
    let shared = Shared::new(queue);
    shared.change(|facts| facts.lease = true);
    let merging = MergePolicy { bytes: 3000, age: std::time::Duration::from_secs(3600) };
    let sealing = SealOptions::default();
    (Uploader { archive, spool: Arc::new(spool), shared, sealing, merging, clock }, fault)
}

pub(super) async fn read_all(archive: &StreamArchive, end: u64) -> Vec<u8> {
    let survey = Arc::new(archive.survey().await.unwrap());
    let path = survey.path(&survey.line(id('a')), Offset(0), Offset(end)).unwrap();
    let mut reader = archive.open(survey, path, &Identities::none());
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_of_the_store_fails_everything_arrives_once_and_is_merged() {
    let root = tempfile::tempdir().unwrap();
    let stream: Vec<u8> = (0..600).flat_map(set).collect();
    let policy = CutPolicy { bytes: 1000, ..patient() };
    for call in 1..=12 {
        for mishap in [Mishap::Error(ErrorKind::Temporary), Mishap::LostReply] {
            let folder = root.path().join(format!("{call}-{mishap:?}"));
            receive(&folder, policy, pieces(0, &stream, 333), false).await;
            let (uploader, fault) = uploader(&folder).await;
            fault.on(Operation::Put, call + 1, mishap);
            let done = CancellationToken::new();
            done.cancel();
            uploader.run(&done, &CancellationToken::new()).await.unwrap();
            assert_eq!(read_all(&uploader.archive, stream.len() as u64).await, stream, "call {call}");
            let facts = uploader.shared.get(super::FollowFacts::clone);
            assert_eq!((facts.waiting, facts.store_problem), (0, None));
            assert_eq!(facts.durable, Some(Position::new(id('a'), Offset(stream.len() as u64))));
            assert!(facts.merged > 0, "{} merged", facts.merged);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_under_the_same_name_stop_the_archiver_and_stay_in_the_spool() {
    let root = tempfile::tempdir().unwrap();
    let (mine, other) = (root.path().join("mine"), root.path().join("other"));
    let bytes = |first| (first..first + 50).flat_map(set).collect::<Vec<u8>>();
    receive(&mine, patient(), pieces(0, &bytes(0), 100), false).await;
    receive(&other, patient(), pieces(0, &bytes(1000), 100), false).await;
    let (first, _) = uploader(&other).await;
    let done = CancellationToken::new();
    done.cancel();
    first.run(&done, &CancellationToken::new()).await.unwrap();
    let (mut second, _) = uploader(&mine).await;
    second.archive = first.archive.clone();
    let error = second.run(&done, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict, "{error}");
    drop(second);
    assert_eq!(contents(&mine).1.closed.len(), 1);
}

/// Nobody else wakes them before something is written, which may take a day.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_begins_wakes_those_who_store() {
    let root = tempfile::tempdir().unwrap();
    let shared = Shared::new(Queue::default());
    let spool = Arc::new(Spool::open(root.path()).unwrap());
    let segmenter = Segmenter::new(spool, shared.clone(), patient(), 1 << 30);
    let stanza = Stanza::parse("shop").unwrap();
    let record = HistoryRecord::new(&stanza, &StreamId::default(), id('a'), Timestamp::now(), "test");
    let (sender, receiver) = mpsc::channel(ROOM);
    for mut piece in pieces(0, &[], 1) {
        if let Piece::Stream { record: it, .. } = &mut piece {
            *it = Some(Box::new(record.clone()));
        }
        sender.send(piece).await.unwrap();
    }
    drop(sender);
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || segmenter.run(&handle, receiver)).await.unwrap().unwrap();
    assert_eq!(shared.queue().histories.len(), 1);
    let woken = tokio::time::timeout(std::time::Duration::from_secs(5), shared.work.notified()).await;
    assert!(woken.is_ok(), "the record waits for somebody to write");
}

#[test]
fn a_spool_leaves_room_on_its_disk() {
    let mib = 1 << 20;
    assert_eq!(takes(0, 0), 0);
    assert_eq!(takes(6 * mib, 2 * mib), 6 * mib, "a quarter of a small disk");
    assert_eq!(takes(100 * mib, 1000 * mib), 1068 * mib);
    assert_eq!(takes(u64::MAX, u64::MAX), u64::MAX - 32 * mib);
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(root.path()).unwrap();
    assert_eq!(spool.room(4096).unwrap().limit, 4096, "no more than was asked for");
    let disk = rustix::fs::statvfs(root.path()).unwrap();
    let size = disk.f_blocks * disk.f_frsize;
    let room = spool.room(u64::MAX).unwrap();
    assert!(room.limit < size, "{room:?} on a disk of {size} bytes: it would be full before anybody is told");
}
