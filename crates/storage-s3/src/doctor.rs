//! Asks a store for proof of what Backstay relies on.
//!
//! Many services accept the headers of conditional writes, checksums or object lock and ignore them, and answer 200.
//! The doctor therefore does the thing and looks at what happened: it writes a few small objects below
//! `probe/<name>/`, provokes every refusal, and removes what it may. It works on any
//! [`ObjectStore`](backstay_backup_core::store::ObjectStore), local directories too; a store that speaks S3 can be asked more ([`S3Probe`]).
//!
//! ```text
//! round trip ──fails──▶ everything unknown, with the reason
//!      └─works─▶ all other probes at the same time ─▶ clean up ─▶ Diagnosis
//! ```
//!
//! Guarantees: it ends within [`DoctorOptions::limit`], writes nowhere else, and names every object it had to leave
//! behind ([`Diagnosis::leftovers`]): a credential that may not delete, as a writer's should not, cannot clean up.
//! Give it the bare store or one with few retries; a retry of two minutes would only meet the time limit.

mod access;
mod finding;
mod probes;
mod run;
mod seam;
mod special;
mod uploads;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::Clock;
use backstay_backup_core::store::{ObjectStore as _, SharedStore};

pub use finding::{Diagnosis, Finding, Leftover, Probe, Status};
pub use seam::{Asked, Odd, Retention, S3Probe, StoredHeaders};

/// What the probed credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// Lives on the host whose data is backed up; must neither delete nor overwrite.
    Writer,
    /// Prunes; has to delete.
    Maintainer,
}

/// How to probe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DoctorOptions {
    /// Time to compare the store's with.
    pub clock: Arc<dyn Clock>,
    /// Distinguishes this run's objects; a random number.
    pub nonce: u64,
    /// What the credential is for.
    pub role: Role,
    /// Retention of the object that the lock probe writes; without one locks are not probed. Nobody can remove that
    /// object before; a minute is enough.
    pub lock: Option<Duration>,
    /// Writers that race for one key.
    pub racers: usize,
    /// Largest harmless distance between the store's clock and ours.
    pub max_skew: Duration,
    /// Limit of the whole run, cleaning up included.
    pub limit: Duration,
}

impl DoctorOptions {
    /// Probes as a writer, without locks, within 10 seconds.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, nonce: u64) -> Self {
        Self {
            clock,
            nonce,
            role: Role::Writer,
            lock: None,
            racers: 8,
            max_skew: Duration::from_secs(60),
            limit: Duration::from_secs(10),
        }
    }

    /// Sets what the credential is for.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Probes locks with an object of this retention.
    #[must_use]
    pub fn lock(mut self, retention: Duration) -> Self {
        self.lock = Some(retention);
        self
    }

    /// Sets the number of racing writers.
    #[must_use]
    pub fn racers(mut self, racers: usize) -> Self {
        self.racers = racers.max(2);
        self
    }

    /// Sets the largest harmless distance of the clocks.
    #[must_use]
    pub fn max_skew(mut self, skew: Duration) -> Self {
        self.max_skew = skew;
        self
    }

    /// Sets the limit of the whole run.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// Probes a store. Never fails: what could not be found out is a finding too.
///
/// `special` is the same store where it speaks S3, for the questions that only S3 understands.
///
/// # Cancel safety
/// A dropped call leaves probe objects below `probe/` behind.
pub async fn diagnose(
    store: SharedStore,
    special: Option<Arc<dyn S3Probe>>,
    options: DoctorOptions,
) -> Diagnosis {
    run::Run::new(store, special, options).diagnose().await
}

/// Probes an S3 store with every question there is.
pub async fn diagnose_s3(store: &crate::S3Store, options: DoctorOptions) -> Diagnosis {
    tracing::debug!(location = store.location(), "probing");
    diagnose(Arc::new(store.clone()), Some(Arc::new(store.clone())), options).await
}
