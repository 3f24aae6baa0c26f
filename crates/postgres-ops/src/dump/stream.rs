//! Carries one `pg_dump` stream from its pipe into objects, reading its content on the way. Blocking.
//!
//! ```text
//! pipe → buffers of a frame → ArchiveScanner (rows, digests, offsets) → cut at table boundaries → one channel per object
//! ```
//!
//! A large table begins a new object and so does whatever follows it, so that a restore can fetch one table without
//! the others and several tables at a time. The objects in order are still one archive: `cat` joins them.

use std::io::{self, Read};

use backstay_backup_core::pipeline::FrameBuffers;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::archive::{ArchiveError, ArchiveFacts, ArchiveScanner, Boundary, DumpId, ScanOptions};

/// An object that has this many plain bytes ends at the next table.
const ENOUGH: u64 = 256 << 20;
/// An object ends here even in the midst of a table.
const MOST: u64 = 1 << 30;

/// Input of one object: its bytes, or the reason why there are no more.
pub(crate) type ObjectInput = mpsc::Receiver<io::Result<Bytes>>;

/// What was read from one stream.
#[derive(Debug)]
pub(crate) struct ScannedStream {
    /// Everything the archive says of itself.
    pub facts: ArchiveFacts,
    /// How many objects it was cut into.
    pub objects: usize,
}

/// Reads the whole stream; every new object is announced through `objects` before its first byte.
///
/// # Errors
/// An I/O error, or [`ArchiveError`] inside one for a stream that is no whole archive; the open object gets it too.
/// A closed channel means that the other side has given up.
pub(crate) fn pump(
    mut pipe: impl Read,
    buffers: &FrameBuffers,
    options: ScanOptions,
    is_large: impl Fn(&str, &str) -> bool,
    objects: mpsc::Sender<ObjectInput>,
    mut seen: impl FnMut(u64),
) -> io::Result<ScannedStream> {
    let mut scanner = ArchiveScanner::new(options);
    let mut cutter = Cutter { objects, current: None, length: 0, count: 0, in_large: false };
    loop {
        let mut buffer = buffers.take();
        let read = pipe.by_ref().take(cutter.frame_rest(buffers.size())).read_to_end(&mut buffer);
        let step = read.and_then(|len| {
            let start = scanner.offset();
            scanner.push(&buffer).map_err(broken)?;
            Ok((start, len))
        });
        let (start, len) = match step {
            Ok(step) => step,
            Err(error) => return Err(cutter.fail(error)),
        };
        if len == 0 {
            break;
        }
        seen(len as u64);
        let cuts = cutter.cuts(&scanner, &is_large, start);
        cutter.send(Bytes::from_owner(buffer), start, &cuts)?;
    }
    match scanner.finish() {
        Ok(facts) => Ok(ScannedStream { facts, objects: cutter.count }),
        Err(error) => Err(cutter.fail(broken(error))),
    }
}

fn broken(error: ArchiveError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

struct Cutter {
    objects: mpsc::Sender<ObjectInput>,
    current: Option<mpsc::Sender<io::Result<Bytes>>>,
    /// Bytes in the current object.
    length: u64,
    count: usize,
    in_large: bool,
}

impl Cutter {
    /// How much is missing to a full frame of the current object. Pieces that end with a frame need no copy.
    fn frame_rest(&self, frame: usize) -> u64 {
        let frame = frame as u64;
        frame - self.length % frame
    }

    /// Offsets within the last piece at which a new object begins.
    fn cuts(
        &mut self,
        scanner: &ArchiveScanner,
        is_large: &impl Fn(&str, &str) -> bool,
        start: u64,
    ) -> Vec<u64> {
        let mut cuts = Vec::new();
        let mut length = self.length;
        let mut last = start;
        for boundary in scanner.boundaries() {
            let Boundary::BlockStart { dump_id, offset, .. } = boundary else { continue };
            // The head of a block can lie in the piece before, which is gone.
            if *offset < start {
                continue;
            }
            let large = large_table(scanner, *dump_id, is_large);
            let filled = length + (offset - last);
            if filled > 0 && (large || self.in_large || filled >= ENOUGH) {
                cuts.push(*offset);
                (length, last) = (0, *offset);
            }
            self.in_large = large;
        }
        cuts
    }

    fn send(&mut self, mut piece: Bytes, start: u64, cuts: &[u64]) -> io::Result<()> {
        let mut at = start;
        for cut in cuts {
            let before = piece.split_to(usize::try_from(cut - at).unwrap_or(piece.len()));
            at = *cut;
            self.append(before)?;
            self.close();
        }
        if self.length >= MOST {
            self.close();
        }
        self.append(piece)
    }

    fn close(&mut self) {
        self.current = None;
        self.length = 0;
    }

    fn append(&mut self, piece: Bytes) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        if self.current.is_none() {
            let (sender, receiver) = mpsc::channel(1);
            self.objects.blocking_send(receiver).map_err(|_| gone())?;
            self.current = Some(sender);
            self.count += 1;
        }
        self.length += piece.len() as u64;
        let sender = self.current.as_ref().expect("made above");
        sender.blocking_send(Ok(piece)).map_err(|_| gone())
    }

    /// Tells the open object why it will never be whole.
    fn fail(&self, error: io::Error) -> io::Error {
        if let Some(sender) = &self.current {
            let copy = io::Error::new(error.kind(), error.to_string());
            // The receiver may have given up already, which is as good.
            let _ = sender.blocking_send(Err(copy));
        }
        error
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the repository gave up")
}

fn large_table(scanner: &ArchiveScanner, id: DumpId, is_large: &impl Fn(&str, &str) -> bool) -> bool {
    let Some((schema, name)) = scanner.toc().and_then(|toc| toc.table_name(id)) else { return false };
    is_large(&schema.to_str_lossy(), &name.to_str_lossy())
}
