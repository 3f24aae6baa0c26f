//! Keeps the files of uploads open from begin to completion.
//!
//! Parts are written through files of their own that are closed at once, and the kernel writes them to disk later. If
//! that fails, the next fsync learns of it, but only while the kernel remembers the file, which it may forget once nobody
//! has it open: a completion that found nothing wrong would then publish a hole.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::UploadId;

/// Uploads nobody finished are let go once so many have begun after them.
const MOST: usize = 128;

/// Open files of uploads under way, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<VecDeque<(UploadId, OwnedFd)>>);

impl Pins {
    pub(super) fn add(&self, upload: &UploadId, file: OwnedFd) {
        let mut pins = self.pins();
        if pins.len() >= MOST {
            pins.pop_front();
        }
        pins.push_back((upload.clone(), file));
    }

    pub(super) fn remove(&self, upload: &UploadId) {
        self.pins().retain(|(pinned, _)| pinned != upload);
    }

    fn pins(&self) -> MutexGuard<'_, VecDeque<(UploadId, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
