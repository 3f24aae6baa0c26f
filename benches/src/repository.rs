use std::path::Path;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::SharedStore;
use backstay_storage_s3::{Credentials, S3Options, S3Store};

/// Makes an empty folder a repository of ours.
///
/// # Panics
/// When it cannot be made one.
pub async fn create_repository_on_disk(folder: &Path) {
    let store = LocalStore::create(folder.to_owned()).expect("the folder is ours");
    create(Arc::new(store)).await;
}

/// Makes a prefix of a bucket a repository of ours.
///
/// # Panics
/// When it cannot be made one.
pub async fn create_repository_on_s3(port: u16, bucket: &str, prefix: &str, who: (&str, &str)) {
    create(open_s3(port, bucket, prefix, who).await).await;
}

/// A prefix of a bucket of a server on loopback, as the holder of a key and its secret sees it.
///
/// # Panics
/// When the server does not answer.
pub async fn open_s3(port: u16, bucket: &str, prefix: &str, (key, secret): (&str, &str)) -> SharedStore {
    let prefix = if prefix.is_empty() { Prefix::root() } else { Prefix::parse(prefix).expect("a prefix") };
    let options = S3Options::new(bucket)
        .region("us-east-1")
        .endpoint(format!("http://127.0.0.1:{port}"))
        .prefix(prefix)
        .credentials(Credentials::Static {
            access_key_id: key.to_owned(),
            secret_access_key: Secret::new(secret.to_owned()),
            session_token: None,
        });
    Arc::new(S3Store::open(options).await.expect("the server answers"))
}

async fn create(store: SharedStore) {
    Repository::create("bench", store, &SystemClock).await.expect("an empty place becomes a repository");
}
