//! What has to be fetched: whole files, or the blocks of files that are not right yet. Pure.

use std::ops::Range;

use super::set_index::{CONTROL, Pack, SetIndex};
use crate::physical::{BLOCK, BlockDigest, IndexFile};

/// What one file needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It is not there.
    All,
    /// Only these blocks, in order; perhaps none.
    Blocks(Vec<u32>),
}

impl Need {
    fn has(&self, block: u32) -> bool {
        match self {
            Self::All => true,
            Self::Blocks(blocks) => blocks.binary_search(&block).is_ok(),
        }
    }
}

/// One file of a pack and what it needs.
#[derive(Clone, Debug)]
pub(super) struct FileWork {
    pub(super) file: IndexFile,
    pub(super) need: Need,
}

/// One block to be fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Where it is in the plain bytes of the pack.
    pub(super) at: u64,
    /// Where it goes in the file.
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) digest: BlockDigest,
    pub(super) needed: bool,
}

impl FileWork {
    /// All blocks of the file, in order.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        (0_u32..).zip(&self.file.blocks).map(|(number, digest)| {
            let range = block_range(&self.file, number);
            Block {
                at: self.file.at + range.start,
                offset: range.start,
                length: usize::try_from(range.end - range.start).unwrap_or(usize::MAX),
                digest: *digest,
                needed: self.need.has(number),
            }
        })
    }

    /// Bytes that are fetched for it.
    pub(super) fn bytes(&self) -> u64 {
        match &self.need {
            Need::All => self.file.size,
            Need::Blocks(_) => {
                self.blocks().filter(|block| block.needed).map(|block| block.length as u64).sum()
            }
        }
    }
}

/// The bytes of a file that one of its blocks has.
pub(super) fn block_range(file: &IndexFile, number: u32) -> Range<u64> {
    let start = u64::from(number) * BLOCK;
    start..file.size.min(start + BLOCK)
}

/// One pack and the files of it that need something.
#[derive(Debug)]
pub(super) struct PackWork {
    /// Its place among the packs of the index.
    pub(super) pack: usize,
    pub(super) files: Vec<FileWork>,
}

impl PackWork {
    /// Bytes that are fetched for it.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(FileWork::bytes).sum()
    }

    /// The same when some of it may have been written.
    pub(super) fn once_more(&self) -> Self {
        let again = |work: &FileWork| FileWork {
            need: match &work.need {
                Need::All => Need::Blocks((0..).zip(&work.file.blocks).map(|(number, _)| number).collect()),
                blocks @ Need::Blocks(_) => blocks.clone(),
            },
            file: work.file.clone(),
        };
        Self { pack: self.pack, files: self.files.iter().map(again).collect() }
    }
}

/// Everything, but the control file, which is put in place at the very end.
pub(super) fn everything(index: &SetIndex) -> Vec<PackWork> {
    let pack_work = |(number, pack): (usize, &Pack)| PackWork {
        pack: number,
        files: pack
            .files
            .iter()
            .filter(|file| !is_control(file))
            .map(|file| FileWork { file: file.clone(), need: Need::All })
            .collect(),
    };
    index.packs.iter().enumerate().map(pack_work).collect()
}

pub(super) fn is_control(file: &IndexFile) -> bool {
    file.path.as_bytes() == CONTROL.as_bytes()
}
