//! Scans anything as a replication stream, whole and in pieces.
#![no_main]

use backstay_redis_ops::Offset;
use backstay_redis_ops::resp::{CommandScanner, RespError, StreamState};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let piece = usize::from(bytes.last().copied().unwrap_or(0)) % 64 + 1;
    assert_eq!(scan(bytes, bytes.len().max(1)), scan(bytes, piece));
});

type Seen = Vec<(Offset, Offset, Vec<Vec<u8>>)>;

fn scan(bytes: &[u8], piece: usize) -> (Seen, Result<(), RespError>) {
    let mut scanner = CommandScanner::new(Offset(0), StreamState::default());
    let mut seen: Seen = Vec::new();
    for piece in bytes.chunks(piece) {
        let scanned = scanner.scan(piece, |command| {
            let arguments = command.arguments().map(|argument| argument.bytes.to_vec()).collect();
            seen.push((command.start, command.end, arguments));
        });
        if let Err(error) = scanned {
            return (seen, Err(error));
        }
    }
    assert_eq!(scanner.offset(), Offset(bytes.len() as u64));
    assert!(scanner.cut() <= scanner.boundary() && scanner.boundary() <= scanner.offset());
    (seen, Ok(()))
}
