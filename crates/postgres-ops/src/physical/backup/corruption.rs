//! Pages whose checksum was wrong: which of them are damaged, and which were only read while they were written.
//!
//! A page that is being written is right, or at least another, when it is read again. One that stays as it is, and was
//! last changed before the backup began, is damaged. One that says it was changed since is written again by recovery,
//! which has its whole image in the log; but only a position that the log really reached proves that.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::physical::page::{PageState, judge_page, page_lsn};
use crate::physical::{ClusterPath, CorruptPage};
use crate::wal::Lsn;

/// Most pages that are named; more are counted.
const NAMED: usize = 1000;
/// How often suspects are read again, and how long after one another.
const ROUNDS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// A page that stays wrong.
#[derive(Debug)]
struct Suspect {
    page: CorruptPage,
    /// When it was last changed, as it says.
    changed: Lsn,
}

/// All such pages of a backup.
#[derive(Debug, Default)]
pub(super) struct Corruption {
    suspects: Vec<Suspect>,
    /// Those that were not kept.
    further: u64,
}

/// The pages that a backup ends up calling damaged.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage {
    pub(super) pages: Vec<CorruptPage>,
    pub(super) count: u64,
}

/// The pages that stay wrong, with the position of their last change. Blocks for some tens of milliseconds.
pub(super) fn read_again(file: &File, size: u32, first: u32, suspects: &[u32]) -> Vec<(u32, Lsn)> {
    let read = |block: u32| {
        let mut page = vec![0; size as usize];
        let at = u64::from(block.wrapping_sub(first)) * u64::from(size);
        // A file that was cut off meanwhile has no such page any more.
        file.read_exact_at(&mut page, at).ok().map(|()| page)
    };
    let wrong = |page: &Vec<u8>, block| judge_page(page, block) == PageState::Wrong;
    let mut left: Vec<(u32, Option<u64>, Lsn)> =
        suspects.iter().map(|block| (*block, None, Lsn::default())).collect();
    for round in 0..ROUNDS {
        if left.is_empty() {
            break;
        }
        if round > 0 {
            std::thread::sleep(PAUSE);
        }
        left = left
            .into_iter()
            .filter_map(|(block, before, _)| {
                let page = read(block).filter(|page| wrong(page, block))?;
                let now = xxh3_64(&page);
                let is_same = before.is_none_or(|before| before == now);
                if is_same { Some((block, Some(now), page_lsn(&page))) } else { None }
            })
            .collect();
    }
    left.into_iter().map(|(block, _, changed)| (block, changed)).collect()
}

impl Corruption {
    pub(super) fn add(&mut self, file: &ClusterPath, pages: Vec<(u32, Lsn)>) {
        for (block, changed) in pages {
            if self.suspects.len() < NAMED {
                let page = CorruptPage { file: file.clone(), block: block.into() };
                self.suspects.push(Suspect { page, changed });
            } else {
                self.further += 1;
            }
        }
    }

    /// Which are damaged, now that it is known where the log began and ended for this backup.
    pub(super) fn judge(&self, start: Lsn, stop: Lsn) -> Damage {
        let damaged =
            self.suspects.iter().filter(|suspect| suspect.changed < start || suspect.changed > stop);
        let pages: Vec<_> = damaged.map(|suspect| suspect.page.clone()).collect();
        let count = pages.len() as u64 + self.further;
        Damage { pages, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_damaged_unless_the_log_proves_that_it_is_written_again() {
        let file = ClusterPath::parse("base/5/1259").unwrap();
        let mut corruption = Corruption::default();
        let at = |position: u64| Lsn::new(position);
        corruption.add(&file, vec![(1, at(99)), (2, at(100)), (3, at(200)), (4, at(201))]);
        let damage = corruption.judge(at(100), at(200));
        assert_eq!(damage.pages.iter().map(|page| page.block).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(damage.count, 2);
    }

    #[test]
    fn pages_that_change_or_go_away_are_not_damaged() {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        let mut page = vec![0x5A; 8192];
        file.write_all(&page.repeat(2)).unwrap();
        let wrong = read_again(&file, 8192, 10, &[10, 11, 12]);
        assert_eq!(
            wrong.iter().map(|(block, _)| *block).collect::<Vec<_>>(),
            [10, 11],
            "12 is behind the end"
        );
        let checksum = crate::physical::page::page_checksum(&page, 10);
        page[8..10].copy_from_slice(&checksum.to_le_bytes());
        file.write_all_at(&page, 0).unwrap();
        assert_eq!(read_again(&file, 8192, 10, &[10, 11]).len(), 1);
        let writer = file.try_clone().unwrap();
        let busy = std::thread::spawn(move || {
            for value in 0..20_u8 {
                writer.write_all_at(&[value; 100], 8192 + 500).unwrap();
                std::thread::sleep(PAUSE / 2);
            }
        });
        assert_eq!(read_again(&file, 8192, 10, &[11]), [], "somebody writes it");
        busy.join().unwrap();
    }
}
