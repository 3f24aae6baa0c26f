//! `GetObject` and `HeadObject`.

use std::ops::Range;
use std::sync::Arc;

use hyper::{HeaderMap, StatusCode};
use s3s::dto::{
    ChecksumMode, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, Range as RangeHeader,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::api::{bucket, custom_error};
use super::attributes::{give_attributes, give_checksum};
use super::blob::stream;
use super::conditions::ReadConditions;
use super::core::Core;
use super::model::{Index, Object, Version};
use super::note::Note;

pub(super) async fn get_object(
    core: &Core,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let note = Note::of(&request)?;
    let input = request.input;
    let found =
        core.store.read(|index| find(index, &input.bucket, &input.key, input.version_id.as_deref()))?;
    let object = found.object();
    let conditions = ReadConditions {
        matches: input.if_match,
        none_match: input.if_none_match,
        modified_since: input.if_modified_since,
        unmodified_since: input.if_unmodified_since,
    };
    conditions.check(object, &found.version.modified)?;
    if matches!(object.attributes.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE")) {
        return Err(s3_error!(
            InvalidObjectState,
            "The operation is not valid for the object's storage class"
        ));
    }
    let window = window(object, input.range, input.part_number)?;
    let mut output = GetObjectOutput::default();
    give_attributes!(output, &*found.version, object);
    output.content_type = input.response_content_type.or(output.content_type);
    output.tag_count = i32::try_from(found.version.marks.tags.len()).ok().filter(|count| *count > 0);
    output.version_id = found.reported_id();
    output.content_length = Some(signed(window.range.end - window.range.start));
    output.content_range = window.content_range(object);
    output.parts_count = window.parts_count;
    if let Some(checksum) = shown_checksum(object, input.checksum_mode.as_ref(), &window) {
        output.checksum_type = Some(checksum.coverage.to_dto());
        give_checksum!(output, checksum.algorithm, checksum.value.clone());
    }
    note.lock().bytes = window.range.end - window.range.start;
    output.body = Some(stream(&object.segments, window.range));
    let status = if window.partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    Ok(S3Response::with_status(output, status))
}

pub(super) async fn head_object(
    core: &Core,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = request.input;
    let found =
        core.store.read(|index| find(index, &input.bucket, &input.key, input.version_id.as_deref()))?;
    let object = found.object();
    let conditions = ReadConditions {
        matches: input.if_match,
        none_match: input.if_none_match,
        modified_since: input.if_modified_since,
        unmodified_since: input.if_unmodified_since,
    };
    conditions.check(object, &found.version.modified)?;
    let window = window(object, input.range, input.part_number)?;
    let mut output = HeadObjectOutput::default();
    give_attributes!(output, &*found.version, object);
    output.version_id = found.reported_id();
    output.content_length = Some(signed(window.range.end - window.range.start));
    output.content_range = window.content_range(object);
    output.parts_count = window.parts_count;
    if let Some(checksum) = shown_checksum(object, input.checksum_mode.as_ref(), &window) {
        output.checksum_type = Some(checksum.coverage.to_dto());
        give_checksum!(output, checksum.algorithm, checksum.value.clone());
    }
    let status = if window.partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    Ok(S3Response::with_status(output, status))
}

/// A version that holds an object.
pub(super) struct Found {
    pub(super) version: Arc<Version>,
    versioned: bool,
}

impl Found {
    pub(super) fn object(&self) -> &Object {
        self.version.object.as_ref().expect("find returns no delete markers")
    }

    /// The id, where the bucket has or had versions.
    pub(super) fn reported_id(&self) -> Option<String> {
        self.versioned.then(|| self.version.id.clone())
    }
}

/// The named version of a key, or its newest.
pub(super) fn find(index: &Index, bucket_name: &str, key: &str, id: Option<&str>) -> S3Result<Found> {
    let bucket = bucket(index, bucket_name)?;
    let history = bucket.keys.get(key);
    let version = match id {
        Some(id) => history.and_then(|history| history.find(id)).ok_or_else(|| {
            s3_error!(
                NoSuchVersion,
                "The version ID specified in the request does not match an existing version."
            )
        })?,
        None => history.and_then(|history| history.latest()).ok_or_else(no_such_key)?,
    };
    if version.object.is_none() {
        let refusal = match id {
            Some(_) => {
                s3_error!(MethodNotAllowed, "The specified method is not allowed against this resource.")
            }
            None => no_such_key(),
        };
        return Err(marked_deleted(refusal, version));
    }
    let versioned = bucket.versioning != super::model::Versioning::Off;
    Ok(Found { version: Arc::clone(version), versioned })
}

fn no_such_key() -> S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist.")
}

fn marked_deleted(mut error: S3Error, marker: &Version) -> S3Error {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", hyper::header::HeaderValue::from_static("true"));
    if let Ok(id) = marker.id.parse() {
        headers.insert("x-amz-version-id", id);
    }
    headers.insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/xml"));
    error.set_headers(headers);
    error
}

/// The part of an object that is asked for.
struct Window {
    range: Range<u64>,
    partial: bool,
    parts_count: Option<i32>,
}

impl Window {
    fn content_range(&self, object: &Object) -> Option<String> {
        let Range { start, end } = self.range;
        (self.partial && start < end).then(|| format!("bytes {start}-{}/{}", end - 1, object.size))
    }
}

fn window(object: &Object, range: Option<RangeHeader>, part: Option<i32>) -> S3Result<Window> {
    match (range, part) {
        (Some(_), Some(_)) => {
            Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber"))
        }
        (Some(range), None) => {
            let range = range.check(object.size).map_err(|_| unsatisfiable(object.size))?;
            Ok(Window { range, partial: true, parts_count: None })
        }
        (None, Some(number)) => part_window(object, number),
        (None, None) => Ok(Window { range: 0..object.size, partial: false, parts_count: None }),
    }
}

fn part_window(object: &Object, number: i32) -> S3Result<Window> {
    let position = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let Some(segment) = position.and_then(|position| object.segments.get(position)) else {
        return Err(custom_error(
            "InvalidPartNumber",
            StatusCode::RANGE_NOT_SATISFIABLE,
            "The requested partnumber is not satisfiable",
        ));
    };
    let before = object.segments.iter().take(position.unwrap_or(0));
    let start = before.map(|segment| segment.len).sum::<u64>();
    let parts_count = if object.multipart { i32::try_from(object.segments.len()).ok() } else { None };
    Ok(Window { range: start..start + segment.len, partial: true, parts_count })
}

fn unsatisfiable(size: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    let mut headers = HeaderMap::new();
    if let Ok(value) = format!("bytes */{size}").parse() {
        headers.insert(hyper::header::CONTENT_RANGE, value);
    }
    headers.insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/xml"));
    error.set_headers(headers);
    error
}

/// The checksum, if it was asked for and the whole object is sent: clients compare it with what they get.
fn shown_checksum<'a>(
    object: &'a Object,
    mode: Option<&ChecksumMode>,
    window: &Window,
) -> Option<&'a super::digest::StoredChecksum> {
    let wanted = mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
    object.checksum.as_ref().filter(|_| wanted && !window.partial)
}

pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
