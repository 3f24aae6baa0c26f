//! The snapshot at the beginning of a full synchronisation.

use std::fmt;

use bytes::Bytes;

use crate::error::Error;
use crate::position::{Offset, ReplicationId};
use crate::resp::StreamState;

use super::options::PsyncOptions;
use super::rdb_end::{MARK, RdbEnd};
use super::replication::Replication;
use super::wire::Wire;

const WAITING: &str = "waiting for the snapshot";
const READING: &str = "reading the snapshot";
/// Bytes read at once by [`FullSync::next`].
const PIECE: usize = 256 << 10;

/// A snapshot being received.
pub struct FullSync {
    wire: Wire,
    id: ReplicationId,
    offset: Offset,
    end: RdbEnd,
    /// Read, and perhaps the beginning of the end mark.
    held: Vec<u8>,
    received: u64,
    ended: bool,
    options: PsyncOptions,
}

impl fmt::Debug for FullSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, offset, received, .. } = self;
        write!(f, "FullSync {{ {} {id} {offset}, {received} bytes }}", self.wire.address)
    }
}

impl FullSync {
    /// Waits until the server has prepared the snapshot.
    pub(super) async fn begin(
        mut wire: Wire,
        id: ReplicationId,
        offset: Offset,
        options: &PsyncOptions,
    ) -> Result<Self, Error> {
        let deadline = tokio::time::Instant::now() + options.preparation;
        let line = loop {
            let line = wire.line(WAITING).await?;
            if !line.is_empty() {
                break line;
            }
            if tokio::time::Instant::now() >= deadline {
                let address = wire.address.clone();
                return Err(Error::Silent { address, doing: WAITING, after: options.preparation });
            }
        };
        let Some(end) = RdbEnd::parse(&line) else {
            return Err(match line.strip_prefix('-') {
                Some(words) => Error::NotReady { address: wire.address.clone(), words: words.to_owned() },
                None => wire.strange(WAITING, line.as_bytes()),
            });
        };
        let (held, options) = (Vec::new(), *options);
        Ok(Self { wire, id, offset, end, held, received: 0, ended: false, options })
    }

    /// The stream that it belongs to.
    #[must_use]
    pub fn id(&self) -> ReplicationId {
        self.id
    }

    /// The moment of the stream that it holds.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Its length, where the server knows it beforehand.
    #[must_use]
    pub fn expected_length(&self) -> Option<u64> {
        self.end.expected()
    }

    /// Bytes of it that were handed out.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Appends the next bytes of the snapshot to `into`, about `room` of them at most (64 more when an end mark seems to
    /// begin); 0 at its end.
    ///
    /// # Errors
    /// A connection that ends or falls silent before the end of the snapshot.
    ///
    /// # Cancel safety
    /// After a dropped call the snapshot must not be used.
    pub async fn read(&mut self, into: &mut Vec<u8>, room: usize) -> Result<usize, Error> {
        loop {
            if self.ended || self.end.expected() == Some(self.received) {
                self.ended = true;
                return Ok(0);
            }
            let begin = into.len();
            let room = room.max(1) + if self.held.is_empty() { 0 } else { MARK };
            into.append(&mut self.held);
            let room = room - (into.len() - begin);
            self.wire.read(into, room, READING).await?;
            let found = self.end.find(&into[begin..], self.received);
            if let Some(behind) = found.behind {
                self.ended = true;
                // What was read behind the end is the beginning of the stream.
                let mut stream = into[begin + behind..].to_vec();
                stream.append(&mut self.wire.unread);
                self.wire.unread = stream;
            } else {
                self.held.extend_from_slice(&into[begin + found.content..]);
            }
            into.truncate(begin + found.content);
            self.received += found.content as u64;
            if found.content > 0 {
                return Ok(found.content);
            }
        }
    }

    /// The next piece of the snapshot, `None` at its end.
    ///
    /// # Errors
    /// As [`FullSync::read`].
    ///
    /// # Cancel safety
    /// As [`FullSync::read`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut piece = Vec::with_capacity(PIECE);
        let read = self.read(&mut piece, PIECE).await?;
        Ok((read > 0).then(|| Bytes::from(piece)))
    }

    /// The stream behind the snapshot. Nothing of it is acknowledged before [`super::Acknowledger::durable`] says so;
    /// the server learns at once that it can begin to send.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the snapshot was not read to its end.
    pub fn into_stream(self) -> Result<Replication, Error> {
        if !self.ended {
            return Err(self.wire.strange(READING, b"the snapshot was not read to its end"));
        }
        let Self { wire, id, offset, options, .. } = self;
        Ok(Replication::begin(wire, id, offset, StreamState::default(), Offset(0), &options))
    }
}
