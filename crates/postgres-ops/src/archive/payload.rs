//! The rows of one block without the framing around them.

use super::blocks::{BlockKind, BlockSink, Framing, Place};
use super::{ArchiveError, DumpId};

/// Takes the bytes of a table's block in pieces and gives its COPY text.
#[derive(Debug)]
pub(crate) struct TablePayload {
    framing: Framing,
    rows: Rows,
}

#[derive(Debug)]
struct Rows {
    wanted: DumpId,
    text: Vec<u8>,
    ended: bool,
}

impl TablePayload {
    /// Expects the block of `wanted`, which begins at this offset of an archive with integers of that size.
    pub(crate) fn new(int_size: usize, wanted: DumpId, offset: u64) -> Self {
        let rows = Rows { wanted, text: Vec::new(), ended: false };
        Self { framing: Framing::new(int_size, offset), rows }
    }

    /// Takes the next bytes of the block.
    ///
    /// # Errors
    /// Bytes that are not the block of that table.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), ArchiveError> {
        self.framing.push(piece, &mut self.rows)
    }

    /// How much COPY text is at hand.
    pub(crate) fn len(&self) -> usize {
        self.rows.text.len()
    }

    /// The COPY text at hand; the next is collected in a buffer of the same size.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let next = Vec::with_capacity(self.rows.text.capacity());
        std::mem::replace(&mut self.rows.text, next)
    }

    /// Checks that the block is whole.
    ///
    /// # Errors
    /// [`ArchiveError::Truncated`] when it is not.
    pub(crate) fn finish(&self) -> Result<(), ArchiveError> {
        self.framing.finish()?;
        if self.rows.ended {
            return Ok(());
        }
        Err(ArchiveError::Truncated { length: self.framing.offset(), within: "the rows of a table" })
    }
}

impl BlockSink for Rows {
    fn block_start(&mut self, kind: BlockKind, id: DumpId, start: u64, _: Place) -> Result<(), ArchiveError> {
        if kind == BlockKind::Table && id == self.wanted && !self.ended {
            return Ok(());
        }
        Err(ArchiveError::Corrupt { offset: start, what: "the block of another entry" })
    }

    fn object_start(&mut self, _: u32) {}

    fn payload(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    fn object_end(&mut self) {}

    fn block_end(&mut self, _: Place) -> Result<(), ArchiveError> {
        self.ended = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of table data as `pg_dump` frames it.
    fn block(id: u8, rows: &[&str]) -> Vec<u8> {
        let mut bytes = vec![1, 0, id, 0, 0, 0];
        for row in rows {
            bytes.push(0);
            bytes.extend(u32::try_from(row.len()).unwrap().to_le_bytes());
            bytes.extend(row.as_bytes());
        }
        bytes.extend([0; 5]);
        bytes
    }

    fn payload(bytes: &[u8], piece: usize) -> Result<String, ArchiveError> {
        let mut payload = TablePayload::new(4, DumpId::new(7).unwrap(), 100);
        let mut text = Vec::new();
        for piece in bytes.chunks(piece) {
            payload.push(piece)?;
            text.extend(payload.take());
        }
        payload.finish()?;
        assert_eq!(payload.len(), 0);
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn rows_come_out_however_the_bytes_come_in() {
        let bytes = block(7, &["1\tone\n", "2\ttwo\n", "\\.\n"]);
        for piece in 1..=bytes.len() {
            assert_eq!(payload(&bytes, piece).unwrap(), "1\tone\n2\ttwo\n\\.\n");
        }
    }

    #[test]
    fn another_block_and_a_cut_one_are_refused() {
        assert!(matches!(payload(&block(8, &["1\n"]), 64), Err(ArchiveError::Corrupt { offset: 100, .. })));
        let twice = [block(7, &["1\n"]), block(7, &["1\n"])].concat();
        assert!(matches!(payload(&twice, 64), Err(ArchiveError::Corrupt { .. })));
        let bytes = block(7, &["1\n", "2\n"]);
        for end in 0..bytes.len() {
            assert!(payload(&bytes[..end], 64).unwrap_err().is_truncation(), "cut at {end}");
        }
    }
}
