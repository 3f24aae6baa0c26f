//! Why a lease is not held.

use jiff::Timestamp;

use crate::error::{Class, Classified};
use crate::manifest::ManifestError;

/// Why a lease could not be taken, or is not held any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody else holds it.
    #[error("lease {name} is held by {holder} until {until}")]
    Held {
        /// Name of the lease.
        name: String,
        /// Name of the repository.
        repository: String,
        /// Who holds it.
        holder: String,
        /// When it ends by itself; moved by every renewal.
        until: Timestamp,
    },
    /// It was lost while it was needed; nothing may be written any more.
    #[error("lease {name} was lost to {holder}")]
    Lost {
        /// Name of the lease.
        name: String,
        /// Who holds it now.
        holder: String,
    },
    /// Its record is no such thing, so nobody can tell who holds it.
    #[error("the record of lease {name} in repository {repository} cannot be used")]
    Unreadable {
        /// Name of the lease.
        name: String,
        /// Name of the repository.
        repository: String,
        /// What is wrong with it.
        source: ManifestError,
    },
}

impl Classified for LeaseError {
    fn class(&self) -> Class {
        match self {
            Self::Held { .. } | Self::Lost { .. } => Class::Conflict,
            Self::Unreadable { source: ManifestError::TooNew { .. }, .. } => Class::Usage,
            Self::Unreadable { source: ManifestError::Damaged { .. }, .. } => Class::Data,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Held { .. } => "another run is at work; let it finish, or wait until its lease ends",
            Self::Lost { .. } => "another run took over; see what it did before starting this again",
            Self::Unreadable { source: ManifestError::TooNew { .. }, .. } => {
                "use the version of Backstay that wrote it, or a newer one"
            }
            Self::Unreadable { .. } => {
                "make sure that no other run is at work, then remove the record of the lease"
            }
        };
        Some(hint.to_owned())
    }
}
