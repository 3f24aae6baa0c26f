//! Rewrites the expiries in the listpack of a hash: field, value, expiry, field, value, expiry …

/// Total length and number of entries.
const HEADER: usize = 6;
const END: u8 = 0xff;
/// A number of 64 bits.
const INT64: u8 = 0xf4;

/// One entry as it lies there.
struct Entry<'a> {
    /// Encoding and content, without the length that follows for reading backwards.
    bytes: &'a [u8],
    /// Its value, when it is a number.
    number: Option<i64>,
    rest: &'a [u8],
}

/// The same listpack with every third entry, a number that is not 0, put through `change`; `None` for bytes that are
/// no such listpack.
pub(super) fn rewrite_expiries(listpack: &[u8], change: impl Fn(i64) -> i64) -> Option<Vec<u8>> {
    let (header, mut rest) = listpack.split_at_checked(HEADER)?;
    let mut output = Vec::with_capacity(listpack.len() + listpack.len() / 4);
    output.extend_from_slice(header);
    let mut number = 0_usize;
    while *rest.first()? != END {
        let entry = entry(rest)?;
        match entry.number {
            _ if number % 3 != 2 => push(&mut output, entry.bytes),
            None => return None,
            Some(0) => push(&mut output, &[0]),
            Some(expiry) => match change(expiry) {
                0 => push(&mut output, &[0]),
                expiry => {
                    let mut bytes = vec![INT64];
                    bytes.extend_from_slice(&expiry.to_le_bytes());
                    push(&mut output, &bytes);
                }
            },
        }
        number += 1;
        rest = entry.rest;
    }
    if rest.len() != 1 || !number.is_multiple_of(3) {
        return None;
    }
    output.push(END);
    let total = u32::try_from(output.len()).ok()?;
    output[..4].copy_from_slice(&total.to_le_bytes());
    Some(output)
}

fn entry(bytes: &[u8]) -> Option<Entry<'_>> {
    let first = *bytes.first()?;
    let tail = &bytes[1..];
    let int = |count: usize| -> Option<i64> {
        let content = tail.get(..count)?;
        let fill = if content.last()? & 0x80 == 0 { 0 } else { 0xff };
        let mut all = [fill; 8];
        all[..count].copy_from_slice(content);
        Some(i64::from_le_bytes(all))
    };
    let (size, number) = match first {
        0x00..=0x7f => (1, Some(i64::from(first))),
        0x80..=0xbf => (1 + usize::from(first & 0x3f), None),
        0xc0..=0xdf => {
            let raw = i64::from(first & 0x1f) << 8 | i64::from(*tail.first()?);
            (2, Some(if raw >= 1 << 12 { raw - (1 << 13) } else { raw }))
        }
        0xe0..=0xef => (2 + (usize::from(first & 0x0f) << 8 | usize::from(*tail.first()?)), None),
        0xf0 => {
            let length = u32::from_le_bytes(*tail.first_chunk::<4>()?);
            (usize::try_from(length).ok()?.checked_add(5)?, None)
        }
        0xf1 => (3, Some(int(2)?)),
        0xf2 => (4, Some(int(3)?)),
        0xf3 => (5, Some(int(4)?)),
        INT64 => (9, Some(int(8)?)),
        _ => return None,
    };
    let (content, rest) = bytes.split_at_checked(size)?;
    let rest = rest.get(backward_length(size)..)?;
    Some(Entry { bytes: content, number, rest })
}

/// Bytes of the length that follows an entry of that size.
fn backward_length(size: usize) -> usize {
    match size {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        _ => 5,
    }
}

fn push(output: &mut Vec<u8>, entry: &[u8]) {
    output.extend_from_slice(entry);
    let size = entry.len();
    let groups = backward_length(size);
    for group in (0..groups).rev() {
        let seven = u8::try_from(size >> (7 * group) & 0x7f).expect("seven bits fit into a byte");
        // All but the first, which is the last one read backwards, carry a mark.
        output.push(if group + 1 == groups { seven } else { seven | 0x80 });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listpack(entries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        for entry in entries {
            push(&mut bytes, entry);
        }
        bytes.push(END);
        let total = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&total.to_le_bytes());
        bytes[4..6].copy_from_slice(&u16::try_from(entries.len()).unwrap().to_le_bytes());
        bytes
    }

    fn text(text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap();
        [&[0xf0][..], &length.to_le_bytes(), text].concat()
    }

    fn int64(number: i64) -> Vec<u8> {
        [&[INT64][..], &number.to_le_bytes()].concat()
    }

    #[test]
    fn only_expiries_change() {
        let long = text(&[7; 300]);
        let before = listpack(&[b"\x81f", &[5], &int64(1_000), b"\x81g", &long, &[0]]);
        let after = rewrite_expiries(&before, |expiry| expiry + 50).unwrap();
        assert_eq!(after, listpack(&[b"\x81f", &[5], &int64(1_050), b"\x81g", &long, &[0]]));
        let stripped = rewrite_expiries(&before, |_| 0).unwrap();
        assert_eq!(stripped, listpack(&[b"\x81f", &[5], &[0], b"\x81g", &long, &[0]]));
    }

    #[test]
    fn numbers_of_every_size_are_read() {
        for (bytes, number) in [
            (&[0x7f][..], 127),
            (&[0xdf, 0xff], -1),
            (&[0xc1, 0x00], 256),
            (&[0xf1, 0xfe, 0xff], -2),
            (&[0xf2, 0, 0, 1], 65_536),
            (&[0xf3, 0xff, 0xff, 0xff, 0x7f], i64::from(i32::MAX)),
        ] {
            let with_length = [bytes, &[u8::try_from(bytes.len()).unwrap()]].concat();
            assert_eq!(entry(&with_length).unwrap().number, Some(number));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_badly(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = rewrite_expiries(&bytes, |expiry| expiry);
        }
    }
}
