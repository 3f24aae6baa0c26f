//! Reads one object back: whole, verified, decrypted and decompressed, from whichever repository has a good copy.
//!
//! ```text
//! stores ─▶ fetch (async task: next copy on failure, SHA-256 and length) ─▶ bounded queue
//!        ─▶ decrypt ─▶ decompress ─▶ length checked ─▶ the consumer's own blocking thread
//! ```
//!
//! A reader never says "end" before the digest of the stored bytes and the length of the plain ones were found
//! right; what it cannot vouch for ends in an [`io::Error`] around [`Error::Damaged`]. Objects up to 4 MiB are checked
//! before their first byte is delivered, so a damaged copy is replaced by another without anyone noticing. A larger
//! one is delivered while it is checked: a copy that breaks off is continued from another at the same place, one that
//! turns out to be damaged is an error, and the next reader of that object tries another copy first.
//!
//! Stored bytes are fetched as ranges of 2 MiB, three at a time; a reader needs about 12 MiB.

mod content;
mod fetch;
mod frames;
mod queue;

use std::fmt;
use std::io::{self, Read};

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::encryption::Identities;
use crate::error::Error;
use crate::key::Key;
use crate::manifest::{Manifest, ObjectEntry};
use crate::replicas::Repositories;
use crate::repository::layout;

pub use frames::FrameReader;

use content::Content;
use fetch::Fetch;
use queue::Queue;

/// Batches of stored bytes between the task that fetches and the thread that reads.
const QUEUE: usize = 1;

/// The plain content of one object. For blocking threads: reading on an async thread panics.
///
/// Dropping it ends the fetching.
pub struct ObjectReader {
    object: String,
    content: Content,
    _fetching: AbortOnDropHandle<()>,
}

impl Repositories {
    /// Opens an object of a set. The first bytes are fetched at once, in a task of the current runtime.
    ///
    /// # Errors
    /// [`Error::Key`] when the object is encrypted and no identity fits, [`Error::Damaged`] for a manifest that names
    /// an impossible object, [`Error::Internal`] outside a runtime.
    pub fn open_object(
        &self,
        manifest: &Manifest,
        entry: &ObjectEntry,
        identities: &Identities,
    ) -> Result<ObjectReader, Error> {
        let (set, key) = (&manifest.set, key(manifest, entry, identities)?);
        let runtime = Handle::try_current().map_err(|error| Error::Internal { what: error.to_string() })?;
        let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
        let fetch = Fetch::new(self.clone(), set.clone(), entry.clone(), key);
        let sources = fetch.sources();
        let fetching = AbortOnDropHandle::new(runtime.spawn(fetch.run(sender)));
        let content =
            Content::new(set.clone(), entry.clone(), identities.clone(), sources, Queue::new(receiver));
        Ok(ObjectReader { object: entry.name.clone(), content, _fetching: fetching })
    }
}

/// Where an object lies, if it can be read with these keys.
fn key(manifest: &Manifest, entry: &ObjectEntry, identities: &Identities) -> Result<Key, Error> {
    let set = &manifest.set;
    if !entry.recipients.is_empty()
        && let Some(problem) = identities.problem(&entry.recipients)
    {
        return Err(Error::Key { set: set.clone(), problem });
    }
    layout::object(&manifest.stanza, set, &entry.name).map_err(|error| Error::Damaged {
        set: set.clone(),
        object: entry.name.clone(),
        problem: error.to_string(),
    })
}

impl Read for ObjectReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.content.read(buf)
    }
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader").field("object", &self.object).finish_non_exhaustive()
    }
}

/// The error of the repository layer inside an error of reading, where there is one.
///
/// # Errors
/// Gives back an error that came from elsewhere.
pub fn into_error(error: io::Error) -> Result<Error, io::Error> {
    error.downcast::<Error>()
}
