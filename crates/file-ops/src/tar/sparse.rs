//! Files with holes, in version 1.0 of GNU tar's form: the map of what is there stands before it.

use super::RECORD;
use super::write::padding;

/// A piece of a file that is no hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it lies in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// Most pieces of one file; a map of them has 40 MB.
const MOST: u64 = 1 << 20;

/// The map as it stands before the content, padded.
pub(super) fn map(extents: &[Extent]) -> Vec<u8> {
    let mut map = format!("{}\n", extents.len()).into_bytes();
    for extent in extents {
        map.extend_from_slice(format!("{}\n{}\n", extent.offset, extent.length).as_bytes());
    }
    let end = map.len() + padding(map.len() as u64);
    map.resize(end, 0);
    map
}

/// Reads a map record by record, so that its length is known only as it comes.
#[derive(Debug, Default)]
pub(super) struct MapParser {
    numbers: Vec<u64>,
    digits: Option<u64>,
    wanted: Option<u64>,
}

impl MapParser {
    /// Takes the next record; whether the map is complete.
    pub(super) fn push(&mut self, record: &[u8; RECORD]) -> Result<bool, &'static str> {
        let broken = "the map of its holes is broken";
        for (at, byte) in record.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    let digits = self.digits.unwrap_or(0);
                    let next = digits.checked_mul(10).and_then(|tens| tens.checked_add((byte - b'0').into()));
                    self.digits = Some(next.ok_or(broken)?);
                }
                b'\n' => self.number().ok_or(broken)?,
                _ => return Err(broken),
            }
            if self.wanted == Some(self.numbers.len() as u64) {
                let rest = &record[at + 1..];
                return if rest.iter().all(|byte| *byte == 0) { Ok(true) } else { Err(broken) };
            }
        }
        Ok(false)
    }

    fn number(&mut self) -> Option<()> {
        let number = self.digits.take()?;
        match self.wanted {
            None => self.wanted = (number <= MOST).then_some(number * 2),
            Some(_) => self.numbers.push(number),
        }
        self.wanted.map(|_| ())
    }

    /// The pieces, in order, without overlaps, within `size`, and `stored` bytes together.
    pub(super) fn finish(self, size: u64, stored: u64) -> Result<Vec<Extent>, &'static str> {
        let extents: Vec<_> = self
            .numbers
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[offset, length]| Extent { offset: *offset, length: *length })
            .collect();
        let (mut end, mut total) = (0, 0_u64);
        for extent in &extents {
            if extent.offset < end {
                return Err("the map of its holes is not in order");
            }
            end = extent.offset.checked_add(extent.length).ok_or("the map of its holes overflows")?;
            total += extent.length;
        }
        if end > size {
            return Err("the map of its holes reaches beyond its end");
        }
        if total != stored {
            return Err("the map of its holes does not fit its content");
        }
        Ok(extents)
    }
}
