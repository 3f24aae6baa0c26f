//! Reading objects of a local store.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::task::{JoinHandle, spawn_blocking};

use super::folder::{Folder, link_or};
use super::trouble::Trouble;
use crate::key::Key;
use crate::store::{ETag, ObjectMeta, StoreError};

/// Bytes read at a time. One chunk is read ahead, so an open object holds at most two.
pub(super) const CHUNK: usize = 1 << 20;
/// Objects up to this size have the hash of their content as tag: everything that is ever compared and swapped.
const HASHED: u64 = 64 << 10;

/// Opens an object for reading; `None` if absence is proven.
pub(super) fn open(folder: &Folder, name: &str) -> Result<Option<OwnedFd>, Trouble> {
    // NONBLOCK: somebody may have put a pipe there, and opening that would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(folder.fd(), name, flags, Mode::empty()) {
        Ok(file) if is_file(&rustix::fs::fstat(&file)?) => Ok(Some(file)),
        // A folder is no object, and object stores call that absent.
        Ok(file) if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Directory => {
            Ok(None)
        }
        Ok(_) => Err(Trouble::Refused("it is no regular file")),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(link_or(errno)),
    }
}

/// Facts of an open object.
pub(super) fn meta(key: &Key, file: &OwnedFd) -> Result<ObjectMeta, Trouble> {
    let stat = rustix::fs::fstat(file)?;
    let etag = if stat.st_size as u64 <= HASHED {
        let bytes = read_at(file, 0, stat.st_size as usize)?;
        ETag(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
    } else {
        ETag(format!(
            "file:{:x}-{:x}-{:x}.{:x}",
            stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec
        ))
    };
    Ok(ObjectMeta { etag: Some(etag), ..meta_of(key.clone(), &stat) })
}

/// Facts of an object without its tag.
pub(super) fn meta_of(key: Key, stat: &Stat) -> ObjectMeta {
    ObjectMeta { key, size: stat.st_size as u64, modified: modified(stat), etag: None }
}

/// Time of the last change by the file system's clock.
pub(super) fn modified(stat: &Stat) -> Timestamp {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or(if stat.st_mtime < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Streams a range that lies inside the file, reading one chunk ahead on the blocking threads.
pub(super) fn body(
    file: OwnedFd,
    range: Range<u64>,
    wrap: impl Fn(Trouble) -> StoreError + Send + 'static,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(&file, range.start, None, rustix::fs::Advice::Sequential);
    let reader = Reader { file: Arc::new(file), range, ahead: None };
    stream::try_unfold(reader, Reader::next).map(move |chunk| chunk.map_err(&wrap)).boxed()
}

struct Reader {
    file: Arc<OwnedFd>,
    range: Range<u64>,
    ahead: Option<JoinHandle<Result<Bytes, Trouble>>>,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Trouble> {
        let Some(reading) = self.ahead.take().or_else(|| self.start()) else {
            return Ok(None);
        };
        let chunk = match reading.await {
            Ok(chunk) => chunk?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(Trouble::Refused("the runtime is shutting down")),
        };
        self.ahead = self.start();
        Ok(Some((chunk, self)))
    }

    fn start(&mut self) -> Option<JoinHandle<Result<Bytes, Trouble>>> {
        let offset = self.range.start;
        let len = usize::try_from(self.range.end - offset).unwrap_or(CHUNK).min(CHUNK);
        if len == 0 {
            return None;
        }
        self.range.start += len as u64;
        let file = Arc::clone(&self.file);
        // Taken here and not on the blocking thread: allocators keep memory for each thread, and those are many.
        let bytes = Vec::with_capacity(len);
        Some(spawn_blocking(move || read_into(&file, offset, len, bytes)))
    }
}

fn read_at(file: &OwnedFd, offset: u64, len: usize) -> Result<Bytes, Trouble> {
    read_into(file, offset, len, Vec::with_capacity(len))
}

/// Reads so many bytes into an empty vector.
fn read_into(file: &OwnedFd, offset: u64, len: usize, mut bytes: Vec<u8>) -> Result<Bytes, Trouble> {
    while bytes.len() < len {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(Trouble::Refused("the file became shorter while it was read")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // A vector may reserve more than it was asked for.
    bytes.truncate(len);
    Ok(bytes.into())
}
