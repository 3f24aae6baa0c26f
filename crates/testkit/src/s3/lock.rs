//! Object lock: who may delete a version, who may change its retention. Pure decisions.

use std::time::{Duration, SystemTime};

use s3s::dto::Timestamp;
use s3s::{S3Result, s3_error};

use super::model::{Bucket, LockMode, Marks, Retention};

/// Whether a version with these marks may be removed for good.
pub(super) fn check_delete(marks: &Marks, now: &Timestamp, bypass: bool) -> S3Result<()> {
    let locked = match &marks.retention {
        Some(retention) if retention.until > *now => retention.mode == LockMode::Compliance || !bypass,
        _ => false,
    };
    if locked || marks.legal_hold {
        return Err(s3_error!(AccessDenied, "Access Denied because object protected by object lock."));
    }
    Ok(())
}

/// Whether the retention may become `new`: longer is always fine, shorter or weaker is what the lock is there against.
pub(super) fn check_retention(
    old: Option<&Retention>,
    new: Option<&Retention>,
    now: &Timestamp,
    bypass: bool,
) -> S3Result<()> {
    if new.is_some_and(|new| new.until <= *now) {
        return Err(s3_error!(InvalidArgument, "The retain until date must be in the future!"));
    }
    let Some(old) = old.filter(|old| old.until > *now) else { return Ok(()) };
    let weaker = match new {
        None => true,
        Some(new) => {
            new.until < old.until || (old.mode == LockMode::Compliance && new.mode == LockMode::Governance)
        }
    };
    if weaker && (old.mode == LockMode::Compliance || !bypass) {
        return Err(s3_error!(AccessDenied, "Access Denied because object protected by object lock."));
    }
    Ok(())
}

/// What a new object in `bucket` is marked with: what it asks for, else the bucket's rule.
pub(super) fn marks_for_write(bucket: &Bucket, mut marks: Marks, now: SystemTime) -> S3Result<Marks> {
    if !bucket.lock {
        if marks.retention.is_some() || marks.legal_hold {
            return Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"));
        }
        return Ok(marks);
    }
    check_retention(None, marks.retention.as_ref(), &Timestamp::from(now), false)?;
    if marks.retention.is_none()
        && let Some(rule) = bucket.default_rule
    {
        let until = now + Duration::from_secs(u64::from(rule.days) * 86_400);
        marks.retention = Some(Retention { mode: rule.mode, until: Timestamp::from(until) });
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn retention(mode: LockMode, until: u64) -> Retention {
        Retention { mode, until: at(until) }
    }

    #[test]
    fn compliance_holds_against_everyone_until_its_end() {
        let marks = Marks { retention: Some(retention(LockMode::Compliance, 100)), ..Marks::default() };
        assert!(check_delete(&marks, &at(99), true).is_err());
        assert!(check_delete(&marks, &at(100), false).is_ok());
    }

    #[test]
    fn governance_yields_to_bypass_only() {
        let marks = Marks { retention: Some(retention(LockMode::Governance, 100)), ..Marks::default() };
        assert!(check_delete(&marks, &at(99), false).is_err());
        assert!(check_delete(&marks, &at(99), true).is_ok());
        let held = Marks { legal_hold: true, ..marks };
        assert!(check_delete(&held, &at(200), true).is_err());
    }

    #[test]
    fn compliance_is_only_ever_extended() {
        let old = retention(LockMode::Compliance, 100);
        let change =
            |new: Option<Retention>| check_retention(Some(&old), new.as_ref(), &at(10), true).is_ok();
        assert!(change(Some(retention(LockMode::Compliance, 101))));
        assert!(!change(Some(retention(LockMode::Compliance, 99))));
        assert!(!change(Some(retention(LockMode::Governance, 200))));
        assert!(!change(None));
        let governed = retention(LockMode::Governance, 100);
        let shorter = retention(LockMode::Governance, 50);
        assert!(check_retention(Some(&governed), Some(&shorter), &at(10), false).is_err());
        assert!(check_retention(Some(&governed), Some(&shorter), &at(10), true).is_ok());
    }
}
