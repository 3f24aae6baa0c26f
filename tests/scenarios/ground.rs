//! Repositories in which calls can go wrong: in a directory, or on an S3 server.

use std::sync::Arc;

use backstay_backup_core::fault::{Call, Fault};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::{Attributes, PutMode, SharedStore};
use backstay_testkit::s3::S3Server;
use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::s3_faults::{ADMIN, s3_server, store};
use crate::scene::{catalog, open, retrying};

/// Where repositories are made.
pub(crate) enum Ground {
    Directory,
    S3(S3Server),
}

impl Ground {
    pub(crate) async fn s3() -> Self {
        Self::S3(s3_server().await)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::S3(_) => "S3",
        }
    }
}

/// A repository below which faults can be planned.
pub(crate) struct Trial {
    pub(crate) plain: SharedStore,
    pub(crate) fault: Arc<Fault>,
    _root: Option<tempfile::TempDir>,
}

impl Trial {
    /// With an empty repository.
    pub(crate) async fn new(ground: &Ground, number: usize) -> Self {
        let trial = Self::bare(ground, number).await;
        open(trial.plain.clone()).await.unwrap();
        trial
    }

    /// With a copy of these objects, in this order.
    pub(crate) async fn with(ground: &Ground, number: usize, objects: &[(Key, Bytes)]) -> Self {
        let trial = Self::bare(ground, number).await;
        for (key, bytes) in objects {
            let attributes = Attributes::default();
            trial.plain.put(key, bytes.clone(), PutMode::Create, &attributes).await.unwrap();
        }
        trial
    }

    async fn bare(ground: &Ground, number: usize) -> Self {
        let (plain, root): (SharedStore, _) = match ground {
            Ground::Directory => {
                let root = tempfile::tempdir().unwrap();
                (Arc::new(LocalStore::create(root.path().to_owned()).unwrap()), Some(root))
            }
            Ground::S3(server) => (store(server, &format!("trial-{number}"), ADMIN).await, None),
        };
        let fault = Arc::new(Fault::new(plain.clone(), number as u64));
        Self { plain, fault, _root: root }
    }

    /// The same repository with other faults.
    pub(crate) fn again(&self, number: usize) -> Self {
        let fault = Arc::new(Fault::new(self.plain.clone(), number as u64));
        Self { plain: self.plain.clone(), fault, _root: None }
    }

    /// What a program sees: faults, and passing ones repeated.
    pub(crate) fn seen(&self) -> SharedStore {
        retrying(self.fault.clone())
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.fault.calls()
    }

    /// All objects, sorted by key.
    pub(crate) async fn objects(&self) -> Vec<(Key, Bytes)> {
        let mut objects = Vec::new();
        for key in self.keys().await {
            let body = self.plain.get(&key, None).await.unwrap().body;
            let chunks: Vec<Bytes> = body.try_collect().await.unwrap();
            objects.push((key, chunks.concat().into()));
        }
        objects
    }

    pub(crate) async fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<_> =
            self.plain.list(&Prefix::root()).map_ok(|meta| meta.key).try_collect().await.unwrap();
        keys.sort();
        keys
    }

    pub(crate) async fn expect_nothing(&self, when: &str) {
        let repositories = open(self.plain.clone()).await.unwrap();
        let found = catalog(&repositories).await;
        assert!(found.sets.is_empty(), "{when}: {:?}", found.sets);
    }

    /// Gives its memory back.
    pub(crate) async fn clear(&self) {
        for key in self.keys().await {
            self.plain.delete(&key).await.unwrap();
        }
    }
}
