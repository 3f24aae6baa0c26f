//! Objects in parts.

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::{
    Attributes, ETag, Multipart, ObjectMeta, ObjectStore as _, PartNumber, PartTag, PendingUpload,
    StoreError, UploadId,
};
use bytes::Bytes;

use crate::errors::{Failure, Kind, Target};
use crate::headers::{ServerDate, WriteHeaders, algorithm, checksum_override, dress};
use crate::store::S3Store;

#[async_trait]
impl Multipart for S3Store {
    async fn start_upload(&self, key: &Key, attributes: &Attributes) -> Result<UploadId, StoreError> {
        const OP: &str = "start the upload of";
        let inner = &self.inner;
        let headers = WriteHeaders::new(&inner.options, attributes);
        // Always said aloud: without it the SDK still adds a checksum of its own choice to every part, and several
        // services then refuse the completion.
        let kind = headers.checksum.as_ref().map(|_| ChecksumType::FullObject);
        let call = inner
            .client
            .create_multipart_upload()
            .bucket(&inner.options.bucket)
            .key(self.full_key(key))
            .set_checksum_algorithm(headers.checksum.clone())
            .set_checksum_type(kind);
        let failed = |failure| self.error(failure, OP, Target::Key(key));
        let reply = self.call(0, dress!(call, headers).send()).await.map_err(failed)?;
        match reply.upload_id() {
            Some(id) if !id.is_empty() => Ok(UploadId(id.to_owned())),
            _ => Err(failed(Failure::broken("the store gave the upload no name"))),
        }
    }

    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let inner = &self.inner;
        let len = body.len() as u64;
        let checksum = algorithm(&inner.options);
        let failed = |failure| self.error(failure, "store a part of", Target::Key(key));
        let mut call = inner
            .client
            .upload_part()
            .bucket(&inner.options.bucket)
            .key(self.full_key(key))
            .upload_id(&upload.0)
            .part_number(number(part))
            .set_checksum_algorithm(checksum.clone())
            .body(ByteStream::from(body))
            .customize();
        if let Some(conf) = checksum_override(&inner.options) {
            call = call.config_override(conf);
        }
        if inner.unsigned_payload {
            call = call.disable_payload_signing();
        }
        let reply = self.call(len, call.send()).await.map_err(failed)?;
        let sum = match checksum {
            Some(ChecksumAlgorithm::Crc64Nvme) => reply.checksum_crc64_nvme(),
            Some(_) => reply.checksum_crc32(),
            None => None,
        };
        match reply.e_tag() {
            Some(tag) => {
                Ok(PartTag { part, len, tag: tag.to_owned(), checksum: sum.unwrap_or_default().to_owned() })
            }
            None => Err(failed(Failure::broken("the store gave the part no tag"))),
        }
    }

    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        const OP: &str = "complete the upload of";
        let inner = &self.inner;
        let size = parts.iter().map(|part| part.len).sum::<u64>();
        let checksum = algorithm(&inner.options);
        let mut ordered = parts.to_vec();
        ordered.sort_unstable_by_key(|part| part.part);
        let completed = ordered.into_iter().map(|part| completed_part(part, checksum.as_ref())).collect();
        let mut call = inner
            .client
            .complete_multipart_upload()
            .bucket(&inner.options.bucket)
            .key(self.full_key(key))
            .upload_id(&upload.0)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(completed)).build());
        if checksum.is_some() {
            // The store then refuses when its parts add up to another length.
            call = call.checksum_type(ChecksumType::FullObject).set_mpu_object_size(i64::try_from(size).ok());
        }
        if inner.options.conditional_writes {
            call = call.if_none_match("*");
        } else {
            self.refuse_existing(key).await?;
        }
        let date = ServerDate::default();
        let limit = inner.options.timeouts.completion(parts.len());
        match self.call_within(limit, call.customize().interceptor(date.clone()).send()).await {
            Ok(reply) => {
                let etag = reply.e_tag().map(|tag| ETag(tag.to_owned()));
                self.written(key, size, etag, date.get()).await
            }
            Err(failure) if failure.kind == Kind::Precondition => {
                Err(StoreError::AlreadyExists { key: key.clone() })
            }
            // A completion whose reply was lost leaves no upload behind, only the object.
            Err(failure) if failure.kind == Kind::NoUpload && self.head(key).await.is_ok() => {
                Err(StoreError::AlreadyExists { key: key.clone() })
            }
            Err(failure) => Err(self.error(failure, OP, Target::Key(key))),
        }
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError> {
        let inner = &self.inner;
        let call = inner
            .client
            .abort_multipart_upload()
            .bucket(&inner.options.bucket)
            .key(self.full_key(key))
            .upload_id(&upload.0);
        match self.call(0, call.send()).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.kind, Kind::NoUpload | Kind::NoKey) => Ok(()),
            Err(failure) => Err(self.error(failure, "abort the upload of", Target::Key(key))),
        }
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        let uploads = self.pending_uploads(prefix).await;
        uploads.map_err(|failure| self.error(failure, "list the uploads below", Target::Prefix(prefix)))
    }
}

fn number(part: PartNumber) -> i32 {
    i32::try_from(part.number).unwrap_or(i32::MAX)
}

fn completed_part(part: PartTag, checksum: Option<&ChecksumAlgorithm>) -> CompletedPart {
    let sum = Some(part.checksum).filter(|sum| !sum.is_empty());
    let builder = CompletedPart::builder().part_number(number(part.part)).e_tag(part.tag);
    match checksum {
        Some(ChecksumAlgorithm::Crc64Nvme) => builder.set_checksum_crc64_nvme(sum),
        Some(_) => builder.set_checksum_crc32(sum),
        None => builder,
    }
    .build()
}
