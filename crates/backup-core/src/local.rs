//! A store in a local directory: every object is a plain file `<root>/<key>` that any tool can read.
//!
//! Bytes go to a temporary sibling, which is fsynced, renamed without replacing, and made durable by an fsync of its
//! folder; an object is therefore whole or absent, also after a power cut, and of two racing creators one is told
//! so. What a crash leaves behind is a temporary file, reported as a pending upload. Replacement compares the content's
//! hash under a lock of the whole store, which all processes on the machine share.
//!
//! Guarantees beyond the seam: nothing is followed through symbolic links, files and folders belong to the owner alone,
//! and a root that vanished or was exchanged under the store is an error, never an empty store. Not offered:
//! locks against deletion (`retain_until`), tags and MIME types; and a key cannot be both an object and the folder
//! of others, as file systems have it.

#[cfg(target_os = "linux")]
mod direct;
mod folder;
mod lock;
mod object;
mod pins;
mod temporary;
mod trouble;
mod walk;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use self::folder::Root;
use self::lock::Lock;
use self::pins::Pins;
use self::temporary::{Publish, Temporary};
use self::trouble::Trouble;
use self::walk::{Found, Walk};
use crate::key::{Key, Prefix};
use crate::store::{
    Attributes, Capabilities, ETag, GetResult, Multipart, ObjectMeta, ObjectStore, PartNumber, PartTag,
    PendingUpload, PutMode, StoreError, UploadId, cut_range,
};

/// Objects handed over at a time by a listing.
const PAGE: usize = 256;
/// As on S3, so that what fits here fits there.
const MAX_PARTS: u32 = 10_000;

/// Keeps objects as files below one directory.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: Arc<Root>,
    pins: Arc<Pins>,
}

impl LocalStore {
    /// Opens an existing directory. Blocks for the time of a few system calls.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such directory, [`StoreError::Denied`] if it cannot be read.
    pub fn open(root: PathBuf) -> Result<Self, StoreError> {
        let path = root.clone();
        Self::with("open", &path, Root::open(root))
    }

    /// Makes the directory, and missing ones above it, for the owner alone; an existing one is opened as it is.
    /// Blocks for the time of a few system calls.
    ///
    /// # Errors
    /// [`StoreError::Denied`], [`StoreError::Full`], or [`StoreError::Missing`] if something else is in the way.
    pub fn create(root: PathBuf) -> Result<Self, StoreError> {
        let path = root.clone();
        Self::with("create", &path, Root::create(root))
    }

    fn with(op: &'static str, path: &Path, root: Result<Root, Trouble>) -> Result<Self, StoreError> {
        let root = root.map_err(|trouble| trouble.of(op, &path.display().to_string(), path))?;
        Ok(Self { root: Arc::new(root), pins: Arc::default() })
    }

    /// Runs the steps of one operation on the blocking threads. They run to their end even if the caller goes away,
    /// so cancelling leaves no step half done.
    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        key: &Key,
        steps: impl FnOnce(&Root, &Key) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (root, key) = (Arc::clone(&self.root), key.clone());
        blocking(op, key.to_string(), move || {
            steps(&root, &key).map_err(|stop| match stop {
                Stop::Absent => StoreError::Absent { key },
                Stop::AlreadyExists => StoreError::AlreadyExists { key },
                Stop::Conflict => StoreError::Conflict { key },
                Stop::Trouble(trouble) => trouble.of(op, key.as_str(), root.path()),
            })
        })
        .await
    }
}

/// Why an operation ends early.
enum Stop {
    Absent,
    AlreadyExists,
    Conflict,
    Trouble(Trouble),
}

