use std::fmt;
use std::str::FromStr;

use super::timeline::hex;
use super::{Lsn, Timeline, WalError};

/// Bytes of a WAL segment of one cluster: a power of two from 1 MiB to 1 GiB, chosen at `initdb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// Of a cluster whose `initdb` was not told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// # Errors
    /// [`WalError::Size`].
    pub fn new(bytes: u64) -> Result<Self, WalError> {
        let fits = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        u32::try_from(bytes).ok().filter(|_| fits).map(Self).ok_or(WalError::Size { bytes })
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0.into()
    }

    /// Segments that one value of the middle part of a name covers.
    fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

/// A segment by its name: timeline, and two numbers whose meaning depends on the segment size.
///
/// Ordered as the log is within a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    timeline: Timeline,
    log: u32,
    part: u32,
}

impl Segment {
    /// The segment that holds the byte at `position`.
    #[must_use]
    pub fn containing(timeline: Timeline, position: Lsn, size: SegmentSize) -> Self {
        Self::numbered(timeline, position.bytes() / size.bytes(), size)
    }

    /// Its timeline.
    #[must_use]
    pub const fn timeline(self) -> Timeline {
        self.timeline
    }

    /// The middle part of its name: the upper half of its positions.
    #[must_use]
    pub const fn log(self) -> u32 {
        self.log
    }

    /// The same place on another timeline.
    #[must_use]
    pub const fn on(self, timeline: Timeline) -> Self {
        Self { timeline, ..self }
    }

    /// Whether a cluster with segments of this size can have it.
    #[must_use]
    pub fn fits(self, size: SegmentSize) -> bool {
        u64::from(self.part) < size.per_log()
    }

    /// Position of its first byte.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn::new(self.number(size).wrapping_mul(size.bytes()))
    }

    /// The one after it; `None` at the end of all positions.
    #[must_use]
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        let last = u64::MAX / size.bytes();
        let number = self.number(size);
        if number < last { Some(Self::numbered(self.timeline, number + 1, size)) } else { None }
    }

    /// Segments before it.
    pub(crate) fn number(self, size: SegmentSize) -> u64 {
        u64::from(self.log) * size.per_log() + u64::from(self.part)
    }

    /// The segment with so many before it.
    pub(crate) fn numbered(timeline: Timeline, number: u64, size: SegmentSize) -> Self {
        // A position has 64 bits, so both parts fit 32.
        let half = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self { timeline, log: half(number / size.per_log()), part: half(number % size.per_log()) }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:08X}{:08X}", self.timeline, self.log, self.part)
    }
}

impl serde::Serialize for Segment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Segment {
    type Err = WalError;

    fn from_str(name: &str) -> Result<Self, WalError> {
        let parse = || {
            let (timeline, rest) = name.split_at_checked(8)?;
            let (log, part) = rest.split_at_checked(8)?;
            let segment =
                Self { timeline: Timeline::from_digits(timeline)?, log: hex(log)?, part: hex(part)? };
            // The smallest segments leave 4096 of them to a log.
            if segment.part < 4096 { Some(segment) } else { None }
        };
        parse().ok_or_else(|| WalError::Name { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes() -> impl Strategy<Value = SegmentSize> {
        (20u32..=30).prop_map(|bits| SegmentSize::new(1 << bits).unwrap())
    }

    #[test]
    fn names_are_what_postgres_makes_of_positions() {
        let at = |text: &str, size| {
            let size = SegmentSize::new(size).unwrap();
            Segment::containing(Timeline::FIRST, text.parse().unwrap(), size).to_string()
        };
        assert_eq!(at("0/1000028", 16 << 20), "000000010000000000000001");
        assert_eq!(at("A/FFFFFFFF", 16 << 20), "000000010000000A000000FF");
        assert_eq!(at("A/FFFFFFFF", 1 << 20), "000000010000000A00000FFF");
        assert_eq!(at("A/FFFFFFFF", 1 << 30), "000000010000000A00000003");
    }

    #[test]
    fn the_log_after_the_last_part_comes_next() {
        let last: Segment = "0000000300000007000000FF".parse().unwrap();
        assert_eq!(last.next(SegmentSize::DEFAULT).unwrap().to_string(), "000000030000000800000000");
        assert_eq!(last.start(SegmentSize::DEFAULT).to_string(), "7/FF000000");
        let end: Segment = "00000003FFFFFFFF000000FF".parse().unwrap();
        assert_eq!(end.next(SegmentSize::DEFAULT), None);
    }

    #[test]
    fn only_names_of_segments_are_read() {
        for wrong in [
            "",
            "00000001000000000000001",
            "0000000100000000000000010",
            "00000000000000000000000A",
            "00000001000000000000000a",
            "000000010000000000001000",
            "00000001000000000000000é",
            "+00000010000000000000001",
        ] {
            assert!(wrong.parse::<Segment>().is_err(), "{wrong}");
        }
        assert!(!"000000010000000000000100".parse::<Segment>().unwrap().fits(SegmentSize::DEFAULT));
    }

    #[test]
    fn sizes_are_powers_of_two_between_the_limits() {
        for wrong in [0, 1, 1 << 19, (1 << 24) + 1, 3 << 20, 1 << 31, 1 << 32, u64::MAX] {
            assert_eq!(SegmentSize::new(wrong), Err(WalError::Size { bytes: wrong }));
        }
    }

    proptest! {
        #[test]
        fn a_position_lies_in_its_segment(bytes: u64, number in 1u32.., size in sizes()) {
            let timeline = Timeline::new(number).unwrap();
            let segment = Segment::containing(timeline, Lsn::new(bytes), size);
            prop_assert!(segment.fits(size));
            let start = segment.start(size).bytes();
            prop_assert!(start <= bytes && bytes - start < size.bytes());
            prop_assert_eq!(segment.to_string().parse(), Ok(segment));
            if let Some(next) = segment.next(size) {
                prop_assert!(segment < next);
                prop_assert_eq!(next.start(size).bytes(), start + size.bytes());
            }
        }
    }
}
