//! Writes past the page cache.
//!
//! What a backup stores is not read again soon. Through the page cache it costs a copy into fresh pages, more processor time
//! than the fastest compression of the same bytes, and it drives out what a server on the same machine needs.

use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, pwrite};

/// Shorter writes go the usual way: a disk is slow with many small ones.
const LEAST: usize = 1 << 20;
/// Bytes of one write, and of the memory that they are copied to.
const AT_ONCE: usize = 512 << 10;
/// What memory, position and length must be multiples of: no disk in use has larger blocks.
const BLOCK: usize = 4096;

/// Writes the beginning of `bytes` at an offset and returns its length: whole blocks, and nothing where the file system
/// does not do this. The rest has to be written the usual way.
pub(super) fn write(file: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
    if bytes.len() < LEAST || !offset.is_multiple_of(BLOCK as u64) {
        return Ok(0);
    }
    let flags = fcntl_getfl(file)?;
    if fcntl_setfl(file, flags | OFlags::DIRECT).is_err() {
        return Ok(0);
    }
    let written = write_blocks(file, offset, bytes);
    // What follows has any length.
    fcntl_setfl(file, flags)?;
    written
}

fn write_blocks(file: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let mut memory = vec![0; AT_ONCE + BLOCK];
    let begin = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
    let aligned = &mut memory[begin..begin + AT_ONCE];
    let whole = bytes.len() / BLOCK * BLOCK;
    let mut written = 0;
    while written < whole {
        let length = AT_ONCE.min(whole - written);
        aligned[..length].copy_from_slice(&bytes[written..written + length]);
        match pwrite(file, &aligned[..length], offset + written as u64) {
            Ok(count) => {
                written += count;
                if count < length {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::INVAL | Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_written_directly_and_the_rest_are_the_whole() {
        for (offset, length) in [
            (0, LEAST - 1),
            (0, LEAST),
            (0, LEAST + 1),
            (8192, 3 * LEAST + 5000),
            (4097, 2 * LEAST),
            (5 << 20, 5 << 20),
        ] {
            let file = tempfile::tempfile().unwrap();
            let bytes: Vec<u8> = (0..length).map(|at| (at / 5) as u8).collect();
            let file = OwnedFd::from(file);
            let written = write(&file, offset, &bytes).unwrap();
            assert!(written.is_multiple_of(BLOCK) && written <= length, "{written} of {length}");
            assert!(written == 0 || length >= LEAST && offset.is_multiple_of(BLOCK as u64));
            assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT), "the rest has any length");
            let file = std::fs::File::from(file);
            file.write_all_at(&bytes[written..], offset + written as u64).unwrap();
            let mut found = vec![0; length];
            file.read_exact_at(&mut found, offset).unwrap();
            assert!(found == bytes, "{length} at {offset}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_to_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let file = OwnedFd::from(std::fs::File::open(&path).unwrap());
        assert_eq!(write(&file, 0, &vec![1; LEAST]), Err(Errno::BADF));
    }
}
