//! The stream of a replica, and what it acknowledges.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::position::{Offset, ReplicationId};
use crate::resp::{Capture, Command, CommandScanner, StreamState};
use crate::source::Address;
use crate::transport::Transport;

use super::options::PsyncOptions;
use super::wire::{Wire, encode};

const READING: &str = "reading the stream";
/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// Longest time between acknowledgements until the stream begins. A server that writes its snapshot to the connection begins
/// with the first one that comes after it noticed the snapshot's end, and overlooks those before.
const AT_FIRST: Duration = Duration::from_secs(1);

/// A piece of the stream, and what is known of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Chunk {
    /// The bytes.
    pub bytes: Bytes,
    /// Where they lie in the stream.
    pub range: Range<Offset>,
    /// Commands that end in it.
    pub commands: u64,
    /// Those of them that are writes, and not `PING`s and the like.
    pub writes: u64,
    /// End of the last whole command so far.
    pub boundary: Offset,
    /// End of the last whole command outside a transaction so far: the stream may be cut there.
    pub cut: Offset,
    /// What holds at `boundary`.
    pub state: StreamState,
}

/// Says what is durable; clones speak for the same replica.
#[derive(Clone, Debug)]
pub struct Acknowledger {
    durable: Arc<watch::Sender<Offset>>,
}

impl Acknowledger {
    /// Everything up to there is safe and will be acknowledged at once. Going back is ignored.
    pub fn durable(&self, offset: Offset) {
        self.durable.send_if_modified(|known| {
            let further = offset > *known;
            if further {
                *known = offset;
            }
            further
        });
    }

    /// What was called durable last.
    #[must_use]
    pub fn acknowledged(&self) -> Offset {
        *self.durable.borrow()
    }
}

/// The stream behind a snapshot, or from where one was.
pub struct Replication {
    address: Address,
    id: ReplicationId,
    reader: ReadHalf<Box<dyn Transport>>,
    /// Where pieces are read to; what is handed out is as large as what came.
    buffer: Box<[u8]>,
    unread: Vec<u8>,
    scanner: CommandScanner,
    silence: Duration,
    acknowledger: Acknowledger,
    news: Arc<News>,
    acknowledging: JoinHandle<io::Error>,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replication {{ {} {} {} }}", self.address, self.id, self.offset())
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        self.acknowledging.abort();
    }
}

impl Replication {
    pub(super) fn begin(
        wire: Wire,
        id: ReplicationId,
        offset: Offset,
        state: StreamState,
        durable: Offset,
        options: &PsyncOptions,
    ) -> Self {
        let Wire { address, mut stream, unread, .. } = wire;
        stream.pace();
        let (reader, writer) = tokio::io::split(stream);
        let (sender, receiver) = watch::channel(durable);
        let news = Arc::new(News::default());
        let acknowledging =
            tokio::spawn(acknowledge(writer, receiver, Arc::clone(&news), options.acknowledge_every));
        let acknowledger = Acknowledger { durable: Arc::new(sender) };
        let scanner = CommandScanner::new(offset, state);
        let silence = options.silence;
        let buffer = vec![0; PIECE].into_boxed_slice();
        Self { address, id, reader, buffer, unread, scanner, silence, acknowledger, news, acknowledging }
    }

    /// Sets how much of each command [`Replication::next_with`] shows.
    #[must_use]
    pub fn capture(mut self, capture: Capture) -> Self {
        self.scanner.set_capture(capture);
        self
    }

    /// The stream.
    #[must_use]
    pub fn id(&self) -> ReplicationId {
        self.id
    }

    /// How much of the stream was handed out.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.scanner.offset()
    }

    /// What holds at the end of the last whole command.
    #[must_use]
    pub fn state(&self) -> StreamState {
        self.scanner.state()
    }

    /// Says what is durable.
    #[must_use]
    pub fn acknowledger(&self) -> Acknowledger {
        self.acknowledger.clone()
    }

    /// The next piece of the stream.
    ///
    /// # Errors
    /// A connection that ends or falls silent, and [`Error::Stream`] for what is no stream of commands; the pieces before
    /// are good.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn next(&mut self) -> Result<Chunk, Error> {
        self.next_with(|_| ()).await
    }

    /// As [`Replication::next`]; `on` sees each command that ends in it.
    ///
    /// # Errors
    /// As [`Replication::next`].
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn next_with(&mut self, mut on: impl FnMut(&Command<'_>)) -> Result<Chunk, Error> {
        let bytes = match std::mem::take(&mut self.unread) {
            unread if !unread.is_empty() => Bytes::from(unread),
            _ => self.read().await?,
        };
        let begin = self.scanner.offset();
        let (mut commands, mut writes, mut asked) = (0, 0, false);
        let scanned = self.scanner.scan(&bytes, |command| {
            commands += 1;
            writes += u64::from(!command.is_filler());
            asked |= command.asks_for_acknowledgement();
            on(command);
        });
        scanned.map_err(|source| Error::Stream { address: self.address.clone(), source })?;
        self.news.has_begun.store(true, Ordering::Relaxed);
        if asked {
            self.news.asked.notify_one();
        }
        let scanner = &self.scanner;
        let (boundary, cut, state) = (scanner.boundary(), scanner.cut(), scanner.state());
        Ok(Chunk { bytes, range: begin..scanner.offset(), commands, writes, boundary, cut, state })
    }

    async fn read(&mut self) -> Result<Bytes, Error> {
        let lost = |source| Error::Lost { address: self.address.clone(), doing: READING, source };
        tokio::select! {
            biased;
            read = tokio::time::timeout(self.silence, self.reader.read(&mut self.buffer)) => match read {
                Ok(Ok(0)) => Err(lost(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"))),
                Ok(Ok(read)) => Ok(Bytes::copy_from_slice(&self.buffer[..read])),
                Ok(Err(source)) => Err(lost(source)),
                Err(_) => {
                    Err(Error::Silent { address: self.address.clone(), doing: READING, after: self.silence })
                }
            },
            ended = &mut self.acknowledging => {
                Err(lost(ended.unwrap_or_else(|_| io::Error::other("the acknowledgements stopped"))))
            }
        }
    }
}

/// What the reader tells whoever acknowledges.
#[derive(Debug, Default)]
struct News {
    /// The server wants to know now.
    asked: Notify,
    /// Something of the stream came.
    has_begun: AtomicBool,
}

/// Sends acknowledgements until that fails: regularly, when more is durable, and when the server asks.
async fn acknowledge(
    mut writer: WriteHalf<Box<dyn Transport>>,
    mut durable: watch::Receiver<Offset>,
    news: Arc<News>,
    every: Duration,
) -> io::Error {
    let mut owned = true;
    loop {
        // The first one at once.
        let offset = durable.borrow_and_update().to_string();
        let words = encode(&[b"REPLCONF", b"ACK", offset.as_bytes()]);
        if let Err(error) = writer.write_all(&words).await {
            return error;
        }
        if let Err(error) = writer.flush().await {
            return error;
        }
        let pause = if news.has_begun.load(Ordering::Relaxed) { every } else { every.min(AT_FIRST) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = news.asked.notified() => {}
            changed = durable.changed(), if owned => owned = changed.is_ok(),
        }
    }
}
