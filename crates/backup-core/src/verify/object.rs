//! One object: every stored byte, and what it decodes to when that is asked for.

use std::error::Error as _;
use std::io::Read;

use futures::TryStreamExt;
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::VerifyOptions;
use crate::encryption::Identities;
use crate::error::{Error, describe};
use crate::manifest::{Manifest, ObjectEntry, Sha256Hex};
use crate::object_reader::into_error;
use crate::progress::Progress;
use crate::replicas::Repositories;
use crate::repository::layout;
use crate::store::{GetResult, StoreError};

/// Chunks between the task that reads and the thread that hashes.
const QUEUE: usize = 4;
/// Plain bytes asked for at a time.
const BUFFER: usize = 256 << 10;

/// Why an object is not known to be good.
#[derive(Debug)]
pub(super) enum Finding {
    /// It is missing or wrong.
    Bad(String),
    /// Nobody can tell at the moment.
    Unchecked(String),
    /// No key given opens it; its stored bytes are good.
    Locked(String),
}

impl Finding {
    /// What a store's error says about the object.
    pub(super) fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Absent { .. } => Self::Bad("it is missing".to_owned()),
            StoreError::Checksum { .. } => Self::Bad(format!("it cannot be read: {}", describe(error))),
            _ if is_bad_medium(error) => Self::Bad(format!("it cannot be read: {}", describe(error))),
            // Wrong credentials or an archived object say nothing about the bytes, and a bad proof would stop restores.
            _ => Self::Unchecked(describe(error)),
        }
    }
}

/// Whether a disk says that it lost the bytes.
fn is_bad_medium(error: &StoreError) -> bool {
    let lost = |errno: Errno| matches!(errno, Errno::IO | Errno::BADMSG | Errno::UCLEAN);
    let mut below = error.source();
    while let Some(error) = below {
        let errno = error.downcast_ref::<Errno>().copied();
        let errno = errno.or_else(|| Errno::from_io_error(error.downcast_ref::<std::io::Error>()?));
        if errno.is_some_and(lost) {
            return true;
        }
        below = error.source();
    }
    false
}

/// Reads an object whole; returns the number of stored bytes.
pub(super) async fn verify(
    only: &Repositories,
    manifest: &Manifest,
    entry: &ObjectEntry,
    options: &VerifyOptions,
) -> Result<u64, Finding> {
    if let Some(identities) = &options.content {
        match decode(only, manifest, entry, identities, &options.progress).await {
            Err(Error::Key { problem, .. }) => {
                stored_bytes(only, manifest, entry, &options.progress).await?;
                return Err(Finding::Locked(format!("its content was not decrypted: {problem}")));
            }
            Err(Error::Damaged { problem, .. }) => return Err(Finding::Bad(problem)),
            Err(Error::Store { source, .. }) => return Err(Finding::of(&source)),
            Err(error) => return Err(Finding::Unchecked(describe(&error))),
            Ok(()) => return Ok(entry.stored),
        }
    }
    stored_bytes(only, manifest, entry, &options.progress).await
}

/// Compares length and digest of the stored bytes.
async fn stored_bytes(
    only: &Repositories,
    manifest: &Manifest,
    entry: &ObjectEntry,
    progress: &Progress,
) -> Result<u64, Finding> {
    let key = layout::object(&manifest.stanza, &manifest.set, &entry.name)
        .map_err(|error| Finding::Bad(error.to_string()))?;
    let GetResult { mut body, .. } =
        only.members()[0].store().get(&key, None).await.map_err(|error| Finding::of(&error))?;
    let (sender, mut chunks) = mpsc::channel::<bytes::Bytes>(QUEUE);
    let hashing = tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        while let Some(chunk) = chunks.blocking_recv() {
            hash.update(&chunk);
        }
        Sha256Hex(hash.finalize().into())
    });
    let mut read = 0;
    while let Some(chunk) = body.try_next().await.map_err(|error| Finding::of(&error))? {
        read += chunk.len() as u64;
        progress.add_bytes(chunk.len() as u64);
        if read > entry.stored || sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    let digest = hashing.await.map_err(|error| Finding::Unchecked(error.to_string()))?;
    if read > entry.stored {
        return Err(Finding::Bad(format!("it is longer than the {} bytes of the manifest", entry.stored)));
    }
    if read < entry.stored {
        return Err(Finding::Bad(format!("it ends after {read} of {} bytes", entry.stored)));
    }
    if digest != entry.sha256 {
        let problem =
            format!("its bytes are not those of the manifest: SHA-256 {digest}, not {}", entry.sha256);
        return Err(Finding::Bad(problem));
    }
    Ok(read)
}

/// Reads the plain content to its end; the reader checks digest and lengths.
async fn decode(
    only: &Repositories,
    manifest: &Manifest,
    entry: &ObjectEntry,
    identities: &Identities,
    progress: &Progress,
) -> Result<(), Error> {
    let mut reader = only.open_object(manifest, entry, identities)?;
    let stop = CancellationToken::new();
    let _stop_on_drop = stop.clone().drop_guard();
    let reading = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; BUFFER];
        while !stop.is_cancelled() {
            if reader.read(&mut buffer)? == 0 {
                return Ok(());
            }
        }
        Err(std::io::Error::other(Error::Cancelled))
    });
    let done = reading.await.map_err(|error| Error::Internal { what: error.to_string() })?;
    progress.add_bytes(entry.stored);
    done.map_err(|error| match into_error(error) {
        Ok(error) => error,
        Err(error) => Error::Source { object: entry.name.clone(), source: error },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_that_lost_bytes_makes_an_unreadable_object_bad() {
        let failed = |errno: i32| StoreError::Failed {
            op: "read",
            what: "main/sets/x".to_owned(),
            source: Box::new(std::io::Error::from_raw_os_error(errno)),
        };
        assert!(matches!(Finding::of(&failed(5)), Finding::Bad(_)));
        assert!(matches!(Finding::of(&failed(22)), Finding::Unchecked(_)));
        let archived =
            StoreError::Failed { op: "read", what: "x".to_owned(), source: "InvalidObjectState".into() };
        assert!(matches!(Finding::of(&archived), Finding::Unchecked(_)));
    }
}
