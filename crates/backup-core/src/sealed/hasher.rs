//! The digest of a content as it comes.

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use super::Seal;
use crate::manifest::Sha256Hex;

#[derive(Default)]
pub(super) struct Hasher {
    content: Xxh3,
    length: u64,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.content.update(bytes);
        self.length += bytes.len() as u64;
    }

    pub(super) fn seal(&self) -> Seal {
        let hidden = Sha256::new()
            .chain_update(self.content.digest128().to_be_bytes())
            .chain_update(self.length.to_le_bytes());
        Seal { length: self.length, digest: Sha256Hex(hidden.finalize().into()) }
    }
}
