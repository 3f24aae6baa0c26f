//! Compresses content as it is read, several frames at a time, and hands the frames out in order.
//!
//! ```text
//! read and hash, one thread at a time → compress, all threads at once → hand out, in order
//! ```
//!
//! Memory: for each thread a frame, its compressed form and a compressor, and `LEAD` frames that wait for an earlier one.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::hasher::Hasher;
use super::{FRAME, Seal};
use crate::codec::Compressors;
use crate::pipeline::buffers::Buffer;

/// Frames that may be ahead of the next one to be handed out.
const LEAD: usize = 4;

/// Reads the whole input, gives its frames to `emit`, and returns the seal of what was read. Calls `at_end` when all of it
/// is read and the last frames are still being compressed, with the bytes emitted so far. Blocks.
///
/// # Errors
/// Of the input, of zstd, of `emit`.
pub(super) fn compress<R: Read + Send>(
    input: R,
    level: i32,
    threads: usize,
    emit: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    at_end: impl FnOnce(usize) + Send,
) -> io::Result<Seal> {
    let source = Source { input, hasher: Hasher::default(), next: 0, ended: false };
    let work = Work {
        source: Mutex::new(source),
        sink: Mutex::new(Sink { emit, next: 0, emitted: 0, waiting: BTreeMap::new(), stopped: false }),
        moved: Condvar::new(),
        at_end: Mutex::new(Some(at_end)),
        compressors: Compressors::new(level),
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(|| work.run())).collect();
        let mine = work.run();
        let theirs = helpers.into_iter().map(|helper| match helper.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        theirs.fold(mine, Result::and)
    })?;
    let source = work.source.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(source.hasher.seal())
}

struct Work<'a, R, F> {
    source: Mutex<Source<R>>,
    sink: Mutex<Sink<'a>>,
    /// The next frame changed, or somebody failed.
    moved: Condvar,
    /// Called once.
    at_end: Mutex<Option<F>>,
    compressors: Compressors,
}

struct Source<R> {
    input: R,
    hasher: Hasher,
    next: usize,
    ended: bool,
}

struct Sink<'a> {
    emit: &'a mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    next: usize,
    emitted: usize,
    waiting: BTreeMap<usize, Buffer>,
    stopped: bool,
}

impl<R: Read, F: FnOnce(usize)> Work<'_, R, F> {
    /// Takes frames until there is none; whoever fails stops the others.
    fn run(&self) -> io::Result<()> {
        let result = self.take_frames();
        if result.is_err() {
            lock(&self.source).ended = true;
            lock(&self.sink).stopped = true;
            self.moved.notify_all();
        }
        result
    }

    fn take_frames(&self) -> io::Result<()> {
        let mut frame = Vec::with_capacity(FRAME);
        loop {
            let (number, is_last) = {
                let mut source = lock(&self.source);
                (source.read(&mut frame)?, source.ended)
            };
            if is_last && let Some(at_end) = lock(&self.at_end).take() {
                at_end(lock(&self.sink).emitted);
            }
            let Some(number) = number else { return Ok(()) };
            let compressed = self.compressors.zstd(&frame)?;
            let far = |sink: &mut Sink<'_>| !sink.stopped && number > sink.next + LEAD;
            let sink = self.moved.wait_while(lock(&self.sink), far);
            sink.unwrap_or_else(PoisonError::into_inner).take(number, compressed)?;
            self.moved.notify_all();
        }
    }
}

impl<R: Read> Source<R> {
    /// The next frame and its number; `None` at the end. There is always one, because stock zstd refuses a file without.
    fn read(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<usize>> {
        if self.ended {
            return Ok(None);
        }
        frame.clear();
        (&mut self.input).take(FRAME as u64).read_to_end(frame)?;
        self.ended = frame.len() < FRAME;
        if frame.is_empty() && self.next > 0 {
            return Ok(None);
        }
        self.hasher.update(frame);
        self.next += 1;
        Ok(Some(self.next - 1))
    }
}

impl Sink<'_> {
    fn take(&mut self, number: usize, frame: Buffer) -> io::Result<()> {
        self.waiting.insert(number, frame);
        while let Some(frame) = self.waiting.remove(&self.next) {
            (self.emit)(&frame)?;
            self.emitted += frame.len();
            self.next += 1;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
