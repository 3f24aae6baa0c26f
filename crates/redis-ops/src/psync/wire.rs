//! The connection of a replica: lines of the handshake, then raw bytes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::Error;
use crate::source::{Address, Endpoint};
use crate::transport::{self, Transport};

/// Longest line of an answer; error texts are shorter.
const MAX_LINE: usize = 4096;
/// How much of a strange answer is quoted.
const QUOTED: usize = 80;

/// A connection and what was read from it and not used yet.
pub(crate) struct Wire {
    pub(super) address: Address,
    pub(crate) stream: Box<dyn Transport>,
    pub(super) unread: Vec<u8>,
    /// Longest time in which nothing comes.
    pub(super) silence: Duration,
}

impl Wire {
    pub(super) async fn open(endpoint: &Endpoint, patience: Duration) -> Result<Self, Error> {
        let stream = transport::open(endpoint, patience).await?;
        let address = endpoint.address.clone();
        Ok(Self { address, stream, unread: Vec::new(), silence: patience })
    }

    /// Sends a command.
    pub(super) async fn send(&mut self, words: &[&[u8]], doing: &'static str) -> Result<(), Error> {
        let bytes = encode(words);
        let lost = |source| Error::Lost { address: self.address.clone(), doing, source };
        match tokio::time::timeout(self.silence, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(lost(source)),
            Err(_) => Err(Error::Silent { address: self.address.clone(), doing, after: self.silence }),
        }
    }

    /// Appends what comes next to `into`, at most `room` bytes of it.
    pub(super) async fn read(
        &mut self,
        into: &mut Vec<u8>,
        room: usize,
        doing: &'static str,
    ) -> Result<usize, Error> {
        if !self.unread.is_empty() {
            let taken = self.unread.len().min(room);
            into.extend(self.unread.drain(..taken));
            return Ok(taken);
        }
        let mut limited = bytes::BufMut::limit(&mut *into, room);
        let reading = self.stream.read_buf(&mut limited);
        match tokio::time::timeout(self.silence, reading).await {
            Ok(Ok(0)) => {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it");
                Err(Error::Lost { address: self.address.clone(), doing, source })
            }
            Ok(Ok(read)) => Ok(read),
            Ok(Err(source)) => Err(self.lost(source, doing)),
            Err(_) => Err(Error::Silent { address: self.address.clone(), doing, after: self.silence }),
        }
    }

    /// What a failed read means: a server that wants a certificate of ours says so only now.
    fn lost(&self, source: io::Error, doing: &'static str) -> Error {
        let address = self.address.clone();
        if source.get_ref().is_some_and(|error| error.is::<rustls::Error>()) {
            return Error::Tls { address, problem: source.to_string() };
        }
        Error::Lost { address, doing, source }
    }

    /// The next line, without its end.
    pub(super) async fn line(&mut self, doing: &'static str) -> Result<String, Error> {
        let mut line = Vec::new();
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                line.extend(self.unread.drain(..=end));
                while line.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
                    line.pop();
                }
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.unread.len() > MAX_LINE {
                return Err(self.strange(doing, &self.unread));
            }
            let mut more = Vec::with_capacity(MAX_LINE);
            let held = std::mem::take(&mut self.unread);
            let read = self.read(&mut more, MAX_LINE, doing).await;
            self.unread = held;
            read?;
            self.unread.append(&mut more);
        }
    }

    /// An answer that the protocol does not have.
    pub(super) fn strange(&self, doing: &'static str, bytes: &[u8]) -> Error {
        Error::Protocol { address: self.address.clone(), doing, found: quote(bytes) }
    }
}

/// The beginning of some bytes, printable.
pub(super) fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED)]).into_owned();
    text.chars().map(|letter| if letter.is_control() { '.' } else { letter }).collect()
}

/// A command as an array of bulk strings.
pub(super) fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
