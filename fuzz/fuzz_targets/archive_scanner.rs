//! Scans anything as an archive, whole and in pieces, and copies its blocks.
#![no_main]

use backstay_postgres_ops::{
    ArchiveError, ArchiveFacts, ArchiveScanner, BlockFilter, ScanOptions, copy_blocks,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = scan(bytes, bytes.len().max(1), true);
    // The last byte also chooses the size of the pieces, so that seeds stay plain archives.
    let piece = usize::from(bytes.last().copied().unwrap_or(0)) % 64 + 1;
    let pieces = scan(bytes, piece, true);
    let counted = scan(bytes, piece + 64, false);
    assert_eq!(whole.is_ok(), pieces.is_ok());
    assert_eq!(whole.is_ok(), counted.is_ok());
    let (Ok(whole), Ok(pieces), Ok(counted)) = (whole, pieces, counted) else { return };
    assert_eq!(whole, pieces);
    assert_eq!(whole.length, bytes.len() as u64);
    for (one, other) in whole.blocks.iter().zip(&counted.blocks) {
        let plain = |rows: backstay_postgres_ops::RowFacts| (rows.rows, rows.bytes);
        assert_eq!(one.rows.map(plain), other.rows.map(plain));
    }
    copies_are_equal(bytes, &whole);
});

fn scan(bytes: &[u8], piece: usize, digests: bool) -> Result<ArchiveFacts, ArchiveError> {
    let mut scanner = ArchiveScanner::new(ScanOptions::default().digests(digests).toc_limit(1 << 20));
    let mut position = 0;
    for piece in bytes.chunks(piece) {
        scanner.push(piece)?;
        for boundary in scanner.boundaries() {
            assert!(boundary.offset() >= position, "boundaries ascend");
            position = boundary.offset();
        }
    }
    scanner.finish()
}

fn copies_are_equal(bytes: &[u8], facts: &ArchiveFacts) {
    let start = facts.toc.length() as usize;
    let all = BlockFilter::new(facts.toc.header(), facts.blocks.iter().map(|block| block.dump_id));
    let mut copy = Vec::new();
    let report = copy_blocks(&bytes[..start], all, &mut &bytes[start..], &mut copy).expect("a whole archive");
    assert_eq!(copy, bytes);
    assert_eq!(report.blocks.len(), facts.blocks.len());
    if let Some(block) = facts.blocks.last() {
        let one = BlockFilter::new(facts.toc.header(), [block.dump_id]);
        let mut copy = Vec::new();
        copy_blocks(b"", one, &mut &bytes[start..], &mut copy).expect("a whole archive");
        assert_eq!(copy, bytes[block.start as usize..block.end as usize]);
    }
}
