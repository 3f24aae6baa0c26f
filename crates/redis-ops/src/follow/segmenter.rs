//! Takes what the connection received into the spool, and decides where segments end.
//!
//! Runs on a thread of its own that may block on the disk; the connection hands it pieces over a bounded channel and reads on.
//! No store is involved here.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::FollowError;
use super::decide::{Cut, CutPolicy, OpenFacts, cut};
use super::facts::Shared;
use super::spool::{Begun, OpenFile, Spool};
use crate::archive::{Boundary, HistoryRecord, Level, Position, SegmentHead, SegmentName, Span};
use crate::resp::{CommandScanner, StreamState};
use crate::{Offset, ReplicationId};

/// How often the size of the spool is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// And after so many bytes.
const LOOK_BYTES: u64 = 4 << 20;

/// What the connection hands over, in order.
#[derive(Debug)]
pub(super) enum Piece {
    /// A snapshot follows.
    Snapshot(Position),
    /// A part of the snapshot.
    SnapshotBytes(Bytes),
    /// The snapshot is whole.
    SnapshotEnd,
    /// The stream goes on under this id from this place, which is between two commands.
    Stream {
        /// Id and offset of the next byte.
        position: Position,
        /// What holds there.
        state: StreamState,
        /// When it began anew, if a snapshot came before.
        anew: Option<Timestamp>,
        /// What to record of the history, when it is a new one.
        record: Option<Box<HistoryRecord>>,
        /// How much later the server's clock is.
        clock_skew_millis: Option<i64>,
    },
    /// A part of the stream.
    Bytes(Box<Received>),
}

/// A part of the stream, and what is known of it.
#[derive(Debug)]
pub(super) struct Received {
    /// When, by this machine's clock.
    pub(super) at: Timestamp,
    pub(super) bytes: Bytes,
    /// Commands that end in it.
    pub(super) commands: u64,
    /// Where the first of them ends.
    pub(super) first: Option<Boundary>,
    /// Where the last command so far ended.
    pub(super) last: Boundary,
    /// Where the last write in it ended.
    pub(super) last_write: Option<Offset>,
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Segmenter {
    spool: Arc<Spool>,
    shared: Shared,
    policy: CutPolicy,
    limit: u64,
    id: Option<ReplicationId>,
    /// Where the next byte belongs.
    end: Offset,
    /// The last place between two commands.
    last: Boundary,
    open: Option<OpenFile>,
    /// Of the open segment.
    tally: Tally,
    snapshot: Option<(Position, PathBuf, File)>,
    skew: Option<i64>,
    looked: Instant,
    /// Bytes received since.
    unlooked: u64,
}

/// What was counted in the open segment.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    commands: u64,
    first: Option<Boundary>,
    /// When the first write in it was received.
    first_write: Option<Instant>,
    last_received: Option<Timestamp>,
}

impl Segmenter {
    pub(super) fn new(spool: Arc<Spool>, shared: Shared, policy: CutPolicy, limit: u64) -> Self {
        Self {
            spool,
            shared,
            policy,
            limit,
            id: None,
            end: Offset(0),
            last: Boundary::at(Offset(0), StreamState::default()),
            open: None,
            tally: Tally::default(),
            snapshot: None,
            skew: None,
            looked: Instant::now(),
            unlooked: 0,
        }
    }

    /// Goes on with the open segment of a former process behind its last whole command, and says where that is.
    pub(super) fn adopt(
        &mut self,
        mut open: OpenFile,
    ) -> Result<Option<(Position, StreamState)>, FollowError> {
        let Some(begin) = open.begin else { return Ok(None) };
        let content = open.read_from(open.span.start).map_err(self.failed("read"))?;
        let mut scanner = CommandScanner::new(begin.offset, begin.state);
        let (mut commands, mut last_write) = (0, None);
        let scanned = scanner.scan(&content, |command| {
            commands += 1;
            if !command.is_filler() {
                last_write = Some(command.end);
            }
        });
        // What is behind the last whole command is received again, whatever it is.
        _ = scanned;
        let last = Boundary::at(scanner.boundary(), scanner.state());
        open.cut(last.offset).map_err(self.failed("cut"))?;
        let at = Timestamp::now();
        self.tally = Tally { commands, first: Some(begin), first_write: None, last_received: Some(at) };
        self.tally.first_write = last_write.map(|_| Instant::now());
        (self.id, self.end, self.last, self.skew) =
            (Some(open.id), last.offset, last, open.clock_skew_millis);
        let position = Position::new(open.id, last.offset);
        self.open = Some(open);
        self.shared.change(|facts| {
            facts.received = Some(position);
            facts.last_write = last_write.unwrap_or(begin.offset);
        });
        Ok(Some((position, last.state)))
    }

