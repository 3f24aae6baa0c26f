//! Objects outside of sets, each written once and describing itself: WAL segments, pieces of a Redis stream.
//!
//! No manifest names them, so each carries a *seal*: length and digest of what is in it, readable without a key. With it,
//! whoever finds an object under the key it wanted to write can tell "mine already" from "something else", which a
//! backup host could not otherwise do with what it may not read (P6); and a reader can prove what it got.
//!
//! ```text
//! plain      │ skippable zstd frame: the seal │ zstd frames │ skippable zstd frame: the end │    zstd -d opens it
//! encrypted  │ age header, the seal as one more stanza │ the plain form │                     age -d | zstd -d opens it
//! ```
//!
//! The end holds the XXH3-128 of every byte before it, so a bit that zstd does not look at is covered too. Stock `zstd`
//! passes over skippable frames and stock `age` over stanzas that it does not know. The header of an age file is
//! authenticated by the key inside, so a forged seal is noticed by whoever can read the content.
//!
//! What may the digest at the end be? It lies in the object itself, so whoever can change the one can change the other,
//! whatever the digest: against forgers there is only age. Against accidents 128 good bits suffice, and XXH3 costs a
//! processor a fraction of what SHA-256 does. (Objects of sets are different: their digests lie in a manifest.)
//!
//! The digest in a seal only tells contents apart that became different by accident; what proves a content is the end, or
//! age. So it is a fast one: SHA-256 of the XXH3-128 of the content and its length. Through the SHA-256 it tells nobody
//! anything of an encrypted content but whether he guessed all of it, which XXH3 alone, made without secrets in mind, might.

mod frames;
mod hasher;
mod note;
mod stream;

pub(crate) use note::Header;
pub use note::{MAX_NOTE, NOTE_WITHIN, read_note};
pub use stream::{UnsealError, unseal_through};

use hasher::Hasher;

use std::io::{self, Read, Write};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::encryption::{Identities, Recipients};
use crate::manifest::Sha256Hex;

/// Bytes from the beginning of an object that hold its seal.
pub const SEAL_WITHIN: u64 = 512;

/// Bytes that are read and hashed at a time: small enough for a processor's cache.
const HASHED_AT_ONCE: usize = 256 << 10;
/// Header of an age file with many recipients, and the tags of its chunks.
const ROOM_FOR_AGE: usize = 64 << 10;
/// Bytes of content that memory is taken for before they are there.
const ROOM_AT_FIRST: u64 = 64 << 20;
/// Plain bytes of one zstd frame.
const FRAME: usize = 1 << 20;
/// The eighth of the magic numbers that zstd leaves to users (RFC 8878, section 3.1.2).
const SKIPPABLE: u32 = 0x184D_2A58;
/// Content of the skippable frame: mark, length, digest.
const SEAL_LENGTH: usize = 8 + 8 + 32;
const MARK: &[u8; 8] = b"BKSTSEAL";
/// Content of the last frame: mark, digest of all that comes before the frame.
const END_LENGTH: usize = 8 + 16;
const END_MARK: &[u8; 8] = b"BKSTEND2";
/// Type of the stanza.
const STANZA: &str = "backstay-seal";
const AGE: &[u8] = b"age-encryption.org/v1\n";

/// What is in a sealed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Bytes of the content.
    pub length: u64,
    /// SHA-256 of the XXH3-128 of the content (16 bytes, most significant first) and the length (8 bytes, least
    /// significant first).
    pub digest: Sha256Hex,
}

/// Why an object cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Neither form begins like this.
    #[error("not a sealed object: {what}")]
    NotSealed {
        /// What is wrong.
        what: &'static str,
    },
    /// No key given opens it.
    #[error("encrypted, and no key given opens it")]
    Key,
    /// The content is not what was sealed.
    #[error("damaged: {problem}")]
    Damaged {
        /// What is wrong.
        problem: String,
    },
}

