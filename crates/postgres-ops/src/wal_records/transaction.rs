//! Ends of transactions.
//!
//! ```text
//! time, [which lists], [database], [subtransactions], [dropped files], [dropped statistics], [invalidations], [prepared as]
//! ```
//!
//! Dropped statistics came with version 15; their items grew from 12 to 16 bytes in 18. Invalidations are in commits only.

use super::event::timestamp;
use super::payload::Fields;
use super::{Outcome, Transaction};
use crate::wal::Xid;

/// In the info of the record: it says which lists there are.
const HAS_LISTS: u8 = 0x80;
const DATABASE: u32 = 1;
const SUBTRANSACTIONS: u32 = 1 << 1;
const FILES: u32 = 1 << 2;
const INVALIDATIONS: u32 = 1 << 3;
const PREPARED: u32 = 1 << 4;
const STATISTICS: u32 = 1 << 8;

pub(super) fn read(info: u8, xid: Xid, data: &mut Fields<'_>, major: u32) -> Option<Transaction> {
    let (outcome, prepared) = match info & 0x70 {
        0x00 => (Outcome::Commit, false),
        0x20 => (Outcome::Abort, false),
        0x30 => (Outcome::Commit, true),
        0x40 => (Outcome::Abort, true),
        _ => return None,
    };
    let at = timestamp(data.i64()?)?;
    let lists = if info & HAS_LISTS == 0 { 0 } else { data.u32()? };
    let has = |list| lists & list != 0;
    if has(DATABASE) {
        data.take(8)?;
    }
    let subtransactions = if has(SUBTRANSACTIONS) { data.list(4)? } else { &[] };
    if has(FILES) {
        data.list(12)?;
    }
    if has(STATISTICS) {
        data.list(if major < 18 { 12 } else { 16 })?;
    }
    if has(INVALIDATIONS) && outcome == Outcome::Commit {
        data.list(16)?;
    }
    // The session that ends a prepared transaction has none of its own.
    let xid = if has(PREPARED) { Xid::new(data.u32()?) } else { xid };
    let xids = subtransactions.chunks_exact(4).filter_map(|bytes| bytes.first_chunk());
    let subtransactions = xids.map(|bytes| Xid::new(u32::from_le_bytes(*bytes))).collect();
    Some(Transaction { xid, outcome, prepared, at, subtransactions })
}
