//! Reads anything as WAL: as the pages of a segment, and as records whose checksums are right.
#![no_main]

use backstay_postgres_ops::wal_records::{Progress, RecordReader};
use libfuzzer_sys::fuzz_target;

const START: u64 = 3 << 20;
const MAGICS: [u16; 5] = [0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let magic = MAGICS[usize::from(choice) % MAGICS.len()];
    read(&header(magic), bytes);
    read(&[], bytes);
    let (kind, data) = bytes.split_at(bytes.len().min(2));
    if let [manager, info] = *kind {
        read(&header(magic), &record(manager % 2, info, data));
    }
});

fn read(header: &[u8], rest: &[u8]) {
    let segment = [header, rest].concat();
    let mut reader = RecordReader::new();
    let mut before = 0;
    let result = reader.read(&segment, &mut |record| {
        assert!(record.span.start < record.span.end && record.span.start.bytes() >= before);
        before = record.span.start.bytes();
    });
    match result {
        // A segment is never as short as what is tried here.
        Ok(Progress::More) => panic!("a segment that is cut off goes on"),
        Ok(Progress::End(end)) => assert!(reader.last().is_none_or(|last| last.end == end.at)),
        Err(_) => assert!(reader.last().is_none()),
    }
}

fn header(magic: u16) -> Vec<u8> {
    let mut bytes = magic.to_le_bytes().to_vec();
    bytes.extend([2, 0, 1, 0, 0, 0]);
    bytes.extend(START.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(7u64.to_le_bytes());
    bytes.extend((1u32 << 20).to_le_bytes());
    bytes.extend(8192u32.to_le_bytes());
    bytes
}

fn record(manager: u8, info: u8, rest: &[u8]) -> Vec<u8> {
    let rest = &rest[..rest.len().min(8000)];
    let mut record = (24 + rest.len() as u32).to_le_bytes().to_vec();
    record.extend([0; 12]);
    record.extend([info, manager, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(rest), &record);
    record.extend(crc.to_le_bytes());
    record.extend(rest);
    record.resize(8192 - 40, 0);
    record
}
