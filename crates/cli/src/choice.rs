//! Sets as command lines mean them.

use backstay_backup_core::Class;
use backstay_backup_core::catalog::{CopyState, SetSummary};
use backstay_backup_core::manifest::Manifest;

use crate::failure::Failure;

/// The manifest of a set that was asked for and is to be restored.
///
/// # Errors
/// A failure that says why no copy of it can be read.
pub fn restorable(set: &SetSummary) -> Result<&Manifest, Failure> {
    if let Some(manifest) = &set.manifest {
        return Ok(manifest);
    }
    let newer = set.copies.iter().any(|copy| copy.state == CopyState::Newer);
    let (class, hint) = if newer {
        (Class::Usage, "use the version of Backstay that wrote it, or a newer one")
    } else if set.is_unread() {
        (Class::Temporary, "run the same command again, or restore another set")
    } else {
        (Class::Data, "`verify-backups` shows which copies and sets are whole; restore one of those")
    };
    let problems = set.problems().join("; ");
    Err(Failure::new(class, format!("set {} cannot be restored: {problems}", set.id)).with_hint(hint))
}