    fn failed(&self, op: &'static str) -> impl Fn(std::io::Error) -> FollowError + use<> {
        self.spool.failed(op)
    }

    /// Works until the connection's end of the channel is dropped. Blocks.
    pub(super) fn run(
        mut self,
        runtime: &Handle,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<(), FollowError> {
        loop {
            let wait = self.cut_if_due()?;
            self.look()?;
            let next = runtime.block_on(async { tokio::time::timeout(wait.min(LOOK), pieces.recv()).await });
            match next {
                Err(_) => {}
                Ok(None) => break,
                Ok(Some(piece)) => self.take(piece)?,
            }
        }
        self.flush()
    }

    fn take(&mut self, piece: Piece) -> Result<(), FollowError> {
        match piece {
            Piece::Snapshot(position) => {
                self.flush()?;
                let (path, file) = self.spool.begin_snapshot(position)?;
                self.snapshot = Some((position, path, file));
                self.shared.change(|facts| (facts.base_pending, facts.receiving_base) = (true, true));
            }
            Piece::SnapshotBytes(bytes) => {
                if let Some((_, _, file)) = &mut self.snapshot {
                    file.write_all(&bytes).map_err(|source| self.spool.failed("write")(source))?;
                }
            }
            Piece::SnapshotEnd => self.end_snapshot()?,
            Piece::Stream { position, state, anew, record, clock_skew_millis } => {
                self.begin(position, state, anew, record)?;
                self.skew = clock_skew_millis;
            }
            Piece::Bytes(received) => self.receive(&received)?,
        }
        Ok(())
    }

    fn end_snapshot(&mut self) -> Result<(), FollowError> {
        let Some((position, path, file)) = self.snapshot.take() else { return Ok(()) };
        let snapshot = self.spool.close_snapshot(position, &path, &file)?;
        // What came before belongs to another base; nothing of this one is stored yet.
        self.shared.queue().snapshots.push_back(snapshot);
        self.shared.work.notify_one();
        Ok(())
    }

    /// The stream goes on, perhaps under another id.
    fn begin(
        &mut self,
        position: Position,
        state: StreamState,
        anew: Option<Timestamp>,
        record: Option<Box<HistoryRecord>>,
    ) -> Result<(), FollowError> {
        // A snapshot that did not become whole.
        if let Some((_, path, _)) = self.snapshot.take() {
            self.spool.remove(&path)?;
        }
        let pending = !self.shared.queue().snapshots.is_empty();
        self.shared.change(|facts| {
            facts.receiving_base = false;
            // One that broke off is not awaited any more.
            facts.base_pending &= anew.is_some() || pending;
        });
        if let Some(record) = record {
            self.spool.keep_history(&record)?;
            self.shared.queue().histories.push_back(*record);
            // Without it nobody knows of the stream, however long it takes until something is written.
            self.shared.work.notify_one();
        }
        let Position { replication_id, offset } = position;
        if let Some(at) = anew {
            self.flush()?;
            self.forget();
            self.spool.begun(&Begun { position, at })?;
            self.shared.change(|facts| {
                facts.epoch += 1;
                facts.last_write = offset;
                facts.durable = Some(position);
            });
        } else {
            self.go_back(offset)?;
            if self.id != Some(replication_id) {
                // The same bytes from here on, under another name.
                self.close(offset)?;
                self.forget();
                self.shared.change(|facts| {
                    let is_all = facts.waiting == 0 && facts.durable.is_none_or(|it| it.offset >= offset);
                    facts.durable = if is_all { Some(position) } else { facts.durable };
                });
            }
            self.shared.change(|facts| facts.last_write = facts.last_write.min(offset));
        }
        (self.id, self.end, self.last) = (Some(replication_id), offset, Boundary::at(offset, state));
        self.shared.change(|facts| facts.received = Some(position));
        Ok(())
    }

    /// What came of a command that was not whole comes again.
    fn go_back(&mut self, offset: Offset) -> Result<(), FollowError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if open.span.start <= offset && offset <= open.span.end {
            open.cut(offset).map_err(self.failed("cut"))?;
            self.open = Some(open);
        } else {
            // It began within that command.
            self.spool.forget(&open);
            self.tally = Tally::default();
        }
        Ok(())
    }

