//! What the local store does beyond the seam: files, permissions, races, crashes, disks that fail it.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "local/crashes.rs"]
mod crashes;
#[path = "local/disks.rs"]
mod disks;
#[path = "local/files.rs"]
mod files;
#[path = "local/races.rs"]
mod races;

use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::{Attributes, ObjectMeta, ObjectStore, PutMode, StoreError};
use bytes::Bytes;
use futures::TryStreamExt as _;
use tempfile::TempDir;

/// Tells a child process of these tests which store it works in.
const CHILD_ROOT: &str = "STORE_TEST_ROOT";

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn fresh() -> (TempDir, LocalStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path().to_path_buf()).unwrap();
    (folder, store)
}

async fn create(store: &LocalStore, name: &str, body: &[u8]) -> Result<ObjectMeta, StoreError> {
    let body = Bytes::copy_from_slice(body);
    store.put(&key(name), body, PutMode::Create, &Attributes::default()).await
}

async fn read(store: &LocalStore, name: &str) -> Result<Vec<u8>, StoreError> {
    let body = store.get(&key(name), None).await?.body;
    body.try_fold(Vec::new(), async |mut all, chunk| {
        all.extend_from_slice(&chunk);
        Ok(all)
    })
    .await
}

async fn keys(store: &LocalStore, prefix: &str) -> Result<Vec<String>, StoreError> {
    let prefix = Prefix::parse(prefix).unwrap();
    store.list(&prefix).map_ok(|meta| meta.key.as_str().to_owned()).try_collect().await
}

/// Every file below a folder, dot files too, as far as nobody removes it meanwhile.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return files };
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() && !path.is_symlink() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// This test binary again, running only the named test, which then plays its part as a child process.
fn child(test: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD_ROOT, root);
    command
}

fn child_store() -> Option<LocalStore> {
    let root = std::env::var_os(CHILD_ROOT)?;
    Some(LocalStore::open(root.into()).unwrap())
}
