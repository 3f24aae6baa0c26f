//! The format's primitives: bytes, signed integers, strings and file positions.

use super::ArchiveError;

/// Why a primitive could not be read.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes at hand end too early; more may come.
    NeedMore,
    /// No continuation can make this right.
    Fatal(ArchiveError),
}

impl From<ArchiveError> for Stop {
    fn from(error: ArchiveError) -> Self {
        Self::Fatal(error)
    }
}

/// Reads primitives off a slice whose first byte stands at `base` in the archive.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    base: u64,
    int_size: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], base: u64, int_size: usize) -> Self {
        Self { bytes, at: 0, base, int_size }
    }

    pub(super) fn set_int_size(&mut self, int_size: usize) {
        self.int_size = int_size;
    }

    /// How many bytes of the slice have been read.
    pub(super) fn consumed(&self) -> usize {
        self.at
    }

    /// Position in the archive of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    pub(super) fn corrupt(&self, what: &'static str) -> Stop {
        Stop::Fatal(ArchiveError::Corrupt { offset: self.offset(), what })
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or(Stop::NeedMore)?;
        self.at += count;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn int(&mut self) -> Result<i32, Stop> {
        let before = self.at;
        let encoded = self.take(1 + self.int_size)?;
        decode_int(encoded).ok_or_else(|| {
            self.at = before;
            self.corrupt("an integer out of range")
        })
    }

    /// A string; `None` is the format's null string, which differs from an empty one.
    pub(super) fn text(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        match self.int()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| self.corrupt("a negative string length"))?;
                self.take(length).map(Some)
            }
        }
    }

    /// A string that holds an unsigned decimal number.
    pub(super) fn number_text(&mut self) -> Result<u32, Stop> {
        let text = self.text()?.unwrap_or_default();
        parse_decimal(text).ok_or_else(|| self.corrupt("a number that is not decimal"))
    }
}

/// Reads decimal digits.
pub(super) fn parse_decimal(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Decodes a sign byte followed by the magnitude, lowest byte first.
pub(super) fn decode_int(encoded: &[u8]) -> Option<i32> {
    let (&sign, magnitude) = encoded.split_first()?;
    let value = decode_magnitude(magnitude)?;
    match sign {
        0 => i32::try_from(value).ok(),
        1 => i32::try_from(-i64::try_from(value).ok()?).ok(),
        _ => None,
    }
}

/// Decodes an unsigned number of at most eight bytes, lowest byte first.
pub(super) fn decode_magnitude(bytes: &[u8]) -> Option<u64> {
    if bytes.len() > 8 {
        return None;
    }
    Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// Encodes an integer as `pg_dump` does.
pub(super) fn encode_int(value: i32, int_size: usize, out: &mut Vec<u8>) {
    out.push(u8::from(value < 0));
    let magnitude = u64::from(value.unsigned_abs()).to_le_bytes();
    out.extend((0..int_size).map(|index| magnitude.get(index).copied().unwrap_or(0)));
}
