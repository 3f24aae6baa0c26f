//! A socket that can be read at a pace.
//!
//! Whoever waits for a socket is woken by the sender, on the sender's time: a server on the same machine that writes ten
//! thousand small pieces a second wakes its reader as often, which costs it more than the writing. So a reader that is
//! paced does not wait for some milliseconds after it has read everything: nobody is woken, and what comes meanwhile is read
//! at once.
//!
//! ```text
//!            nothing there                  something was read
//! Resting ────────────────▶ Watched ──────────────────────────▶ Resting
//!    ▲  └──── something was read ────┐                              ▲
//!    └───────────────────────────────┘        no time to rest ──▶ Watched
//! ```
//!
//! The rest is so short that no more comes in it than the smallest receive buffer takes ([`rest`]): what a server could
//! not send yet is lost if it is killed.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Transport;

/// Longest rest.
const LONGEST: Duration = Duration::from_millis(5);
/// Shortest one that a timer keeps.
const SHORTEST: Duration = Duration::from_millis(1);
/// What may come in a rest, in bytes, at least and at most. A fourth of the receive buffer lies between: half of it is for the
/// kernel's own use (`tcp(7)`), and half of the rest stays free.
const EXPECTED: (usize, usize) = (32 << 10, 256 << 10);

/// A socket of the standard library.
pub(super) trait Socket: AsRawFd + AsFd + Send + Sync + Sized + Unpin {
    fn again(&self) -> io::Result<Self>;
    fn receive(&self, into: &mut [u8]) -> io::Result<usize>;
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;
    fn finish(&self) -> io::Result<()>;
}

macro_rules! socket {
    ($socket:ty) => {
        impl Socket for $socket {
            fn again(&self) -> io::Result<Self> {
                self.try_clone()
            }

            fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
                (&mut &*self).read(into)
            }

            fn send(&self, bytes: &[u8]) -> io::Result<usize> {
                (&mut &*self).write(bytes)
            }

            fn finish(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }
    };
}

socket!(std::net::TcpStream);
socket!(UnixStream);

/// How the next bytes are waited for.
enum Reader<S: Socket> {
    /// The kernel says when there are some.
    Watched(AsyncFd<S>),
    /// Nobody looks until then.
    Resting(S, Pin<Box<Sleep>>),
    /// Between the two; after an error for good.
    Nothing,
}

/// One socket, registered twice: so that what comes wakes nobody while the reader rests.
pub(super) struct Paced<S: Socket> {
    reader: Reader<S>,
    writer: AsyncFd<S>,
    /// Whether the reader rests at all.
    is_paced: bool,
    /// When the last rest began.
    since: Instant,
    /// What was read since then, in bytes.
    got: usize,
}

impl<S: Socket> Paced<S> {
    /// Takes over a socket that does not block. It is not paced yet.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(super) fn new(socket: S) -> io::Result<Self> {
        let writer = registered(socket.again()?, Interest::WRITABLE)?;
        let reader = Reader::Watched(registered(socket, Interest::READABLE)?);
        Ok(Self { reader, writer, is_paced: false, since: Instant::now(), got: 0 })
    }

    /// Notes what was read, and rests if there is time.
    fn noted(&mut self, got: usize, is_all: bool) {
        self.got += got;
        if !self.is_paced || !is_all || got == 0 {
            return;
        }
        let Some(rest) = rest(self.got, self.since.elapsed(), self.buffer()) else { return };
        (self.since, self.got) = (Instant::now(), 0);
        self.reader = match std::mem::replace(&mut self.reader, Reader::Nothing) {
            Reader::Watched(socket) => {
                Reader::Resting(socket.into_inner(), Box::pin(tokio::time::sleep(rest)))
            }
            Reader::Resting(socket, mut sleep) => {
                sleep.as_mut().reset(self.since + rest);
                Reader::Resting(socket, sleep)
            }
            Reader::Nothing => Reader::Nothing,
        };
    }

    /// Size of the kernel's receive buffer, which grows with what comes.
    fn buffer(&self) -> usize {
        SockRef::from(self.writer.get_ref()).recv_buffer_size().unwrap_or_default()
    }

    /// Has the kernel watch again.
    fn watch(&mut self) -> io::Result<()> {
        if let Reader::Resting(socket, _) = std::mem::replace(&mut self.reader, Reader::Nothing) {
            self.reader = Reader::Watched(registered(socket, Interest::READABLE)?);
        }
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "a socket of the standard library owns what is registered, and is never exchanged"
)]
fn registered<S: Socket>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    AsyncFd::with_interest(socket, interest)
}

