//! One pack from its first byte to its last: blocks are written as they come by, each proven by its digest, while
//! another thread unpacks the next ones.
//!
//! The stored bytes are checked too, by the reader, at the end. A block that is wrong is noticed before it is written, so
//! what is on disk is right whatever happens next.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::id::SetId;
use backstay_backup_core::progress::Progress;
use rustix::fs::{Advice, Timespec, Timestamps};
use tokio_util::sync::CancellationToken;

use super::ahead::{self, Blocks};
use super::roots::Roots;
use super::set_index::read_error;
use super::work::{Block, FileWork, Need};
use super::{ClusterRestoreError, change};
use crate::physical::BlockDigest;

/// Bytes of a file that are sent on their way to the disk together, as soon as they are written.
const WRITE_BEHIND: u64 = 16 << 20;
/// What would be a bug: the end of a pack was proven, and a block of it was missing.
const CUT_OFF: &str = "a pack had fewer blocks than its index";
/// Smaller rests of files than this are left to the kernel, in bytes.
const SMALL: u64 = 1 << 20;

/// What every writer of files needs.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) set: SetId,
    pub(super) roots: Arc<Roots>,
    pub(super) progress: Progress,
    pub(super) cancel: CancellationToken,
}

impl Writer {
    /// Reads the plain bytes of a pack to their end and writes what the files need, on two threads. Blocks.
    pub(super) fn stream(
        &self,
        object: &str,
        plain: impl Read + Send,
        files: &[FileWork],
    ) -> Result<(), ClusterRestoreError> {
        let (unpacking, blocks) = ahead::queue();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| unpacking.run(plain, files));
            let written = self.write_files(object, files, blocks);
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // Where unpacking failed, the writer only noticed that no more came.
            read.map_err(|error| read_error(&self.set, error))?;
            if written? { Ok(()) } else { Err(CoreError::Internal { what: CUT_OFF.to_owned() }.into()) }
        })
    }

    /// False when blocks ended before files did.
    fn write_files(
        &self,
        object: &str,
        files: &[FileWork],
        mut blocks: Blocks,
    ) -> Result<bool, ClusterRestoreError> {
        for work in files {
            let file = self.open(work)?;
            // What was right already is not to leave memory: a server will want it.
            let is_new = work.need == Need::All;
            let mut sent = 0;
            for block in work.blocks().filter(|block| block.needed) {
                self.check_cancelled()?;
                let Some(content) = blocks.next(block.length) else { return Ok(false) };
                self.write(object, work, &file, &block, content)?;
                let end = block.offset + block.length as u64;
                if is_new && end - sent >= WRITE_BEHIND {
                    write_behind(&file, sent..end);
                    sent = end;
                }
            }
            self.close(work, &file)?;
            if is_new && work.file.size - sent >= SMALL {
                write_behind(&file, sent..work.file.size);
            }
        }
        Ok(true)
    }

    pub(super) fn check_cancelled(&self) -> Result<(), ClusterRestoreError> {
        if self.cancel.is_cancelled() { Err(CoreError::Cancelled.into()) } else { Ok(()) }
    }

    /// The file, ready to be written.
    pub(super) fn open(&self, work: &FileWork) -> Result<File, ClusterRestoreError> {
        match work.need {
            Need::All => self.roots.create_file(&work.file.path, work.file.mode),
            Need::Blocks(_) => self.roots.open_to_change(&work.file.path, work.file.mode),
        }
    }

    /// The file once more, which is there by now.
    pub(super) fn reopen(&self, work: &FileWork) -> Result<File, ClusterRestoreError> {
        self.roots.open_to_change(&work.file.path, work.file.mode)
    }

    /// Writes a block, if it is what the index says.
    pub(super) fn write(
        &self,
        object: &str,
        work: &FileWork,
        file: &File,
        block: &Block,
        content: &[u8],
    ) -> Result<(), ClusterRestoreError> {
        self.prove(object, work, block, content)?;
        let written = match work.need {
            Need::All => file.write_all_at(content, block.offset),
            Need::Blocks(_) => change::write_pages(file, content, block.offset),
        };
        written.map_err(ClusterRestoreError::io("write", work.file.path.as_path()))?;
        self.progress.add_bytes(content.len() as u64);
        Ok(())
    }

    /// Whether a block is what the index says.
    pub(super) fn prove(
        &self,
        object: &str,
        work: &FileWork,
        block: &Block,
        content: &[u8],
    ) -> Result<(), ClusterRestoreError> {
        if BlockDigest::of(content) == block.digest {
            return Ok(());
        }
        Err(ClusterRestoreError::Content {
            set: self.set.clone(),
            object: object.to_owned(),
            problem: format!("{} has other content at byte {}", work.file.path, block.offset),
        })
    }

    /// Gives the file its length and time.
    pub(super) fn close(&self, work: &FileWork, file: &File) -> Result<(), ClusterRestoreError> {
        let close = || -> io::Result<()> {
            if work.need != Need::All {
                file.set_len(work.file.size)?;
            }
            let time = Timespec { tv_sec: work.file.modified, tv_nsec: 0 };
            Ok(rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?)
        };
        close().map_err(ClusterRestoreError::io("finish", work.file.path.as_path()))?;
        self.progress.add_items(1);
        Ok(())
    }
}

/// Makes the kernel begin to write what is dirty, so that the disk works while the next bytes are unpacked. The advice
/// is to drop the range, which is impossible while it is being written. Whether it is taken does not matter.
fn write_behind(file: &File, range: Range<u64>) {
    let _ =
        rustix::fs::fadvise(file, range.start, NonZeroU64::new(range.end - range.start), Advice::DontNeed);
}
