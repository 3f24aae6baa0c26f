//! Fills parts with the bytes to be stored: encryption, digest and cutting in one pass over the data.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use age::stream::StreamWriter;
use sha2::{Digest, Sha256};

use super::parts::Part;
use crate::encryption::Recipients;
use crate::manifest::Sha256Hex;

/// How much goes into the encryption at a time, which also bounds what overflows a full part.
const SLICE: usize = 64 << 10;

/// Takes the compressed frames of one object in order and puts the bytes to be stored into parts handed to it.
pub(crate) struct Assembler {
    cutter: Shared,
    encryption: Option<StreamWriter<Shared>>,
}

/// Length and digest of what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) len: u64,
    pub(crate) sha256: Sha256Hex,
}

impl Assembler {
    pub(crate) fn new(recipients: &Recipients) -> io::Result<Self> {
        let cutter = Shared::default();
        let encryption = if recipients.is_empty() { None } else { Some(recipients.encrypt(cutter.clone())?) };
        Ok(Self { cutter, encryption })
    }

    /// Whether it cannot go on without [`Assembler::supply`].
    pub(crate) fn needs_part(&self) -> bool {
        self.cutter.lock().part.is_none()
    }

    /// Gives it an empty part.
    pub(crate) fn supply(&mut self, part: Part) {
        let mut cutter = self.cutter.lock();
        debug_assert!(cutter.part.is_none(), "the part before was taken");
        let mut overflow = std::mem::take(&mut cutter.overflow);
        let part = cutter.part.insert(part);
        let moved = part.fill(&overflow);
        overflow.drain(..moved);
        cutter.overflow = overflow;
    }

    /// Takes from `data` until the part is full; returns how much. Hashes and encrypts, so large data belongs on a
    /// blocking thread.
    pub(crate) fn fill(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < data.len() {
            let free = self.cutter.lock().free();
            if free == 0 {
                break;
            }
            let slice = &data[taken..];
            taken += match &mut self.encryption {
                Some(encryption) => encryption.write(&slice[..slice.len().min(SLICE)])?,
                None => self.cutter.write(&slice[..slice.len().min(free)])?,
            };
        }
        Ok(taken)
    }

    /// The part, if it is full.
    pub(crate) fn take_full(&mut self) -> Option<Part> {
        self.cutter.lock().part.take_if(|part| part.free() == 0)
    }

    /// Ends the encryption: what is left of it may need one part more.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if let Some(encryption) = self.encryption.take() {
            encryption.finish()?;
        }
        Ok(())
    }

    /// Whether bytes wait for a part.
    pub(crate) fn has_overflow(&self) -> bool {
        !self.cutter.lock().overflow.is_empty()
    }

    /// The last, partly filled part, if there is anything in it.
    pub(crate) fn take_rest(&mut self) -> Option<Part> {
        self.cutter.lock().part.take().filter(|part| !part.is_empty())
    }

    /// Length and digest of everything that went into parts.
    pub(crate) fn stored(&self) -> Stored {
        let cutter = self.cutter.lock();
        Stored { len: cutter.len, sha256: Sha256Hex(cutter.hasher.clone().finalize().into()) }
    }
}

/// The writer below the encryption, which does not give it back before its end.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Cutter>>);

#[derive(Default)]
struct Cutter {
    part: Option<Part>,
    overflow: Vec<u8>,
    hasher: Sha256,
    len: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Cutter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cutter {
    fn free(&self) -> usize {
        self.part.as_ref().map_or(0, Part::free)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut cutter = self.lock();
        cutter.hasher.update(bytes);
        cutter.len += bytes.len() as u64;
        let fits = cutter.part.as_mut().map_or(0, |part| part.fill(bytes));
        cutter.overflow.extend_from_slice(&bytes[fits..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use age::secrecy::ExposeSecret;
    use futures::FutureExt;

    use super::*;
    use crate::encryption::Identities;
    use crate::pipeline::parts::PartBudget;

    /// Everything through an assembler; every part but the last must be full.
    fn assemble(recipients: &Recipients, pieces: &[Vec<u8>], part_size: usize) -> (Vec<Vec<u8>>, Stored) {
        let share = PartBudget::new(2).share();
        let next = || share.part(part_size).now_or_never().unwrap();
        let mut assembler = Assembler::new(recipients).unwrap();
        let mut parts = Vec::new();
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                if assembler.needs_part() {
                    assembler.supply(next());
                }
                let taken = assembler.fill(rest).unwrap();
                rest = &rest[taken..];
                parts.extend(assembler.take_full().map(|part| part.freeze().to_vec()));
            }
        }
        assembler.finish().unwrap();
        while assembler.has_overflow() {
            if assembler.needs_part() {
                assembler.supply(next());
            }
            parts.extend(assembler.take_full().map(|part| part.freeze().to_vec()));
        }
        parts.extend(assembler.take_rest().map(|part| part.freeze().to_vec()));
        (parts, assembler.stored())
    }

    fn pieces() -> Vec<Vec<u8>> {
        [0, 1, 99_999, 65_536, 131_072, 7].iter().map(|len| vec![5; *len]).collect()
    }

    #[test]
    fn parts_are_full_and_the_digest_is_that_of_all_bytes() {
        for part_size in [1_000, 65_536, 100_000, 1 << 20] {
            let (parts, stored) = assemble(&Recipients::none(), &pieces(), part_size);
            let all = parts.concat();
            assert_eq!(all, pieces().concat());
            assert!(parts[..parts.len() - 1].iter().all(|part| part.len() == part_size));
            assert_eq!(stored, Stored { len: all.len() as u64, sha256: Sha256Hex::of(&all) });
        }
    }

    #[test]
    fn encrypted_parts_are_one_age_file() {
        let identity = age::x25519::Identity::generate();
        let identities = Identities::parse(identity.to_string().expose_secret()).unwrap();
        for part_size in [1_000, 65_536, 1 << 20] {
            let (parts, stored) = assemble(&identities.recipients(), &pieces(), part_size);
            let all = parts.concat();
            assert_eq!(stored, Stored { len: all.len() as u64, sha256: Sha256Hex::of(&all) });
            assert!(parts[..parts.len() - 1].iter().all(|part| part.len() == part_size));
            let mut plain = Vec::new();
            identities.decrypt(&all[..]).unwrap().read_to_end(&mut plain).unwrap();
            assert_eq!(plain, pieces().concat());
        }
    }
}
