//! Unpacks one pack ahead of the thread that writes: one core decodes while another proves and writes.
//!
//! Needed blocks go through a queue of a few buffers, in the order in which they lie in the pack. Small ones share a
//! buffer, none is split. Both ends go through the same list of files, so nothing but content has to be handed over.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::work::FileWork;
use crate::physical::BLOCK;

/// Buffers of one block each: one being filled, one waiting, one being written.
const BUFFERS: usize = 3;

struct Buffer {
    bytes: Box<[u8]>,
    used: usize,
}

/// The end that unpacks.
pub(super) struct Unpacking {
    filled: SyncSender<Buffer>,
    empty: Receiver<Buffer>,
    current: Option<Buffer>,
}

/// The end that takes blocks.
pub(super) struct Blocks {
    filled: Receiver<Buffer>,
    empty: SyncSender<Buffer>,
    current: Option<(Buffer, usize)>,
}

/// Both ends of a queue.
pub(super) fn queue() -> (Unpacking, Blocks) {
    let (filled_in, filled) = sync_channel(BUFFERS);
    let (empty, empty_out) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        let bytes = vec![0; usize::try_from(BLOCK).expect("a block fits memory")].into_boxed_slice();
        empty.try_send(Buffer { bytes, used: 0 }).expect("there is room for all of them");
    }
    (
        Unpacking { filled: filled_in, empty: empty_out, current: None },
        Blocks { filled, empty, current: None },
    )
}

impl Unpacking {
    /// Reads the plain bytes of a pack to their very end, which proves them, and hands over what files need. Ends early
    /// when nobody takes it any more.
    pub(super) fn run(mut self, mut plain: impl Read, files: &[FileWork]) -> io::Result<()> {
        let mut rest = vec![0; 64 << 10];
        let mut at = 0;
        for block in files.iter().flat_map(FileWork::blocks).filter(|block| block.needed) {
            skip(&mut plain, block.at - at, &mut rest)?;
            let Some(room) = self.room(block.length) else { return Ok(()) };
            plain.read_exact(room)?;
            at = block.at + block.length as u64;
        }
        if let Some(buffer) = self.current.take() {
            // Whoever does not take it knows why.
            let _ = self.filled.send(buffer);
        }
        skip(&mut plain, u64::MAX, &mut rest)
    }

    /// Room for a block in the current buffer, or in the next one; `None` when the other end is gone.
    fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        if self.current.as_ref().is_some_and(|buffer| buffer.bytes.len() - buffer.used < length) {
            self.filled.send(self.current.take()?).ok()?;
        }
        if self.current.is_none() {
            self.current = Some(Buffer { used: 0, ..self.empty.recv().ok()? });
        }
        let buffer = self.current.as_mut()?;
        let start = buffer.used;
        buffer.used += length;
        buffer.bytes.get_mut(start..start + length)
    }
}

impl Blocks {
    /// The next needed block, of which the length is known; `None` when unpacking ended before it.
    pub(super) fn next(&mut self, length: usize) -> Option<&[u8]> {
        if self.current.as_ref().is_some_and(|(buffer, taken)| *taken == buffer.used) {
            let (buffer, _) = self.current.take()?;
            // The other end may have finished.
            let _ = self.empty.send(buffer);
        }
        if self.current.is_none() {
            self.current = Some((self.filled.recv().ok()?, 0));
        }
        let (buffer, taken) = self.current.as_mut()?;
        let start = *taken;
        *taken += length;
        buffer.bytes[..buffer.used].get(start..start + length)
    }
}

/// Reads so many bytes, or all that are left, and drops them.
fn skip(plain: &mut impl Read, mut bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    while bytes > 0 {
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        match plain.read(&mut buffer[..wanted])? {
            0 => break,
            read => bytes -= read as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
