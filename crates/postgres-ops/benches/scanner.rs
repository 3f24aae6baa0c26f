//! How fast an archive is scanned, in the shapes that `pg_dump` writes: one length a row, and large pieces.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints")]

use std::time::Instant;

use backstay_postgres_ops::{ArchiveScanner, ScanOptions};

/// Bytes scanned per run.
const TOTAL: usize = 3_000_000_000;
/// Bytes of a push, as a pipe reader would have them.
const PIECE: usize = 256 * 1024;

fn main() {
    for (name, row, chunk) in [
        ("one length a row, rows of 225 bytes", 225, 225),
        ("one length a row, rows of 60 bytes", 60, 60),
        ("4 KiB pieces, rows of 225 bytes", 225, 4096),
        ("32 KiB pieces, rows of 225 bytes", 225, 32_768),
    ] {
        for digests in [false, true] {
            let (rows, seconds) = median(row, chunk, digests);
            let megabytes = TOTAL as f64 / 1e6;
            println!(
                "{name}, digests {digests}: {:.3} s for {megabytes:.0} MB, {rows} rows: {:.0} MB/s",
                seconds,
                megabytes / seconds
            );
        }
    }
}

fn median(row: usize, chunk: usize, digests: bool) -> (u64, f64) {
    let mut runs: Vec<_> = (0..5).map(|_| run(row, chunk, digests)).collect();
    runs.sort_by(|a, b| a.1.total_cmp(&b.1));
    runs[2]
}

fn run(row: usize, chunk: usize, digests: bool) -> (u64, f64) {
    let toc = table_of_contents();
    let body = body(row, chunk);
    let mut scanner = ArchiveScanner::new(ScanOptions::default().digests(digests));
    scanner.push(&toc).unwrap();
    scanner.push(&[1, 0, 2, 0, 0, 0]).unwrap();
    let began = Instant::now();
    for _ in 0..TOTAL / body.len() {
        for piece in body.chunks(PIECE) {
            scanner.push(std::hint::black_box(piece)).unwrap();
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    scanner.push(&text(b"\\.\n\n\n")).unwrap();
    scanner.push(&int(0)).unwrap();
    let facts = scanner.finish().unwrap();
    (facts.blocks[0].rows.unwrap().rows, seconds)
}

/// About a MiB of whole chunks that hold whole rows; it stays in the cache, as bytes off a pipe do.
fn body(row: usize, chunk: usize) -> Vec<u8> {
    let rows = chunk * (1_000_000 / (row * chunk)).max(1);
    let mut plain = Vec::new();
    for number in 0..rows {
        let line = format!("{number:0width$}\n", width = row - 1);
        plain.extend(line.bytes());
    }
    plain.chunks(chunk).flat_map(text).collect()
}

fn int(value: i32) -> Vec<u8> {
    let mut bytes = vec![u8::from(value < 0)];
    bytes.extend(value.unsigned_abs().to_le_bytes());
    bytes
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [int(i32::try_from(bytes.len()).unwrap()), bytes.to_vec()].concat()
}

fn table_of_contents() -> Vec<u8> {
    let mut toc = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
    toc.extend((0..8).flat_map(|_| int(0)));
    toc.extend([&b"shop"[..], b"15.18", b"15.18"].iter().flat_map(|part| text(part)));
    toc.extend(int(1));
    toc.extend([int(2), int(1), text(b"0"), text(b"0"), text(b"t"), text(b"TABLE DATA"), int(3)].concat());
    toc.extend([text(b""), text(b""), text(b"COPY public.t (a) FROM stdin;\n"), text(b"public")].concat());
    toc.extend([int(-1), int(-1), text(b"alice"), text(b"false"), int(-1)].concat());
    toc.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]);
    toc
}
