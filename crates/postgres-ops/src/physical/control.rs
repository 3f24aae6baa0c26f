//! `global/pg_control`: who a cluster is, and where it was last consistent.
//!
//! A file of 8 KiB of which less than 512 bytes are used; the last field is a CRC-32C of all before it. The layout
//! (`ControlFileData` in `catalog/pg_control.h`) did not change from 14 to 17; 18 put a byte before the nonce. Numbers
//! are in the byte order of the server, little-endian here.

use crate::wal::{Lsn, SegmentSize, SystemId, Timeline};

/// Where it lies in a data directory.
pub const CONTROL_FILE: &str = "global/pg_control";

/// Bytes of the file that mean something, with room to spare.
const USED: usize = 512;

/// Values of `pg_control_version`, and where the CRC lies with each.
const LAYOUTS: [(u32, usize); 3] = [(1300, 288), (1700, 288), (1800, 292)];

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlFile {
    /// Identity of the cluster.
    pub system: SystemId,
    /// Version of the layout: 1300 for 14 to 16, 1700, 1800.
    pub control_version: u32,
    /// Version of the system catalogs.
    pub catalog_version: u32,
    /// What the server was doing.
    pub state: ClusterState,
    /// Where recovery from the last checkpoint begins.
    pub redo: Lsn,
    /// Timeline of the last checkpoint.
    pub timeline: Timeline,
    /// Where a standby, or a restored cluster, becomes consistent; 0/0 for others.
    pub minimum_recovery_end: Lsn,
    /// Timeline of that position, when there is one.
    pub minimum_recovery_timeline: Option<Timeline>,
    /// Bytes of a page.
    pub block_size: u32,
    /// Pages in a file of a relation.
    pub relation_segment: u32,
    /// Bytes of a WAL segment.
    pub wal_segment_size: SegmentSize,
    /// Version of page checksums; 0 when there are none.
    pub checksum_version: u32,
}

/// What a server was doing when it last wrote its `pg_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterState {
    /// Just begun.
    Startup,
    /// Stopped in order.
    ShutDown,
    /// A standby that was stopped in order.
    ShutDownInRecovery,
    /// Stopping.
    ShuttingDown,
    /// Recovering from a crash.
    CrashRecovery,
    /// A standby, or a restored cluster that replays WAL.
    ArchiveRecovery,
    /// Open for writing, or crashed.
    InProduction,
}

/// Why bytes are no `pg_control`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Fewer bytes than it needs.
    #[error("pg_control has only {bytes} bytes")]
    Short {
        /// How many.
        bytes: usize,
    },
    /// Of a server that is not supported, or not a `pg_control` at all.
    #[error("pg_control is of version {found}, which is none of PostgreSQL 14 to 18")]
    Version {
        /// As read.
        found: u32,
    },
    /// Damaged, or read while it was written.
    #[error("the checksum of pg_control is wrong")]
    Checksum,
    /// The checksum is right and the content is impossible.
    #[error("pg_control is impossible: {what}")]
    Impossible {
        /// What is.
        what: &'static str,
    },
}

impl ControlFile {
    /// Reads the content of the file.
    ///
    /// # Errors
    /// Any [`ControlError`]; [`ControlError::Checksum`] may go away when the file is read again.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let fields = Fields(bytes.get(..USED).ok_or(ControlError::Short { bytes: bytes.len() })?);
        let found = fields.u32(8);
        let (_, crc_at) = LAYOUTS
            .into_iter()
            .find(|(version, _)| *version == found)
            .ok_or(ControlError::Version { found })?;
        if crc32c::crc32c(&fields.0[..crc_at]) != fields.u32(crc_at) {
            return Err(ControlError::Checksum);
        }
        let impossible = |what| ControlError::Impossible { what };
        let page = |size: u32| size.is_power_of_two() && (1 << 10..=1 << 15).contains(&size);
        let file = Self {
            system: SystemId::new(fields.u64(0)),
            control_version: found,
            catalog_version: fields.u32(12),
            state: ClusterState::from_number(fields.u32(16)).ok_or(impossible("its state"))?,
            redo: Lsn::new(fields.u64(40)),
            timeline: Timeline::new(fields.u32(48)).ok_or(impossible("its timeline"))?,
            minimum_recovery_end: Lsn::new(fields.u64(136)),
            minimum_recovery_timeline: Timeline::new(fields.u32(144)),
            block_size: fields.u32(216),
            relation_segment: fields.u32(220),
            wal_segment_size: SegmentSize::new(fields.u32(228).into())
                .map_err(|_| impossible("its WAL segment size"))?,
            checksum_version: fields.u32(252),
        };
        if !page(file.block_size) || file.relation_segment == 0 {
            return Err(impossible("its page size"));
        }
        Ok(file)
    }
}

impl ClusterState {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Startup,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::CrashRecovery,
            5 => Self::ArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

/// The used part of the file.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        self.0[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&self, at: usize) -> u64 {
        self.0[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of that version with these fields set, and a right checksum.
    fn file(version: u32, crc_at: usize, changes: &[(usize, u32)]) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        let usual = [(8, version), (16, 6), (48, 1), (216, 8192), (220, 131_072), (228, 16 << 20), (252, 1)];
        for (at, value) in usual.iter().chain(changes) {
            bytes[*at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn every_layout_has_its_checksum_elsewhere() {
        for (version, crc_at) in LAYOUTS {
            let control = ControlFile::parse(&file(version, crc_at, &[])).unwrap();
            assert_eq!((control.control_version, control.checksum_version), (version, 1));
            assert_eq!(control.state, ClusterState::InProduction);
            for at in [0, 100, crc_at] {
                let mut flipped = file(version, crc_at, &[]);
                flipped[at] ^= 1;
                assert_eq!(ControlFile::parse(&flipped), Err(ControlError::Checksum), "{at}");
            }
        }
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        let wrong = |changes: &[(usize, u32)]| ControlFile::parse(&file(1300, 288, changes)).unwrap_err();
        for change in [(16, 7), (48, 0), (216, 8191), (216, 0), (216, 1 << 16), (220, 0), (228, 1)] {
            assert!(matches!(wrong(&[change]), ControlError::Impossible { .. }), "{change:?}");
        }
        assert_eq!(wrong(&[(8, 1201)]), ControlError::Version { found: 1201 });
        assert_eq!(ControlFile::parse(&[0; 511]), Err(ControlError::Short { bytes: 511 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 512..600), layout in 0..LAYOUTS.len(),
        ) {
            let (version, crc_at) = LAYOUTS[layout];
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..crc_at]);
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
            prop_assert_ne!(ControlFile::parse(&bytes), Err(ControlError::Checksum));
        }
    }
}
