//! Sees to it that there is one archiver of a stream.
//!
//! While the lease cannot be renewed because the stores are out, nothing is stored anyway; reading goes on. Only a lease that
//! somebody else has ends the archiver.

use std::time::Duration;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::error::describe;
use backstay_backup_core::lease::{LeaseError, LeaseGroup, LeaseOptions};
use tokio_util::sync::CancellationToken;

use super::FollowError;
use super::decide::pause;
use super::facts::Shared;
use crate::archive::StreamArchive;

/// Time to give a lease back.
const RELEASE: Duration = Duration::from_secs(10);

/// Holds the lease, and takes it again whenever it ran out, until cancelled; then gives it back.
///
/// # Errors
/// Somebody else has it, or its record cannot be used.
pub(super) async fn hold(
    archive: &StreamArchive,
    options: &LeaseOptions,
    shared: &Shared,
    cancel: &CancellationToken,
) -> Result<(), FollowError> {
    let name = format!("archive-redis-{}", archive.stream());
    let (repositories, stanza) = (archive.repositories(), archive.stanza());
    let mut failures = 0;
    while !cancel.is_cancelled() {
        let taken = LeaseGroup::acquire_or_outwait(repositories, stanza, &name, options, cancel).await;
        let error = match taken {
            Ok(lease) => {
                failures = 0;
                match keep(lease, shared, cancel).await {
                    Some(error) => error,
                    None => return Ok(()),
                }
            }
            Err(CoreError::Cancelled) => return Ok(()),
            Err(error) => error,
        };
        if matches!(&error, CoreError::Lease(_)) {
            return Err(error.into());
        }
        failures += 1;
        if failures == 1 {
            tracing::error!(
                lease = name,
                problem = describe(&error),
                "the lease cannot be renewed, and nothing is stored without it; trying again"
            );
        }
        shared.store_problem(Some(describe(&error)));
        tokio::select! {
            () = tokio::time::sleep(pause(failures)) => {}
            () = cancel.cancelled() => {}
        }
    }
    Ok(())
}

/// Keeps it until it is lost, or gives it back; `None` when it was given back.
async fn keep(lease: LeaseGroup, shared: &Shared, cancel: &CancellationToken) -> Option<CoreError> {
    shared.change(|facts| facts.lease = true);
    shared.store_problem(None);
    shared.work.notify_one();
    let lost = tokio::select! {
        error = lease.keep() => Some(error),
        () = cancel.cancelled() => None,
    };
    shared.change(|facts| facts.lease = false);
    if lost.is_none() {
        match tokio::time::timeout(RELEASE, lease.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(problem = describe(&error), "lease not released; it ends by itself");
            }
            Err(_) => tracing::warn!("lease not released in time; it ends by itself"),
        }
    }
    lost
}

/// Whether somebody else has the lease.
pub(super) fn is_held(error: &FollowError) -> bool {
    matches!(
        error,
        FollowError::Repository(CoreError::Lease(LeaseError::Held { .. } | LeaseError::Lost { .. }))
    )
}
