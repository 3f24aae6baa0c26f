use super::{ArchiveToc, BlockKind, ContentDigest, DumpId, RowFacts};

/// What one data block of an archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockFacts {
    /// Entry that the block belongs to.
    pub dump_id: DumpId,
    /// What it holds.
    pub kind: BlockKind,
    /// Offset in the archive of its first byte.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// Bytes of data as stored in the archive, framing not counted.
    pub payload_bytes: u64,
    /// Facts of the rows; absent when the data is compressed, is not COPY text or is no table's.
    pub rows: Option<RowFacts>,
    /// Facts of the large objects, when it holds them.
    pub objects: Option<LargeObjectFacts>,
}

/// How many large objects there are and how big they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LargeObjectFacts {
    /// How many.
    pub count: u64,
    /// Bytes of all, as stored in the archive.
    pub bytes: u64,
    /// Digest of all, if it was asked for and they are not compressed.
    pub digest: Option<ContentDigest>,
}

impl LargeObjectFacts {
    pub(super) fn absorb(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.digest = match (self.digest, other.digest) {
            (Some(mine), Some(others)) => Some(mine.plus(others)),
            _ => None,
        };
    }
}

/// A place at which the archive may be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Boundary {
    /// Header and table of contents end; the data blocks, if any, follow.
    TocEnd {
        /// Offset in the archive.
        offset: u64,
    },
    /// The next block belongs to that entry.
    BlockStart {
        /// Entry that the block belongs to.
        dump_id: DumpId,
        /// What it holds.
        kind: BlockKind,
        /// Offset in the archive of its first byte. It may lie in an earlier piece: the few bytes of a block's head
        /// can be split.
        offset: u64,
    },
    /// A block has ended.
    BlockEnd(BlockFacts),
}

impl Boundary {
    /// Where in the archive it is.
    pub fn offset(&self) -> u64 {
        match self {
            Self::TocEnd { offset } | Self::BlockStart { offset, .. } => *offset,
            Self::BlockEnd(block) => block.end,
        }
    }
}

/// Everything learnt from one whole archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveFacts {
    /// Header and table of contents.
    pub toc: ArchiveToc,
    /// The data blocks, in the order of the archive.
    pub blocks: Vec<BlockFacts>,
    /// All large objects together.
    pub objects: LargeObjectFacts,
    /// Bytes of the archive.
    pub length: u64,
}

impl ArchiveFacts {
    /// The block of that entry.
    pub fn find_block(&self, id: DumpId) -> Option<&BlockFacts> {
        self.blocks.iter().find(|block| block.dump_id == id)
    }
}
