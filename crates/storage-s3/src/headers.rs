//! What every new object carries besides its bytes, and what a reply tells besides its body.

use std::sync::{Arc, OnceLock};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{Builder, ConfigBag, Intercept, RequestChecksumCalculation, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectLockMode, ServerSideEncryption, StorageClass};
use aws_smithy_types::DateTime;
use backstay_backup_core::store::Attributes;
use jiff::Timestamp;
use url::form_urlencoded;

use crate::options::{Checksums, Encryption, LockMode, S3Options};
use crate::time::{from_http_date, to_sdk};

const DEFAULT_TYPE: &str = "application/octet-stream";

/// Headers shared by the two ways of creating an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteHeaders {
    pub(crate) content_type: String,
    pub(crate) storage_class: Option<StorageClass>,
    pub(crate) encryption: Option<ServerSideEncryption>,
    pub(crate) kms_key: Option<String>,
    pub(crate) bucket_key: Option<bool>,
    pub(crate) lock_mode: Option<ObjectLockMode>,
    pub(crate) retain_until: Option<DateTime>,
    pub(crate) tagging: Option<String>,
    pub(crate) checksum: Option<ChecksumAlgorithm>,
}

impl WriteHeaders {
    pub(crate) fn new(options: &S3Options, attributes: &Attributes) -> Self {
        let (encryption, kms_key, bucket_key) = match &options.encryption {
            None => (None, None, None),
            Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None, None),
            Some(Encryption::Kms { key, bucket_key }) => {
                (Some(ServerSideEncryption::AwsKms), key.clone(), Some(*bucket_key))
            }
        };
        let lock = options.lock.zip(attributes.retain_until);
        Self {
            content_type: attributes.content_type.clone().unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
            storage_class: options.storage_class.as_deref().map(StorageClass::from),
            encryption,
            kms_key,
            bucket_key,
            lock_mode: lock.map(|(mode, _)| lock_mode(mode)),
            retain_until: lock.map(|(_, until)| to_sdk(until)),
            tagging: tagging(options.tags.iter().chain(&attributes.tags)),
            checksum: algorithm(options),
        }
    }
}

/// The checksum of every request. S3 takes locked objects only with one, so a store with locks has one in any mode.
pub(crate) fn algorithm(options: &S3Options) -> Option<ChecksumAlgorithm> {
    match options.checksums {
        Checksums::Crc64Nvme => Some(ChecksumAlgorithm::Crc64Nvme),
        Checksums::Crc32 => Some(ChecksumAlgorithm::Crc32),
        Checksums::Compatible => options.lock.map(|_| ChecksumAlgorithm::Crc32),
    }
}

/// Settings for a call that needs a checksum although the client computes none by itself.
pub(crate) fn checksum_override(options: &S3Options) -> Option<Builder> {
    (options.checksums == Checksums::Compatible && options.lock.is_some())
        .then(|| Builder::new().request_checksum_calculation(RequestChecksumCalculation::WhenSupported))
}

pub(crate) fn lock_mode(mode: LockMode) -> ObjectLockMode {
    match mode {
        LockMode::Governance => ObjectLockMode::Governance,
        LockMode::Compliance => ObjectLockMode::Compliance,
    }
}

fn tagging<'a>(tags: impl Iterator<Item = &'a (String, String)>) -> Option<String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in tags {
        query.append_pair(name, value);
    }
    Some(query.finish()).filter(|text| !text.is_empty())
}

/// Puts the headers on a request; `PutObject` and `CreateMultipartUpload` share names but no type.
macro_rules! dress {
    ($call:expr, $headers:expr) => {
        $call
            .content_type($headers.content_type.clone())
            .set_storage_class($headers.storage_class.clone())
            .set_server_side_encryption($headers.encryption.clone())
            .set_ssekms_key_id($headers.kms_key.clone())
            .set_bucket_key_enabled($headers.bucket_key)
            .set_object_lock_mode($headers.lock_mode.clone())
            .set_object_lock_retain_until_date($headers.retain_until)
            .set_tagging($headers.tagging.clone())
    };
}
pub(crate) use dress;

/// Catches the `Date` header of a reply: the store's clock, which the SDK's outputs do not show.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerDate(Arc<OnceLock<Timestamp>>);

impl ServerDate {
    pub(crate) fn get(&self) -> Option<Timestamp> {
        self.0.get().copied()
    }
}

impl Intercept for ServerDate {
    fn name(&self) -> &'static str {
        "ServerDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date").and_then(from_http_date) {
            // One attempt per call, so it is set once.
            let _ = self.0.set(date);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_escaped() {
        let tags = [("team a".to_owned(), "x&y=ü".to_owned()), ("k".to_owned(), String::new())];
        assert_eq!(tagging(tags.iter()).as_deref(), Some("team+a=x%26y%3D%C3%BC&k="));
        assert_eq!(tagging([].iter()), None);
    }

    #[test]
    fn an_object_is_locked_only_when_mode_and_time_are_known() {
        let until = Attributes::default().retain_until(Some(Timestamp::UNIX_EPOCH));
        let locked = S3Options::new("b").lock(LockMode::Compliance).checksums(Checksums::Compatible);
        let headers = WriteHeaders::new(&locked, &until);
        assert_eq!(headers.lock_mode, Some(ObjectLockMode::Compliance));
        assert!(headers.checksum.is_some() && checksum_override(&locked).is_some());
        let headers = WriteHeaders::new(&locked, &Attributes::default());
        assert!(headers.lock_mode.is_none() && headers.retain_until.is_none());
        let headers = WriteHeaders::new(&S3Options::new("b"), &until);
        assert!(headers.lock_mode.is_none() && headers.retain_until.is_none());
    }
}
