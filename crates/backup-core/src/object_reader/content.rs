//! From stored to plain bytes, and the checks on them.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use age::DecryptError;

use super::fetch::Sources;
use super::queue::Queue;
use crate::codec::decompress;
use crate::encryption::Identities;
use crate::error::Error;
use crate::id::SetId;
use crate::manifest::ObjectEntry;

/// Read buffer between decryption and decompression: one chunk of the age format.
const DECRYPTED: usize = 64 << 10;

/// Plain content that keeps its promises: exactly the length of the manifest, nothing after a failure, no end without
/// verification.
pub(super) struct Content {
    set: SetId,
    entry: ObjectEntry,
    identities: Identities,
    sources: Sources,
    verified: Arc<AtomicBool>,
    state: State,
    delivered: u64,
}

enum State {
    /// Nothing was read: opening reads the age header, which blocks.
    Unopened(Queue),
    Open(Box<dyn Read + Send>),
    Ended,
    Failed(String),
}

impl Content {
    pub(super) fn new(
        set: SetId,
        entry: ObjectEntry,
        identities: Identities,
        sources: Sources,
        queue: Queue,
    ) -> Self {
        let verified = queue.verified();
        Self { set, entry, identities, sources, verified, state: State::Unopened(queue), delivered: 0 }
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        match self.advance(buf) {
            Ok(len) => Ok(len),
            Err(error) => {
                // A consumer that reads on must not see an end where there was an error.
                self.state = State::Failed(error.to_string());
                Err(io::Error::other(error))
            }
        }
    }

    fn advance(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Ok(0),
            State::Failed(problem) => return Err(self.damaged(problem)),
            State::Unopened(queue) => self.state = State::Open(self.open(queue)?),
            open @ State::Open(_) => self.state = open,
        }
        let left = self.entry.plain - self.delivered;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let len = self.pull(&mut buf[..wanted])?;
        self.delivered += len as u64;
        if len == 0 && left > 0 {
            return Err(self.distrusted(&format!(
                "it ends after {} of {} plain bytes",
                self.delivered, self.entry.plain
            )));
        }
        // The last bytes are not handed over before everything is known to be right, because a consumer that
        // knows the length never reads again.
        if self.delivered == self.entry.plain {
            self.end()?;
        }
        Ok(len)
    }

    fn end(&mut self) -> Result<(), Error> {
        if self.pull(&mut [0])? != 0 {
            return Err(self.distrusted(&format!("it is longer than {} plain bytes", self.entry.plain)));
        }
        if !self.verified.load(Ordering::Acquire) {
            return Err(self.distrusted("it ends before its stored bytes do"));
        }
        self.state = State::Ended;
        Ok(())
    }

    fn pull(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let State::Open(reader) = &mut self.state else { return Ok(0) };
        loop {
            match reader.read(buf) {
                Ok(len) => return Ok(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    fn open(&self, queue: Queue) -> Result<Box<dyn Read + Send>, Error> {
        let codec = self.entry.codec;
        let opened = if self.entry.recipients.is_empty() {
            decompress(codec, queue)
        } else {
            let decrypted = self.identities.decrypt(queue).map_err(|error| self.explain_age(error))?;
            decompress(codec, BufReader::with_capacity(DECRYPTED, decrypted))
        };
        opened.map_err(|error| self.explain(error))
    }

    /// An error of ours comes back as it is; one of a decoder means that the bytes are wrong.
    fn explain(&self, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => self.distrusted(&format!("its stored bytes cannot be decoded ({error})")),
        }
    }

    fn explain_age(&self, error: DecryptError) -> Error {
        match error {
            DecryptError::Io(error) => self.explain(error),
            DecryptError::NoMatchingKeys => {
                let problem = "none of the keys given opens it".to_owned();
                Error::Key { set: self.set.clone(), problem }
            }
            other => self.distrusted(&format!("it cannot be decrypted ({other})")),
        }
    }

    /// Damage found here is not yet known to the fetching task.
    fn distrusted(&self, problem: &str) -> Error {
        self.sources.distrust();
        self.damaged(format!("{problem}, read from {}", self.sources))
    }

    fn damaged(&self, problem: String) -> Error {
        Error::Damaged { set: self.set.clone(), object: self.entry.name.clone(), problem }
    }
}
