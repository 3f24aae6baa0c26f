//! What to do about an error, where that is known. Read at three in the morning: one imperative sentence each.

use std::error::Error;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::manifest::ManifestError;
use backstay_backup_core::secret::SecretError;
use backstay_backup_core::store::StoreError;

use crate::failure::Cancelled;

/// The hint of the outermost error in the chain that has one.
pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let hint = None
            .or_else(|| error.downcast_ref().and_then(core))
            .or_else(|| error.downcast_ref().and_then(manifest))
            .or_else(|| error.downcast_ref().and_then(store))
            .or_else(|| error.downcast_ref().and_then(secret));
        if let Some(hint) = hint {
            return Some(hint.to_owned());
        }
        if error.is::<Cancelled>() {
            return Some("nothing half-done was left behind; run the same command again".to_owned());
        }
        next = error.source();
    }
    None
}

fn core(error: &CoreError) -> Option<&'static str> {
    match error {
        CoreError::NotARepository { .. } => {
            Some("check the place; the first backup makes an empty or missing directory a repository")
        }
        CoreError::NoSuchSet { .. } => Some("`list-backups` shows the sets there are"),
        CoreError::Damaged { .. } | CoreError::Misplaced { .. } => {
            Some("`verify-backups` shows which copies and sets are whole; restore one of those")
        }
        CoreError::Key { .. } => Some("give the private key of one of its recipients with --identity-file"),
        CoreError::LeaseHeld { .. } => {
            Some("another run is at work; let it finish, or wait until its lease ends")
        }
        CoreError::LeaseLost { .. } => {
            Some("another run took over; see what it did before starting this again")
        }
        _ => None,
    }
}

fn manifest(error: &ManifestError) -> Option<&'static str> {
    match error {
        ManifestError::TooNew { .. } => Some("use the version of Backstay that wrote it, or a newer one"),
        ManifestError::Damaged { .. } => Some("`verify-backups` shows which copies and sets are whole"),
        _ => None,
    }
}

fn store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Denied { .. } => {
            Some("check the credentials and permissions; `check-storage` tries every operation")
        }
        StoreError::Full { .. } => {
            Some("free some space; `prune-backups --dry-run` shows what retention would remove")
        }
        StoreError::Missing { .. } => Some("check the place, or create the bucket or directory"),
        StoreError::Temporary { .. } => Some("run the same command again"),
        StoreError::Checksum { .. } => {
            Some("run the same command again; if it repeats, suspect memory or network")
        }
        _ => None,
    }
}

fn secret(error: &SecretError) -> Option<&'static str> {
    match error {
        SecretError::NoVariable { .. } => {
            Some("set it where this command is started; cron starts with almost none")
        }
        SecretError::Unsupported { .. } => Some("use { env = \"…\" } or { file = \"…\" }"),
        _ => None,
    }
}
