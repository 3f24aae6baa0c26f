//! The 512 bytes before every entry.

use super::RECORD;

/// Fields of a header, as ranges of bytes.
pub(super) const NAME: std::ops::Range<usize> = 0..100;
pub(super) const MODE: std::ops::Range<usize> = 100..108;
pub(super) const USER: std::ops::Range<usize> = 108..116;
pub(super) const GROUP: std::ops::Range<usize> = 116..124;
pub(super) const SIZE: std::ops::Range<usize> = 124..136;
pub(super) const MODIFIED: std::ops::Range<usize> = 136..148;
pub(super) const CHECKSUM: std::ops::Range<usize> = 148..156;
pub(super) const FLAG: usize = 156;
pub(super) const LINK: std::ops::Range<usize> = 157..257;
pub(super) const MAGIC: std::ops::Range<usize> = 257..265;
pub(super) const USER_NAME: std::ops::Range<usize> = 265..297;
pub(super) const GROUP_NAME: std::ops::Range<usize> = 297..329;
/// Device numbers, prefix and rest: unused here.
pub(super) const UNUSED: std::ops::Range<usize> = 329..512;

/// What the magic field holds.
pub(super) const USTAR: &[u8; 8] = b"ustar\x0000";

/// The sum of all bytes, its own field taken as blanks.
pub(super) fn checksum(record: &[u8; RECORD]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(&record[..CHECKSUM.start]) + 8 * u32::from(b' ') + sum(&record[CHECKSUM.end..])
}

/// Writes a number in octal digits with a NUL; zero where it does not fit, for a pax record holds it then.
pub(super) fn put_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let value = if fits(value, field.len()) { value } else { 0 };
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(text.as_bytes());
}

/// Whether a number has room in a field of that many bytes.
pub(super) fn fits(value: u64, field: usize) -> bool {
    value < 1 << (3 * (field - 1))
}

/// Reads octal digits that end with NUL or blank. Nothing else is taken, the binary form of other writers included.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
    let (digits, rest) = field.split_at(end);
    let clean = digits.iter().all(|byte| (b'0'..=b'7').contains(byte))
        && rest.iter().all(|byte| matches!(byte, 0 | b' '));
    if !clean || digits.is_empty() {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// Reads text up to a NUL, after which only NULs may follow.
pub(super) fn text(field: &[u8]) -> Option<&[u8]> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    field[end..].iter().all(|byte| *byte == 0).then_some(&field[..end])
}