impl Seal {
    /// The seal of a content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(content);
        hasher.seal()
    }

    /// The seal of what a reader gives. Blocks for as long as that takes.
    ///
    /// # Errors
    /// Of the reader.
    pub fn of_reader(mut input: impl Read) -> io::Result<Self> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; HASHED_AT_ONCE];
        loop {
            match input.read(&mut buffer)? {
                0 => return Ok(hasher.seal()),
                read => hasher.update(&buffer[..read]),
            }
        }
    }

    /// Reads the seal from the first [`SEAL_WITHIN`] bytes of an object. No key is needed, so nothing is proven.
    ///
    /// # Errors
    /// [`SealError::NotSealed`].
    pub fn read(beginning: &[u8]) -> Result<Self, SealError> {
        if beginning.starts_with(AGE) { Self::from_header(beginning) } else { Self::from_frame(beginning) }
    }

    fn from_frame(beginning: &[u8]) -> Result<Self, SealError> {
        let not_sealed = SealError::NotSealed { what: "it does not begin with a seal" };
        let parse = || {
            let (magic, rest) = beginning.split_first_chunk::<4>()?;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (mark, rest) = rest.split_first_chunk::<8>()?;
            let is_seal = u32::from_le_bytes(*magic) == SKIPPABLE
                && u32::from_le_bytes(*length) as usize == SEAL_LENGTH
                && mark == MARK;
            let (length, rest) = rest.split_first_chunk::<8>()?;
            let digest = rest.first_chunk::<32>()?;
            is_seal.then(|| Self { length: u64::from_le_bytes(*length), digest: Sha256Hex(*digest) })
        };
        parse().ok_or(not_sealed)
    }

    fn from_header(beginning: &[u8]) -> Result<Self, SealError> {
        let not_sealed = || SealError::NotSealed { what: "its age header has no seal" };
        let lines = beginning.split(|byte| *byte == b'\n');
        let header = lines.take_while(|line| !line.starts_with(b"---"));
        let mut stanzas = header.filter_map(|line| str::from_utf8(line).ok()?.strip_prefix("-> "));
        let parse = |stanza: &str| {
            let (length, digest) = stanza.strip_prefix(STANZA)?.trim_start().split_once(' ')?;
            Some(Self { length: length.parse().ok()?, digest: digest.parse().ok()? })
        };
        stanzas.find_map(parse).ok_or_else(not_sealed)
    }

    fn frame(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(SEAL_LENGTH);
        content.extend(MARK);
        content.extend(self.length.to_le_bytes());
        content.extend(self.digest.0);
        skippable_frame(&content)
    }
}

/// How content is sealed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SealOptions {
    /// zstd level; 3 by default.
    pub level: i32,
    /// Threads that compress, the calling one included; each costs about 4 MiB. 1 by default.
    pub threads: usize,
    /// Whom it is encrypted to; nobody by default.
    pub recipients: Recipients,
    /// A few bytes about the content that anyone may read, see [`read_note`]; none by default. At most [`MAX_NOTE`].
    pub note: Vec<u8>,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self { level: 3, threads: 1, recipients: Recipients::none(), note: Vec::new() }
    }
}

impl SealOptions {
    /// Sets the zstd level.
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// Sets the number of threads.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets whom it is encrypted to.
    #[must_use]
    pub fn recipients(mut self, recipients: Recipients) -> Self {
        self.recipients = recipients;
        self
    }

    /// Adds a note that anyone may read.
    #[must_use]
    pub fn note(mut self, note: &[u8]) -> Self {
        self.note = note.to_vec();
        self
    }

    fn header<W: Write>(&self, seal: &Seal, output: W) -> io::Result<age::stream::StreamWriter<W>> {
        self.recipients.encrypt_sealed(&Header { seal, note: &self.note }, output)
    }

    fn check(&self) -> io::Result<()> {
        if self.note.len() <= MAX_NOTE { Ok(()) } else { Err(io::Error::other("the note is too long")) }
    }
}

/// Compresses, encrypts if there are recipients, and seals. Blocks for as long as zstd takes.
///
/// Holds the stored form in memory beside the content.
///
/// # Errors
/// What zstd or age say; neither is expected.
pub fn seal(content: &[u8], level: i32, recipients: &Recipients) -> io::Result<(Seal, Bytes)> {
    seal_from(content, &SealOptions::default().level(level).recipients(recipients.clone()))
}

/// Seals what a reader gives, in one pass. Blocks for as long as reading and zstd take.
///
/// Holds the stored form in memory (twice for a moment where it is encrypted), and never the content.
///
/// # Errors
/// Of the input; what zstd or age say, neither of which is expected.
pub fn seal_from<R: Read + Send>(input: R, options: &SealOptions) -> io::Result<(Seal, Bytes)> {
    seal_from_then(input, options, |_| ())
}

/// As [`seal_from`]; calls `at_end` when the input has ended and its last frames are still being compressed, with the
/// length of the stored form so far: from then on fewer threads than given are busy.
///
/// # Errors
/// As [`seal_from`].
pub fn seal_from_then<R: Read + Send>(
    input: R,
    options: &SealOptions,
    at_end: impl FnOnce(usize) + Send,
) -> io::Result<(Seal, Bytes)> {
    options.check()?;
    let room = Seal { length: 0, digest: Sha256Hex([0; 32]) }.frame();
    let mut plain = room.clone();
    plain.extend(note::frame(&options.note));
    let mut collect = |frame: &[u8]| {
        plain.extend_from_slice(frame);
        Ok(())
    };
    let seal = frames::compress(input, options.level, options.threads, &mut collect, at_end)?;
    // The seal comes first and is known last.
    plain[..room.len()].copy_from_slice(&seal.frame());
    let end = end_frame(xxh3_128(&plain));
    if options.recipients.is_empty() {
        plain.extend_from_slice(&end);
        return Ok((seal, plain.into()));
    }
    let mut output = options.header(&seal, Vec::with_capacity(plain.len() + ROOM_FOR_AGE))?;
    output.write_all(&plain)?;
    output.write_all(&end)?;
    Ok((seal, output.finish()?.into()))
}

