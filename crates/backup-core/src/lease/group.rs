//! One lease in several repositories.

use std::time::Duration;

use futures::future::join_all;

use super::{Lease, LeaseOptions};
use crate::error::{Error, describe};
use crate::id::Stanza;
use crate::replicas::Repositories;

/// A lease held in every repository that could be reached, and in at least the quorum.
///
/// Two groups exclude each other as long as there is one repository that both reach. Each repository has its own
/// tokens.
#[derive(Debug)]
pub struct LeaseGroup {
    name: String,
    quorum: usize,
    leases: Vec<(String, Lease)>,
}

impl LeaseGroup {
    /// Takes the lease in all repositories, in their order.
    ///
    /// # Errors
    /// [`super::LeaseError::Held`] when it is held in any of them (what was taken is released again), [`Error::Quorum`] when
    /// too few can be reached.
    ///
    /// # Cancel safety
    /// A dropped call may leave leases taken until their time to live is over.
    pub async fn acquire(
        repositories: &Repositories,
        stanza: &Stanza,
        name: &str,
        options: &LeaseOptions,
    ) -> Result<Self, Error> {
        let quorum = repositories.quorum();
        let mut group = Self { name: name.to_owned(), quorum, leases: Vec::new() };
        let mut first = None;
        for member in repositories.members() {
            match Lease::acquire(member, stanza, name, options).await {
                Ok(lease) => group.leases.push((member.name().to_owned(), lease)),
                Err(error @ Error::Store { .. }) => {
                    tracing::warn!(
                        repository = member.name(),
                        lease = name,
                        error = describe(&error),
                        "no lease here"
                    );
                    // Who could do without a lease where there is no room must hear of anything else.
                    if first.as_ref().is_none_or(Error::is_full) {
                        first = Some(error);
                    }
                }
                Err(error) => {
                    group.give_back().await;
                    return Err(error);
                }
            }
        }
        match first {
            Some(source) if group.leases.len() < quorum => {
                let reached = group.leases.len();
                group.give_back().await;
                Err(Error::Quorum { reached, needed: quorum, source: Box::new(source) })
            }
            _ => Ok(group),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The leases by repository.
    #[must_use]
    pub fn leases(&self) -> &[(String, Lease)] {
        &self.leases
    }

    /// Asks every repository whether the lease is still held.
    ///
    /// # Errors
    /// [`super::LeaseError::Lost`] when it is lost anywhere, [`Error::Quorum`] when fewer than the quorum confirm it.
    pub async fn check(&self) -> Result<(), Error> {
        let checks = join_all(self.leases.iter().map(|(_, lease)| lease.check())).await;
        let mut confirmed = 0;
        let mut first = None;
        for check in checks {
            match check {
                Ok(()) => confirmed += 1,
                Err(error @ Error::Store { .. }) => _ = first.get_or_insert(error),
                Err(error) => return Err(error),
            }
        }
        match first {
            Some(source) if confirmed < self.quorum => {
                Err(Error::Quorum { reached: confirmed, needed: self.quorum, source: Box::new(source) })
            }
            _ => Ok(()),
        }
    }

    /// Renews all leases for as long as it is polled; see [`Lease::keep`]. Ends when one is lost to somebody else, or
    /// fewer than the quorum can be renewed in time.
    pub async fn keep(&self) -> Error {
        let keeps = self.leases.iter().map(|(_, lease)| Box::pin(lease.keep()));
        let mut running: Vec<_> = keeps.collect();
        loop {
            if running.is_empty() {
                return Error::Internal { what: format!("lease {} is held nowhere", self.name) };
            }
            let (error, _, others) = futures::future::select_all(running).await;
            running = others;
            if !matches!(error, Error::Store { .. }) {
                return error;
            }
            if running.len() < self.quorum {
                return Error::Quorum {
                    reached: running.len(),
                    needed: self.quorum,
                    source: Box::new(error),
                };
            }
        }
    }

    /// Gives the lease up everywhere.
    ///
    /// # Errors
    /// The first failure; the others are released all the same.
    pub async fn release(self) -> Result<(), Error> {
        let releases = join_all(self.leases.into_iter().map(|(_, lease)| lease.release())).await;
        releases.into_iter().collect()
    }

    async fn give_back(self) {
        let name = self.name.clone();
        match tokio::time::timeout(Duration::from_secs(10), self.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lease = name, error = describe(&error), "lease not given back"),
            Err(_) => tracing::warn!(lease = name, "lease not given back in time"),
        }
    }
}
