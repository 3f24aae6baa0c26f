//! Waiting for a lease that may belong to a holder that died.
//!
//! Nobody can ask a holder whether it lives; but a living one renews its record three times in its time to live. So a
//! contender looks again until the record ends by itself, and gives up as soon as it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LeaseGroup, LeaseOptions};
use crate::error::Error;
use crate::id::Stanza;
use crate::replicas::Repositories;

/// Time between two looks at the record.
const POLL: Duration = Duration::from_secs(1);
/// How much longer than its time to live a record may count: stores tell whole seconds, and a look takes its time.
const GRACE: Duration = Duration::from_secs(5);

impl LeaseGroup {
    /// Takes the lease as [`LeaseGroup::acquire`] does, but outwaits a holder that may have died: as long as its record
    /// is not renewed, and for little more than the time to live of these options.
    ///
    /// # Errors
    /// As [`LeaseGroup::acquire`]; [`Error::LeaseHeld`] when the holder is alive; [`Error::Cancelled`].
    ///
    /// # Cancel safety
    /// As [`LeaseGroup::acquire`]. A cancelled token ends the wait and leaves nothing taken.
    pub async fn acquire_or_outwait(
        repositories: &Repositories,
        stanza: &Stanza,
        name: &str,
        options: &LeaseOptions,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let limit = options.ttl.saturating_add(GRACE);
        let deadline = Instant::now() + limit;
        let mut watch = Watch::default();
        loop {
            let refusal = match Self::acquire(repositories, stanza, name, options).await {
                Err(refusal @ Error::LeaseHeld { .. }) => refusal,
                other => return other,
            };
            let Error::LeaseHeld { repository, holder, until, .. } = &refusal else { return Err(refusal) };
            if watch.is_empty() {
                let seconds = limit.as_secs();
                tracing::warn!(lease = name, holder, %until, "waiting up to {seconds} s: its holder may have died");
            }
            if !watch.is_unchanged(repository, holder, *until) || Instant::now() >= deadline {
                return Err(refusal);
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = cancel.cancelled() => return Err(Error::Cancelled),
            }
        }
    }
}

/// The records that refused a contender, by repository: their holders and ends, as first seen.
#[derive(Debug, Default)]
struct Watch(BTreeMap<String, (String, Timestamp)>);

impl Watch {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the record still is the one first seen in that repository. Each renewal moves its end.
    fn is_unchanged(&mut self, repository: &str, holder: &str, until: Timestamp) -> bool {
        let seen = (holder.to_owned(), until);
        *self.0.entry(repository.to_owned()).or_insert_with(|| seen.clone()) == seen
    }
}
