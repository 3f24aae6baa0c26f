//! A file that is written and synced while its next bytes are being made.
//!
//! ```text
//! caller: fills a buffer ─▶ a thread writes it ─▶ another one syncs what was written by then
//! ```
//!
//! At the end little is left to wait for. Memory is that of [`QUEUE`] and two more buffers of [`BUFFER`] bytes.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

/// Bytes of a buffer.
const BUFFER: usize = 1 << 20;
/// Buffers that wait to be written.
const QUEUE: usize = 4;
/// Bytes after which what was written is synced; the disk works on them meanwhile.
const SYNCED_AT_ONCE: usize = 16 << 20;

/// A file being written. Dropped without [`SyncedFile::finish`] it is left as it is by then.
pub(super) struct SyncedFile {
    buffer: Vec<u8>,
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl SyncedFile {
    /// Goes on where the file stands.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let (full, to_write) = sync_channel(QUEUE);
        let (written, empty) = channel();
        let writing = Builder::new().name("write".to_owned());
        let writing = writing.spawn(move || write(file, &to_write, &written))?;
        let buffer = Vec::with_capacity(BUFFER);
        Ok(Self { buffer, full: Some(full), empty, writing: Some(writing) })
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// Whatever went wrong with it, now or before.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.pass_on()?;
        }
        self.end()
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        let filled = std::mem::replace(&mut self.buffer, next);
        let sent = self.full.as_ref().is_some_and(|full| full.send(filled).is_ok());
        // The thread ends early only with an error.
        if sent { Ok(()) } else { self.end().and(Err(stopped())) }
    }

    fn end(&mut self) -> io::Result<()> {
        self.full = None;
        match self.writing.take() {
            Some(writing) => writing.join().unwrap_or_else(|_| Err(stopped())),
            None => Err(stopped()),
        }
    }
}

impl Drop for SyncedFile {
    fn drop(&mut self) {
        if self.writing.is_some() {
            // Whoever drops it has another error to tell.
            let _ = self.end();
        }
    }
}

impl Write for SyncedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == BUFFER {
            self.pass_on()?;
        }
        Ok(taken)
    }

    /// What is not written yet stays in memory until there is more, or the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stopped() -> io::Error {
    io::Error::other("the thread that writes has stopped")
}

fn write(mut file: File, full: &Receiver<Vec<u8>>, written: &Sender<Vec<u8>>) -> io::Result<()> {
    let (wake, woken) = sync_channel::<()>(1);
    let same = file.try_clone()?;
    let syncing = Builder::new().name("sync".to_owned()).spawn(move || {
        // A failed sync is reported once only, so its error must not be lost.
        woken.iter().try_for_each(|()| same.sync_data())
    })?;
    let mut unsynced = 0;
    let all = full.iter().try_for_each(|mut buffer| {
        file.write_all(&buffer)?;
        unsynced += buffer.len();
        if unsynced >= SYNCED_AT_ONCE {
            unsynced = 0;
            // One that is at work already goes on with these bytes afterwards.
            let _ = wake.try_send(());
        }
        buffer.clear();
        // Nobody wants it any more at the end.
        let _ = written.send(buffer);
        Ok::<_, io::Error>(())
    });
    drop(wake);
    let synced = syncing.join().unwrap_or_else(|_| Err(stopped()));
    all.and(synced).and_then(|()| file.sync_all())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn everything_arrives_in_order_whatever_the_pieces() {
        for pieces in [1_usize, 1000, BUFFER, 3 * BUFFER + 17] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let content: Vec<u8> = (0..(21 << 20) + 5).map(|at: u32| (at / 3) as u8).collect();
            let content = if pieces == 1 { &content[..10_000] } else { &content[..] };
            let mut output = SyncedFile::new(file.reopen().unwrap()).unwrap();
            for piece in content.chunks(pieces) {
                output.write_all(piece).unwrap();
            }
            output.finish().unwrap();
            let mut found = Vec::new();
            file.reopen().unwrap().read_to_end(&mut found).unwrap();
            assert!(found == content, "pieces of {pieces}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_not_a_hang() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let mut output = SyncedFile::new(File::open(&path).unwrap()).unwrap();
        let written = (0..64).try_for_each(|_| output.write_all(&vec![1; BUFFER]));
        let error = written.and_then(|()| output.finish()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(9), "{error}");
        let output = SyncedFile::new(File::open(&path).unwrap()).unwrap();
        drop(output);
    }
}
