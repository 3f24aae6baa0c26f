//! Opens a stored object as it arrives and hands its content on, in constant memory.
//!
//! ```text
//! stored bytes ─ age, if encrypted ─ hash all but the end ─ zstd ─ output │ then: is the end that of the hash?
//! ```
//!
//! What comes out is proven when, and only when, this returns. One digest suffices for that: the end holds that
//! of everything before it, the seal included, so what is decoded is what was once sealed, bit for bit. That it decodes to
//! what was once compressed is told by the checksum of every frame, which zstd compares, and by the length in the seal.
//! [`unseal`](super::unseal) hashes the content too, and takes several times as long.

use std::io::{self, BufRead, BufReader, Read, Write};

use xxhash_rust::xxh3::Xxh3;
use zstd::zstd_safe::DCtx;

use super::{AGE, END_LENGTH, SEAL_WITHIN, SKIPPABLE, Seal, SealError, damaged, end_frame, key_or_damage};
use crate::encryption::Identities;

/// Bytes that are read, hashed and decoded at a time: small enough for a processor's cache.
const AT_ONCE: usize = 256 << 10;
/// Bytes of the buffer at first: several reads fit before what is left is moved to its beginning.
const BUFFER: usize = 4 * AT_ONCE;
/// Longest frame, stored and plain, that is decoded in one go. Ours are of 1 MiB.
const FRAME_AT_ONCE: usize = 2 << 20;
/// Bytes of the last frame of an object.
const END: usize = 8 + END_LENGTH;

/// Why an object was not handed on whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnsealError {
    /// The object cannot be used.
    #[error(transparent)]
    Object(#[from] SealError),
    /// It could not be read to its end, so nothing is known of it.
    #[error("the stored bytes cannot be read")]
    Input {
        /// What the reader said.
        source: io::Error,
    },
    /// The content could not be written.
    #[error("the content cannot be written")]
    Output {
        /// What the writer said.
        source: io::Error,
    },
}

/// Opens the stored object that `stored` gives, and writes its content, of at most `longest` bytes, to `output`. Blocks.
///
/// Memory: some 3 MiB, whatever the size of the object; up to 6 MiB and zstd's own for frames that are not ours. Before an error part of the content, or
/// something else, may have been written.
///
/// # Errors
/// Any [`UnsealError`]. Without one, `output` got exactly what was sealed.
pub fn unseal_through(
    stored: impl Read,
    identities: &Identities,
    longest: u64,
    output: &mut dyn Write,
) -> Result<Seal, UnsealError> {
    let mut input = Input { inner: stored, failure: None };
    let opened = open(BufReader::with_capacity(AT_ONCE, &mut input), identities, longest, output);
    match input.failure {
        // Whatever that was taken for further up.
        Some(source) => Err(UnsealError::Input { source }),
        None => opened,
    }
}

fn open(
    mut stored: impl BufRead,
    identities: &Identities,
    longest: u64,
    output: &mut dyn Write,
) -> Result<Seal, UnsealError> {
    let beginning = first(&mut stored, SEAL_WITHIN)?;
    let seal = Seal::read(&beginning)?;
    if seal.length > longest {
        let problem = format!("{} bytes were sealed, where {longest} are the most", seal.length);
        return Err(SealError::Damaged { problem }.into());
    }
    let is_encrypted = beginning.starts_with(AGE);
    let whole = io::Cursor::new(beginning).chain(stored);
    if !is_encrypted {
        decode(whole, &seal, output)?;
        return Ok(seal);
    }
    let mut plain = identities.decrypt(whole).map_err(key_or_damage)?;
    let frame = first(&mut plain, seal.frame().len() as u64)?;
    if Seal::from_frame(&frame)? != seal {
        return Err(SealError::Damaged { problem: "its two seals differ".to_owned() }.into());
    }
    decode(io::Cursor::new(frame).chain(plain), &seal, output)?;
    Ok(seal)
}

/// As many bytes as there are, up to `length`.
fn first(input: &mut impl Read, length: u64) -> Result<Vec<u8>, SealError> {
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

/// Decodes the plain form.
///
/// Frames as they are written, at most a few MiB each, are decoded in one go into memory that stays the same: half the
/// copies of a stream. A frame of another size, and all that follows it, is decoded as a stream.
fn decode(plain: impl Read, seal: &Seal, output: &mut dyn Write) -> Result<(), UnsealError> {
    let mut hashed = Hashed::of(plain);
    let mut content = Content { left: seal.length, output };
    let (mut context, mut decoded) = (DCtx::create(), Vec::new());
    loop {
        match hashed.next_frame().map_err(damaged)? {
            Next::End => break,
            Next::Frame { stored, length } => {
                decoded.clear();
                // Known before anything is decoded: a bomb is noticed before it explodes.
                if length as u64 > content.left {
                    return Err(other_length(seal).into());
                }
                decoded.reserve(length);
                let frame = &hashed.fill_buf().map_err(damaged)?[..stored];
                let of_zstd = |code| damaged(io::Error::other(zstd::zstd_safe::get_error_name(code)));
                context.decompress(&mut decoded, frame).map_err(of_zstd)?;
                hashed.consume(stored);
                content.write(&decoded)?;
            }
            Next::Stream => {
                stream(&mut hashed, &mut content, seal)?;
                break;
            }
        }
    }
    if content.left > 0 {
        return Err(other_length(seal).into());
    }
    hashed.end().map_err(UnsealError::from)
}

/// Decodes frames of any size.
fn stream(hashed: &mut Hashed<impl Read>, content: &mut Content<'_>, seal: &Seal) -> Result<(), UnsealError> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(hashed).map_err(damaged)?;
    let mut buffer = vec![0; AT_ONCE];
    loop {
        let read = match decoder.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(error).into()),
        };
        if read as u64 > content.left {
            return Err(other_length(seal).into());
        }
        content.write(&buffer[..read])?;
    }
}

