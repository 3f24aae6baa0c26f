//! One repository: a store with a description that says it is ours, and the layout below it.
//!
//! The description `backstay.json` is created once and never replaced. Like a manifest it is sealed in an envelope
//! that carries its own digest: `{"manifest":{"format":1,"id":"…","created":"…"},"sha256":"…"}`, where `id` is 128
//! random bits. A location without it is refused, so that a mistyped path never looks like an empty repository.

pub mod layout;
pub(crate) mod record;

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::error::{Error, describe};
use crate::id::{SetId, Stanza};
use crate::key::Key;
use crate::manifest::{FORMAT_MAJOR, MAX_MANIFEST, Manifest, ManifestError, seal, unseal};
use crate::store::{Attributes, PutMode, SharedStore, StoreError};

/// Largest description that is read, in bytes.
const MAX_DESCRIPTION: u64 = 1 << 20;
/// MIME type of descriptions and manifests.
const JSON: &str = "application/json";

/// A place that holds backup sets.
#[derive(Clone, Debug)]
pub struct Repository {
    name: String,
    store: SharedStore,
    info: Option<RepositoryInfo>,
}

/// What a repository says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RepositoryInfo {
    /// Major version of the format.
    pub format: u32,
    /// 128 random bits in hexadecimal; copies of a repository share it.
    pub id: String,
    /// Creation, by the creator's clock.
    pub created: Timestamp,
    /// Fields of later versions.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Repository {
    /// A repository that nobody has looked at yet: for reading from it while [`Repository::open`] still asks whether it is
    /// one. What was read counts only if that succeeds.
    #[must_use]
    pub fn assume(name: &str, store: SharedStore) -> Self {
        Self { name: name.to_owned(), store, info: None }
    }

    /// Opens an existing repository; `name` is what messages and receipts call it.
    ///
    /// # Errors
    /// [`Error::NotARepository`] when the store has no description, [`Error::Description`] when it is damaged or
    /// too new, [`Error::Store`] when it cannot be read.
    pub async fn open(name: &str, store: SharedStore) -> Result<Self, Error> {
        let key = layout::description();
        let bytes = match read_small(&store, &key, MAX_DESCRIPTION).await {
            Ok(bytes) => bytes,
            Err(ReadError::Store(StoreError::Absent { .. })) => {
                return Err(Error::NotARepository { location: store.location() });
            }
            Err(ReadError::Store(source)) => return Err(store_error(name, "open", source)),
            Err(ReadError::Content(source)) => {
                return Err(Error::Description { location: store.location(), source });
            }
        };
        match unseal(&bytes) {
            Ok(info) => Ok(Self { name: name.to_owned(), store, info: Some(info) }),
            Err(source) => Err(Error::Description { location: store.location(), source }),
        }
    }

    /// Makes the store a repository.
    ///
    /// # Errors
    /// [`Error::Store`] with [`StoreError::AlreadyExists`] when it is one already.
    pub async fn create(name: &str, store: SharedStore, clock: &dyn Clock) -> Result<Self, Error> {
        let info = RepositoryInfo {
            format: FORMAT_MAJOR,
            id: format!("{:032x}", rand::random::<u128>()),
            created: clock.now(),
            unknown: Map::new(),
        };
        let body = seal(&info).map_err(|error| Error::Internal { what: error.to_string() })?;
        let attributes = Attributes::default().content_type(JSON);
        store
            .put(&layout::description(), Bytes::from(body), PutMode::Create, &attributes)
            .await
            .map_err(|source| store_error(name, "create", source))?;
        Ok(Self { name: name.to_owned(), store, info: Some(info) })
    }

    /// Opens the repository, or creates it where the store holds none. Of two racing creators one wins and the
    /// other opens the winner's.
    ///
    /// # Errors
    /// As [`Repository::open`] and [`Repository::create`].
    pub async fn open_or_create(name: &str, store: SharedStore, clock: &dyn Clock) -> Result<Self, Error> {
        match Self::open(name, store.clone()).await {
            Err(Error::NotARepository { .. }) => {}
            opened => return opened,
        }
        match Self::create(name, store.clone(), clock).await {
            Err(Error::Store { source: StoreError::AlreadyExists { .. }, .. }) => {
                Self::open(name, store).await
            }
            created => created,
        }
    }

    /// The name given on opening.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its store.
    #[must_use]
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// Its description; `None` of one that was only assumed.
    #[must_use]
    pub fn info(&self) -> Option<&RepositoryInfo> {
        self.info.as_ref()
    }

    /// This repository's copy of a manifest, checked to belong where it lies.
    ///
    /// # Errors
    /// [`Error::Store`] (with [`StoreError::Absent`] when there is none), [`Error::Manifest`] or
    /// [`Error::Misplaced`].
    pub async fn manifest(&self, stanza: &Stanza, set: &SetId) -> Result<Manifest, Error> {
        let unusable = |source| Error::Manifest { set: set.clone(), repository: self.name.clone(), source };
        let key = layout::manifest(stanza, set);
        let bytes = match read_small(&self.store, &key, MAX_MANIFEST).await {
            Ok(bytes) => bytes,
            Err(ReadError::Store(source)) => return Err(self.failed("read manifest", source)),
            Err(ReadError::Content(source)) => return Err(unusable(source)),
        };
        let manifest = Manifest::decode(&bytes).map_err(unusable)?;
        if manifest.stanza != *stanza || manifest.set != *set {
            let found = format!("set {} of stanza {}", manifest.set, manifest.stanza);
            return Err(Error::Misplaced { set: set.clone(), stanza: stanza.clone(), found });
        }
        Ok(manifest)
    }

    /// Looks again for an object that was listed and was not there to be read: nothing is left out on one word of a
    /// store that contradicts itself. `None` when it is gone, or else the problem.
    pub(crate) async fn why_absent(&self, key: &Key) -> Result<Option<String>, Error> {
        match self.store.head(key).await {
            Err(error) if error.is_absent() => Ok(None),
            Err(error) if error.is_temporary() => Err(self.failed("look again", error)),
            Err(error) => Ok(Some(describe(&error))),
            Ok(_) => Ok(Some("the store has it, and says that it is not there to be read".to_owned())),
        }
    }

    /// An error of this repository's store.
    #[must_use]
    pub fn failed(&self, op: &'static str, source: StoreError) -> Error {
        store_error(&self.name, op, source)
    }
}

fn store_error(repository: &str, op: &'static str, source: StoreError) -> Error {
    Error::Store { repository: repository.to_owned(), op, source }
}

/// Why a small document could not be had.
#[derive(Debug)]
pub(crate) enum ReadError {
    Store(StoreError),
    Content(ManifestError),
}

pub(crate) async fn read_small(store: &SharedStore, key: &Key, limit: u64) -> Result<Vec<u8>, ReadError> {
    let problem = |problem: String| ReadError::Content(ManifestError::Damaged { problem });
    let mut result = store.get(key, None).await.map_err(ReadError::Store)?;
    let size = result.meta.size;
    if size > limit {
        return Err(problem(format!("{size} bytes are more than the {limit} allowed")));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = result.body.try_next().await.map_err(ReadError::Store)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Err(problem(format!("it is longer than the {limit} bytes allowed")));
        }
    }
    Ok(bytes)
}
