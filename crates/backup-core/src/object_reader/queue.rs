//! The consumer's end of the queue of stored bytes.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc::Receiver;

use crate::error::Error;

/// What the fetching task sends: bytes, and at last either the word that all of them were good or an error.
pub(super) enum Message {
    Bytes(Vec<Bytes>),
    Good,
    Failed(Error),
}

/// Stored bytes as a blocking reader; says "end" only after [`Message::Good`].
pub(super) struct Queue {
    receiver: Receiver<Message>,
    batch: vec::IntoIter<Bytes>,
    current: Bytes,
    verified: Arc<AtomicBool>,
}

impl Queue {
    pub(super) fn new(receiver: Receiver<Message>) -> Self {
        Self { receiver, batch: Vec::new().into_iter(), current: Bytes::new(), verified: Arc::default() }
    }

    /// Becomes true once every stored byte was read and found good.
    pub(super) fn verified(&self) -> Arc<AtomicBool> {
        self.verified.clone()
    }
}

impl BufRead for Queue {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            if let Some(next) = self.batch.next() {
                self.current = next;
                continue;
            }
            if self.verified.load(Ordering::Acquire) {
                break;
            }
            match self.receiver.blocking_recv() {
                Some(Message::Bytes(batch)) => self.batch = batch.into_iter(),
                Some(Message::Good) => self.verified.store(true, Ordering::Release),
                Some(Message::Failed(error)) => return Err(io::Error::other(error)),
                None => return Err(io::Error::other(Error::Cancelled)),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for Queue {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let len = available.len().min(buf.len());
        buf[..len].copy_from_slice(&available[..len]);
        self.consume(len);
        Ok(len)
    }
}
