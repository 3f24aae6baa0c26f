//! The blocking end of an object of the set: fills frames, and hands them to the asynchronous end.

use std::fs::File;
use std::io::{self, Write};

use backstay_backup_core::pipeline::{Buffer, FrameBuffers};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Writes an object; every frame is sent when it is full, and waits for the frame before it.
#[derive(Debug)]
pub(super) struct FrameWriter {
    buffers: FrameBuffers,
    buffer: Buffer,
    sender: mpsc::Sender<io::Result<Bytes>>,
    sent: u64,
}

impl FrameWriter {
    /// A writer, and the stream that [`backstay_backup_core::set_writer::SetWriter::object`] takes.
    pub(super) fn new(buffers: FrameBuffers) -> (Self, ReceiverStream<io::Result<Bytes>>) {
        let (sender, receiver) = mpsc::channel(1);
        let buffer = buffers.take();
        (Self { buffers, buffer, sender, sent: 0 }, ReceiverStream::new(receiver))
    }

    /// Bytes written so far.
    pub(super) fn position(&self) -> u64 {
        self.sent + self.buffer.len() as u64
    }

    /// Reads from a file at an offset, at most `wanted` bytes; nothing at the end of the file.
    pub(super) fn read_from(&mut self, file: &File, offset: u64, wanted: u64) -> io::Result<&[u8]> {
        self.make_room()?;
        let before = self.buffer.len();
        let room = self.buffers.size() - before;
        let wanted = usize::try_from(wanted).map_or(room, |wanted| wanted.min(room));
        rustix::io::retry_on_intr(|| rustix::io::pread(file, spare_capacity(&mut self.buffer), offset))?;
        // What a file has grown by meanwhile was read too.
        self.buffer.truncate(before + wanted);
        Ok(&self.buffer[before..])
    }

    /// Whether the other end is gone, so that nothing more is worth reading.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Ends the object.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }

    /// Ends the object with an error, so that nothing of it becomes visible.
    pub(super) fn fail(self) {
        // Nobody listens where the other end failed first.
        let _ = self.sender.blocking_send(Err(io::Error::other("its source failed")));
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.buffer.len() < self.buffers.size() { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, self.buffers.take());
        self.sent += full.len() as u64;
        self.sender.blocking_send(Ok(Bytes::from_owner(full))).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for FrameWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.make_room()?;
        let taken = bytes.len().min(self.buffers.size() - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
