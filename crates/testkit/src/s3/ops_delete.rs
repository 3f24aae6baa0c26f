//! `DeleteObject` and `DeleteObjects`.

use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    ETagCondition, Error as DeleteError, Timestamp,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::api::bucket;
use super::conditions::WriteConditions;
use super::core::Core;
use super::faults::Quirks;
use super::lock::check_delete;
use super::model::{Bucket, Change, Marks, NULL_VERSION, Version, Versioning};
use super::note::Note;

const MAX_KEYS: usize = 1000;

pub(super) async fn delete_object(
    core: &Core,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let bypass = may_bypass(&Note::of(&request)?, request.input.bypass_governance_retention)?;
    let input = request.input;
    let wish = Wish { key: input.key, version_id: input.version_id, matches: input.if_match, bypass };
    let outcome = delete(core, &input.bucket, wish)?;
    Ok(S3Response::with_status(
        DeleteObjectOutput {
            delete_marker: outcome.marker.then_some(true),
            version_id: outcome.version_id,
            ..DeleteObjectOutput::default()
        },
        hyper::StatusCode::NO_CONTENT,
    ))
}

pub(super) async fn delete_objects(
    core: &Core,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let bypass = may_bypass(&Note::of(&request)?, request.input.bypass_governance_retention)?;
    let input = request.input;
    if input.delete.objects.len() > MAX_KEYS {
        return Err(s3_error!(MalformedXML, "at most {MAX_KEYS} objects can be deleted in one request"));
    }
    core.store.read(|index| bucket(index, &input.bucket).map(|_| ()))?;
    let quiet = input.delete.quiet.unwrap_or(false);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in input.delete.objects {
        let wish = Wish {
            key: object.key.clone(),
            version_id: object.version_id.clone(),
            matches: object.e_tag.map(ETagCondition::ETag),
            bypass,
        };
        match delete(core, &input.bucket, wish) {
            Ok(_) if quiet => {}
            Ok(outcome) => deleted.push(DeletedObject {
                delete_marker: outcome.marker.then_some(true),
                delete_marker_version_id: outcome.version_id.filter(|_| outcome.marker),
                key: Some(object.key),
                version_id: object.version_id,
            }),
            Err(error) => errors.push(DeleteError {
                code: Some(error.code().as_str().to_owned()),
                key: Some(object.key),
                message: error.message().map(str::to_owned),
                version_id: object.version_id,
            }),
        }
    }
    let (deleted, errors) = (Some(deleted), Some(errors));
    Ok(S3Response::new(DeleteObjectsOutput { deleted, errors, ..DeleteObjectsOutput::default() }))
}

/// Whether governance retention is to be overridden; only administrators may ask.
pub(super) fn may_bypass(note: &Note, asked: Option<bool>) -> S3Result<bool> {
    match asked {
        Some(true) if note.lock().bypass_allowed => Ok(true),
        Some(true) => {
            Err(s3_error!(AccessDenied, "Access Denied: this role may not bypass governance retention"))
        }
        Some(false) | None => Ok(false),
    }
}

struct Wish {
    key: String,
    version_id: Option<String>,
    matches: Option<ETagCondition>,
    bypass: bool,
}

struct Outcome {
    /// Whether a delete marker was made or removed.
    marker: bool,
    version_id: Option<String>,
}

fn delete(core: &Core, bucket_name: &str, wish: Wish) -> S3Result<Outcome> {
    let quirks = core.faults.quirks();
    core.store.transact(|index| {
        let bucket = bucket(index, bucket_name)?;
        let conditions = WriteConditions::new(None, wish.matches)?;
        conditions.check(bucket.current(&wish.key).map(|(_, object)| object), &quirks)?;
        let now = core.now();
        match wish.version_id {
            Some(id) => remove(
                bucket,
                bucket_name,
                wish.key,
                id,
                &Rules { now, bypass: wish.bypass, quirks: &quirks },
            ),
            None => hide(core, bucket, bucket_name, wish.key, now),
        }
    })
}

struct Rules<'a> {
    now: Timestamp,
    bypass: bool,
    quirks: &'a Quirks,
}

/// Removes one version for good.
fn remove(
    bucket: &Bucket,
    bucket_name: &str,
    key: String,
    id: String,
    rules: &Rules<'_>,
) -> S3Result<(Vec<Change>, Outcome)> {
    let Some(version) = bucket.keys.get(&key).and_then(|history| history.find(&id)) else {
        return Ok((Vec::new(), Outcome { marker: false, version_id: Some(id) }));
    };
    if !rules.quirks.deletes_locked_versions {
        check_delete(&version.marks, &rules.now, rules.bypass)?;
    }
    let outcome = Outcome { marker: version.object.is_none(), version_id: Some(id.clone()) };
    Ok((vec![Change::VersionRemoved { bucket: bucket_name.to_owned(), key, id }], outcome))
}

/// Deletes a key the way its bucket does: for good, or under a delete marker.
fn hide(
    core: &Core,
    bucket: &Bucket,
    bucket_name: &str,
    key: String,
    modified: Timestamp,
) -> S3Result<(Vec<Change>, Outcome)> {
    let bucket_name = bucket_name.to_owned();
    let id = match bucket.versioning {
        Versioning::Off => {
            let id = NULL_VERSION.to_owned();
            let change = Change::VersionRemoved { bucket: bucket_name, key, id };
            return Ok((vec![change], Outcome { marker: false, version_id: None }));
        }
        Versioning::Enabled => core.store.new_id(),
        Versioning::Suspended => NULL_VERSION.to_owned(),
    };
    let version = Version { id: id.clone(), modified, object: None, marks: Marks::default() };
    let change = Change::VersionStored { bucket: bucket_name, key, version };
    Ok((vec![change], Outcome { marker: true, version_id: Some(id) }))
}
