//! Object lock configuration, retention, legal hold and tags.

use std::sync::Arc;

use s3s::dto::{
    DefaultRetention, DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectLegalHoldInput,
    GetObjectLegalHoldOutput, GetObjectLockConfigurationInput, GetObjectLockConfigurationOutput,
    GetObjectRetentionInput, GetObjectRetentionOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    ObjectLockConfiguration, ObjectLockEnabled, ObjectLockLegalHold, ObjectLockLegalHoldStatus,
    ObjectLockRetention, ObjectLockRetentionMode, ObjectLockRule, PutObjectLegalHoldInput,
    PutObjectLegalHoldOutput, PutObjectLockConfigurationInput, PutObjectLockConfigurationOutput,
    PutObjectRetentionInput, PutObjectRetentionOutput, PutObjectTaggingInput, PutObjectTaggingOutput, Tag,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::api::bucket;
use super::attributes::checked_tags;
use super::core::Core;
use super::lock::check_retention;
use super::model::{Change, DefaultRule, Index, LockMode, Marks, Retention, Version, Versioning};
use super::note::Note;
use super::ops_delete::may_bypass;
use super::ops_get::{Found, find};

pub(super) async fn get_object_lock_configuration(
    core: &Core,
    request: S3Request<GetObjectLockConfigurationInput>,
) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
    let (lock, rule) = core.store.read(|index| {
        bucket(index, &request.input.bucket).map(|bucket| (bucket.lock, bucket.default_rule))
    })?;
    if !lock {
        return Err(s3_error!(
            ObjectLockConfigurationNotFoundError,
            "Object Lock configuration does not exist for this bucket"
        ));
    }
    let rule = rule.map(|rule| {
        let mode = Some(ObjectLockRetentionMode::from_static(rule.mode.name()));
        let days = i32::try_from(rule.days).ok();
        ObjectLockRule { default_retention: Some(DefaultRetention { days, mode, years: None }) }
    });
    let object_lock_enabled = Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED));
    let object_lock_configuration = Some(ObjectLockConfiguration { object_lock_enabled, rule });
    Ok(S3Response::new(GetObjectLockConfigurationOutput { object_lock_configuration }))
}

pub(super) async fn put_object_lock_configuration(
    core: &Core,
    request: S3Request<PutObjectLockConfigurationInput>,
) -> S3Result<S3Response<PutObjectLockConfigurationOutput>> {
    let input = request.input;
    let rule = input.object_lock_configuration.and_then(|configuration| configuration.rule);
    let default_rule = match rule.and_then(|rule| rule.default_retention) {
        None => None,
        Some(retention) => Some(default_rule(&retention)?),
    };
    core.store.transact(|index| {
        if bucket(index, &input.bucket)?.versioning != Versioning::Enabled {
            return Err(s3_error!(InvalidBucketState, "Versioning must be 'Enabled' on the bucket"));
        }
        Ok((vec![Change::LockSet { bucket: input.bucket, default_rule }], ()))
    })?;
    Ok(S3Response::new(PutObjectLockConfigurationOutput::default()))
}

fn default_rule(retention: &DefaultRetention) -> S3Result<DefaultRule> {
    let days = match (retention.days, retention.years) {
        (Some(days), None) => u32::try_from(days).ok(),
        (None, Some(years)) => u32::try_from(years).ok().and_then(|years| years.checked_mul(365)),
        _ => None,
    };
    match (&retention.mode, days.filter(|days| (1..=36_500).contains(days))) {
        (Some(mode), Some(days)) => Ok(DefaultRule { mode: LockMode::parse(mode.as_str())?, days }),
        _ => Err(s3_error!(MalformedXML, "A default retention needs a mode and either days or years")),
    }
}

pub(super) async fn get_object_retention(
    core: &Core,
    request: S3Request<GetObjectRetentionInput>,
) -> S3Result<S3Response<GetObjectRetentionOutput>> {
    let input = request.input;
    let found = locked(core, &input.bucket, &input.key, input.version_id.as_deref())?;
    let retention = found.version.marks.retention.as_ref().map(|retention| ObjectLockRetention {
        mode: Some(ObjectLockRetentionMode::from_static(retention.mode.name())),
        retain_until_date: Some(retention.until.clone()),
    });
    if retention.is_none() {
        return Err(no_lock());
    }
    Ok(S3Response::new(GetObjectRetentionOutput { retention }))
}

