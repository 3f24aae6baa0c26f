//! From a thread that reads files to the set that stores them, one frame at a time.

use std::io;

use backstay_backup_core::pipeline::{Buffer, FrameBuffers};
use bytes::Bytes;
use futures::Stream;
use futures::stream;
use tokio::sync::mpsc;

/// Frames between the two.
const QUEUE: usize = 2;

/// The writing end.
#[derive(Debug)]
pub(crate) struct FrameSink {
    buffers: FrameBuffers,
    current: Buffer,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

/// Both ends.
pub(crate) fn channel(buffers: FrameBuffers) -> (FrameSink, impl Stream<Item = io::Result<Bytes>> + Send) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let current = buffers.take();
    let received = stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    (FrameSink { buffers, current, sender }, received)
}

impl FrameSink {
    /// Appends bytes. For blocking threads.
    ///
    /// # Errors
    /// Nobody stores them any more.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = (self.buffers.size() - self.current.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.current.extend_from_slice(now);
            bytes = later;
            if self.current.len() == self.buffers.size() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.current, self.buffers.take());
        self.sender
            .blocking_send(Ok(Bytes::from_owner(full)))
            .map_err(|_| io::Error::other("nobody stores it any more"))
    }

    /// Sends the last frame and ends the stream.
    ///
    /// # Errors
    /// As [`FrameSink::write`].
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.current.is_empty() { Ok(()) } else { self.flush() }
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(self, error: io::Error) {
        let _ = self.sender.blocking_send(Err(error));
    }
}
