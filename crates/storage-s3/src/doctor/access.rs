//! Clock and permissions.

use backstay_backup_core::error::CLOCK_REMEDY;
use backstay_backup_core::store::StoreError;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::Role;
use super::finding::Answer;
use super::run::{Answered, Run};

impl Run {
    pub(super) async fn clock(&self) -> Answered {
        let key = self.key("clock");
        let before = self.options.clock.now();
        let said = self.create(&key, &Bytes::from_static(b"tick")).await?.modified;
        let after = self.options.clock.now();
        let kept = self.store.head(&key).await?.modified;
        let limit = SignedDuration::try_from(self.options.max_skew).unwrap_or(SignedDuration::MAX);
        let skew = distance(before, after, kept);
        if skew > limit {
            return Ok(Answer::unsafe_because(
                format!(
                    "the store's clock says {kept}, this machine's {after}: retention, locks and leases count wrong"
                ),
                CLOCK_REMEDY,
            ));
        }
        if distance(before, after, said) > limit {
            return Ok(Answer::unsafe_because(
                format!("the store answered at {said} and recorded {kept} for the same object"),
                "tell the store's operator: two of its clocks differ",
            ));
        }
        Ok(Answer::safe(format!("the clocks agree within {} s", skew.as_secs() + 1)))
    }

    pub(super) async fn delete_permission(&self) -> Answered {
        let key = self.key("deletable");
        self.create(&key, &Bytes::from_static(b"delete me")).await?;
        let deleted = match self.store.delete(&key).await {
            Ok(()) => true,
            Err(StoreError::Denied { .. }) => false,
            Err(error) => return Err(error),
        };
        let still_there = self.exists(&key).await?;
        Ok(match (self.options.role, deleted) {
            (_, true) if still_there => Answer::unsafe_because(
                "a delete was confirmed and the object is still there",
                "prune-backups cannot be trusted here; tell the store's operator",
            ),
            (Role::Writer, true) => Answer::unsafe_because(
                "this credential can delete: whoever takes over the host can remove every backup",
                "take s3:DeleteObject and s3:DeleteObjectVersion from the writer's policy, and prune with another \
                 credential from another host",
            ),
            (Role::Writer, false) => Answer::safe("this credential cannot delete"),
            (Role::Maintainer, true) => Answer::safe("this credential can delete, as pruning needs it"),
            (Role::Maintainer, false) => Answer::unsafe_because(
                "this credential cannot delete, so pruning with it fails and the store grows without end",
                "give the maintainer's policy s3:DeleteObject, or declare the credential a writer's",
            ),
        })
    }
}

/// How far a time lies outside the moment between two others; stores keep whole seconds.
fn distance(before: Timestamp, after: Timestamp, time: Timestamp) -> SignedDuration {
    let second = SignedDuration::from_secs(1);
    let early = before.duration_since(time) - second;
    let late = time.duration_since(after) - second;
    early.max(late).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_no_skew() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (before, after) = (at("2027-01-01T00:00:10.9Z"), at("2027-01-01T00:00:11.1Z"));
        assert_eq!(distance(before, after, at("2027-01-01T00:00:10Z")), SignedDuration::ZERO);
        assert_eq!(distance(before, after, at("2027-01-01T00:00:12Z")), SignedDuration::ZERO);
        assert_eq!(distance(before, after, at("2027-01-01T00:01:12.1Z")), SignedDuration::from_secs(60));
        assert_eq!(distance(before, after, at("2027-01-01T00:00:00.9Z")), SignedDuration::from_secs(9));
    }
}
