//! Scans anything as an RDB, whole and in pieces, and rewrites its expiries.
#![no_main]

use backstay_redis_ops::rdb::{Expiries, RdbError, RdbFacts, RdbScanner, ShiftExpires};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let piece = usize::from(bytes.last().copied().unwrap_or(0)) % 64 + 1;
    let whole = scan(bytes, bytes.len().max(1));
    assert_eq!(whole.is_ok(), scan(bytes, piece).is_ok());
    let Ok(facts) = whole else { return };
    assert_eq!(facts.length, bytes.len() as u64);
    let Ok(same) = rewrite(bytes, piece, Expiries::Keep) else { return };
    assert_eq!(scan(&same, same.len()).map(|same| same.databases), Ok(facts.databases.clone()));
    if let Ok(moved) = rewrite(bytes, piece, Expiries::Shift(1000)) {
        let moved = scan(&moved, moved.len()).expect("a rewritten file is a good one");
        assert_eq!((moved.keys(), moved.expires()), (facts.keys(), facts.expires()));
    }
});

fn scan(bytes: &[u8], piece: usize) -> Result<RdbFacts, RdbError> {
    let mut scanner = RdbScanner::new();
    for piece in bytes.chunks(piece) {
        scanner.push(piece)?;
    }
    scanner.finish()
}

fn rewrite(bytes: &[u8], piece: usize, expiries: Expiries) -> Result<Vec<u8>, RdbError> {
    let (mut shift, mut output) = (ShiftExpires::new(expiries), Vec::new());
    for piece in bytes.chunks(piece) {
        shift.push(piece, &mut output)?;
    }
    shift.finish(&mut output)?;
    Ok(output)
}