pub(super) async fn put_object_retention(
    core: &Core,
    request: S3Request<PutObjectRetentionInput>,
) -> S3Result<S3Response<PutObjectRetentionOutput>> {
    let bypass = may_bypass(&Note::of(&request)?, request.input.bypass_governance_retention)?;
    let quirks = core.faults.quirks();
    let input = request.input;
    let wanted = match input.retention {
        Some(ObjectLockRetention { mode: Some(mode), retain_until_date: Some(until) }) => {
            Some(Retention { mode: LockMode::parse(mode.as_str())?, until })
        }
        None | Some(ObjectLockRetention { mode: None, retain_until_date: None }) => None,
        Some(_) => return Err(s3_error!(MalformedXML, "A retention needs a mode and a date")),
    };
    let place = Place { bucket: input.bucket, key: input.key, id: input.version_id };
    mark(core, place, true, |marks| {
        if !quirks.deletes_locked_versions {
            check_retention(marks.retention.as_ref(), wanted.as_ref(), &core.now(), bypass)?;
        }
        marks.retention = wanted;
        Ok(())
    })?;
    Ok(S3Response::new(PutObjectRetentionOutput::default()))
}

pub(super) async fn get_object_legal_hold(
    core: &Core,
    request: S3Request<GetObjectLegalHoldInput>,
) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
    let input = request.input;
    let found = locked(core, &input.bucket, &input.key, input.version_id.as_deref())?;
    let name = if found.version.marks.legal_hold {
        ObjectLockLegalHoldStatus::ON
    } else {
        ObjectLockLegalHoldStatus::OFF
    };
    let status = Some(ObjectLockLegalHoldStatus::from_static(name));
    Ok(S3Response::new(GetObjectLegalHoldOutput { legal_hold: Some(ObjectLockLegalHold { status }) }))
}

pub(super) async fn put_object_legal_hold(
    core: &Core,
    request: S3Request<PutObjectLegalHoldInput>,
) -> S3Result<S3Response<PutObjectLegalHoldOutput>> {
    let input = request.input;
    let status = input.legal_hold.and_then(|hold| hold.status);
    let held = match status.as_ref().map(ObjectLockLegalHoldStatus::as_str) {
        Some(ObjectLockLegalHoldStatus::ON) => true,
        Some(ObjectLockLegalHoldStatus::OFF) => false,
        _ => return Err(s3_error!(MalformedXML, "A legal hold is ON or OFF")),
    };
    let place = Place { bucket: input.bucket, key: input.key, id: input.version_id };
    mark(core, place, true, |marks| {
        marks.legal_hold = held;
        Ok(())
    })?;
    Ok(S3Response::new(PutObjectLegalHoldOutput::default()))
}

pub(super) async fn get_object_tagging(
    core: &Core,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    let found =
        core.store.read(|index| find(index, &input.bucket, &input.key, input.version_id.as_deref()))?;
    let tags = found.version.marks.tags.iter().cloned();
    let tag_set = tags.map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: found.reported_id() }))
}

pub(super) async fn put_object_tagging(
    core: &Core,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let input = request.input;
    let pairs = input.tagging.tag_set.into_iter();
    let pairs = pairs.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())).collect();
    let tags = checked_tags(pairs)?;
    let place = Place { bucket: input.bucket, key: input.key, id: input.version_id };
    let version_id = mark(core, place, false, |marks| {
        marks.tags = tags;
        Ok(())
    })?;
    Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
}

pub(super) async fn delete_object_tagging(
    core: &Core,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let input = request.input;
    let place = Place { bucket: input.bucket, key: input.key, id: input.version_id };
    let version_id = mark(core, place, false, |marks| {
        marks.tags.clear();
        Ok(())
    })?;
    Ok(S3Response::with_status(DeleteObjectTaggingOutput { version_id }, hyper::StatusCode::NO_CONTENT))
}

struct Place {
    bucket: String,
    key: String,
    id: Option<String>,
}

/// Changes the marks of one version; `needs_lock` when the bucket must have object lock for that.
fn mark(
    core: &Core,
    place: Place,
    needs_lock: bool,
    change: impl FnOnce(&mut Marks) -> S3Result<()>,
) -> S3Result<Option<String>> {
    core.store.transact(|index| {
        let found = find(index, &place.bucket, &place.key, place.id.as_deref())?;
        if needs_lock {
            check_lock(index, &place.bucket)?;
        }
        let reported = found.reported_id();
        let version: Arc<Version> = found.version;
        let mut marks = version.marks.clone();
        change(&mut marks)?;
        let (bucket, key, id) = (place.bucket, place.key, version.id.clone());
        Ok((vec![Change::MarksSet { bucket, key, id, marks }], reported))
    })
}

fn locked(core: &Core, bucket_name: &str, key: &str, id: Option<&str>) -> S3Result<Found> {
    core.store.read(|index| {
        check_lock(index, bucket_name)?;
        find(index, bucket_name, key, id)
    })
}

fn check_lock(index: &Index, bucket_name: &str) -> S3Result<()> {
    if bucket(index, bucket_name)?.lock {
        return Ok(());
    }
    Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"))
}

fn no_lock() -> s3s::S3Error {
    s3_error!(NoSuchObjectLockConfiguration, "The specified object does not have a ObjectLock configuration")
}
