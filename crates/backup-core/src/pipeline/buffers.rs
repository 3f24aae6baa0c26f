//! Large buffers that are used again.
//!
//! Blocks of megabytes that are freed by one thread and allocated by another make an allocator keep far more memory
//! than is in use at any time. A pool keeps the peak at what is really in flight.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers waiting for their next use, at most `keep` of them.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    keep: usize,
    idle: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    pub(crate) fn new(keep: usize) -> Self {
        Self(Arc::new(Shelf { keep, idle: Mutex::default() }))
    }

    /// An empty buffer with room for `capacity` bytes.
    pub(crate) fn take(&self, capacity: usize) -> Buffer {
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = idle.unwrap_or_default();
        if bytes.capacity() < capacity {
            // A fresh block: growing the old one would copy what nobody needs.
            bytes = Vec::with_capacity(capacity);
        }
        Buffer { bytes, pool: self.clone() }
    }
}

/// A buffer that goes back to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
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
        let shelf = &self.pool.0;
        let mut idle = shelf.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < shelf.keep && bytes.capacity() > 0 {
            idle.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_and_empty() {
        let pool = Pool::new(1);
        let mut buffer = pool.take(100);
        buffer.extend_from_slice(b"old");
        let address = buffer.as_ptr();
        drop(buffer);
        let again = pool.take(50);
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), address);
    }

    #[test]
    fn no_more_than_asked_are_kept() {
        let pool = Pool::new(1);
        drop((pool.take(10), pool.take(10)));
        assert_eq!(pool.0.idle.lock().unwrap().len(), 1);
    }
}
