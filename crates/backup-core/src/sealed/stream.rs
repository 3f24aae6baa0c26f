//! Opens a stored object as it arrives and hands its content on, in constant memory.
//!
//! ```text
//! stored bytes ─ age, if encrypted ─ hash all but the end ─ zstd ─ output │ then: is the end that of the hash?
//! ```
//!
//! What comes out is proven when, and only when, this returns. One strong hash suffices for that: the end holds the digest
//! of everything before it, the seal included, so what is decoded is what was once sealed, bit for bit. That it decodes to
//! what was once compressed is told by the checksum of every frame, which zstd compares, and by the length in the seal.
//! [`unseal`](super::unseal) hashes the content too, and takes several times as long.

use std::io::{self, BufRead, BufReader, Read, Write};

use sha2::{Digest, Sha256};

use super::{AGE, END_LENGTH, SEAL_WITHIN, Seal, SealError, damaged, end_frame, key_or_damage};
use crate::encryption::Identities;

/// Bytes that are read, hashed and decoded at a time: small enough for a processor's cache.
const AT_ONCE: usize = 256 << 10;
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
/// Memory: some 600 KiB beside zstd's own, whatever the size of the object. Before an error part of the content, or
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
fn decode(plain: impl Read, seal: &Seal, output: &mut dyn Write) -> Result<(), UnsealError> {
    let mut hashed = Hashed::of(plain);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut hashed).map_err(damaged)?;
    let (mut buffer, mut length) = (vec![0; AT_ONCE], 0);
    loop {
        let read = match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(error).into()),
        };
        length += read as u64;
        // A bomb is noticed before it explodes.
        if length > seal.length {
            break;
        }
        output.write_all(&buffer[..read]).map_err(|source| UnsealError::Output { source })?;
    }
    if length != seal.length {
        let problem = format!("{} bytes were sealed, and others are there", seal.length);
        return Err(SealError::Damaged { problem }.into());
    }
    drop(decoder);
    hashed.end().map_err(UnsealError::from)
}

/// Gives what a reader gives, without the last frame, and hashes it.
struct Hashed<R> {
    inner: R,
    buffer: Vec<u8>,
    /// What was read lies here, and was hashed up to the last [`END`] bytes.
    filled: std::ops::Range<usize>,
    hasher: Sha256,
    ended: bool,
}

impl<R: Read> Hashed<R> {
    fn of(inner: R) -> Self {
        Self { inner, buffer: vec![0; AT_ONCE], filled: 0..0, hasher: Sha256::new(), ended: false }
    }

    /// Where what may be handed out ends: behind it may come the end of the object.
    fn out(&self) -> usize {
        self.filled.end.saturating_sub(END).max(self.filled.start)
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        while !self.ended && self.filled.end < self.buffer.len() {
            match self.inner.read(&mut self.buffer[self.filled.end..]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.filled.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.hasher.update(&self.buffer[..self.out()]);
        Ok(())
    }

    /// Whether everything was read, and the last frame is the end of just that.
    fn end(mut self) -> Result<(), SealError> {
        let is_read = self.fill_buf().map_err(damaged)?.is_empty();
        let end = &self.buffer[self.filled.clone()];
        if is_read && end == end_frame(&self.hasher.finalize().into()) {
            return Ok(());
        }
        Err(SealError::Damaged { problem: "its end does not fit what is stored".to_owned() })
    }
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
