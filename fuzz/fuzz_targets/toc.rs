//! Reads anything as a table of contents, whole and in pieces, and asks it every question.
#![no_main]

use std::collections::HashSet;

use backstay_postgres_ops::{
    ArchiveError, ArchiveToc, DataPosition, Format, TocParser, TocProgress, set_block_positions,
};
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes, bytes.len().max(1));
    let piece = usize::from(bytes.last().copied().unwrap_or(0)) % 64 + 1;
    let pieces = parse(bytes, piece);
    assert_eq!(whole.is_ok(), pieces.is_ok());
    let (Ok(toc), Ok(other)) = (whole, pieces) else { return };
    assert_eq!(toc, other);
    let ids: HashSet<_> = toc.entries().iter().map(|entry| entry.dump_id).collect();
    assert_eq!(ids.len(), toc.entries().len());
    assert_eq!(toc.restore_list(&ids).lines().count(), ids.len());
    for entry in toc.entries().iter().take(20) {
        assert_eq!(toc.find(entry.dump_id), Some(entry));
        let closure = toc.closure([entry.dump_id]);
        assert!(toc.dependents(entry.dump_id).all(|user| closure.contains(&user.dump_id)));
        assert!(toc.table_indexes(entry.dump_id).count() <= toc.dependents(entry.dump_id).count());
        toc.table_name(entry.dump_id);
        entry.copy_columns();
    }
    toc.encoding();
    positions_are_read_back(bytes, &toc);
});

fn parse(bytes: &[u8], piece: usize) -> Result<ArchiveToc, ArchiveError> {
    let mut parser = TocParser::new(LIMIT);
    let mut total = 0;
    for piece in bytes.chunks(piece) {
        match parser.push(piece)? {
            TocProgress::NeedMore => total += piece.len(),
            TocProgress::Complete { consumed } => {
                assert!(consumed > 0 && consumed <= piece.len());
                total += consumed;
                break;
            }
        }
    }
    let toc = parser.finish()?;
    assert_eq!(toc.length(), total as u64);
    Ok(toc)
}

fn positions_are_read_back(bytes: &[u8], toc: &ArchiveToc) {
    if toc.header().format != Format::Custom {
        return;
    }
    let mut start = bytes[..toc.length() as usize].to_vec();
    let wanted: Vec<_> = toc.data_entries().map(|entry| (entry.dump_id, 77)).collect();
    set_block_positions(&mut start, toc, wanted).expect("entries with data have a place for it");
    let located = ArchiveToc::parse(&start).expect("only positions were changed");
    assert!(located.data_entries().all(|entry| entry.data == DataPosition::At(77)));
    assert_eq!(located.data_entries().count(), toc.data_entries().count());
}
