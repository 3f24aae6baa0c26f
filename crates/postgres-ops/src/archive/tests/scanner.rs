use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::sample::{Data, Sample};
use crate::archive::{ArchiveError, ArchiveFacts, ArchiveScanner, Boundary, DumpId, ScanOptions};

fn scan(pieces: &[&[u8]]) -> Result<(ArchiveFacts, Vec<Boundary>), ArchiveError> {
    let mut scanner = ArchiveScanner::new(ScanOptions::default().digests(true));
    let mut boundaries = Vec::new();
    for piece in pieces {
        let before = scanner.offset();
        scanner.push(piece)?;
        assert_eq!(scanner.offset(), before + piece.len() as u64);
        for boundary in scanner.boundaries() {
            let offset = boundary.offset();
            let head = if matches!(boundary, Boundary::BlockStart { .. }) { 9 } else { 0 };
            assert!(offset + head >= before && offset <= scanner.offset());
        }
        boundaries.extend_from_slice(scanner.boundaries());
    }
    Ok((scanner.finish()?, boundaries))
}

fn id(index: usize) -> DumpId {
    DumpId::new(Sample::id(index)).unwrap()
}

#[test]
fn rows_objects_and_offsets_are_exact() {
    for (minor, int_size) in [(12, 4), (14, 4), (15, 5), (16, 8)] {
        let sample = Sample { minor, int_size, ..Sample::ordinary() };
        let bytes = sample.bytes();
        let (facts, _) = scan(&[&bytes]).unwrap();
        assert_eq!(facts.length, bytes.len() as u64);
        let rows: Vec<_> = facts.blocks.iter().map(|block| block.rows.map(|rows| rows.rows)).collect();
        assert_eq!(rows, [Some(7), Some(0), Some(120), None]);
        assert_eq!((facts.objects.count, facts.objects.bytes), (2, 5));
        let mut start = sample.toc_bytes().len() as u64;
        for (index, block) in facts.blocks.iter().enumerate() {
            let end = start + sample.block_bytes(index).len() as u64;
            assert_eq!((block.dump_id, block.start, block.end), (id(index), start, end));
            start = end;
        }
    }
}

#[test]
fn digests_cover_rows_and_large_objects() {
    let (facts, _) = scan(&[&Sample::ordinary().bytes()]).unwrap();
    let rows = (0..7).fold(0u128, |sum, n| sum.wrapping_add(xxh3_128(format!("{n}\trow {n}").as_bytes())));
    let digest = facts.find_block(id(0)).unwrap().rows.unwrap().digest.unwrap();
    assert_eq!(digest.to_string(), format!("{rows:032x}"));
    let first = xxh3_128(&[&16_400u32.to_le_bytes()[..], b"blob\n"].concat());
    let objects = first.wrapping_add(xxh3_128(&4_000_000_000u32.to_le_bytes()));
    assert_eq!(facts.objects.digest.unwrap().to_string(), format!("{objects:032x}"));
}

#[test]
fn an_archive_cut_anywhere_is_never_whole() {
    let bytes = Sample::ordinary().bytes();
    for cut in 0..bytes.len() {
        let error = scan(&[&bytes[..cut]]).unwrap_err();
        assert!(error.is_truncation(), "{cut}: {error}");
    }
}

#[test]
fn an_archive_cut_between_blocks_names_what_is_missing() {
    let sample = Sample::ordinary();
    let length = sample.toc_bytes().len() + sample.block_bytes(0).len();
    let error = scan(&[&sample.bytes()[..length]]).unwrap_err();
    assert!(matches!(error, ArchiveError::MissingData { first, missing: 3 } if first == id(1)), "{error}");
}

#[test]
fn what_follows_the_last_block_is_refused() {
    let sample = Sample::ordinary();
    let bytes = sample.bytes();
    for tail in [b"\0".to_vec(), b"\n".to_vec(), sample.block_bytes(1)] {
        let error = scan(&[&bytes, &tail]).unwrap_err();
        let ArchiveError::Corrupt { offset, .. } = error else { panic!("{error}") };
        assert_eq!(offset, bytes.len() as u64);
    }
}

