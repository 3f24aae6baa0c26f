//! What crashed and interrupted runs left behind.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::inventory::{Folder, Inventory};
use crate::id::SetId;
use crate::key::Key;
use crate::repository::layout;
use crate::store::{PendingUpload, UploadId};

/// Entries of a lease log stay at least this long: longer than any lease lives.
const LOG_AGE: SignedDuration = SignedDuration::from_hours(48);
/// So many of the newest entries of a lease log stay in any case.
const LOG_KEPT: usize = 2;

/// Something that belongs to no set and is old enough not to belong to a running backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Litter {
    /// What it is.
    #[serde(flatten)]
    pub what: LitterKind,
    /// How many objects; 0 for an upload.
    pub objects: u64,
    /// Their size in bytes, as far as it is known.
    pub bytes: u64,
    /// When the newest of it arrived, by the store's clock.
    pub newest: Timestamp,
}

/// Kinds of litter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum LitterKind {
    /// Objects of a set without a manifest.
    Objects {
        /// The set that never came to be, or was removed.
        set: SetId,
    },
    /// Proofs and holds of a set that does not exist.
    Records {
        /// The set.
        set: SetId,
    },
    /// An upload that was neither completed nor aborted.
    Upload {
        /// The key it was for.
        key: Key,
        /// Its name in the store.
        upload: String,
    },
    /// An object written to read the store's clock.
    Probe {
        /// Its key.
        key: Key,
    },
    /// A former record of a lease.
    LeaseEntry {
        /// Its key.
        key: Key,
    },
}

impl LitterKind {
    pub(super) fn upload(&self) -> Option<(&Key, UploadId)> {
        match self {
            Self::Upload { key, upload } => Some((key, UploadId(upload.clone()))),
            _ => None,
        }
    }
}

/// Litter that is older than the grace period at `now`.
///
/// A set's folder is as old as its newest object, and so are the uploads below it: as long as a backup makes progress,
/// nothing of it is litter.
pub(super) fn find(inventory: &Inventory, now: Timestamp, grace: SignedDuration) -> Vec<Litter> {
    let mut litter = Vec::new();
    let is_old = |time: Timestamp| now.duration_since(time) >= grace;
    let folders = inventory.sets.iter().filter(|(_, folder)| !folder.has_manifest);
    for (set, folder) in folders {
        let busy = |upload: &PendingUpload| belongs_to(&upload.key, set) && !is_old(upload.started);
        if is_old(folder.newest) && !inventory.uploads.iter().any(busy) {
            litter.push(of_folder(LitterKind::Objects { set: set.clone() }, folder));
        }
    }
    for upload in &inventory.uploads {
        let folder = inventory.sets.iter().find(|(set, _)| belongs_to(&upload.key, set));
        if is_old(upload.started) && folder.is_none_or(|(_, folder)| is_old(folder.newest)) {
            let what = LitterKind::Upload { key: upload.key.clone(), upload: upload.upload.0.clone() };
            litter.push(Litter { what, objects: 0, bytes: 0, newest: upload.started });
        }
    }
    litter.extend(orphaned_records(inventory, is_old));
    for probe in inventory.probes.iter().filter(|probe| is_old(probe.modified)) {
        let what = LitterKind::Probe { key: probe.key.clone() };
        litter.push(Litter { what, objects: 1, bytes: probe.size, newest: probe.modified });
    }
    litter.extend(old_lease_entries(inventory, now, grace));
    litter
}

fn belongs_to(key: &Key, set: &SetId) -> bool {
    let mut segments = key.as_str().split('/').skip(1);
    segments.next() == Some("sets") && segments.next() == Some(set.as_str())
}

fn orphaned_records(inventory: &Inventory, is_old: impl Fn(Timestamp) -> bool) -> Vec<Litter> {
    let mut sets: Vec<_> = inventory.proofs.keys().chain(inventory.holds.keys()).collect();
    sets.sort_unstable();
    sets.dedup();
    // Where objects are left, the records go with them, or stay because they are young.
    sets.retain(|set| !inventory.sets.contains_key(set));
    let records = |set: &SetId| {
        let both = [inventory.proofs.get(set), inventory.holds.get(set)];
        both.into_iter().flatten().copied().reduce(|a, b| Folder {
            objects: a.objects + b.objects,
            bytes: a.bytes + b.bytes,
            newest: a.newest.max(b.newest),
            has_manifest: false,
        })
    };
    let orphans = sets.into_iter().filter_map(|set| Some((set, records(set)?)));
    orphans
        .filter(|(_, folder)| is_old(folder.newest))
        .map(|(set, folder)| of_folder(LitterKind::Records { set: set.clone() }, &folder))
        .collect()
}

fn old_lease_entries(inventory: &Inventory, now: Timestamp, grace: SignedDuration) -> Vec<Litter> {
    let mut litter = Vec::new();
    for entries in inventory.lease_logs.values() {
        let mut numbers: Vec<u64> = entries.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let Some(first_kept) = numbers.iter().rev().nth(LOG_KEPT - 1) else { continue };
        let old = entries.iter().filter(|(number, meta)| {
            number < first_kept && now.duration_since(meta.modified) >= grace.max(LOG_AGE)
        });
        litter.extend(old.map(|(_, meta)| Litter {
            what: LitterKind::LeaseEntry { key: meta.key.clone() },
            objects: 1,
            bytes: meta.size,
            newest: meta.modified,
        }));
    }
    litter
}

fn of_folder(what: LitterKind, folder: &Folder) -> Litter {
    Litter { what, objects: folder.objects, bytes: folder.bytes, newest: folder.newest }
}

/// Whether a key below a set's proofs or holds is one of ours.
pub(super) fn is_record(below: &crate::key::Prefix, key: &Key) -> bool {
    layout::split(below, key)
        .is_some_and(|(_, name)| crate::proof::kind_of(&name).is_some() || crate::hold::is_event(&name))
}
