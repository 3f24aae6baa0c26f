//! The questions of the doctor, put to S3.

use async_trait::async_trait;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{ObjectLockRetention, ObjectLockRetentionMode};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::{Attributes, StoreError};
use bytes::Bytes;
use http_body_util::Full;
use jiff::Timestamp;

use crate::doctor::{Asked, Odd, Retention, S3Probe, StoredHeaders};
use crate::errors::{Failure, Kind, Target};
use crate::headers::{WriteHeaders, algorithm, checksum_override, dress};
use crate::options::{Checksums, LockMode};
use crate::store::S3Store;
use crate::time::{from_sdk, to_sdk};

/// Well-formed checksums of other bytes.
const WRONG_CRC64: &str = "AQIDBAUGBwg=";
const WRONG_CRC32: &str = "AQIDBA==";
const WRONG_MD5: &str = "AQIDBAUGBwgJCgsMDQ4PEA==";

impl S3Store {
    fn probe_put(&self, key: &Key, how: Odd) -> PutObjectFluentBuilder {
        let inner = &self.inner;
        let until = match how {
            Odd::Locked(until) => Some(until),
            _ => None,
        };
        let headers = WriteHeaders::new(&inner.options, &Attributes::default().retain_until(until));
        let call = inner.client.put_object().bucket(&inner.options.bucket).key(self.full_key(key));
        let call = dress!(call, headers);
        if how != Odd::Unconditional && inner.options.conditional_writes {
            call.if_none_match("*")
        } else {
            call
        }
    }

    fn wrong_checksum(&self, call: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        match self.inner.options.checksums {
            Checksums::Crc64Nvme => call.checksum_crc64_nvme(WRONG_CRC64),
            Checksums::Crc32 => call.checksum_crc32(WRONG_CRC32),
            // The oldest check of the protocol, known wherever the newer ones are not.
            Checksums::Compatible => call.content_md5(WRONG_MD5),
        }
    }

    fn probe_error(&self, failure: Failure, op: &'static str, key: &Key) -> StoreError {
        match failure.kind {
            Kind::Precondition => StoreError::AlreadyExists { key: key.clone() },
            _ => self.error(failure, op, Target::Key(key)),
        }
    }
}

#[async_trait]
impl S3Probe for S3Store {
    fn asked(&self) -> Asked {
        let options = &self.inner.options;
        Asked {
            storage_class: options.storage_class.clone(),
            encryption: options.encryption.clone(),
            lock: options.lock,
            trailing_checksums: options.checksums != Checksums::Compatible,
        }
    }

    async fn put_oddly(&self, key: &Key, body: Bytes, how: Odd) -> Result<Option<String>, StoreError> {
        let call = self.probe_put(key, how);
        let call = match how {
            Odd::WrongChecksum => self.wrong_checksum(call),
            _ => call.set_checksum_algorithm(algorithm(&self.inner.options)),
        };
        let body = match how {
            // A body that the SDK cannot look into beforehand gets its checksum as a trailer.
            Odd::TrailingChecksum => ByteStream::new(SdkBody::from_body_1_x(Full::new(body))),
            _ => ByteStream::from(body),
        };
        let mut call = call.body(body).customize();
        if let Some(conf) = checksum_override(&self.inner.options) {
            call = call.config_override(conf);
        }
        match self.call(0, call.send()).await {
            Ok(reply) => Ok(reply.version_id().filter(|id| *id != "null").map(str::to_owned)),
            Err(failure) => Err(self.probe_error(failure, "store", key)),
        }
    }

    async fn retention(&self, key: &Key, version: &str) -> Result<Option<Retention>, StoreError> {
        let inner = &self.inner;
        let call = inner
            .client
            .get_object_retention()
            .bucket(&inner.options.bucket)
            .key(self.full_key(key))
            .version_id(version);
        match self.call(0, call.send()).await {
            Ok(reply) => Ok(reply.retention().and_then(|retention| {
                let mode = retention.mode()?.as_str().to_owned();
                Some(Retention { mode, until: from_sdk(retention.retain_until_date()?)? })
            })),
            // S3 answers 404 NoSuchObjectLockConfiguration for an object without lock, which is no proof of absence of
            // the object and therefore a plain failure to everybody else.
            Err(failure) if failure.status == Some(404) => Ok(None),
            Err(failure) => Err(self.probe_error(failure, "read the lock of", key)),
        }
    }

    async fn set_retention(&self, key: &Key, version: &str, until: Timestamp) -> Result<(), StoreError> {
        let inner = &self.inner;
        let mode = match inner.options.lock {
            Some(LockMode::Compliance) => ObjectLockRetentionMode::Compliance,
            Some(LockMode::Governance) | None => ObjectLockRetentionMode::Governance,
        };
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(to_sdk(until)).build();
        let call = inner
            .client
            .put_object_retention()
            .bucket(&inner.options.bucket)
            .key(self.full_key(key))
            .version_id(version)
            .retention(retention);
        let sent = self.call(0, call.send()).await;
        sent.map(drop).map_err(|failure| self.probe_error(failure, "change the lock of", key))
    }

    async fn delete_version(&self, key: &Key, version: &str) -> Result<(), StoreError> {
        let inner = &self.inner;
        let call = inner
            .client
            .delete_object()
            .bucket(&inner.options.bucket)
            .key(self.full_key(key))
            .version_id(version);
        let sent = self.call(0, call.send()).await;
        sent.map(drop).map_err(|failure| self.probe_error(failure, "delete", key))
    }

    async fn versions(&self, prefix: &Prefix) -> Result<Vec<(Key, String)>, StoreError> {
        let options = &self.inner.options;
        let call = self.inner.client.list_object_versions().bucket(&options.bucket).prefix(format!(
            "{}{}",
            options.prefix.as_str(),
            prefix.as_str()
        ));
        // One page: the doctor writes far fewer objects than fit.
        let reply = self
            .call(0, call.send())
            .await
            .map_err(|failure| self.error(failure, "list the versions below", Target::Prefix(prefix)))?;
        let versions = reply.versions().iter().map(|version| (version.key(), version.version_id()));
        let marks = reply.delete_markers().iter().map(|mark| (mark.key(), mark.version_id()));
        let own =
            |(name, id): (Option<&str>, Option<&str>)| Some((self.own_key(name?, false)?, id?.to_owned()));
        Ok(versions.chain(marks).filter_map(own).collect())
    }

    async fn stored_headers(&self, key: &Key) -> Result<StoredHeaders, StoreError> {
        let inner = &self.inner;
        let call = inner.client.head_object().bucket(&inner.options.bucket).key(self.full_key(key));
        let reply =
            self.call(0, call.send()).await.map_err(|failure| self.probe_error(failure, "look up", key))?;
        Ok(StoredHeaders::new(
            reply.storage_class().map(|class| class.as_str().to_owned()),
            reply.server_side_encryption().map(|encryption| encryption.as_str().to_owned()),
            reply.ssekms_key_id().map(str::to_owned),
        ))
    }
}