impl<T: Into<Trouble>> From<T> for Stop {
    fn from(trouble: T) -> Self {
        Self::Trouble(trouble.into())
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    fn location(&self) -> String {
        self.root.path().display().to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { create_only: true, compare_and_swap: true, min_part: 1, max_parts: MAX_PARTS }
    }

    async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
        _attributes: &Attributes,
    ) -> Result<ObjectMeta, StoreError> {
        self.run("store", key, move |root, key| match mode {
            PutMode::Create => create(root, key, &body),
            PutMode::Replace(tag) => replace(root, key, &body, &tag),
        })
        .await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        let (file, meta) = self
            .run("read", key, |root, key| {
                let (folder, name) = split(key);
                let folder = root.find(&folder)?.ok_or(Stop::Absent)?;
                let Some(file) = object::open(&folder, name)? else {
                    root.handle()?;
                    return Err(Stop::Absent);
                };
                let meta = object::meta(key, &file)?;
                Ok((file, meta))
            })
            .await?;
        let range = cut_range(range, meta.size);
        let (root, what) = (Arc::clone(&self.root), key.to_string());
        let body = object::body(file, range.clone(), move |trouble| trouble.of("read", &what, root.path()));
        Ok(GetResult { meta, range, body })
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.run("look at", key, |root, key| {
            let (folder, name) = split(key);
            let folder = root.find(&folder)?.ok_or(Stop::Absent)?;
            match object::open(&folder, name)? {
                Some(file) => Ok(object::meta(key, &file)?),
                None => {
                    root.handle()?;
                    Err(Stop::Absent)
                }
            }
        })
        .await
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let state = Listing { prefix: prefix.clone(), after: after.cloned(), walk: None };
        let pages = stream::try_unfold(Some(state), move |listing| async move {
            let Some(listing) = listing else { return Ok(None) };
            let (page, rest) = self.page(listing).await?;
            Ok(Some((stream::iter(page.into_iter().map(Ok::<_, StoreError>)), rest)))
        });
        pages.try_flatten().boxed()
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.run("delete", key, |root, key| {
            let (names, name) = split(key);
            let Some(folder) = root.find(&names)? else { return Ok(()) };
            if object::open(&folder, name)?.is_none() {
                return Ok(());
            }
            let lock = Lock::shared(root)?;
            match rustix::fs::unlinkat(folder.fd(), name, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
            drop(lock);
            // Deletions become durable in the order they are made: a manifest goes before its objects.
            rustix::fs::fsync(folder.fd())?;
            folder.remove_if_empty();
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Multipart for LocalStore {
    async fn start_upload(&self, key: &Key, _attributes: &Attributes) -> Result<UploadId, StoreError> {
        let pins = Arc::clone(&self.pins);
        self.run("begin to store", key, move |root, key| {
            let (names, name) = split(key);
            root.work_in(&names, |folder| {
                let (temporary, id) = Temporary::create(folder, name)?;
                let upload = UploadId(id);
                pins.add(&upload, temporary.keep()?);
                Ok(upload)
            })
            .map_err(Stop::from)
        })
        .await
    }

    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let id = upload.0.clone();
        self.run("store a part of", key, move |root, key| {
            if part.number == 0 || part.number > MAX_PARTS {
                return Err(Trouble::Refused("the part number is out of range").into());
            }
            let (names, name) = split(key);
            let folder = root.find(&names)?.ok_or(NO_UPLOAD)?;
            let temporary = Temporary::open(&folder, name, &id)?.ok_or(NO_UPLOAD)?;
            temporary.write_at(part.offset, &body)?;
            temporary.begin_writeback(part.offset, body.len());
            Ok(PartTag { part, len: body.len() as u64, tag: String::new(), checksum: String::new() })
        })
        .await
    }

    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        let (id, size) = (upload.0.clone(), joined_size(parts));
        let completed = self.run("complete", key, move |root, key| {
            let (names, name) = split(key);
            let folder = root.find(&names)?.ok_or(NO_UPLOAD)?;
            if object::open(&folder, name)?.is_some() {
                return Err(Stop::AlreadyExists);
            }
            let mut temporary = Temporary::open(&folder, name, &id)?.ok_or(NO_UPLOAD)?;
            if size != Some(object::meta_of(key.clone(), &rustix::fs::fstat(temporary.file())?).size) {
                return Err(Trouble::Refused("the parts do not join up").into());
            }
            temporary.publish(name, Publish::New).map_err(exists)?;
            root.sync(&folder)?;
            Ok(object::meta(key, temporary.file())?)
        });
        let meta = completed.await?;
        self.pins.remove(upload);
        Ok(meta)
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError> {
        self.pins.remove(upload);
        let id = upload.0.clone();
        self.run("abort", key, move |root, key| {
            let (names, name) = split(key);
            let Some(folder) = root.find(&names)? else { return Ok(()) };
            temporary::remove(&folder, name, &id)?;
            folder.remove_if_empty();
            Ok(())
        })
        .await
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        let (root, prefix) = (Arc::clone(&self.root), prefix.clone());
        blocking("list", prefix.as_str().to_owned(), move || {
            uploads(&root, &prefix).map_err(|trouble| trouble.of("list", prefix.as_str(), root.path()))
        })
        .await
    }
}

impl LocalStore {
    /// The next objects of a listing, and the listing if it goes on.
    async fn page(&self, listing: Listing) -> Result<(Vec<ObjectMeta>, Option<Listing>), StoreError> {
        let (root, prefix) = (Arc::clone(&self.root), listing.prefix.clone());
        blocking("list", prefix.as_str().to_owned(), move || {
            next_page(&root, listing).map_err(|trouble| trouble.of("list", prefix.as_str(), root.path()))
        })
        .await
    }
}

const NO_UPLOAD: Trouble = Trouble::Refused("no such upload");

/// A listing under way; the walk begins with its first page.
struct Listing {
    prefix: Prefix,
    after: Option<Key>,
    walk: Option<Walk>,
}

fn next_page(root: &Root, listing: Listing) -> Result<(Vec<ObjectMeta>, Option<Listing>), Trouble> {
    let Listing { prefix, after, walk } = listing;
    let mut walk = match walk {
        Some(walk) => walk,
        None => Walk::begin(root, &prefix, after.as_ref())?,
    };
    let mut page = Vec::new();
    while page.len() < PAGE {
        match walk.next()? {
            Some(Found::Object(meta)) => page.push(meta),
            Some(Found::Upload(_)) => {}
            None => {
                // Below a root that vanished meanwhile everything looks empty.
                root.handle()?;
                return Ok((page, None));
            }
        }
    }
    Ok((page, Some(Listing { prefix, after, walk: Some(walk) })))
}

fn uploads(root: &Root, prefix: &Prefix) -> Result<Vec<PendingUpload>, Trouble> {
    let mut walk = Walk::begin(root, prefix, None)?;
    let mut uploads = Vec::new();
    while let Some(found) = walk.next()? {
        if let Found::Upload(upload) = found {
            uploads.push(upload);
        }
    }
    root.handle()?;
    Ok(uploads)
}

fn create(root: &Root, key: &Key, body: &[u8]) -> Result<ObjectMeta, Stop> {
    let (names, name) = split(key);
    // Most collisions are found before any byte is written; the rename finds the rest.
    if let Some(folder) = root.find(&names)?
        && let Ok(stat) = rustix::fs::statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW)
    {
        return Err(match object::is_file(&stat) {
            true => Stop::AlreadyExists,
            false => Trouble::Refused("something that is no object is in the way").into(),
        });
    }
    let created = root.work_in(&names, |folder| {
        let (mut temporary, _) = Temporary::create(folder, name)?;
        temporary.write_at(0, body)?;
        temporary.publish(name, Publish::New)?;
        root.sync(folder)?;
        object::meta(key, temporary.file())
    });
    created.map_err(exists)
}

fn replace(root: &Root, key: &Key, body: &[u8], tag: &ETag) -> Result<ObjectMeta, Stop> {
    let (names, name) = split(key);
    let _lock = Lock::exclusive(root)?;
    let folder = root.find(&names)?.ok_or(Stop::Conflict)?;
    let current = object::open(&folder, name)?.ok_or(Stop::Conflict)?;
    if object::meta(key, &current)?.etag.as_ref() != Some(tag) {
        return Err(Stop::Conflict);
    }
    let (mut temporary, _) = Temporary::create(&folder, name)?;
    temporary.write_at(0, body)?;
    temporary.publish(name, Publish::Over)?;
    root.sync(&folder)?;
    Ok(object::meta(key, temporary.file())?)
}

/// Size of the object that the parts join up to; `None` if they do not.
fn joined_size(parts: &[PartTag]) -> Option<u64> {
    let mut previous = 0;
    let mut size = 0;
    for tag in parts {
        if tag.part.number <= previous || tag.part.offset != size {
            return None;
        }
        previous = tag.part.number;
        size += tag.len;
    }
    Some(size)
}

/// Folders and file name of a key.
fn split(key: &Key) -> (Vec<&str>, &str) {
    match key.as_str().rsplit_once('/') {
        Some((folder, name)) => (segments(folder), name),
        None => (Vec::new(), key.as_str()),
    }
}

fn segments(folder: &str) -> Vec<&str> {
    folder.split('/').filter(|name| !name.is_empty()).collect()
}

fn exists(trouble: Trouble) -> Stop {
    match trouble {
        Trouble::Os(Errno::EXIST) => Stop::AlreadyExists,
        trouble => Stop::Trouble(trouble),
    }
}

async fn blocking<T: Send + 'static>(
    op: &'static str,
    what: String,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(StoreError::Temporary { op, what, retry_after: None, source: error.into() }),
    }
}
