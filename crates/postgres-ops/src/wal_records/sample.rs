//! Writes logs for tests, the way the server does.

use crate::wal::{Lsn, SystemId};

pub(crate) const SYSTEM: SystemId = SystemId::new(7_301_234_567_890_123_456);
pub(crate) const SIZE: u64 = 1 << 20;
pub(crate) const PAGE: u64 = 8192;
/// 2024-01-01 00:00:00 UTC, in microseconds since 2000.
pub(crate) const NEW_YEAR: i64 = 757_382_400_000_000;

/// A log that grows record by record.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) timeline: u32,
    pub(crate) magic: u16,
    before: u64,
}

impl Writer {
    /// Begins at a segment.
    pub(crate) fn at(timeline: u32, start: u64) -> Self {
        Self { start, bytes: Vec::new(), timeline, magic: 0xD110, before: start.saturating_sub(64) }
    }

    fn position(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn page_header(&mut self, remaining: u32) {
        let (at, first) = (self.position(), self.position().is_multiple_of(SIZE));
        self.bytes.extend(self.magic.to_le_bytes());
        let info = u16::from(first) * 2 + u16::from(remaining > 0);
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(SYSTEM.number().to_le_bytes());
            self.bytes.extend((SIZE as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }

    /// Appends a record of any kind; returns where it begins and ends.
    pub(crate) fn record(&mut self, manager: u8, info: u8, xid: u32, rest: &[u8]) -> (Lsn, Lsn) {
        if self.position().is_multiple_of(PAGE) {
            self.page_header(0);
        }
        let start = self.position();
        let mut record = Vec::new();
        record.extend((24 + rest.len() as u32).to_le_bytes());
        record.extend(xid.to_le_bytes());
        record.extend(self.before.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(rest), &record);
        record.extend(crc.to_le_bytes());
        record.extend(rest);
        let mut record = &record[..];
        loop {
            let room = (PAGE - self.position() % PAGE) as usize;
            let (piece, left) = record.split_at(room.min(record.len()));
            self.bytes.extend(piece);
            record = left;
            if record.is_empty() {
                break;
            }
            self.page_header(record.len() as u32);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.before = start;
        (Lsn::new(start), Lsn::new(self.position()))
    }

    /// Appends a record with data.
    pub(crate) fn data(&mut self, manager: u8, info: u8, xid: u32, data: &[u8]) -> (Lsn, Lsn) {
        let mut rest = vec![254];
        rest.extend((data.len() as u32).to_le_bytes());
        rest.extend(data);
        self.record(manager, info, xid, &rest)
    }

    /// Appends a commit, so many microseconds after the new year.
    pub(crate) fn commit(&mut self, xid: u32, after: i64) -> (Lsn, Lsn) {
        self.data(1, 0, xid, &(NEW_YEAR + after).to_le_bytes())
    }

    pub(crate) fn restore_point(&mut self, name: &str, after: i64) -> (Lsn, Lsn) {
        let mut data = (NEW_YEAR + after).to_le_bytes().to_vec();
        data.extend(name.as_bytes());
        data.resize(72, 0);
        self.data(0, 0x70, 0, &data)
    }

    /// Appends a record of a table, `length` bytes of data.
    pub(crate) fn filler(&mut self, length: usize) -> (Lsn, Lsn) {
        self.data(10, 0, 7, &vec![0x5A; length])
    }

    /// Appends a switch: the rest of the segment stays empty.
    pub(crate) fn switch(&mut self) -> (Lsn, Lsn) {
        let (start, end) = self.record(0, 0x40, 0, &[]);
        let length = (end.bytes() - self.start).next_multiple_of(SIZE);
        self.bytes.resize(length as usize, 0);
        (start, Lsn::new(self.position()))
    }

    /// All segments, the last one filled up with zeros.
    pub(crate) fn segments(&self) -> Vec<Vec<u8>> {
        let pieces = self.bytes.chunks(SIZE as usize).map(<[u8]>::to_vec);
        pieces
            .map(|mut piece| {
                piece.resize(SIZE as usize, 0);
                piece
            })
            .collect()
    }
}
