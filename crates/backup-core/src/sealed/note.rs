//! A note on an object: a few bytes about its content that anyone may read, without a key and without the content.
//!
//! In the plain form it is one more skippable frame behind the seal, in an age file one more stanza of the header. The end
//! of the plain form and the authentication of the header cover it, so whoever opens the object has proven it.

use std::collections::HashSet;

use age::{EncryptError, Recipient};
use age_core::format::{FileKey, Stanza};

use super::{AGE, SEAL_LENGTH, SKIPPABLE, STANZA, Seal, SealError, skippable_frame};

/// Bytes from the beginning of an object that hold its seal and its note.
pub const NOTE_WITHIN: u64 = 4096;
/// Longest note in bytes.
pub const MAX_NOTE: usize = 1024;

const MARK: &[u8; 8] = b"BKSTNOTE";
const NOTE_STANZA: &str = "backstay-note";

/// Reads the note from the first [`NOTE_WITHIN`] bytes of an object; `None` when it has none. Nothing is proven by it.
///
/// # Errors
/// [`SealError::NotSealed`].
pub fn read_note(beginning: &[u8]) -> Result<Option<Vec<u8>>, SealError> {
    Seal::read(beginning)?;
    Ok(if beginning.starts_with(AGE) { from_header(beginning) } else { from_frame(beginning) })
}

fn from_frame(beginning: &[u8]) -> Option<Vec<u8>> {
    let rest = beginning.get(8 + SEAL_LENGTH..)?;
    let (magic, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let content = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let is_note = u32::from_le_bytes(*magic) == SKIPPABLE;
    content.strip_prefix(MARK).filter(|_| is_note).map(<[u8]>::to_vec)
}

fn from_header(beginning: &[u8]) -> Option<Vec<u8>> {
    let lines = beginning.split(|byte| *byte == b'\n').take_while(|line| !line.starts_with(b"---"));
    let mut stanzas = lines.filter_map(|line| str::from_utf8(line).ok()?.strip_prefix("-> "));
    stanzas.find_map(|stanza| {
        let (name, digits) = stanza.split_once(' ')?;
        (name == NOTE_STANZA).then(|| hex::decode(digits).ok())?
    })
}

/// The frame of a note; nothing for no note.
pub(super) fn frame(note: &[u8]) -> Vec<u8> {
    if note.is_empty() { Vec::new() } else { skippable_frame(&[MARK, note].concat()) }
}

/// What is added to the header of an age file. It needs no key and opens nothing; age asks whoever adds a stanza to be a
/// recipient.
pub(crate) struct Header<'a> {
    pub(crate) seal: &'a Seal,
    pub(crate) note: &'a [u8],
}

impl Recipient for Header<'_> {
    fn wrap_file_key(&self, _key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let args = vec![self.seal.length.to_string(), self.seal.digest.to_string()];
        let mut stanzas = vec![Stanza { tag: STANZA.to_owned(), args, body: Vec::new() }];
        if !self.note.is_empty() {
            let args = vec![hex::encode(self.note)];
            stanzas.push(Stanza { tag: NOTE_STANZA.to_owned(), args, body: Vec::new() });
        }
        Ok((stanzas, HashSet::new()))
    }
}
