//! What clients did, kept in memory so that a test can prove "nothing was overwritten, nothing was denied".

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Records kept; later requests are only counted, so that a long benchmark does not eat the memory.
const MAX_RECORDS: usize = 1_000_000;

/// One answered (or deliberately unanswered) request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessRecord {
    /// When the request arrived, by the machine's clock.
    pub time: SystemTime,
    /// Access key that signed the request; `None` when the signature was not accepted.
    pub access_key: Option<String>,
    /// Name of the S3 operation, for example `PutObject`; `-` when the request never got that far.
    pub operation: String,
    /// Bucket named in the path.
    pub bucket: Option<String>,
    /// Key named in the path.
    pub key: Option<String>,
    /// HTTP status that was, or would have been, sent.
    pub status: u16,
    /// S3 error code such as `PreconditionFailed`.
    pub error: Option<String>,
    /// Whether an existing object was replaced as the newest of its name.
    pub overwrote: bool,
    /// Bytes of object data accepted or promised.
    pub bytes: u64,
    /// Whether a fault kept the reply from the client.
    pub reply_lost: bool,
}

impl AccessRecord {
    /// Whether the caller was refused for lack of permission.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.status == 403
    }
}

#[derive(Debug, Default)]
struct Records {
    kept: Vec<AccessRecord>,
    dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct AccessLog {
    records: Mutex<Records>,
}

impl AccessLog {
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, record: AccessRecord) {
        let mut records = self.lock();
        if records.kept.len() < MAX_RECORDS {
            records.kept.push(record);
        } else {
            records.dropped += 1;
        }
    }

    pub(super) fn snapshot(&self) -> Vec<AccessRecord> {
        self.lock().kept.clone()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    pub(super) fn clear(&self) {
        *self.lock() = Records::default();
    }
}
