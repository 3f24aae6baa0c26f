//! Small sealed documents that are only ever added under keys of their own: proofs and hold events.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ReadError, Repository, read_small};
use crate::error::Error;
use crate::key::Key;
use crate::manifest::{seal, unseal};
use crate::store::{Attributes, ObjectMeta, PutMode, StoreError};

/// Largest record that is read, in bytes.
const MAX_RECORD: u64 = 16 << 20;
/// How many records may want the same microsecond.
const SAME_MOMENT: i64 = 64;

/// Adds a record under the key of its time; when that is taken, of one of the next microseconds.
pub(crate) async fn append<T: Serialize>(
    repository: &Repository,
    at: Timestamp,
    key: impl Fn(Timestamp) -> Result<Key, Error>,
    record: &T,
) -> Result<ObjectMeta, Error> {
    let body = seal(record).map_err(|error| Error::Internal { what: error.to_string() })?;
    let body = Bytes::from(body);
    let attributes = Attributes::default().content_type("application/json");
    let mut taken = None;
    for later in 0..SAME_MOMENT {
        let key = key(at.saturating_add(SignedDuration::from_micros(later)).unwrap_or(at))?;
        match repository.store().put(&key, body.clone(), PutMode::Create, &attributes).await {
            Ok(meta) => return Ok(meta),
            Err(StoreError::AlreadyExists { key }) => taken = Some(StoreError::AlreadyExists { key }),
            Err(source) => return Err(repository.failed("add a record", source)),
        }
    }
    let what = || "a record needs at least one attempt".to_owned();
    Err(taken
        .map_or_else(|| Error::Internal { what: what() }, |source| repository.failed("add a record", source)))
}

/// Reads a record and checks its seal.
pub(crate) async fn read<T: DeserializeOwned>(repository: &Repository, key: &Key) -> Result<T, ReadError> {
    let bytes = read_small(repository.store(), key, MAX_RECORD).await?;
    unseal(&bytes).map_err(ReadError::Content)
}
