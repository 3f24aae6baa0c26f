//! `PutObject`.

use s3s::dto::{ETag, PutObjectInput, PutObjectOutput};
use s3s::{S3Error, S3Request, S3Response, S3Result, TrailingHeaders, s3_error};

use super::api::bucket;
use super::attributes::{give_checksum, take_attributes, take_checksums};
use super::conditions::WriteConditions;
use super::core::Core;
use super::digest::{Algorithm, Coverage, Declared, Hashers, StoredChecksum};
use super::faults::Quirks;
use super::lock::marks_for_write;
use super::model::{Attributes, Bucket, Change, Index, Marks, NULL_VERSION, Object, Version, Versioning};
use super::note::Note;
use super::receive::{Received, Sink, expected_length, receive};

pub(super) async fn put_object(
    core: &Core,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let note = Note::of(&request)?;
    let quirks = core.faults.quirks();
    let (headers, trailers, mut input) = (request.headers, request.trailing_headers, request.input);
    let declared =
        declared(input.content_md5.as_deref(), take_checksums!(input), &headers, trailers.as_ref())?;
    let (attributes, marks) = take_attributes!(input);
    let conditions = WriteConditions::new(input.if_none_match.take(), input.if_match.take())?;
    let expected = expected_length(input.content_length, &headers)?;
    let target = Target { bucket: input.bucket, key: input.key };
    core.store.read(|index| check_target(index, &target, &marks, &declared))?;

    let algorithm = declared.algorithm().unwrap_or(Algorithm::Crc64Nvme);
    let hashers = Hashers::new(!core.opaque_etags || declared.has_md5(), [algorithm]);
    let writer = core.store.writer(expected).map_err(S3Error::internal_error)?;
    let received = receive(input.body.take(), expected, Sink::new(writer, hashers)).await?;
    let refusal = match declared.verify(&received.digests) {
        Err(refusal) if quirks.stores_rejected_bodies => Some(refusal),
        Err(refusal) if !quirks.accepts_wrong_checksums => return Err(refusal),
        _ => None,
    };
    let object = object_of(core, received, algorithm, attributes)?;
    let (etag, checksum) = (object.etag.clone(), object.checksum.clone());
    let mut output = PutObjectOutput {
        server_side_encryption: object.attributes.encryption.clone().map(Into::into),
        ..PutObjectOutput::default()
    };
    output.ssekms_key_id.clone_from(&object.attributes.kms_key);
    output.bucket_key_enabled = object.attributes.bucket_key;
    note.lock().bytes = object.size;

    output.version_id = commit(core, &quirks, &note, target, &conditions, Draft { object, marks }).await?;
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    output.e_tag = Some(ETag::Strong(etag));
    if let Some(checksum) = checksum {
        output.checksum_type = Some(checksum.coverage.to_dto());
        give_checksum!(output, checksum.algorithm, checksum.value);
    }
    Ok(S3Response::new(output))
}

/// Reads what the client declares about a body from the values of the input and the raw headers.
pub(super) fn declared(
    content_md5: Option<&str>,
    values: [Option<String>; 5],
    headers: &hyper::HeaderMap,
    trailers: Option<&TrailingHeaders>,
) -> S3Result<Declared> {
    let names = headers.get("x-amz-trailer").and_then(|value| value.to_str().ok());
    Declared::new(content_md5, values, names, trailers)
}

/// Where a write goes.
pub(super) struct Target {
    pub(super) bucket: String,
    pub(super) key: String,
}

/// An object that is complete but not yet visible.
pub(super) struct Draft {
    pub(super) object: Object,
    pub(super) marks: Marks,
}

/// Refuses early what would be refused after the body as well.
fn check_target(index: &Index, target: &Target, marks: &Marks, declared: &Declared) -> S3Result<()> {
    let bucket = bucket(index, &target.bucket)?;
    let locks =
        bucket.lock && (marks.retention.is_some() || marks.legal_hold || bucket.default_rule.is_some());
    if locks && declared.algorithm().is_none() && !declared.has_md5() {
        return Err(s3_error!(
            InvalidRequest,
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
        ));
    }
    Ok(())
}

