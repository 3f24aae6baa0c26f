//! Waiting for a lease that may belong to a holder that died.
//!
//! Nobody can ask a holder whether it lives; but a living one renews its record three times in its time to live. So a
//! contender looks again until the record ends by itself, and gives up as soon as it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::register::Register;
use super::state::Record;
use super::{LeaseError, LeaseGroup, LeaseOptions};
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
    /// As [`LeaseGroup::acquire`]; [`LeaseError::Held`] when the holder is alive; [`Error::Cancelled`].
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
                Err(refusal @ Error::Lease(LeaseError::Held { .. })) => refusal,
                other => return other,
            };
            let Error::Lease(LeaseError::Held { repository, holder, until, .. }) = &refusal else {
                return Err(refusal);
            };
            if watch.is_empty() {
                let seconds = limit.as_secs();
                tracing::warn!(lease = name, holder, %until, "waiting up to {seconds} s: its holder may have died");
            }
            if !watch.is_unchanged(repository, holder, *until) || Instant::now() >= deadline {
                return Err(refusal);
            }
            pause(cancel).await?;
        }
    }

    /// Makes certain that nobody holds the lease, without taking it: for work that goes on where the stores are full.
    /// Everybody may have done so at the same moment.
    ///
    /// The store's time, by which contenders judge a record, is only told for something written. So a record that is
    /// not released has to stay unchanged for its time to live while this call looks on.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when the holder is alive, or its record lives longer than those of these options;
    /// [`LeaseError::Unreadable`], [`Error::Store`] when a record cannot be read in any repository; [`Error::Cancelled`].
    pub async fn outwait_unwritable(
        repositories: &Repositories,
        stanza: &Stanza,
        name: &str,
        options: &LeaseOptions,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let members = repositories.members().iter();
        let watched = members.map(async |member| {
            let register = Register::new(member, stanza, name)?;
            nobody_writes(&register, options.ttl, cancel).await
        });
        try_join_all(watched).await.map(drop)
    }
}

/// Looks at a record until it is released or was not renewed for its time to live.
async fn nobody_writes(
    register: &Register,
    longest: Duration,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let mut first: Option<(Record, Instant)> = None;
    loop {
        let (Some(seen), _) = register.read().await? else { return Ok(()) };
        if seen.record.released {
            return Ok(());
        }
        let (until, record) = (seen.until(), seen.record);
        let held = || LeaseError::Held {
            name: register.name().to_owned(),
            repository: register.repository().to_owned(),
            holder: record.holder.clone(),
            until,
        };
        let ttl = Duration::from_secs(record.ttl_seconds);
        match &first {
            _ if ttl > longest => return Err(held().into()),
            Some((known, _)) if *known != record => return Err(held().into()),
            Some((_, since)) if since.elapsed() > ttl => return Ok(()),
            Some(_) => {}
            None => {
                let (lease, holder, seconds) = (register.name(), &record.holder, ttl.as_secs());
                tracing::warn!(lease, holder, "waiting {seconds} s: its holder may have died");
                first = Some((record, Instant::now()));
            }
        }
        pause(cancel).await?;
    }
}

async fn pause(cancel: &CancellationToken) -> Result<(), Error> {
    tokio::select! {
        () = tokio::time::sleep(POLL) => Ok(()),
        () = cancel.cancelled() => Err(Error::Cancelled),
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
