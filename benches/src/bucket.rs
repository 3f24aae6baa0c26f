use std::sync::Arc;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::secret::Secret;
use backstay_backup_core::store::SharedStore;
use backstay_storage_s3::{Credentials, S3Options, S3Store};

/// A bucket of a server on loopback, as the holder of a key and its secret sees it.
///
/// # Panics
/// When the server does not answer.
pub async fn open_bucket(port: u16, bucket: &str, (key, secret): (&str, &str)) -> SharedStore {
    let options = S3Options::new(bucket)
        .region("us-east-1")
        .endpoint(format!("http://127.0.0.1:{port}"))
        .prefix(Prefix::root())
        .credentials(Credentials::Static {
            access_key_id: key.to_owned(),
            secret_access_key: Secret::new(secret.to_owned()),
            session_token: None,
        });
    Arc::new(S3Store::open(options).await.expect("the server answers"))
}
