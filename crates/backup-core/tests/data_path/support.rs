//! Repositories in memory, keys, and short forms of writing and reading a set.

use std::io::{self, Read};
use std::sync::Arc;

use age::secrecy::ExposeSecret;
use backstay_backup_core::Error;
use backstay_backup_core::clock::{Clock, SystemClock};
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::key::Prefix;
use backstay_backup_core::manifest::{Codec, Manifest, ObjectEntry, SetKind};
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::object_reader::into_error;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetReceipt, SetSpec, SetWriter};
use backstay_backup_core::store::{ObjectMeta, SharedStore};
use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};

pub(crate) fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

pub(crate) fn memory() -> SharedStore {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

pub(crate) async fn repositories(stores: &[SharedStore], quorum: usize) -> Repositories {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut members = Vec::new();
    for (index, store) in stores.iter().enumerate() {
        let name = format!("r{index}");
        members.push(Repository::open_or_create(&name, store.clone(), &*clock).await.unwrap());
    }
    Repositories::new(members, quorum, clock).unwrap()
}

/// Small frames and parts, so that little data takes many of both.
pub(crate) fn small_path() -> DataPath {
    DataPath::default().frame(1000).part_size(1500).workers(2)
}

pub(crate) fn spec(recipients: Recipients) -> SetSpec {
    SetSpec::new(SetKind::new("test"), stanza(), "test 1.0").recipients(recipients)
}

/// An age identity: as file content, and parsed.
pub(crate) fn identity() -> (String, Identities) {
    let identity = age::x25519::Identity::generate();
    let text = identity.to_string().expose_secret().to_owned();
    let identities = Identities::parse(&text).unwrap();
    (text, identities)
}

/// Bytes that compress somewhat, the same for the same seed.
pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"0123456789abcdef"[(state >> 60) as usize]
    };
    (0..len).map(byte).collect()
}

pub(crate) fn chunks(content: &[u8], size: usize) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let chunks: Vec<_> = content.chunks(size.max(1)).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks)
}

/// Writes and commits a set of objects with these names and contents.
pub(crate) async fn write_set(
    repositories: &Repositories,
    recipients: Recipients,
    codec: Codec,
    objects: &[(&str, &[u8])],
) -> Result<SetReceipt, Error> {
    let writer = SetWriter::begin(repositories, spec(recipients), small_path()).await?;
    let mut entries = Vec::new();
    for (name, content) in objects {
        match writer.object(name, codec, chunks(content, 777)).await {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        }
    }
    writer.commit(SetContents::new(SystemClock.now(), entries)).await
}

/// Reads an object on a blocking thread.
pub(crate) async fn read(
    repositories: &Repositories,
    manifest: &Manifest,
    entry: &ObjectEntry,
    identities: &Identities,
) -> Result<Vec<u8>, Error> {
    let mut reader = repositories.open_object(manifest, entry, identities)?;
    let read = move || {
        let mut plain = Vec::new();
        reader.read_to_end(&mut plain).map(|_| plain)
    };
    tokio::task::spawn_blocking(read).await.unwrap().map_err(|error| into_error(error).unwrap())
}

/// Everything in a store below its root.
pub(crate) async fn listing(store: &SharedStore) -> Vec<ObjectMeta> {
    store.list(&Prefix::root()).try_collect().await.unwrap()
}

/// Keys of the manifests in a store.
pub(crate) async fn manifests(store: &SharedStore) -> Vec<String> {
    let all = listing(store).await.into_iter().map(|meta| meta.key.to_string());
    all.filter(|key| key.ends_with("manifest.json")).collect()
}
