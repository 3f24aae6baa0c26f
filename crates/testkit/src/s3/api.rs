//! The S3 operations this server answers; everything else is 501 `NotImplemented`.

use std::sync::Arc;

use hyper::StatusCode;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto};

use super::core::Core;
use super::model::{Bucket, Index};
use super::{
    ops_bucket, ops_complete, ops_delete, ops_get, ops_list, ops_marks, ops_multipart, ops_put, ops_uploads,
};

/// Connects the protocol crate with the operations, one file for each kind.
pub(super) struct Api(pub(super) Arc<Core>);

#[async_trait::async_trait]
impl S3 for Api {
    async fn put_object(
        &self,
        request: S3Request<dto::PutObjectInput>,
    ) -> S3Result<S3Response<dto::PutObjectOutput>> {
        ops_put::put_object(&self.0, request).await
    }

    async fn get_object(
        &self,
        request: S3Request<dto::GetObjectInput>,
    ) -> S3Result<S3Response<dto::GetObjectOutput>> {
        ops_get::get_object(&self.0, request).await
    }

    async fn head_object(
        &self,
        request: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        ops_get::head_object(&self.0, request).await
    }

    async fn delete_object(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        ops_delete::delete_object(&self.0, request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        ops_delete::delete_objects(&self.0, request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        ops_list::list_objects_v2(&self.0, request).await
    }

    async fn list_objects(
        &self,
        request: S3Request<dto::ListObjectsInput>,
    ) -> S3Result<S3Response<dto::ListObjectsOutput>> {
        ops_list::list_objects(&self.0, request).await
    }

    async fn list_object_versions(
        &self,
        request: S3Request<dto::ListObjectVersionsInput>,
    ) -> S3Result<S3Response<dto::ListObjectVersionsOutput>> {
        ops_list::list_object_versions(&self.0, request).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<dto::CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CreateMultipartUploadOutput>> {
        ops_multipart::create_multipart_upload(&self.0, request).await
    }

    async fn upload_part(
        &self,
        request: S3Request<dto::UploadPartInput>,
    ) -> S3Result<S3Response<dto::UploadPartOutput>> {
        ops_multipart::upload_part(&self.0, request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CompleteMultipartUploadOutput>> {
        ops_complete::complete_multipart_upload(&self.0, request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<dto::AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::AbortMultipartUploadOutput>> {
        ops_multipart::abort_multipart_upload(&self.0, request).await
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<dto::ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<dto::ListMultipartUploadsOutput>> {
        ops_uploads::list_multipart_uploads(&self.0, request).await
    }

    async fn list_parts(
        &self,
        request: S3Request<dto::ListPartsInput>,
    ) -> S3Result<S3Response<dto::ListPartsOutput>> {
        ops_uploads::list_parts(&self.0, request).await
    }

    async fn list_buckets(
        &self,
        request: S3Request<dto::ListBucketsInput>,
    ) -> S3Result<S3Response<dto::ListBucketsOutput>> {
        ops_bucket::list_buckets(&self.0, request).await
    }

    async fn head_bucket(
        &self,
        request: S3Request<dto::HeadBucketInput>,
    ) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        ops_bucket::head_bucket(&self.0, request).await
    }

    async fn create_bucket(
        &self,
        request: S3Request<dto::CreateBucketInput>,
    ) -> S3Result<S3Response<dto::CreateBucketOutput>> {
        ops_bucket::create_bucket(&self.0, request).await
    }

    async fn delete_bucket(
        &self,
        request: S3Request<dto::DeleteBucketInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketOutput>> {
        ops_bucket::delete_bucket(&self.0, request).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<dto::GetBucketLocationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLocationOutput>> {
        ops_bucket::get_bucket_location(&self.0, request).await
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<dto::GetBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::GetBucketVersioningOutput>> {
        ops_bucket::get_bucket_versioning(&self.0, request).await
    }

    async fn put_bucket_versioning(
        &self,
        request: S3Request<dto::PutBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::PutBucketVersioningOutput>> {
        ops_bucket::put_bucket_versioning(&self.0, request).await
    }

    async fn get_object_lock_configuration(
        &self,
        request: S3Request<dto::GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetObjectLockConfigurationOutput>> {
        ops_marks::get_object_lock_configuration(&self.0, request).await
    }

    async fn put_object_lock_configuration(
        &self,
        request: S3Request<dto::PutObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<dto::PutObjectLockConfigurationOutput>> {
        ops_marks::put_object_lock_configuration(&self.0, request).await
    }

    async fn get_object_retention(
        &self,
        request: S3Request<dto::GetObjectRetentionInput>,
    ) -> S3Result<S3Response<dto::GetObjectRetentionOutput>> {
        ops_marks::get_object_retention(&self.0, request).await
    }

    async fn put_object_retention(
        &self,
        request: S3Request<dto::PutObjectRetentionInput>,
    ) -> S3Result<S3Response<dto::PutObjectRetentionOutput>> {
        ops_marks::put_object_retention(&self.0, request).await
    }

    async fn get_object_legal_hold(
        &self,
        request: S3Request<dto::GetObjectLegalHoldInput>,
    ) -> S3Result<S3Response<dto::GetObjectLegalHoldOutput>> {
        ops_marks::get_object_legal_hold(&self.0, request).await
    }

    async fn put_object_legal_hold(
        &self,
        request: S3Request<dto::PutObjectLegalHoldInput>,
    ) -> S3Result<S3Response<dto::PutObjectLegalHoldOutput>> {
        ops_marks::put_object_legal_hold(&self.0, request).await
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<dto::GetObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::GetObjectTaggingOutput>> {
        ops_marks::get_object_tagging(&self.0, request).await
    }

    async fn put_object_tagging(
        &self,
        request: S3Request<dto::PutObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::PutObjectTaggingOutput>> {
        ops_marks::put_object_tagging(&self.0, request).await
    }

    async fn delete_object_tagging(
        &self,
        request: S3Request<dto::DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectTaggingOutput>> {
        ops_marks::delete_object_tagging(&self.0, request).await
    }
}

/// An error whose code the protocol crate has no name for.
pub(super) fn custom_error(code: &'static str, status: StatusCode, message: impl Into<String>) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message.into());
    error.set_status_code(status);
    error
}

/// The bucket, or the error S3 gives when there is none.
pub(super) fn bucket<'a>(index: &'a Index, name: &str) -> S3Result<&'a Bucket> {
    index.buckets.get(name).ok_or_else(|| s3s::s3_error!(NoSuchBucket, "The specified bucket does not exist"))
}