/// How long to rest where so many bytes came in that time; `None` where that is too short to be kept.
fn rest(got: usize, within: Duration, buffer: usize) -> Option<Duration> {
    let expected = (buffer / 4).clamp(EXPECTED.0, EXPECTED.1);
    #[expect(clippy::cast_precision_loss, reason = "a rate needs three digits")]
    let rest = within.as_secs_f64() * expected as f64 / got.max(1) as f64;
    (rest >= SHORTEST.as_secs_f64()).then(|| Duration::from_secs_f64(rest.min(LONGEST.as_secs_f64())))
}

impl<S: Socket> Transport for Paced<S> {
    fn pace(&mut self) {
        self.is_paced = true;
    }
}

impl<S: Socket> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let room = into.initialize_unfilled();
            let received = match &mut this.reader {
                Reader::Watched(socket) => {
                    let mut readiness = ready!(socket.poll_read_ready(cx))?;
                    match readiness.try_io(|socket| socket.get_ref().receive(room)) {
                        Ok(received) => received,
                        Err(_) => continue,
                    }
                }
                Reader::Resting(socket, sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    socket.receive(room)
                }
                Reader::Nothing => Err(io::ErrorKind::NotConnected.into()),
            };
            match received {
                Ok(got) => {
                    this.noted(got, got < room.len());
                    into.advance(got);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => this.watch()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: Socket> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut readiness = ready!(self.writer.poll_write_ready(cx))?;
            match readiness.try_io(|socket| socket.get_ref().send(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(sent) => return Poll::Ready(sent),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.writer.get_ref().finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    proptest! {
        #[test]
        fn no_more_comes_in_a_rest_than_the_buffer_takes(
            got in 1..1_000_000_000usize,
            micros in 1..10_000_000u64,
            buffer in 128usize << 10..64 << 20,
        ) {
            let within = Duration::from_micros(micros);
            if let Some(rest) = rest(got, within, buffer) {
                prop_assert!(rest >= SHORTEST && rest <= LONGEST);
                #[expect(clippy::cast_precision_loss, reason = "a rate needs three digits")]
                let expected = got as f64 / within.as_secs_f64() * rest.as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "a size needs three digits")]
                let most = buffer as f64 / 4.0;
                prop_assert!(expected <= most * 1.001, "{expected} in {rest:?}");
            }
        }
    }

    fn pair() -> (Paced<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Paced::new(ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn many_small_pieces_are_few_reads_and_none_is_lost() {
        let (mut ours, mut theirs) = pair();
        ours.pace();
        let writing = std::thread::spawn(move || {
            for number in 0..3000_u32 {
                theirs.write_all(&number.to_be_bytes()).unwrap();
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let (mut all, mut reads, mut buffer) = (Vec::new(), 0, vec![0; 64 << 10]);
        loop {
            let read = ours.read(&mut buffer).await.unwrap();
            if read == 0 {
                break;
            }
            reads += 1;
            all.extend_from_slice(&buffer[..read]);
        }
        writing.join().unwrap();
        let expected: Vec<u8> = (0..3000_u32).flat_map(u32::to_be_bytes).collect();
        assert!(all == expected, "{} bytes", all.len());
        assert!(reads <= 600, "{reads} reads");
    }

    #[tokio::test]
    async fn without_a_pace_every_piece_is_read_when_it_comes() {
        let (mut ours, mut theirs) = pair();
        for number in 0..100_u32 {
            theirs.write_all(&number.to_be_bytes()).unwrap();
            assert_eq!(ours.read_u32().await.unwrap(), number);
            assert!(matches!(ours.reader, Reader::Watched(_)));
        }
    }

    #[tokio::test]
    async fn a_reader_that_rests_writes_and_notices_the_end() {
        let (mut ours, mut theirs) = pair();
        ours.pace();
        theirs.write_all(b"x").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 1);
        assert!(matches!(ours.reader, Reader::Resting(..)));
        ours.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        theirs.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        theirs.write_all(b"last").unwrap();
        drop(theirs);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last");
    }
}
