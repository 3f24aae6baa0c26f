//! What is in the data of a record.
//!
//! In front of the data stand a few marks: which replication origin it came from, which transaction a subtransaction
//! belongs to, and last the length of the data. Records with pages in front of their data are none of ours.

use super::event::timestamp;
use super::record::Kind;
use super::{Event, transaction};
use crate::wal::{Lsn, Timeline, Xid};

/// Marks by their first byte.
const TOP_TRANSACTION: u8 = 252;
const ORIGIN: u8 = 253;
const LONG_DATA: u8 = 254;
const SHORT_DATA: u8 = 255;
/// Bytes of the name of a restore point.
const NAME: usize = 64;

/// Reads a record that is wanted; `None` when it has not the form that it must have.
pub(super) fn event(kind: Kind, xid: Xid, bytes: &[u8], major: u32) -> Option<Event> {
    let mut data = Fields(data(bytes)?);
    let info = kind.info;
    if kind.manager == Kind::TRANSACTION {
        return transaction::read(info, xid, &mut data, major).map(Event::Transaction);
    }
    if kind.manager == Kind::TABLESPACE {
        let oid = data.u32()?;
        let path = data.0.split(|byte| *byte == 0).next().unwrap_or_default();
        return Some(Event::NewTablespace { oid, path: String::from_utf8_lossy(path).into_owned() });
    }
    match info & 0xF0 {
        0x00 | 0x10 => {
            let redo = Lsn::new(data.u64()?);
            let (timeline, previous) = (data.timeline()?, data.timeline()?);
            Some(Event::Checkpoint { redo, timeline, previous, shutdown: info & 0xF0 == 0 })
        }
        0x40 => Some(Event::Switch),
        0x50 => Some(Event::BackupEnd { start: Lsn::new(data.u64()?) }),
        0x70 => {
            let at = timestamp(data.i64()?)?;
            let name = data.take(NAME)?.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(Event::RestorePoint { name: String::from_utf8_lossy(name).into_owned(), at })
        }
        0x90 => {
            let at = timestamp(data.i64()?)?;
            Some(Event::EndOfRecovery { timeline: data.timeline()?, previous: data.timeline()?, at })
        }
        _ => None,
    }
}

/// The data behind the marks.
fn data(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = Fields(bytes);
    // A switch has neither marks nor data.
    while !rest.0.is_empty() {
        let length = match rest.u8()? {
            TOP_TRANSACTION => rest.take(4).map(|_| None)?,
            ORIGIN => rest.take(2).map(|_| None)?,
            SHORT_DATA => Some(usize::from(rest.u8()?)),
            LONG_DATA => Some(usize::try_from(rest.u32()?).ok()?),
            _ => return None,
        };
        if let Some(length) = length {
            return if rest.0.len() == length { Some(rest.0) } else { None };
        }
    }
    Some(rest.0)
}

/// Little-endian fields, one after another.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A list: its length, and so many items of `size` bytes.
    pub(super) fn list(&mut self, size: usize) -> Option<&'a [u8]> {
        let count = usize::try_from(self.u32()?).ok()?;
        self.take(count.checked_mul(size)?)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.take(8)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))
    }

    fn timeline(&mut self) -> Option<Timeline> {
        self.u32().and_then(Timeline::new)
    }
}
