//! Large buffers that are used again.
//!
//! Blocks of megabytes that are freed by one thread and allocated by another make an allocator keep far more memory
//! than is in use at any time. A pool keeps the peak at what is really in flight; one pool for all streams of a set
//! keeps it at what is in flight together.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers waiting for their next use: as many as were ever in use at the same time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// An empty buffer with room for `capacity` bytes.
    pub(crate) fn take(&self, capacity: usize) -> Buffer {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = idle.unwrap_or_default();
        if bytes.capacity() < capacity {
            // A fresh block: growing the old one would copy what nobody needs.
            bytes = Vec::with_capacity(capacity);
        }
        Buffer { bytes, pool: self.clone() }
    }
}

/// Buffers of the frame size of a set, for whoever feeds it; see [`crate::set_writer::SetWriter::frame_buffers`].
#[derive(Clone, Debug)]
pub struct FrameBuffers {
    pool: Pool,
    size: usize,
}

impl FrameBuffers {
    pub(crate) fn new(size: usize) -> Self {
        Self { pool: Pool::default(), size }
    }

    /// An empty buffer with room for one frame.
    #[must_use]
    pub fn take(&self) -> Buffer {
        self.pool.take(self.size)
    }

    /// Bytes of a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

/// A buffer that goes back to its pool when it is dropped. `Bytes::from_owner` makes a chunk of it.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        if bytes.capacity() > 0 {
            self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_and_empty() {
        let pool = Pool::default();
        let mut buffer = pool.take(100);
        buffer.extend_from_slice(b"old");
        let address = buffer.as_ptr();
        drop(buffer);
        let again = pool.take(50);
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), address);
    }
}
