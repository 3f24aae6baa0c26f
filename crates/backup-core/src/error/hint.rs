//! What to do about an error, where that is known. Read at three in the morning: one imperative sentence each.

use super::{Class, Classified, Error, store_class};
use crate::manifest::ManifestError;
use crate::store::StoreError;

/// What to do where the clocks of a store and of this machine differ.
pub const CLOCK_REMEDY: &str = "let a time service (chrony, systemd-timesyncd) set this machine's clock; if the store's \
                                is the wrong one, tell its operator";

impl Classified for Error {
    fn class(&self) -> Class {
        self.class()
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store { source, .. } => return source.hint(),
            Self::Quorum { source, .. } => return source.hint(),
            Self::Shared(error) => return error.hint(),
            Self::Description { source: ManifestError::TooNew { .. }, .. }
            | Self::Manifest { source: ManifestError::TooNew { .. }, .. } => {
                "use the version of Backstay that wrote it, or a newer one"
            }
            Self::Description { .. } => {
                "put back backstay.json from another copy of this repository; its sets are not concerned"
            }
            Self::Manifest { .. } => "`verify-backups` shows which copies and sets are whole",
            Self::NotARepository { .. } => {
                "check the place; the first backup makes an empty or missing directory a repository"
            }
            Self::NoSuchSet { .. } => "`list-backups` shows the sets there are",
            Self::Unread { .. } => "run the same command again, or name a set with --set",
            Self::Damaged { .. } | Self::Misplaced { .. } => {
                "`verify-backups` shows which copies and sets are whole; restore one of those"
            }
            Self::Key { .. } => "give the private key of one of its recipients with --identity-file",
            Self::Lease(error) => return error.hint(),
            Self::InvalidKey { .. } => {
                "`age-keygen` makes a pair: age1… to encrypt to, AGE-SECRET-KEY-1… to open with"
            }
            Self::Source { .. } | Self::Cancelled | Self::Internal { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

impl Classified for StoreError {
    fn class(&self) -> Class {
        store_class(self)
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Denied { .. } => {
                "check the credentials and permissions; `check-storage` tries every operation"
            }
            Self::Clock { .. } => CLOCK_REMEDY,
            Self::Full { .. } => {
                "free some space; `prune-backups --dry-run` shows what retention would remove"
            }
            Self::Missing { .. } => "check the place, or create the bucket or directory",
            Self::Temporary { .. } => "run the same command again",
            Self::Checksum { .. } => "run the same command again; if it repeats, suspect memory or network",
            Self::Absent { .. }
            | Self::AlreadyExists { .. }
            | Self::Conflict { .. }
            | Self::Failed { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}
