//! The CRC-64 that ends an RDB (polynomial of Jones, reflected).

use crc_fast::{CrcAlgorithm, Digest};

use super::RdbError;
use super::facts::Checksum;

/// Bytes of the checksum at the end.
pub(super) const TRAILER: usize = 8;

/// A checksum being computed.
#[derive(Clone, Debug)]
pub(super) struct Crc64(Digest);

impl Crc64 {
    pub(super) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Redis))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.finalize()
    }
}

/// The checksum of bytes whose last eight are the checksum itself, wherever they end.
#[derive(Clone, Debug)]
pub(super) struct Trailed {
    crc: Crc64,
    /// The last bytes, which may be the checksum.
    tail: Vec<u8>,
}

impl Trailed {
    pub(super) fn new() -> Self {
        Self { crc: Crc64::new(), tail: Vec::with_capacity(2 * TRAILER) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if bytes.len() >= TRAILER {
            self.crc.update(&self.tail);
            let (body, tail) = bytes.split_at(bytes.len() - TRAILER);
            self.crc.update(body);
            self.tail.clear();
            self.tail.extend_from_slice(tail);
            return;
        }
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(TRAILER);
        self.crc.update(&self.tail[..surplus]);
        self.tail.drain(..surplus);
    }

    /// What the last eight bytes say of those before; servers that compute none write zeros.
    pub(super) fn check(&self) -> Result<Checksum, RdbError> {
        let Ok(found) = <[u8; TRAILER]>::try_from(self.tail.as_slice()) else {
            return Err(RdbError::Length { at: self.tail.len() as u64, problem: "breaks off" });
        };
        match (u64::from_le_bytes(found), self.crc.value()) {
            (0, _) => Ok(Checksum::Absent),
            (found, computed) if found == computed => Ok(Checksum::Right),
            (found, computed) => Err(RdbError::Checksum { found, computed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_one_the_servers_compute() {
        let mut crc = Crc64::new();
        crc.update(b"1234");
        crc.update(b"56789");
        assert_eq!(crc.value(), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(Crc64::new().value(), 0);
    }
}
