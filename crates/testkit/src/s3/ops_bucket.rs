//! Buckets: making, finding, removing, versioning.

use s3s::dto::{
    Bucket as BucketEntry, BucketVersioningStatus, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput,
    GetBucketVersioningOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput, ListBucketsOutput,
    PutBucketVersioningInput, PutBucketVersioningOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::api::bucket;
use super::core::Core;
use super::model::{Change, Versioning};

/// Region reported; any region in a signature is accepted.
const REGION: &str = "us-east-1";

pub(super) async fn list_buckets(
    core: &Core,
    _request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let buckets = core.store.read(|index| {
        let entry = |(name, bucket): (&String, &super::model::Bucket)| BucketEntry {
            name: Some(name.clone()),
            creation_date: Some(bucket.created.clone()),
            ..BucketEntry::default()
        };
        index.buckets.iter().map(entry).collect()
    });
    Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
}

pub(super) async fn head_bucket(
    core: &Core,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    core.store.read(|index| bucket(index, &request.input.bucket).map(|_| ()))?;
    let bucket_region = Some(REGION.to_owned());
    Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
}

pub(super) async fn create_bucket(
    core: &Core,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let name = request.input.bucket;
    let lock = request.input.object_lock_enabled_for_bucket.unwrap_or(false);
    let location = Some(format!("/{name}"));
    core.store.transact(|index| {
        if index.buckets.contains_key(&name) {
            return Err(s3_error!(
                BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it."
            ));
        }
        Ok((vec![Change::BucketCreated { bucket: name, created: core.now(), lock }], ()))
    })?;
    Ok(S3Response::new(CreateBucketOutput { location }))
}

pub(super) async fn delete_bucket(
    core: &Core,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let name = request.input.bucket;
    core.store.transact(|index| {
        if !bucket(index, &name)?.keys.is_empty() {
            return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
        }
        let uploads = bucket(index, &name)?.uploads.keys().cloned();
        let removal =
            |(key, upload)| Change::UploadRemoved { bucket: name.clone(), key, upload, used: Vec::new() };
        let mut changes: Vec<Change> = uploads.map(removal).collect();
        changes.push(Change::BucketDeleted { bucket: name.clone() });
        Ok((changes, ()))
    })?;
    Ok(S3Response::with_status(DeleteBucketOutput::default(), hyper::StatusCode::NO_CONTENT))
}

pub(super) async fn get_bucket_location(
    core: &Core,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    core.store.read(|index| bucket(index, &request.input.bucket).map(|_| ()))?;
    // For this region S3 itself answers with an empty element.
    Ok(S3Response::new(GetBucketLocationOutput::default()))
}

pub(super) async fn get_bucket_versioning(
    core: &Core,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let versioning =
        core.store.read(|index| bucket(index, &request.input.bucket).map(|bucket| bucket.versioning))?;
    let status = match versioning {
        Versioning::Off => None,
        Versioning::Enabled => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED)),
        Versioning::Suspended => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::SUSPENDED)),
    };
    Ok(S3Response::new(GetBucketVersioningOutput { status, ..GetBucketVersioningOutput::default() }))
}

pub(super) async fn put_bucket_versioning(
    core: &Core,
    request: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let input = request.input;
    let versioning = match input.versioning_configuration.status.as_ref().map(BucketVersioningStatus::as_str)
    {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        _ => return Err(s3_error!(MalformedXML, "The versioning status must be Enabled or Suspended")),
    };
    core.store.transact(|index| {
        if bucket(index, &input.bucket)?.lock && versioning == Versioning::Suspended {
            return Err(s3_error!(
                InvalidBucketState,
                "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
            ));
        }
        Ok((vec![Change::VersioningSet { bucket: input.bucket, versioning }], ()))
    })?;
    Ok(S3Response::new(PutBucketVersioningOutput::default()))
}
