//! The checksum that PostgreSQL writes into every page of a relation.
//!
//! The page is read as rows of 32 numbers. Each column is hashed by itself, all 32 at once in the registers of the
//! processor, each beginning with a number of its own; the hashes are folded into one, mixed with the page's place in
//! the relation so that a page that lies elsewhere is noticed, and reduced to 16 bits that are never 0. The layout is
//! that of `storage/checksum_impl.h`; the checksum's own field counts as 0.

/// Columns that are hashed side by side.
const LANES: usize = 32;
/// Bytes of a row.
const ROW: usize = LANES * 4;
/// Where a page keeps its checksum, as 16 bits.
const CHECKSUM_AT: usize = 8;
/// Where a page says how far its free space reaches; 0 in a page that was never used.
const UPPER_AT: usize = 14;
/// The multiplier of 32-bit FNV.
const PRIME: u32 = 16_777_619;

/// Where each column begins.
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What a page says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Its checksum is right.
    Right,
    /// Never used: zeros only.
    Empty,
    /// Its checksum is wrong.
    Wrong,
}

/// Judges a page by its number in the relation's fork, counted through all its files.
///
/// # Panics
/// When the length is no multiple of 1024, which the page size of no server is.
#[must_use]
pub fn judge_page(page: &[u8], block: u32) -> PageState {
    let stored = u16::from_le_bytes([page[CHECKSUM_AT], page[CHECKSUM_AT + 1]]);
    // A page in use has an upper bound of its free space, so only few pages are read twice.
    let unused = page[UPPER_AT..UPPER_AT + 2] == [0, 0];
    if unused && page.iter().all(|byte| *byte == 0) {
        return PageState::Empty;
    }
    if page_checksum(page, block) == stored { PageState::Right } else { PageState::Wrong }
}

/// Position in the log of the last change that a page says it has seen.
#[must_use]
pub fn page_lsn(page: &[u8]) -> crate::wal::Lsn {
    let half = |at: usize| page[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    crate::wal::Lsn::new(u64::from(half(0)) << 32 | u64::from(half(4)))
}

/// The checksum of a page as `block` of its relation's fork.
///
/// # Panics
/// As [`judge_page`].
#[must_use]
pub fn page_checksum(page: &[u8], block: u32) -> u16 {
    assert!(page.len() >= 1024 && page.len().is_multiple_of(ROW), "a page has 1 to 32 KiB");
    let (first, rest) = page.split_at(ROW);
    let mut sums = OFFSETS;
    let mut head = [0; ROW];
    head.copy_from_slice(first);
    head[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
    mix(&mut sums, &head);
    for row in rest.chunks_exact(ROW) {
        mix(&mut sums, row);
    }
    mix(&mut sums, &[0; ROW]);
    mix(&mut sums, &[0; ROW]);
    let folded = sums.iter().fold(block, |all, sum| all ^ sum);
    u16::try_from(folded % 65_535 + 1).unwrap_or_default()
}

/// Takes a row into the columns. Simple enough for the compiler to do several columns in one instruction.
#[inline(always)]
fn mix(sums: &mut [u32; LANES], row: &[u8]) {
    for (sum, number) in sums.iter_mut().zip(row.chunks_exact(4)) {
        let mixed = *sum ^ u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_its_place_and_every_bit() {
        let mut page: Vec<u8> =
            (0..8192_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let checksum = page_checksum(&page, 7);
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(judge_page(&page, 7), PageState::Right);
        assert_eq!(judge_page(&page, 8), PageState::Wrong);
        for at in [0, 9, 127, 128, 4095, 8191] {
            page[at] ^= 0x10;
            assert_eq!(judge_page(&page, 7), PageState::Wrong, "byte {at}");
            page[at] ^= 0x10;
        }
    }

    #[test]
    fn only_zeros_are_a_page_that_was_never_used() {
        let mut page = vec![0; 8192];
        assert_eq!(judge_page(&page, 3), PageState::Empty);
        page[5000] = 1;
        assert_eq!(judge_page(&page, 3), PageState::Wrong, "its header was lost");
    }
}