#[test]
fn blocks_that_no_entry_announces_are_refused() {
    let sample = Sample::ordinary();
    let start = sample.toc_bytes().len();
    for (at, byte) in [(start + 2, 99), (start + 2, 11), (start, 3), (start + 1, 1), (start + 6, 1)] {
        let mut bytes = sample.bytes();
        bytes[at] = byte;
        let error = scan(&[&bytes]).unwrap_err();
        assert!(matches!(error, ArchiveError::Corrupt { .. }), "{at} {byte}: {error}");
    }
}

#[test]
fn a_scanner_that_failed_stays_failed() {
    let mut scanner = ArchiveScanner::default();
    assert!(scanner.push(b"-- PostgreSQL database dump").is_err());
    assert!(matches!(scanner.push(&Sample::ordinary().bytes()), Err(ArchiveError::AlreadyFailed)));
    assert!(matches!(scanner.finish(), Err(ArchiveError::AlreadyFailed)));
}

#[test]
fn compressed_blocks_are_framed_but_not_counted() {
    for minor in [14, 15] {
        let sample = Sample { minor, compression: 1, ..Sample::ordinary() };
        let (facts, _) = scan(&[&sample.bytes()]).unwrap();
        assert!(facts.blocks.iter().all(|block| block.rows.is_none() && block.payload_bytes > 4));
        assert_eq!((facts.objects.count, facts.objects.digest), (2, None));
    }
}

#[test]
fn the_directory_format_is_told_apart() {
    let mut bytes = Sample::ordinary().toc_bytes();
    bytes[10] = 3;
    let error = scan(&[&bytes]).unwrap_err();
    assert!(!matches!(error, ArchiveError::NotAnArchive), "{error}");
}

fn any_data() -> impl Strategy<Value = Data> {
    let rows = (prop::collection::vec("[^\n]{0,20}", 0..30), 1usize..40)
        .prop_map(|(rows, chunk)| Data::Rows(rows.into_iter().map(String::into_bytes).collect(), chunk));
    let object = (1..=u32::MAX, prop::collection::vec(any::<u8>(), 0..20));
    let objects = prop::collection::vec(object, 0..5).prop_map(Data::Objects);
    prop_oneof![4 => rows, 1 => objects]
}

proptest! {
    #[test]
    fn pieces_have_no_influence(
        data in prop::collection::vec(any_data(), 0..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        minor in 12u8..=16,
    ) {
        let sample = Sample { minor, ..Sample::new(data) };
        let bytes = sample.bytes();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let whole = scan(&[&bytes]).unwrap();
        prop_assert_eq!(&scan(&pieces).unwrap(), &whole);
        prop_assert_eq!(&scan(&bytes.chunks(1).collect::<Vec<_>>()).unwrap(), &whole);
        let mut counting = ArchiveScanner::default();
        pieces.iter().for_each(|piece| counting.push(piece).unwrap());
        let counted = counting.finish().unwrap();
        for (index, data) in sample.data.iter().enumerate() {
            let rows = |facts: &ArchiveFacts| facts.blocks[index].rows.map(|rows| (rows.rows, rows.bytes));
            prop_assert_eq!(rows(&counted), rows(&whole.0));
            if let Data::Rows(rows, _) = data {
                let facts = whole.0.find_block(id(index)).unwrap();
                prop_assert_eq!(facts.rows.unwrap().rows, rows.len() as u64);
            }
        }
    }

    #[test]
    fn noise_never_panics_and_gives_the_same_in_any_pieces(
        at in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 1..60),
        piece in 1usize..50,
    ) {
        let mut bytes = Sample::ordinary().bytes();
        let at = at.index(bytes.len());
        let end = bytes.len().min(at + noise.len());
        bytes[at..end].copy_from_slice(&noise[..end - at]);
        let whole = scan(&[&bytes]);
        let parts = scan(&bytes.chunks(piece).collect::<Vec<_>>());
        prop_assert_eq!(whole.is_ok(), parts.is_ok());
        if let (Ok(whole), Ok(parts)) = (whole, parts) {
            prop_assert_eq!(whole, parts);
        }
    }
}
