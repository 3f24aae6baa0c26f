//! Everything that is computed of a file while it passes: CRC-32C for PostgreSQL's manifest, a digest of each block for
//! the index, and the checksums of its pages.

use xxhash_rust::xxh3::Xxh3;

use crate::physical::page::{PageState, judge_page};
use crate::physical::{BLOCK, BlockDigest};

/// What is computed at a time, small enough to stay in the processor's cache between one digest and the next.
const PIECE: usize = 64 << 10;

/// The digests of one file.
pub(super) struct FileDigest {
    crc: u32,
    block: Box<Xxh3>,
    in_block: u64,
    blocks: Vec<BlockDigest>,
    pages: Option<Pages>,
}

/// The pages of one file of a relation.
pub(super) struct Pages {
    size: usize,
    /// Number of the file's first page in the fork.
    first: u32,
    /// Pages begun so far, the one in `torn` included.
    begun: u32,
    /// The beginning of a page whose rest comes with the next bytes.
    torn: Vec<u8>,
    suspects: Vec<u32>,
}

impl FileDigest {
    /// Of a file of a relation with page checksums when there are `pages`.
    pub(super) fn new(pages: Option<Pages>) -> Self {
        Self { crc: 0, block: Box::default(), in_block: 0, blocks: Vec::new(), pages }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.crc = crc32c::crc32c_append(self.crc, piece);
            self.digest_blocks(piece);
            if let Some(pages) = &mut self.pages {
                pages.update(piece);
            }
        }
    }

    fn digest_blocks(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(BLOCK - self.in_block).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.block.update(now);
            self.in_block += now.len() as u64;
            bytes = rest;
            if self.in_block == BLOCK {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        self.blocks.push(BlockDigest(self.block.digest128()));
        self.block.reset();
        self.in_block = 0;
    }

    /// CRC, digests of the blocks, and the pages whose checksum was wrong.
    pub(super) fn finish(mut self) -> (u32, Vec<BlockDigest>, Vec<u32>) {
        if self.in_block > 0 {
            self.end_block();
        }
        // What is left of a page at the end of a file has no checksum.
        (self.crc, self.blocks, self.pages.map(|pages| pages.suspects).unwrap_or_default())
    }
}

impl Pages {
    /// The pages of a file whose first page has that number in its fork.
    pub(super) fn new(size: u32, first: u32) -> Self {
        Self { size: size as usize, first, begun: 0, torn: Vec::new(), suspects: Vec::new() }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        if !self.torn.is_empty() {
            let (rest, after) = bytes.split_at(bytes.len().min(self.size - self.torn.len()));
            self.torn.extend_from_slice(rest);
            bytes = after;
            if self.torn.len() < self.size {
                return;
            }
            let page = std::mem::take(&mut self.torn);
            self.judge(&page);
            self.torn = page;
            self.torn.clear();
        }
        let pages = bytes.chunks_exact(self.size);
        let rest = pages.remainder();
        pages.for_each(|page| self.judge(page));
        self.torn.extend_from_slice(rest);
    }

    fn judge(&mut self, page: &[u8]) {
        let number = self.first.wrapping_add(self.begun);
        self.begun = self.begun.wrapping_add(1);
        if judge_page(page, number) == PageState::Wrong {
            self.suspects.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::physical::page::page_checksum;

    /// Right pages from that number on.
    fn pages(count: u32, first: u32) -> Vec<u8> {
        let page = |number: u32| {
            let mut page: Vec<u8> =
                (0..8192_u32).map(|i| (i.wrapping_mul(number | 1) >> 3).to_le_bytes()[0]).collect();
            let checksum = page_checksum(&page, first + number);
            page[8..10].copy_from_slice(&checksum.to_le_bytes());
            page
        };
        (0..count).flat_map(page).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn pieces_of_any_length_give_the_same(
            lengths in prop::collection::vec(1_usize..200_000, 1..40), wrong in 0_u32..300,
        ) {
            let mut content = pages(300, 131_072);
            content[wrong as usize * 8192 + 77] ^= 1;
            content.extend_from_slice(&[7; 100]);
            let mut digest = FileDigest::new(Some(Pages::new(8192, 131_072)));
            let mut rest = &content[..];
            for length in lengths.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*length));
                digest.update(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let (crc, blocks, suspects) = digest.finish();
            prop_assert_eq!(crc, crc32c::crc32c(&content));
            let expected: Vec<_> = content.chunks(1 << 20).map(BlockDigest::of).collect();
            prop_assert_eq!(blocks, expected);
            prop_assert_eq!(suspects, vec![131_072 + wrong]);
        }
    }

    #[test]
    fn an_empty_file_has_no_blocks() {
        let (crc, blocks, suspects) = FileDigest::new(None).finish();
        assert_eq!((crc, blocks.len(), suspects.len()), (0, 0, 0));
    }
}
