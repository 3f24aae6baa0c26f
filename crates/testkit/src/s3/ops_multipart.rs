//! `CreateMultipartUpload`, `UploadPart` and `AbortMultipartUpload`.

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, ETag, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::api::bucket;
use super::attributes::{give_checksum, take_attributes, take_checksums};
use super::core::Core;
use super::digest::{Algorithm, Coverage, Declared, Hashers, encode};
use super::lock::marks_for_write;
use super::model::{Change, Index, Part, Upload};
use super::note::Note;
use super::ops_put::declared;
use super::receive::{Sink, expected_length, receive};

const MAX_PART: u16 = 10_000;

pub(super) async fn create_multipart_upload(
    core: &Core,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let quirks = core.faults.quirks();
    let mut input = request.input;
    let (attributes, marks) = take_attributes!(input);
    let algorithm =
        input.checksum_algorithm.as_ref().map(|name| Algorithm::parse(name.as_str())).transpose()?;
    let coverage = Coverage::choose(algorithm, input.checksum_type.as_ref())?;
    let upload = Upload {
        key: input.key.clone(),
        id: core.store.new_id(),
        initiated: core.now(),
        attributes,
        marks,
        algorithm,
        coverage,
        parts: std::collections::BTreeMap::new(),
    };
    let mut output = CreateMultipartUploadOutput {
        upload_id: Some(upload.id.clone()),
        server_side_encryption: upload.attributes.encryption.clone().map(Into::into),
        ..CreateMultipartUploadOutput::default()
    };
    output.ssekms_key_id.clone_from(&upload.attributes.kms_key);
    output.checksum_algorithm = algorithm.map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name()));
    output.checksum_type = algorithm.map(|_| coverage.to_dto());
    core.store.transact(|index| {
        let bucket = bucket(index, &input.bucket)?;
        if !quirks.forgets_locks {
            marks_for_write(bucket, upload.marks.clone(), core.faults.now())?;
        }
        Ok((vec![Change::UploadStarted { bucket: input.bucket.clone(), upload }], ()))
    })?;
    output.bucket = Some(input.bucket);
    output.key = Some(input.key);
    Ok(S3Response::new(output))
}

pub(super) async fn upload_part(
    core: &Core,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let note = Note::of(&request)?;
    let quirks = core.faults.quirks();
    let (headers, trailers, mut input) = (request.headers, request.trailing_headers, request.input);
    let declared =
        declared(input.content_md5.as_deref(), take_checksums!(input), &headers, trailers.as_ref())?;
    let number = part_number(input.part_number)?;
    let expected = expected_length(input.content_length, &headers)?;
    let (upload, encryption, kms_key) = core.store.read(|index| -> S3Result<_> {
        let upload = find(index, &input.bucket, &input.key, &input.upload_id)?;
        check_algorithm(upload, &declared)?;
        let attributes = upload.attributes.clone();
        Ok((upload.effective_algorithm(), attributes.encryption, attributes.kms_key))
    })?;

    let hashers = Hashers::new(
        !core.opaque_etags || declared.has_md5(),
        declared.algorithm().into_iter().chain([upload]),
    );
    let writer = core.store.writer(expected).map_err(S3Error::internal_error)?;
    let received = receive(input.body.take(), expected, Sink::new(writer, hashers)).await?;
    let verdict = declared.verify(&received.digests);
    if !quirks.accepts_wrong_checksums {
        verdict?;
    }
    let digest = |algorithm| received.digests.get(algorithm).map(<[u8]>::to_vec);
    let missing = || s3_error!(InternalError, "no checksum");
    let md5 = received.digests.md5.filter(|_| !core.opaque_etags).unwrap_or_else(rand::random);
    let mut output = UploadPartOutput::default();
    let mut part = Part {
        etag: hex::encode(md5),
        md5,
        modified: core.now(),
        digest: digest(upload).ok_or_else(missing)?,
        sent: None,
        segment: received.segment,
    };
    if let Some(algorithm) = declared.algorithm() {
        let sent = digest(algorithm).ok_or_else(missing)?;
        give_checksum!(output, algorithm, encode(&sent));
        part.sent = Some((algorithm, sent));
    }
    output.e_tag = Some(ETag::Strong(part.etag.clone()));
    output.server_side_encryption = encryption.map(Into::into);
    output.ssekms_key_id = kms_key;
    note.lock().bytes = part.segment.len;
    core.store.transact(|index| {
        find(index, &input.bucket, &input.key, &input.upload_id)?;
        let (bucket, key, upload) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        Ok((vec![Change::PartStored { bucket, key, upload, number, part }], ()))
    })?;
    Ok(S3Response::new(output))
}

pub(super) async fn abort_multipart_upload(
    core: &Core,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let quirks = core.faults.quirks();
    let input = request.input;
    core.store.transact(|index| {
        find(index, &input.bucket, &input.key, &input.upload_id)?;
        if quirks.keeps_aborted_uploads {
            return Ok((Vec::new(), ()));
        }
        let (bucket, key, upload) = (input.bucket, input.key, input.upload_id);
        Ok((vec![Change::UploadRemoved { bucket, key, upload, used: Vec::new() }], ()))
    })?;
    Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), hyper::StatusCode::NO_CONTENT))
}

/// The upload with this key and id, or the error S3 gives when there is none.
pub(super) fn find<'a>(index: &'a Index, bucket_name: &str, key: &str, id: &str) -> S3Result<&'a Upload> {
    let upload = bucket(index, bucket_name)?.uploads.get(&(key.to_owned(), id.to_owned()));
    upload.ok_or_else(|| {
        s3_error!(
            NoSuchUpload,
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or \
             completed."
        )
    })
}

pub(super) fn part_number(number: i32) -> S3Result<u16> {
    u16::try_from(number).ok().filter(|number| (1..=MAX_PART).contains(number)).ok_or_else(|| {
        s3_error!(InvalidArgument, "Part number must be an integer between 1 and {MAX_PART}, inclusive")
    })
}

/// A part must bring the checksum its upload was created with, unless the whole object is covered at the end.
fn check_algorithm(upload: &Upload, declared: &Declared) -> S3Result<()> {
    let Some(expected) = upload.algorithm else { return Ok(()) };
    let fits = match declared.algorithm() {
        Some(actual) => actual == expected,
        None => upload.coverage == Coverage::FullObject,
    };
    if fits {
        return Ok(());
    }
    let expected = expected.name().to_lowercase();
    let actual =
        declared.algorithm().map_or_else(|| "null".to_owned(), |actual| actual.name().to_lowercase());
    Err(s3_error!(
        InvalidRequest,
        "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}"
    ))
}