    fn receive(&mut self, received: &Received) -> Result<(), FollowError> {
        let Some(id) = self.id else { return Ok(()) };
        if self.open.is_none() {
            let begin = Some(self.last).filter(|last| last.offset == self.end);
            self.tally = Tally { first: begin, ..Tally::default() };
            self.open = Some(self.spool.begin(id, self.end, begin, received.at, self.skew)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.append(&received.bytes).map_err(|source| self.spool.failed("write")(source))?;
        self.end = open.span.end;
        self.unlooked += received.bytes.len() as u64;
        self.last = received.last;
        let tally = &mut self.tally;
        tally.commands += received.commands;
        tally.first = tally.first.or(received.first);
        tally.last_received = Some(received.at);
        // A part of a command may be one of a write.
        let partial = Some(self.end).filter(|end| *end > received.last.offset);
        let last_write = partial.or(received.last_write);
        if last_write.is_some() {
            tally.first_write.get_or_insert_with(Instant::now);
        }
        let position = Position::new(id, self.end);
        self.shared.change(|facts| {
            facts.received = Some(position);
            facts.received_at = Some(received.at);
            facts.last_write = last_write.unwrap_or(facts.last_write);
        });
        Ok(())
    }

    /// Cuts as often as it is time to, and says how long to wait for the next time.
    fn cut_if_due(&mut self) -> Result<Duration, FollowError> {
        loop {
            let Some(open) = &self.open else { return Ok(LOOK) };
            let facts = OpenFacts {
                start: open.span.start,
                boundary: self.last.offset.max(open.span.start),
                end: open.span.end,
                oldest_write: self.tally.first_write.map(|at| at.elapsed()),
            };
            match cut(&facts, &self.policy) {
                Cut::At(offset) => self.close(offset)?,
                Cut::In(wait) => return Ok(wait),
                Cut::Wait => return Ok(LOOK),
            }
        }
    }

    /// Closes the open segment at an offset; what lies behind begins the next one.
    fn close(&mut self, end: Offset) -> Result<(), FollowError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if end <= open.span.start {
            self.open = Some(open);
            return Ok(());
        }
        let rest = open.read_from(end).map_err(self.failed("read"))?;
        let boundary = self.last;
        let name = SegmentName {
            replication_id: open.id,
            span: Span { start: open.span.start, end },
            level: Level::Fresh,
        };
        let received = self.tally.last_received.unwrap_or(open.first_received);
        let mut head = SegmentHead::new(&name, open.first_received, received.max(open.first_received));
        head.clock_skew_millis = open.clock_skew_millis;
        head.commands = self.tally.commands;
        let within = |it: &Boundary| name.span.start <= it.offset && it.offset <= end;
        head.first = self.tally.first.filter(within);
        head.last = Some(boundary).filter(within).or(head.first);
        let id = open.id;
        let begin = Some(boundary).filter(|boundary| boundary.offset == end);
        let closed = self.spool.close(&open, head)?;
        let epoch = self.shared.get(|facts| facts.epoch);
        self.shared.queue().closed.push_back((epoch, closed));
        self.shared.change(|facts| facts.waiting += 1);
        self.shared.work.notify_one();
        self.tally = Tally { first: begin, ..Tally::default() };
        if !rest.is_empty() {
            let mut next = self.spool.begin(id, end, begin, received, self.skew)?;
            next.append(&rest).map_err(self.failed("write"))?;
            self.tally.last_received = Some(received);
            self.tally.first_write = Some(Instant::now());
            self.open = Some(next);
        }
        Ok(())
    }

    /// Closes the open segment behind its last whole command; filler alone is not worth it.
    fn flush(&mut self) -> Result<(), FollowError> {
        if self.tally.first_write.is_none() {
            return Ok(());
        }
        let start = self.open.as_ref().map_or(Offset(0), |open| open.span.start);
        self.close(self.last.offset.max(start))
    }

    fn forget(&mut self) {
        if let Some(open) = self.open.take() {
            self.spool.forget(&open);
        }
        self.tally = Tally::default();
    }

    fn look(&mut self) -> Result<(), FollowError> {
        if self.looked.elapsed() >= LOOK || self.unlooked >= LOOK_BYTES {
            (self.looked, self.unlooked) = (Instant::now(), 0);
            let room = self.spool.room(self.limit)?;
            self.shared.spool(room.bytes, room.limit);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "segmenter_tests.rs"]
mod tests;
