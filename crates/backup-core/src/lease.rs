//! Leases: at most one process at a time does a task, and a process that was replaced finds out.
//!
//! A lease is one small record in the repository. Every holder gets a **fencing token** greater than all before it.
//! The record counts from its arrival by the *store's* clock for its time to live; to judge whether another's record is
//! over, a contender writes an object of its own and compares the two arrivals. No host's clock takes part. A holder
//! trusts its lease for the time to live since *before* its last successful write, on its monotonic clock, which ends
//! earlier than the record as others see it.
//!
//! ```text
//! acquire ─▶ check() before every step that must not be done twice ─▶ release
//!            keep() beside the work: renews, ends when the lease is lost
//! ```
//!
//! Nothing is deleted: to release is to replace the record by a released one. The token closes what no lease can: a
//! process may sleep between its check and its write. Where [`LeaseMode`] is `Advisory`, the store has no atomic
//! operation, and two processes that start within the same moment may both believe to hold the lease.

mod error;
mod group;
pub(crate) mod register;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;
mod wait;

#[cfg(test)]
pub(crate) use tests::PacedClock;

use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use error::LeaseError;
pub use group::LeaseGroup;
pub use register::store_now;

use crate::error::Error;
use crate::id::Stanza;
use crate::repository::Repository;
use register::{Refusal, Register, Version};
use state::{Claim, MAX_TTL, Record, Standing, Step};

/// How often a contender tries again because others change the record at the same time.
const ROUNDS: usize = 16;

/// Who wants a lease, and for how long at a time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseOptions {
    /// The contender in words that help an operator find it: host, process id, task.
    pub holder: String,
    /// How long the lease outlives its last renewal: after a crash nobody else can begin for that long. One minute by
    /// default, at least 5 seconds, at most one day.
    pub ttl: Duration,
}

impl LeaseOptions {
    /// Options with the default time to live.
    #[must_use]
    pub fn new(holder: &str) -> Self {
        Self { holder: holder.to_owned(), ttl: Duration::from_secs(60) }
    }

    /// Sets the time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// What the store's abilities make of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LeaseMode {
    /// One object, replaced by compare-and-swap.
    CompareAndSwap,
    /// A log of create-only objects; as safe, and collected by prune.
    CreateOnly,
    /// Neither is atomic: usually one holder, not guaranteed.
    Advisory,
}

/// A held lease. Dropping it leaves it to expire; [`Lease::release`] frees it at once.
#[derive(Debug)]
pub struct Lease {
    register: Register,
    token: u64,
    ttl: Duration,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    record: Record,
    version: Version,
    /// Until when the lease is safe without asking the store.
    safe_until: Instant,
}

impl Lease {
    /// Takes a lease that is free, released or over.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when somebody else holds it, [`LeaseError::Unreadable`] for a damaged record,
    /// [`Error::Store`] when the repository fails.
    ///
    /// # Cancel safety
    /// A dropped call may leave the lease taken until its time to live is over.
    pub async fn acquire(
        repository: &Repository,
        stanza: &Stanza,
        name: &str,
        options: &LeaseOptions,
    ) -> Result<Self, Error> {
        let register = Register::new(repository, stanza, name)?;
        let ttl = options.ttl.clamp(Duration::from_secs(5), Duration::from_secs(MAX_TTL));
        let claim = Claim {
            stanza: stanza.clone(),
            name: name.to_owned(),
            holder: options.holder.clone(),
            session: format!("{:032x}", rand::random::<u128>()),
            ttl_seconds: ttl.as_secs(),
        };
        let held = take(&register, &claim).await?;
        Ok(Self {
            register,
            token: held.record.token,
            ttl: Duration::from_secs(claim.ttl_seconds),
            held: held.into(),
        })
    }

