//! What only S3 can be asked: checksums, locks, how an object is stored.

use std::sync::Arc;

use backstay_backup_core::key::Key;
use backstay_backup_core::store::StoreError;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::Role;
use super::finding::Answer;
use super::run::{Answered, Run};
use super::seam::{Asked, Odd, S3Probe, StoredHeaders};
use crate::options::{Encryption, LockMode};

/// Large enough to be sent in more than one chunk.
const STREAMED: usize = 200 * 1024;
const LOCK_REMEDY: &str =
    "create the bucket with object lock and let the service prove it; do not rely on locks here";

impl Run {
    pub(super) async fn wrong_checksum(&self) -> Answered {
        let Some(special) = self.special() else { return Ok(only_s3()) };
        const REMEDY: &str =
            "the store does not check what it receives; run verify-backups --full after every backup";
        let key = self.key("wrong-checksum");
        let lie = Bytes::from_static(b"not what the checksum says");
        let refused = match special.put_oddly(&key, lie, Odd::WrongChecksum).await {
            Ok(_) => false,
            Err(StoreError::Checksum { .. } | StoreError::Failed { .. }) => true,
            Err(error) => return Err(error),
        };
        Ok(match (refused, self.exists(&key).await?) {
            (true, false) => Answer::safe("bytes that do not match their checksum are refused"),
            (true, true) => {
                Answer::unsafe_because("bytes with a wrong checksum were refused and stored", REMEDY)
            }
            (false, _) => Answer::unsafe_because("bytes with a wrong checksum were accepted", REMEDY),
        })
    }

    pub(super) async fn trailing_checksum(&self) -> Answered {
        let Some(special) = self.special() else { return Ok(only_s3()) };
        if !special.asked().trailing_checksums {
            return Ok(Answer::not_applicable("no checksums are sent in this mode"));
        }
        let key = self.key("trailing-checksum");
        let body: Bytes = (0..STREAMED).map(|at| (at % 253) as u8).collect();
        match special.put_oddly(&key, body.clone(), Odd::TrailingChecksum).await {
            Ok(_) => {}
            Err(error @ (StoreError::Failed { .. } | StoreError::Checksum { .. }))
                if !self.exists(&key).await? =>
            {
                let reason = crate::reply::chain(&error);
                return Ok(Answer::not_applicable(format!(
                    "the store refuses checksums behind a body, which Backstay does not use: {reason}"
                )));
            }
            Err(error) => return Err(error),
        }
        if self.read(&key).await? == body {
            return Ok(Answer::safe("a body with a checksum behind it is stored as it was"));
        }
        Ok(Answer::unsafe_because(
            "a body with a checksum behind it was stored together with its framing: other tools write damaged \
             objects here",
            "Backstay sends checksums in front of the body; set checksums = \"compatible\" to be safe",
        ))
    }

    pub(super) async fn overwrite_permission(&self) -> Answered {
        let Some(special) = self.special() else { return Ok(only_s3()) };
        if self.options.role != Role::Writer {
            return Ok(Answer::not_applicable("only a writer must not overwrite"));
        }
        let key = self.key("overwritable");
        let first = Bytes::from_static(b"first");
        self.create(&key, &first).await?;
        let refused = match special.put_oddly(&key, Bytes::from_static(b"second"), Odd::Unconditional).await {
            Ok(_) => false,
            Err(StoreError::Denied { .. } | StoreError::AlreadyExists { .. } | StoreError::Failed { .. }) => {
                true
            }
            Err(error) => return Err(error),
        };
        if refused && self.read(&key).await? == first {
            return Ok(Answer::safe("this credential cannot write without a condition"));
        }
        Ok(Answer::unsafe_because(
            "this credential can overwrite: whoever takes over the host can replace every backup with rubbish",
            "add a bucket policy that denies s3:PutObject where s3:if-none-match is absent, or lock the objects",
        ))
    }

    pub(super) async fn object_lock(&self) -> Answered {
        let Some(special) = self.special() else { return Ok(only_s3()) };
        let (Some(mode), Some(period)) = (special.asked().lock, self.options.lock) else {
            return Ok(Answer::not_applicable("no object lock is configured"));
        };
        let period = SignedDuration::try_from(period).unwrap_or(SignedDuration::from_mins(1));
        // The store judges by its own clock.
        let now = self.store.head(&self.folder_key("round-trip")).await?.modified;
        let until = now.checked_add(period).unwrap_or(now);
        let key = self.key("locked");
        let version = match special.put_oddly(&key, Bytes::from_static(b"locked"), Odd::Locked(until)).await {
            Ok(Some(version)) => version,
            Ok(None) => {
                return Ok(Answer::unsafe_because(
                    "a locked object was stored without versions or lock",
                    LOCK_REMEDY,
                ));
            }
            Err(error @ StoreError::Failed { .. }) => {
                let reason = crate::reply::chain(&error);
                return Ok(Answer::unsafe_because(
                    format!("locked objects are refused: {reason}"),
                    LOCK_REMEDY,
                ));
            }
            Err(error) => return Err(error),
        };
        self.locked_version(&special, mode, &Locked { key, version, until, now }).await
    }

