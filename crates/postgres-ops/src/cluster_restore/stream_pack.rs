//! One pack from its first byte to its last: blocks are written as they come by, each proven by its digest.
//!
//! The stored bytes are checked too, by the reader, at the end. A block that is wrong is noticed before it is written, so
//! what is on disk is right whatever happens next.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::id::SetId;
use backstay_backup_core::progress::Progress;
use rustix::fs::{Advice, Timespec, Timestamps};
use tokio_util::sync::CancellationToken;

use super::ClusterRestoreError;
use super::roots::Roots;
use super::set_index::read_error;
use super::work::{Block, FileWork, Need};
use crate::physical::{BLOCK, BlockDigest};

/// Files from this size on are sent on their way to the disk as soon as they are written, in bytes.
const WRITE_BEHIND: u64 = 1 << 20;

/// What every writer of files needs.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) set: SetId,
    pub(super) roots: Arc<Roots>,
    pub(super) progress: Progress,
    pub(super) cancel: CancellationToken,
}

impl Writer {
    /// Reads the plain bytes of a pack to their end and writes what the files need. Blocks.
    pub(super) fn stream(
        &self,
        object: &str,
        mut plain: impl Read,
        files: &[FileWork],
    ) -> Result<(), ClusterRestoreError> {
        let failed = |error| read_error(&self.set, error);
        let mut buffer = vec![0; usize::try_from(BLOCK).expect("a block fits memory")];
        let mut at = 0;
        for work in files {
            let file = self.open(work)?;
            for block in work.blocks() {
                self.check_cancelled()?;
                skip(&mut plain, block.at - at, &mut buffer).map_err(failed)?;
                let content = &mut buffer[..block.length];
                plain.read_exact(content).map_err(failed)?;
                at = block.at + block.length as u64;
                if block.needed {
                    self.write(object, work, &file, &block, content)?;
                }
            }
            self.close(work, &file)?;
        }
        skip(&mut plain, u64::MAX, &mut buffer).map_err(failed)
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
        let failed = ClusterRestoreError::io("write", work.file.path.as_path());
        file.write_all_at(content, block.offset).map_err(failed)?;
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
            rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?;
            if work.file.size >= WRITE_BEHIND {
                // Dropping what is dirty is impossible; asking for it makes the kernel begin to write, so that the disk
                // works while the next file is unpacked. Only advice: whether it is taken does not matter.
                let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
            }
            Ok(())
        };
        close().map_err(ClusterRestoreError::io("finish", work.file.path.as_path()))?;
        self.progress.add_items(1);
        Ok(())
    }
}

/// Reads so many bytes, or all that are left, and drops them.
fn skip(plain: &mut impl Read, mut bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    while bytes > 0 {
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        match plain.read(&mut buffer[..wanted])? {
            0 => break,
            read => bytes -= read as u64,
        }
    }
    Ok(())
}
