//! The compression of strings inside an RDB.

/// The plain content of a compressed string, or its first `limit` bytes; `None` for bytes that are none.
///
/// A literal run is its length less one (below 32) and the bytes; anything else is a copy of earlier output: three bits
/// of length (7: one more byte of it), thirteen bits of distance.
pub(super) fn decompress(mut input: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut output: Vec<u8> = Vec::new();
    while output.len() < limit
        && let Some((&control, rest)) = input.split_first()
    {
        if control < 32 {
            let wanted = usize::from(control) + 1;
            // The input itself may have been kept only in part.
            let run = rest.get(..wanted.min(rest.len()))?;
            output.extend_from_slice(run);
            input = &rest[run.len()..];
            continue;
        }
        let (mut length, mut rest) = (usize::from(control >> 5), rest);
        if length == 7 {
            let Some((&more, after)) = rest.split_first() else { break };
            length += usize::from(more);
            rest = after;
        }
        let Some((&low, after)) = rest.split_first() else { break };
        let distance = (usize::from(control & 0x1f) << 8 | usize::from(low)) + 1;
        let start = output.len().checked_sub(distance)?;
        for at in start..start + length + 2 {
            output.push(output[at]);
        }
        input = after;
    }
    output.truncate(limit);
    Some(output)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_and_copies() {
        // "ab", then 6 bytes from 2 back.
        assert_eq!(decompress(&[1, b'a', b'b', 0x80, 1], 100).unwrap(), b"abababab");
        assert_eq!(decompress(&[1, b'a', b'b', 0x80, 1], 3).unwrap(), b"aba");
        // A long copy.
        assert_eq!(decompress(&[0, b'x', 0xe0, 10, 0], 100).unwrap(), [b'x'; 20]);
        assert_eq!(decompress(&[0x80, 1], 100), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_badly(bytes in prop::collection::vec(any::<u8>(), 0..200), limit in 0_usize..500) {
            if let Some(output) = decompress(&bytes, limit) {
                prop_assert!(output.len() <= limit);
            }
        }
    }
}
