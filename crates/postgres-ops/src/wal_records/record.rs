//! A record while its bytes arrive, and its checks.

use super::{Event, Flaw};
use crate::wal::{Lsn, Timeline, Xid};
use crate::wal_records::payload::event;

/// Bytes of a record before its data: length u32, transaction u32, record before u64, info u8, resource manager u8,
/// padding u16, CRC-32C u32.
pub(super) const HEADER: usize = 24;
/// What the checksum covers of them, after the data.
const CHECKED: usize = 20;
/// Resource managers of the server end here, those of extensions begin at [`EXTENSIONS`].
const LAST_MANAGER: u8 = 21;
const EXTENSIONS: u8 = 128;

/// Most bytes of one record that are kept. Only ends of transactions are longer than a page, by their subtransactions and
/// dropped tables; of one that is longer than this (16 million subtransactions) just the checksum is computed, and the
/// log cannot be read beyond it.
pub const MAX_KEPT: usize = 64 << 20;

/// Which records have something to say, and what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Resource manager.
    pub(super) manager: u8,
    pub(super) info: u8,
}

impl Kind {
    pub(super) const XLOG: u8 = 0;
    pub(super) const TRANSACTION: u8 = 1;
    pub(super) const TABLESPACE: u8 = 5;

    pub(super) const fn is_switch(self) -> bool {
        self.manager == Self::XLOG && self.info & 0xF0 == 0x40
    }

    /// Whether its data is wanted: what [`event`] can read.
    fn is_wanted(self) -> bool {
        match (self.manager, self.info & 0xF0) {
            // Checkpoints, switch, end of a backup, restore point, end of recovery.
            (Self::XLOG, info) => matches!(info, 0x00 | 0x10 | 0x40 | 0x50 | 0x70 | 0x90),
            (Self::TABLESPACE, info) => info == 0x00,
            // Commit, abort, and both of prepared transactions.
            (Self::TRANSACTION, info) => matches!(info & 0x70, 0x00 | 0x20 | 0x30 | 0x40),
            _ => false,
        }
    }
}

/// A record that is being put together.
#[derive(Clone, Debug)]
pub(super) struct Assembly {
    pub(super) start: Lsn,
    /// Of the page that it begins on.
    pub(super) timeline: Timeline,
    total: u64,
    taken: u64,
    header: [u8; HEADER],
    crc: u32,
    kind: Option<Kind>,
    kept: Vec<u8>,
}

impl Assembly {
    /// Begins at `start` with the length that stands there.
    pub(super) fn begin(start: Lsn, timeline: Timeline, total: u32) -> Result<Self, Flaw> {
        if (total as usize) < HEADER {
            return Err(if total == 0 {
                Flaw::Nothing
            } else {
                Flaw::Record("it is shorter than its header")
            });
        }
        let total = total.into();
        Ok(Self {
            start,
            timeline,
            total,
            taken: 0,
            header: [0; HEADER],
            crc: 0,
            kind: None,
            kept: Vec::new(),
        })
    }

    /// Bytes that are still missing.
    pub(super) const fn missing(&self) -> u64 {
        self.total - self.taken
    }

    /// Takes the next bytes, never more than are missing. `before` is the record before it, where that is known.
    pub(super) fn take(&mut self, bytes: &[u8], before: Option<Lsn>) -> Result<(), Flaw> {
        let mut rest = bytes;
        let taken = usize::try_from(self.taken).unwrap_or(usize::MAX);
        if taken < HEADER {
            let (header, data) = rest.split_at((HEADER - taken).min(rest.len()));
            self.header[taken..taken + header.len()].copy_from_slice(header);
            rest = data;
            if taken + header.len() == HEADER {
                self.kind = Some(self.check_header(before)?);
            }
        }
        self.taken += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, rest);
        if self.kind.is_some_and(Kind::is_wanted) {
            if self.kept.len() + rest.len() > MAX_KEPT {
                return Err(Flaw::Record("it is too long to be read"));
            }
            self.kept.extend_from_slice(rest);
        }
        Ok(())
    }

    fn check_header(&self, before: Option<Lsn>) -> Result<Kind, Flaw> {
        let kind = Kind { manager: self.header[17], info: self.header[16] };
        if (LAST_MANAGER + 1..EXTENSIONS).contains(&kind.manager) {
            return Err(Flaw::Record("its resource manager does not exist"));
        }
        let previous = Lsn::new(self.header[8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)));
        let fits = before.map_or(previous < self.start, |before| before == previous);
        if fits { Ok(kind) } else { Err(Flaw::Record("it does not follow the record before it")) }
    }

    /// Checks what is complete, and reads it.
    pub(super) fn finish(self, major: u32) -> Result<(Kind, Option<Event>), Flaw> {
        let crc = crc32c::crc32c_append(self.crc, &self.header[..CHECKED]);
        let kind = self.kind.ok_or(Flaw::Record("it is shorter than its header"))?;
        if crc.to_le_bytes() != self.header[CHECKED..] {
            return Err(Flaw::Record("its checksum is wrong"));
        }
        if !kind.is_wanted() {
            return Ok((kind, None));
        }
        let xid = Xid::new(self.header[4..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)));
        match event(kind, xid, &self.kept, major) {
            Some(event) => Ok((kind, Some(event))),
            None => Err(Flaw::Record("it has a form that no supported version writes")),
        }
    }
}