    /// The fencing token: greater than that of every earlier holder.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.register.name()
    }

    /// How far it can be relied on.
    #[must_use]
    pub fn mode(&self) -> LeaseMode {
        self.register.mode()
    }

    /// How long nobody else can take it, without asking the store.
    pub async fn remaining(&self) -> Duration {
        self.held.lock().await.safe_until.saturating_duration_since(Instant::now())
    }

    /// Asks the store whether the lease is still held, and renews it when its time is over but nobody took it.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when somebody else has it: nothing may be written any more.
    pub async fn check(&self) -> Result<(), Error> {
        {
            let mut held = self.held.lock().await;
            self.adopt(&mut held).await?;
            if held.safe_until > Instant::now() {
                return Ok(());
            }
        }
        self.renew().await
    }

    /// Extends the lease by its time to live from now on.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when somebody else has it. After any other error it is still held for
    /// [`Lease::remaining`], and the call can be repeated.
    pub async fn renew(&self) -> Result<(), Error> {
        let mut held = self.held.lock().await;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let next = held.record.renewed();
            match self.register.write(&next, &held.version).await {
                Ok((version, _)) => {
                    *held = Held { record: next, version, safe_until: started + self.ttl };
                    return Ok(());
                }
                // Also when the reply to our own last renewal was lost.
                Err(Refusal::Conflict) => self.adopt(&mut held).await?,
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        Err(self.contended())
    }

    /// Renews the lease three times in its time to live, for as long as it is polled; run it beside the work:
    ///
    /// ```no_run
    /// # use backstay_backup_core::{Error, lease::Lease};
    /// # async fn example<T>(lease: &Lease, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    /// tokio::select! {
    ///     done = work => done,
    ///     lost = lease.keep() => Err(lost),
    /// }
    /// # }
    /// ```
    ///
    /// Returns why the lease is lost: somebody else has it, or it could not be renewed in time.
    pub async fn keep(&self) -> Error {
        let mut pause = self.ttl / 3;
        loop {
            tokio::time::sleep(pause).await;
            match self.renew().await {
                Ok(()) => pause = self.ttl / 3,
                Err(error @ Error::Store { .. }) if !self.remaining().await.is_zero() => {
                    tracing::warn!(
                        lease = self.name(),
                        error = crate::error::describe(&error),
                        "lease not renewed"
                    );
                    pause = (self.ttl / 12).min(self.remaining().await);
                }
                Err(error) => return error,
            }
        }
    }

    /// Gives the lease up.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when it was lost before.
    pub async fn release(self) -> Result<(), Error> {
        let mut held = self.held.into_inner();
        for _ in 0..ROUNDS {
            match self.register.write(&held.record.released(), &held.version).await {
                Ok(_) => return Ok(()),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Conflict) => {
                    let (seen, version) = self.register.read().await?;
                    let released = seen.as_ref().is_some_and(|seen| {
                        seen.record.session == held.record.session && seen.record.released
                    });
                    if released {
                        return Ok(());
                    }
                    standing(&self.register, seen.as_ref(), &held.record)?;
                    held.version = version;
                }
            }
        }
        let name = self.register.name().to_owned();
        Err(Error::Lease(LeaseError::Lost { name, holder: "others that write it all the time".to_owned() }))
    }

    /// Takes over the version in the store when it is this lease's own.
    async fn adopt(&self, held: &mut Held) -> Result<(), Error> {
        let (seen, version) = self.register.read().await?;
        standing(&self.register, seen.as_ref(), &held.record)?;
        if let Some(seen) = seen {
            held.record = seen.record;
            held.version = version;
        }
        Ok(())
    }

    fn contended(&self) -> Error {
        let holder = "others that write it all the time".to_owned();
        Error::Lease(LeaseError::Lost { name: self.name().to_owned(), holder })
    }
}

fn standing(register: &Register, seen: Option<&state::Seen>, mine: &Record) -> Result<(), Error> {
    match state::standing(seen, mine) {
        Standing::Held => Ok(()),
        Standing::Lost { holder } => {
            Err(Error::Lease(LeaseError::Lost { name: register.name().to_owned(), holder }))
        }
    }
}

async fn take(register: &Register, claim: &Claim) -> Result<Held, Error> {
    // The record is at most as old as this in the store, whichever of our writes arrived.
    let mut started = Instant::now();
    let mut failure = None;
    for _ in 0..ROUNDS {
        let (seen, version) = register.read().await?;
        let decide =
            |now| state::contend(seen.as_ref(), now, claim).map_err(|source| register.unreadable(source));
        let step = match decide(None)? {
            Step::AskTime => decide(Some(register.store_now().await?))?,
            step => step,
        };
        let record = match (step, seen) {
            (Step::Take(record), _) => *record,
            (Step::Mine, Some(seen)) => {
                let ttl = Duration::from_secs(claim.ttl_seconds);
                return Ok(Held { record: seen.record, version, safe_until: started + ttl });
            }
            (Step::Busy { holder, until }, _) => {
                let (name, repository) = (claim.name.clone(), register.repository().to_owned());
                return Err(Error::Lease(LeaseError::Held { name, repository, holder, until }));
            }
            (Step::Mine | Step::AskTime, _) => {
                return Err(Error::Internal { what: "a lease without a record is free".to_owned() });
            }
        };
        if let Some(failure) = failure.take() {
            return Err(failure);
        }
        started = Instant::now();
        match register.write(&record, &version).await {
            Ok((version, _)) => {
                let ttl = Duration::from_secs(claim.ttl_seconds);
                return Ok(Held { record, version, safe_until: started + ttl });
            }
            Err(Refusal::Conflict) => {}
            // The record may have arrived: look once more before giving up.
            Err(Refusal::Failed(error)) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| {
        let holder = "others that write it all the time".to_owned();
        Error::Lease(LeaseError::Lost { name: claim.name.clone(), holder })
    }))
}
