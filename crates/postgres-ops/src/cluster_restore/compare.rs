//! Which blocks of an old data directory are right already: every one is read and its digest computed.
//!
//! Sizes and times are not believed. A file that cannot be read needs all of its blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ClusterRestoreError;
use super::set_index::{Pack, SetIndex};
use super::stream_pack::Writer;
use super::work::{FileWork, Need, PackWork, block_range, is_control};
use crate::physical::{BLOCK, BlockDigest, IndexFile};

/// Files that one thread takes at a time.
const BATCH: usize = 64;

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
    let next = AtomicUsize::new(0);
    let work = || compare_some(writer, &files, &next);
    let found = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    found.sort_by_key(|(pack, work)| (*pack, work.file.at, work.file.size));
    let mut packs: Vec<PackWork> = Vec::new();
    for (pack, work) in found {
        match packs.last_mut() {
            Some(last) if last.pack == pack => last.files.push(work),
            _ => packs.push(PackWork { pack, files: vec![work] }),
        }
    }
    Ok(packs)
}

type Found = Vec<(usize, FileWork)>;

fn compare_some(
    writer: &Writer,
    files: &[(usize, &IndexFile)],
    next: &AtomicUsize,
) -> Result<Found, ClusterRestoreError> {
    let mut buffer = vec![0; usize::try_from(BLOCK).expect("a block fits memory")];
    let mut found = Vec::new();
    loop {
        let start = next.fetch_add(BATCH, Ordering::Relaxed);
        if start >= files.len() {
            return Ok(found);
        }
        for (pack, file) in &files[start..files.len().min(start + BATCH)] {
            writer.check_cancelled()?;
            if let Some(need) = compare_one(writer, file, &mut buffer)? {
                found.push((*pack, FileWork { file: (*file).clone(), need }));
            }
        }
    }
}

/// What a file needs; `None` when it is right.
fn compare_one(
    writer: &Writer,
    file: &IndexFile,
    buffer: &mut [u8],
) -> Result<Option<Need>, ClusterRestoreError> {
    let Some(old) = writer.roots.open_to_read(&file.path)? else { return Ok(Some(Need::All)) };
    let failed = |error: io::Error| ClusterRestoreError::io("read", file.path.as_path())(error);
    let mut wrong = Vec::new();
    for (number, digest) in (0_u32..).zip(&file.blocks) {
        let range = block_range(file, number);
        let content = &mut buffer[..usize::try_from(range.end - range.start).expect("a block fits memory")];
        match read_block(&old, content, range.start) {
            Ok(true) if BlockDigest::of(content) == *digest => {}
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