fn other_length(seal: &Seal) -> SealError {
    SealError::Damaged { problem: format!("{} bytes were sealed, and others are there", seal.length) }
}

/// Where the content goes, and how much of it is still to come.
struct Content<'a> {
    left: u64,
    output: &'a mut dyn Write,
}

impl Content<'_> {
    /// Takes bytes, which must not be more than are left.
    fn write(&mut self, bytes: &[u8]) -> Result<(), UnsealError> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.output.write_all(bytes).map_err(|source| UnsealError::Output { source })
    }
}

/// What comes next.
enum Next {
    /// Nothing.
    End,
    /// A frame that is whole in the buffer: its bytes there, and those of its content.
    Frame { stored: usize, length: usize },
    /// A frame that is too large for that, or does not say how large it is, or is none.
    Stream,
}

/// Gives what a reader gives, without the last frame, and hashes it.
struct Hashed<R> {
    inner: R,
    buffer: Vec<u8>,
    /// What was read lies here, and was hashed up to the last [`END`] bytes.
    filled: std::ops::Range<usize>,
    hasher: Xxh3,
    ended: bool,
}

impl<R: Read> Hashed<R> {
    fn of(inner: R) -> Self {
        Self { inner, buffer: vec![0; BUFFER], filled: 0..0, hasher: Xxh3::new(), ended: false }
    }

    /// Where what may be handed out ends: behind it may come the end of the object.
    fn out(&self) -> usize {
        self.filled.end.saturating_sub(END).max(self.filled.start)
    }

    /// Reads on, keeping what was not consumed.
    fn fill(&mut self) -> io::Result<()> {
        if self.buffer.len() < self.filled.end + AT_ONCE {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
            self.buffer.resize(self.buffer.len().max(self.filled.end + AT_ONCE), 0);
        }
        let (hashed, goal) = (self.out(), self.filled.end + AT_ONCE);
        while !self.ended && self.filled.end < goal {
            match self.inner.read(&mut self.buffer[self.filled.end..goal]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.filled.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.hasher.update(&self.buffer[hashed..self.out()]);
        Ok(())
    }

    /// Looks at what comes next, and reads until a frame is whole, or larger than [`FRAME_AT_ONCE`].
    fn next_frame(&mut self) -> io::Result<Next> {
        loop {
            let there = &self.buffer[self.filled.start..self.out()];
            if let Ok(stored) = zstd::zstd_safe::find_frame_compressed_size(there) {
                return Ok(match content_length(&there[..stored]) {
                    Some(length) if length <= FRAME_AT_ONCE => Next::Frame { stored, length },
                    _ => Next::Stream,
                });
            }
            if self.ended {
                // What is no frame is told by whoever decodes it.
                return Ok(if there.is_empty() { Next::End } else { Next::Stream });
            }
            if there.len() > FRAME_AT_ONCE {
                return Ok(Next::Stream);
            }
            self.fill()?;
        }
    }

    /// Whether everything was read, and the last frame is the end of just that.
    fn end(mut self) -> Result<(), SealError> {
        let is_read = self.fill_buf().map_err(damaged)?.is_empty();
        let end = &self.buffer[self.filled.clone()];
        if is_read && end == end_frame(self.hasher.digest128()) {
            return Ok(());
        }
        Err(SealError::Damaged { problem: "its end does not fit what is stored".to_owned() })
    }
}

/// Bytes of what a whole frame holds, if it says so; none of a skippable one.
fn content_length(frame: &[u8]) -> Option<usize> {
    let magic = u32::from_le_bytes(*frame.first_chunk::<4>()?);
    if magic & 0xFFFF_FFF0 == SKIPPABLE & 0xFFFF_FFF0 {
        return Some(0);
    }
    usize::try_from(zstd::zstd_safe::get_frame_content_size(frame).ok()??).ok()
}

impl<R: Read> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.filled.start == self.out() && !self.ended {
            self.fill()?;
        }
        Ok(&self.buffer[self.filled.start..self.out()])
    }

    fn consume(&mut self, amount: usize) {
        self.filled.start += amount;
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// Keeps what a reader failed with, because whoever reads through it may take that for damage.
struct Input<R> {
    inner: R,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let told = io::Error::from(error.kind());
            self.failure = Some(error);
            told
        })
    }
}
