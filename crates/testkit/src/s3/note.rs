//! Facts about one request, gathered by the layers it passes and read when the reply leaves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use s3s::{S3Error, S3Request, S3Result, s3_error};

/// What happens to the reply of a request that a fault rule picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyFault {
    /// The connection closes without an answer.
    Lost,
    /// The connection closes after this many body bytes.
    Cut(u64),
    /// The body pauses after this many bytes.
    Stalled(u64, Duration),
    /// The lowest bit of this body byte is wrong.
    Flipped(u64),
    /// The error travels in a reply with status 200.
    Inside200,
}

#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) access_key: Option<String>,
    pub(super) bypass_allowed: bool,
    pub(super) operation: Option<String>,
    pub(super) overwrote: bool,
    pub(super) bytes: u64,
    pub(super) reply: Option<ReplyFault>,
    /// Request body bytes after which the connection breaks.
    pub(super) upload_limit: Option<u64>,
}

/// Shared between the connection, the permission check and the operation.
#[derive(Clone, Debug, Default)]
pub(super) struct Note(Arc<Mutex<Facts>>);

impl Note {
    pub(super) fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The note that the connection attached to `request`.
    pub(super) fn of<T>(request: &S3Request<T>) -> S3Result<Self> {
        request.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

pub(super) fn missing() -> S3Error {
    s3_error!(InternalError, "request carries no note")
}
