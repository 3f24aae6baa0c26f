//! Which blocks of an old data directory are right already: every one is read and its digest computed.
//!
//! Sizes and times are not believed. A file that cannot be read needs all of its blocks. Large files are cut into
//! pieces and come first, so that no thread is left alone with one at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ClusterRestoreError;
use super::set_index::{Pack, SetIndex};
use super::stream_pack::Writer;
use super::work::{FileWork, Need, PackWork, block_range, is_control};
use crate::physical::{BLOCK, BlockDigest, IndexFile};

/// Blocks of one file that a thread takes at a time.
const PIECE: u32 = 64;

/// Compares every file of the set but the control file, on that many threads. Blocks.
pub(super) fn compare(
    writer: &Writer,
    index: &SetIndex,
    threads: usize,
) -> Result<Vec<PackWork>, ClusterRestoreError> {
    let files: Vec<(usize, &IndexFile)> = index
        .packs
        .iter()
        .enumerate()
        .flat_map(|(number, pack): (usize, &Pack)| {
            pack.files.iter().filter(|file| !is_control(file)).map(move |file| (number, file))
        })
        .collect();
    let pieces = pieces(files.iter().map(|(_, file)| file.blocks.len()));
    let next = AtomicUsize::new(0);
    let work = || compare_some(writer, &files, &pieces, &next);
    let found = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(by_pack(&files, found.into_iter().flatten()))
}

/// Some blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Its place in the list of files.
    file: usize,
    first: u32,
    end: u32,
}

impl Piece {
    fn length(self) -> u32 {
        self.end - self.first
    }
}

/// Cuts files of so many blocks, the longest pieces first; small files stay in the order in which they lie in packs.
/// One without any block is a piece too: it may be missing.
fn pieces(files: impl Iterator<Item = usize>) -> Vec<Piece> {
    let cut = |(file, blocks): (usize, usize)| {
        let blocks = u32::try_from(blocks).expect("blocks of a file are numbered by 32 bits");
        (0..blocks.max(1)).step_by(PIECE as usize).map(move |first| Piece {
            file,
            first,
            end: blocks.min(first.saturating_add(PIECE)),
        })
    };
    let mut pieces: Vec<_> = files.enumerate().flat_map(cut).collect();
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.length()));
    pieces
}

/// Puts together what was found out of each file.
fn by_pack(files: &[(usize, &IndexFile)], found: impl Iterator<Item = (usize, Need)>) -> Vec<PackWork> {
    let mut needs: BTreeMap<usize, Need> = BTreeMap::new();
    for (file, need) in found {
        match (needs.entry(file).or_insert(Need::Blocks(Vec::new())), need) {
            (Need::Blocks(all), Need::Blocks(more)) => all.extend(more),
            (all, _) => *all = Need::All,
        }
    }
    let mut packs: Vec<PackWork> = Vec::new();
    // Files come in the order of their packs, and in that in which they lie there.
    for (number, mut need) in needs {
        if let Need::Blocks(blocks) = &mut need {
            blocks.sort_unstable();
        }
        let (pack, file) = files[number];
        let work = FileWork { file: file.clone(), need };
        match packs.last_mut() {
            Some(last) if last.pack == pack => last.files.push(work),
            _ => packs.push(PackWork { pack, files: vec![work] }),
        }
    }
    packs
}

/// What files need, by their places in the list; perhaps several times.
type Found = Vec<(usize, Need)>;

fn compare_some(
    writer: &Writer,
    files: &[(usize, &IndexFile)],
    pieces: &[Piece],
    next: &AtomicUsize,
) -> Result<Found, ClusterRestoreError> {
    let mut buffer = vec![0; usize::try_from(BLOCK).expect("a block fits memory")];
    let mut found = Vec::new();
    while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
        writer.check_cancelled()?;
        if let Some(need) = compare_piece(writer, files[piece.file].1, *piece, &mut buffer)? {
            found.push((piece.file, need));
        }
    }
    Ok(found)
}

/// What a file needs as far as a piece of it tells; `None` when that is right.
fn compare_piece(
    writer: &Writer,
    file: &IndexFile,
    piece: Piece,
    buffer: &mut [u8],
) -> Result<Option<Need>, ClusterRestoreError> {
    let Some(old) = writer.roots.open_to_read(&file.path)? else { return Ok(Some(Need::All)) };
    let failed = |error: io::Error| ClusterRestoreError::io("read", file.path.as_path())(error);
    let mut wrong = Vec::new();
    for number in piece.first..piece.end {
        writer.check_cancelled()?;
        let range = block_range(file, number);
        let content = &mut buffer[..usize::try_from(range.end - range.start).expect("a block fits memory")];
        let digest = file.blocks.get(number as usize);
        match read_block(&old, content, range.start) {
            Ok(true) if digest == Some(&BlockDigest::of(content)) => {}
            Ok(_) => wrong.push(number),
            // A bad sector: writing the block anew is what helps.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                wrong.push(number);
            }
            Err(error) => return Err(failed(error)),
        }
        writer.progress.add_bytes(range.end - range.start);
    }
    let meta = old.metadata().map_err(failed)?;
    let same_mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777 == file.mode & 0o777;
    let is_right = wrong.is_empty() && meta.len() == file.size && same_mode;
    Ok((!is_right).then_some(Need::Blocks(wrong)))
}

/// False when the file ends before.
fn read_block(file: &File, content: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(content, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::physical::ClusterPath;

    fn piece(file: usize, first: u32, end: u32) -> Piece {
        Piece { file, first, end }
    }

    #[test]
    fn large_files_are_cut_and_come_first() {
        let expected = [
            piece(1, 0, 64),
            piece(1, 64, 128),
            piece(4, 0, 64),
            piece(1, 128, 130),
            piece(0, 0, 1),
            piece(3, 0, 1),
            // Without a block it may be missing all the same.
            piece(2, 0, 0),
        ];
        assert_eq!(pieces([1, 130, 0, 1, 64].into_iter()), expected);
    }

    #[test]
    fn what_pieces_of_a_file_need_is_put_together_in_order() {
        let file = |name: &str| IndexFile {
            path: ClusterPath::parse(name).unwrap(),
            pack: 1,
            at: 0,
            size: 0,
            mode: 0o600,
            modified: 0,
            blocks: Vec::new(),
        };
        let own = [file("a"), file("b"), file("c"), file("d")];
        let files: Vec<(usize, &IndexFile)> = [0, 0, 1, 1].into_iter().zip(&own).collect();
        let blocks = |numbers: &[u32]| Need::Blocks(numbers.to_vec());
        let found = [
            (3, blocks(&[])),
            (1, blocks(&[70, 71])),
            (0, blocks(&[1])),
            (0, Need::All),
            (0, blocks(&[65])),
            (1, blocks(&[2])),
        ];
        let packs = by_pack(&files, found.into_iter());
        let needs: Vec<_> = packs
            .iter()
            .flat_map(|pack| {
                pack.files.iter().map(|work| (pack.pack, work.file.path.to_string(), &work.need))
            })
            .collect();
        let expected = [
            (0, "a".to_owned(), &Need::All),
            (0, "b".to_owned(), &blocks(&[2, 70, 71])),
            (1, "d".to_owned(), &blocks(&[])),
        ];
        assert_eq!(needs, expected);
    }
}