/// Seals what a reader gives a second time, and hands the stored form to `output` as it comes into being: for what
/// must not be held in memory. `seal` was made of the first reading ([`Seal::of_reader`]). Blocks.
///
/// # Errors
/// Of both ends; content that is not what was sealed, before its end is written, so that it can never be opened.
pub fn seal_through<R: Read + Send, W: Write + Send>(
    seal: Seal,
    input: R,
    options: &SealOptions,
    output: W,
) -> io::Result<()> {
    options.check()?;
    if options.recipients.is_empty() {
        let mut output = output;
        return write_plain(seal, input, options, &mut output);
    }
    let mut encrypted = options.header(&seal, output)?;
    write_plain(seal, input, options, &mut encrypted)?;
    encrypted.finish().map(drop)
}

fn write_plain<R: Read + Send>(
    seal: Seal,
    input: R,
    options: &SealOptions,
    output: &mut (dyn Write + Send),
) -> io::Result<()> {
    let mut hasher = Xxh3::new();
    let mut write = |bytes: &[u8]| {
        hasher.update(bytes);
        output.write_all(bytes)
    };
    write(&seal.frame())?;
    write(&note::frame(&options.note))?;
    if frames::compress(input, options.level, options.threads, &mut write, |_| ())? != seal {
        return Err(io::Error::other("the content changed while it was read"));
    }
    output.write_all(&end_frame(hasher.digest128()))
}

/// The last frame, of the XXH3-128 of everything before it.
fn end_frame(digest: u128) -> Vec<u8> {
    skippable_frame(&[&END_MARK[..], &digest.to_be_bytes()].concat())
}

fn skippable_frame(content: &[u8]) -> Vec<u8> {
    // A few dozen bytes.
    let length = content.len() as u32;
    [&SKIPPABLE.to_le_bytes(), &length.to_le_bytes(), content].concat()
}

/// Opens a stored object and proves its content. Blocks for as long as zstd takes.
///
/// # Errors
/// Any [`SealError`]; never content that was not sealed.
pub fn unseal(stored: &[u8], identities: &Identities) -> Result<Vec<u8>, SealError> {
    let seal = Seal::read(stored)?;
    if !stored.starts_with(AGE) {
        return open_plain(stored, &seal);
    }
    let opened = identities.decrypt(stored).map_err(key_or_damage)?;
    let mut plain = Vec::new();
    // What is inside is shorter than what is stored.
    opened.take(stored.len() as u64).read_to_end(&mut plain).map_err(damaged)?;
    if Seal::from_frame(&plain)? != seal {
        return Err(SealError::Damaged { problem: "its two seals differ".to_owned() });
    }
    open_plain(&plain, &seal)
}

fn open_plain(plain: &[u8], seal: &Seal) -> Result<Vec<u8>, SealError> {
    let Some(end) = plain.len().checked_sub(8 + END_LENGTH) else {
        return Err(SealError::Damaged { problem: "it has no end".to_owned() });
    };
    let (frames, end) = plain.split_at(end);
    if end != end_frame(xxh3_128(frames)) {
        return Err(SealError::Damaged { problem: "its end does not fit what is stored".to_owned() });
    }
    // What the seal announces, within reason: a forged one must not take all memory.
    let mut content = Vec::with_capacity(usize::try_from(seal.length.min(ROOM_AT_FIRST)).unwrap_or(0));
    let reader = zstd::stream::read::Decoder::with_buffer(frames).map_err(damaged)?;
    // One more than there should be, so that a bomb is noticed and does not explode.
    reader.take(seal.length.saturating_add(1)).read_to_end(&mut content).map_err(damaged)?;
    if Seal::of(&content) == *seal {
        return Ok(content);
    }
    let problem = format!("{} bytes with digest {} were sealed", seal.length, seal.digest);
    Err(SealError::Damaged { problem })
}

fn key_or_damage(error: age::DecryptError) -> SealError {
    match error {
        age::DecryptError::NoMatchingKeys => SealError::Key,
        other => SealError::Damaged { problem: other.to_string() },
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn damaged(error: io::Error) -> SealError {
    SealError::Damaged { problem: error.to_string() }
}

#[cfg(test)]
mod tests;
