use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use crate::archive::{ArchiveError, ContentDigest, CopyRows, RowFacts};

fn facts_of(pieces: &[&[u8]]) -> RowFacts {
    let mut rows = CopyRows::digesting();
    pieces.iter().for_each(|piece| rows.push(piece));
    rows.finish().unwrap()
}

#[test]
fn a_digest_is_the_sum_of_the_row_hashes_and_prints_as_hexadecimal() {
    let facts = facts_of(&[b"a\tb\nc\n"]);
    let expected = xxh3_128(b"a\tb").wrapping_add(xxh3_128(b"c"));
    let digest = facts.digest.unwrap();
    assert_eq!(digest.to_string(), format!("{expected:032x}"));
    assert_eq!(digest.to_string().parse::<ContentDigest>().unwrap(), digest);
    assert_eq!((facts.rows, facts.bytes), (2, 6));
}

#[test]
fn the_order_of_rows_has_no_influence_but_their_number_has() {
    assert_eq!(facts_of(&[b"a\nb\n"]), facts_of(&[b"b\na\n"]));
    assert_ne!(facts_of(&[b"a\n"]).digest, facts_of(&[b"a\na\n"]).digest);
}

#[test]
fn the_end_marker_of_a_dump_is_no_row() {
    for text in ["", "\n", "a\n", "x\ty\n\n\\\\.\n"] {
        let mut dumped = CopyRows::digesting();
        dumped.push(text.as_bytes());
        dumped.push(b"\\.\n\n\n");
        assert_eq!(dumped.finish_block().unwrap(), facts_of(&[text.as_bytes()]), "{text:?}");
    }
}

#[test]
fn rows_without_their_end_are_refused() {
    let refused = |text: &[u8]| {
        let mut rows = CopyRows::counting();
        rows.push(text);
        rows.finish_block().unwrap_err()
    };
    for text in [&b""[..], b"a\n", b"a\\.\n\n\n", b"a\n\\.\n\n", b"\\.\n", b"a\n\\.\n\n\n\n"] {
        assert!(matches!(refused(text), ArchiveError::Corrupt { .. }), "{text:?}");
    }
    let mut open = CopyRows::counting();
    open.push(b"a\nb");
    assert!(open.finish().unwrap_err().is_truncation());
}

proptest! {
    #[test]
    fn pieces_have_no_influence(
        rows in prop::collection::vec("[^\n]{0,12}", 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let text: Vec<u8> = rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let facts = facts_of(&pieces);
        prop_assert_eq!(facts, facts_of(&[&text]));
        prop_assert_eq!(facts.rows, rows.len() as u64);
        let mut counting = CopyRows::counting();
        pieces.iter().for_each(|piece| counting.push(piece));
        prop_assert_eq!(counting.finish().unwrap().rows, facts.rows);
    }
}
