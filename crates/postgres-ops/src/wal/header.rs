//! The header on the first page of every segment.
//!
//! Layout (`XLogLongPageHeaderData` in `access/xlog_internal.h`), in the byte order of the server, little-endian here:
//! magic u16, info u16, timeline u32, page address u64, remaining length u32, padding u32, system identifier u64,
//! segment size u32, block size u32.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Lsn, Segment, SegmentSize, Timeline, WalError};

/// Bytes of a segment that its header takes.
pub const HEADER_LENGTH: usize = 40;

/// Says in `info` that a page begins with the long header.
const LONG_HEADER: u16 = 2;

/// What the first two bytes are, and of which major version.
const MAGICS: [(u16, u32); 5] = [(0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)];

/// Identity of a cluster, given by `initdb`. In JSON a string of decimal digits, because not every reader has whole
/// numbers of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SystemId(u64);

impl SystemId {
    /// As `pg_control` and `pg_control_system()` have it.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl From<SystemId> for String {
    fn from(system: SystemId) -> Self {
        system.to_string()
    }
}

impl TryFrom<String> for SystemId {
    type Error = std::num::ParseIntError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        digits.parse().map(Self)
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Major version of the server that wrote it.
    pub major: u32,
    /// Timeline that the segment was written on.
    pub timeline: Timeline,
    /// Position of its first byte.
    pub start: Lsn,
    /// Cluster that wrote it.
    pub system: SystemId,
    /// Bytes of every segment of that cluster.
    pub size: SegmentSize,
}

impl SegmentHeader {
    /// Reads the first bytes of a segment; at least [`HEADER_LENGTH`] of them are needed.
    ///
    /// # Errors
    /// [`WalError::NotWal`], [`WalError::Size`].
    pub fn parse(bytes: &[u8]) -> Result<Self, WalError> {
        let not_wal = |what| WalError::NotWal { what };
        let Some(header) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Err(not_wal("it is shorter than a header"));
        };
        let magic = u16::from_le_bytes([header[0], header[1]]);
        let info = u16::from_le_bytes([header[2], header[3]]);
        let Some((_, major)) = MAGICS.into_iter().find(|(known, _)| *known == magic) else {
            return Err(not_wal("its first bytes are of no supported version (14 to 18)"));
        };
        if info & LONG_HEADER == 0 {
            return Err(not_wal("its first page does not begin a segment"));
        }
        let timeline = Timeline::new(u32_at(header, 4)).ok_or(not_wal("it is of timeline 0"))?;
        let size = SegmentSize::new(u32_at(header, 32).into())?;
        let start = Lsn::new(u64_at(header, 8));
        if !start.bytes().is_multiple_of(size.bytes()) {
            return Err(not_wal("its first page does not begin a segment"));
        }
        Ok(Self { major, timeline, start, system: SystemId(u64_at(header, 24)), size })
    }

    /// Whether it is what a file of this name and length must hold, written by `system`.
    ///
    /// # Errors
    /// [`WalError::OtherCluster`], [`WalError::OtherSegment`], [`WalError::Length`].
    pub fn check(&self, name: Segment, length: u64, system: SystemId) -> Result<(), WalError> {
        if self.system != system {
            return Err(WalError::OtherCluster { found: self.system, expected: system });
        }
        let is_place = name.fits(self.size) && name.start(self.size) == self.start;
        // The first segment of a new timeline is begun as a copy: its first pages are of the timeline before.
        if !is_place || self.timeline > name.timeline() {
            return Err(WalError::OtherSegment { name, at: self.start, timeline: self.timeline });
        }
        if length != self.size.bytes() {
            return Err(WalError::Length { name, found: length, expected: self.size.bytes() });
        }
        Ok(())
    }
}

fn u32_at(header: &[u8; HEADER_LENGTH], at: usize) -> u32 {
    header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(header: &[u8; HEADER_LENGTH], at: usize) -> u64 {
    header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SYSTEM: SystemId = SystemId::new(7_301_234_567_890_123_456);

    fn header(magic: u16, timeline: u32, start: u64, size: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(magic.to_le_bytes());
        bytes.extend(LONG_HEADER.to_le_bytes());
        bytes.extend(timeline.to_le_bytes());
        bytes.extend(start.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(SYSTEM.number().to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(8192u32.to_le_bytes());
        bytes
    }

    fn name(text: &str) -> Segment {
        text.parse().unwrap()
    }

    #[test]
    fn a_segment_of_every_version_is_read() {
        for (magic, major) in MAGICS {
            let read = SegmentHeader::parse(&header(magic, 2, 0xA_FE00_0000, 16 << 20)).unwrap();
            assert_eq!((read.major, read.timeline.number(), read.system), (major, 2, SYSTEM));
            assert_eq!((read.start.to_string(), read.size.bytes()), ("A/FE000000".to_owned(), 16 << 20));
            assert_eq!(read.check(name("000000020000000A000000FE"), 16 << 20, SYSTEM), Ok(()));
        }
    }

    #[test]
    fn a_segment_under_another_name_length_or_cluster_is_refused() {
        let read = SegmentHeader::parse(&header(0xD110, 2, 0x300_0000, 16 << 20)).unwrap();
        let check = |text: &str, length, system| read.check(name(text), length, system);
        assert_eq!(check("000000020000000000000003", 16 << 20, SYSTEM), Ok(()));
        assert!(matches!(
            check("000000020000000000000004", 16 << 20, SYSTEM),
            Err(WalError::OtherSegment { .. })
        ));
        assert!(matches!(
            check("000000010000000000000003", 16 << 20, SYSTEM),
            Err(WalError::OtherSegment { .. })
        ));
        assert_eq!(
            check("000000030000000000000003", 16 << 20, SYSTEM),
            Ok(()),
            "the copy that begins timeline 3"
        );
        assert!(matches!(check("000000020000000000000003", 8192, SYSTEM), Err(WalError::Length { .. })));
        assert!(matches!(
            check("000000020000000000000003", 16 << 20, SystemId::new(1)),
            Err(WalError::OtherCluster { .. })
        ));
    }

    #[test]
    fn bytes_that_begin_no_segment_are_refused() {
        assert!(SegmentHeader::parse(&[]).is_err());
        assert!(SegmentHeader::parse(&[0; 8192]).is_err());
        assert!(
            SegmentHeader::parse(&header(0xD110, 1, 0x300_2000, 16 << 20)).is_err(),
            "a page in the middle"
        );
        assert!(SegmentHeader::parse(&header(0xD110, 0, 0x300_0000, 16 << 20)).is_err());
        assert!(SegmentHeader::parse(&header(0xD110, 1, 0x300_0000, 17 << 20)).is_err());
        let mut short = header(0xD110, 1, 0x300_0000, 16 << 20);
        short[2] = 0;
        assert!(SegmentHeader::parse(&short).is_err(), "a short page header");
    }

    #[test]
    fn identities_are_digits_in_json() {
        let system = SystemId::new(u64::MAX);
        let json = serde_json::to_string(&system).unwrap();
        assert_eq!(json, "\"18446744073709551615\"");
        assert_eq!(serde_json::from_str::<SystemId>(&json).unwrap(), system);
        assert!(serde_json::from_str::<SystemId>("\"-1\"").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: [u8; HEADER_LENGTH]) {
            let _ = SegmentHeader::parse(&bytes);
        }
    }
}