    async fn locked_version(&self, special: &Arc<dyn S3Probe>, mode: LockMode, locked: &Locked) -> Answered {
        let Locked { key, version, until, now } = locked;
        let recorded = special.retention(key, version).await?;
        let Some(recorded) = recorded else {
            return Ok(Answer::unsafe_because("a lock was accepted and forgotten", LOCK_REMEDY));
        };
        if recorded.mode != mode.as_str() || recorded.until < *until {
            let meaning = format!("a lock was recorded as {} until {}", recorded.mode, recorded.until);
            return Ok(Answer::unsafe_because(meaning, LOCK_REMEDY));
        }
        let half = now.checked_add(until.duration_since(*now) / 2).unwrap_or(*now);
        if accepted(special.set_retention(key, version, half).await)? {
            return Ok(Answer::unsafe_because("a lock could be shortened by the writer", LOCK_REMEDY));
        }
        if accepted(special.delete_version(key, version).await)? {
            return Ok(Answer::unsafe_because("a locked version could be deleted", LOCK_REMEDY));
        }
        self.locked(key, &format!("version {version} is locked until {until}"));
        let who = match mode {
            LockMode::Compliance => "nobody can lift it early",
            LockMode::Governance => "only roles with s3:BypassGovernanceRetention can lift it early",
        };
        Ok(Answer::safe(format!("a locked version can be neither deleted nor unlocked; {who}")))
    }

    pub(super) async fn stored_as(&self) -> Answered {
        let Some(special) = self.special() else { return Ok(only_s3()) };
        let asked = special.asked();
        let stored = special.stored_headers(&self.folder_key("round-trip")).await?;
        let differences = differences(&asked, &stored);
        if !differences.is_empty() {
            return Ok(Answer::unsafe_because(
                differences.join("; "),
                "the store ignores what it is asked for: correct the options or the bucket",
            ));
        }
        let encryption = stored.encryption.as_deref().unwrap_or("no encryption by the store");
        Ok(Answer::safe(format!("stored as {} with {encryption}", stored.storage_class)))
    }

    fn special(&self) -> Option<Arc<dyn S3Probe>> {
        self.special.clone()
    }
}

/// A locked object and when it was made.
struct Locked {
    key: Key,
    version: String,
    until: Timestamp,
    now: Timestamp,
}

fn only_s3() -> Answer {
    Answer::not_applicable("only stores that speak S3 can be asked")
}

/// Whether something that should be refused was done.
fn accepted(outcome: Result<(), StoreError>) -> Result<bool, StoreError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(StoreError::Denied { .. } | StoreError::Failed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn differences(asked: &Asked, stored: &StoredHeaders) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(class) = &asked.storage_class
        && *class != stored.storage_class
    {
        found.push(format!("storage class {class} was asked for, {} is stored", stored.storage_class));
    }
    let (algorithm, key) = match &asked.encryption {
        None => return found,
        Some(Encryption::Aes256) => ("AES256", None),
        Some(Encryption::Kms { key, .. }) => ("aws:kms", key.as_deref()),
    };
    let actual = stored.encryption.as_deref().unwrap_or("none");
    if actual != algorithm {
        found.push(format!("encryption {algorithm} was asked for, {actual} is stored"));
    }
    // The store answers with the ARN that an id or alias stands for; only ids can be compared.
    if let (Some(asked), Some(stored)) = (key, &stored.kms_key)
        && !asked.contains("alias/")
        && !stored.ends_with(asked.rsplit('/').next().unwrap_or(asked))
    {
        found.push(format!("key {asked} was asked for, {stored} is used"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_compared_with_what_was_asked() {
        let asked = Asked {
            storage_class: Some("STANDARD_IA".into()),
            encryption: Some(Encryption::Kms { key: Some("1234".into()), bucket_key: true }),
            ..Asked::default()
        };
        let stored = |class: &str, encryption: Option<&str>, key: Option<&str>| {
            StoredHeaders::new(Some(class.into()), encryption.map(str::to_owned), key.map(str::to_owned))
        };
        let good = stored("STANDARD_IA", Some("aws:kms"), Some("arn:aws:kms:eu-central-1:1:key/1234"));
        assert!(differences(&asked, &good).is_empty());
        assert_eq!(differences(&asked, &stored("STANDARD", Some("AES256"), None)).len(), 2);
        let other_key = stored("STANDARD_IA", Some("aws:kms"), Some("arn:aws:kms:eu-central-1:1:key/9"));
        assert_eq!(differences(&asked, &other_key).len(), 1);
        assert!(differences(&Asked::default(), &stored("GLACIER", None, None)).is_empty());
    }
}