fn object_of(
    core: &Core,
    received: Received,
    algorithm: Algorithm,
    attributes: Attributes,
) -> S3Result<Object> {
    let md5 = if core.opaque_etags { None } else { received.digests.md5 };
    let value = received.digests.encoded(algorithm).ok_or_else(|| s3_error!(InternalError, "no checksum"))?;
    Ok(Object {
        size: received.segment.len,
        etag: hex::encode(md5.unwrap_or_else(rand::random)),
        segments: vec![received.segment],
        multipart: false,
        checksum: Some(StoredChecksum { algorithm, coverage: Coverage::FullObject, value }),
        attributes,
    })
}

/// Makes a draft the newest version of its key if the conditions hold; returns the version id to report.
async fn commit(
    core: &Core,
    quirks: &Quirks,
    note: &Note,
    target: Target,
    conditions: &WriteConditions,
    draft: Draft,
) -> S3Result<Option<String>> {
    let conditions = rivalled(core, quirks, &target, conditions).await?;
    let outcome = core.store.transact(|index| {
        let bucket = bucket(index, &target.bucket)?;
        let stored = store(core, bucket, quirks, &target, &conditions.effective, draft)?;
        Ok((vec![stored.change], (stored.reported, stored.overwrites)))
    });
    let (reported, overwrites) = outcome?;
    note.lock().overwrote = overwrites;
    Ok(reported)
}

/// Conditions of a write, and the place at the gate that a misbehaving create holds meanwhile.
pub(super) struct Rivalled<'a> {
    pub(super) effective: WriteConditions,
    place: Option<(&'a Core, String, String)>,
}

impl Drop for Rivalled<'_> {
    fn drop(&mut self) {
        if let Some((core, bucket, key)) = &self.place {
            core.gate.leave(bucket, key);
        }
    }
}

/// With [`Misbehaviour::TwoWinners`](super::Misbehaviour::TwoWinners): checks now, lets rivals do the same, and writes
/// without a second look. Otherwise hands the conditions on.
pub(super) async fn rivalled<'a>(
    core: &'a Core,
    quirks: &Quirks,
    target: &Target,
    conditions: &WriteConditions,
) -> S3Result<Rivalled<'a>> {
    if !(quirks.two_winners && conditions.is_create_only()) {
        return Ok(Rivalled { effective: conditions.clone(), place: None });
    }
    core.store.read(|index| {
        let current = bucket(index, &target.bucket)?.current(&target.key);
        conditions.check(current.map(|(_, object)| object), quirks)
    })?;
    let place = Some((core, target.bucket.clone(), target.key.clone()));
    let rivalled = Rivalled { effective: WriteConditions::default(), place };
    core.gate.meet(&target.bucket, &target.key).await;
    Ok(rivalled)
}

/// What a write changes, found under the lock.
pub(super) struct Stored {
    pub(super) change: Change,
    /// Version id for the reply; none in a bucket that never had versions.
    pub(super) reported: Option<String>,
    pub(super) overwrites: bool,
}

/// Decides about one write; to be called within a transaction.
pub(super) fn store(
    core: &Core,
    bucket: &Bucket,
    quirks: &Quirks,
    target: &Target,
    conditions: &WriteConditions,
    draft: Draft,
) -> S3Result<Stored> {
    let current = bucket.current(&target.key).map(|(_, object)| object);
    conditions.check(current, quirks)?;
    let mut marks = draft.marks;
    if quirks.forgets_locks {
        (marks.retention, marks.legal_hold) = (None, false);
    }
    let marks = marks_for_write(bucket, marks, core.faults.now())?;
    let id = match bucket.versioning {
        Versioning::Enabled => core.store.new_id(),
        Versioning::Off | Versioning::Suspended => NULL_VERSION.to_owned(),
    };
    let reported = (bucket.versioning != Versioning::Off).then(|| id.clone());
    let version = Version { id, modified: core.now(), object: Some(draft.object), marks };
    let change = Change::VersionStored { bucket: target.bucket.clone(), key: target.key.clone(), version };
    Ok(Stored { change, reported, overwrites: current.is_some() })
}
