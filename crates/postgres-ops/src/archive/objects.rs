use std::fmt;

use xxhash_rust::xxh3::Xxh3;

use super::ContentDigest;

/// Digests large objects: the sum, modulo 2¹²⁸, of the XXH3-128 of each object's number and content.
///
/// The number goes first as four bytes, lowest first. Order of objects and pieces of content have no influence.
#[derive(Clone, Default)]
pub struct LargeObjectDigester {
    sum: ContentDigest,
    open: Xxh3,
}

impl LargeObjectDigester {
    /// Begins the object with that number.
    pub fn begin(&mut self, oid: u32) {
        self.open.reset();
        self.open.update(&oid.to_le_bytes());
    }

    /// Takes the next piece of its content.
    pub fn push(&mut self, piece: &[u8]) {
        self.open.update(piece);
    }

    /// Ends the object.
    pub fn end(&mut self) {
        self.sum.add(self.open.digest128());
    }

    /// Digest of the objects that have ended.
    pub fn digest(&self) -> ContentDigest {
        self.sum
    }
}

impl fmt::Debug for LargeObjectDigester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeObjectDigester").field("sum", &self.sum).finish_non_exhaustive()
    }
}
