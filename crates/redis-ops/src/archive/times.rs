//! When the bytes of a merged segment were received: the times of the segments it was made of.
//!
//! ```text
//! "BKSTTIME" │ for each: bytes since the one before, varint │ milliseconds since the one before, zigzag varint │ …
//! ```
//!
//! Counted from the start of the segment and from 1970. An entry says that everything before its offset was received by then.

use jiff::{SignedDuration, Timestamp};

use super::name::Span;
use crate::Offset;

const MARK: &[u8] = b"BKSTTIME";

/// At which offsets a merged segment was at which times, both growing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex(Vec<(Offset, Timestamp)>);

impl TimeIndex {
    /// Adds the end of a segment that was merged, and when it was received. Times that go back are taken for the last one.
    pub fn push(&mut self, end: Offset, received: Timestamp) {
        let millis = received.as_millisecond();
        let received = Timestamp::from_millisecond(millis).unwrap_or(received);
        let received = self.0.last().map_or(received, |(_, last)| received.max(*last));
        self.0.push((end, received));
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[(Offset, Timestamp)] {
        &self.0
    }

    /// The last offset that was received by that time.
    #[must_use]
    pub fn at(&self, time: Timestamp) -> Option<(Offset, Timestamp)> {
        self.0.iter().rev().find(|(_, received)| *received <= time).copied()
    }

    /// The bytes that are sealed.
    #[must_use]
    pub fn encode(&self, span: Span) -> Vec<u8> {
        let mut bytes = MARK.to_vec();
        let (mut offset, mut millis) = (span.start, 0);
        for (end, received) in &self.0 {
            varint(&mut bytes, end.since(offset));
            let delta = received.as_millisecond() - millis;
            varint(&mut bytes, ((delta << 1) ^ (delta >> 63)) as u64);
            (offset, millis) = (*end, received.as_millisecond());
        }
        bytes
    }

    /// Reads sealed bytes; `None` when they are no index of that span.
    #[must_use]
    pub fn decode(bytes: &[u8], span: Span) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MARK)?;
        let mut index = Self::default();
        let (mut offset, mut time) = (span.start, Timestamp::UNIX_EPOCH);
        while !rest.is_empty() {
            let length;
            (length, rest) = read_varint(rest)?;
            offset = offset.plus(length);
            let zigzag;
            (zigzag, rest) = read_varint(rest)?;
            let delta = ((zigzag >> 1) as i64) ^ -((zigzag & 1) as i64);
            let earlier = time;
            time = time.checked_add(SignedDuration::from_millis(delta)).ok()?;
            let grows = index.0.is_empty() || time >= earlier;
            if !grows || offset > span.end {
                return None;
            }
            index.0.push((offset, time));
        }
        Some(index)
    }
}

fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7F);
        number |= part.checked_shl(7 * at as u32).filter(|shifted| shifted >> (7 * at) == part)?;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_index_comes_back_as_it_was_written(start in 0u64..1 << 40, steps: Vec<(u16, u32)>) {
            let mut index = TimeIndex::default();
            let (mut offset, mut millis) = (start, 1_764_000_000_000i64);
            for (bytes, later) in steps {
                offset += u64::from(bytes);
                millis += i64::from(later);
                index.push(Offset(offset), Timestamp::from_millisecond(millis).unwrap());
            }
            let span = Span::new(start, offset);
            prop_assert_eq!(TimeIndex::decode(&index.encode(span), span), Some(index));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            _ = TimeIndex::decode(&[MARK, &bytes].concat(), Span::new(0, 1000));
        }
    }

    #[test]
    fn the_last_offset_that_was_there_in_time_is_found() {
        let time = |millis| Timestamp::from_millisecond(millis).unwrap();
        let mut index = TimeIndex::default();
        index.push(Offset(10), time(1000));
        index.push(Offset(20), time(2000));
        // A clock that was set back.
        index.push(Offset(30), time(1500));
        assert_eq!(index.at(time(999)), None);
        assert_eq!(index.at(time(1999)), Some((Offset(10), time(1000))));
        assert_eq!(index.at(time(2000)), Some((Offset(30), time(2000))));
    }
}
