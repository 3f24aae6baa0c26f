//! What lies in a stanza, set by set: counted in one pass over the listing, whatever the number of objects.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use jiff::Timestamp;
use serde::Serialize;

use crate::error::Error;
use crate::hold;
use crate::id::{SetId, Stanza};
use crate::key::{Key, Prefix};
use crate::lease::register;
use crate::proof;
use crate::repository::{Repository, layout};
use crate::store::{ObjectMeta, PendingUpload};

/// Foreign keys that are named; the rest is counted.
const EXAMPLES: usize = 100;

/// Everything prune has to know of one repository besides the catalog. Grows with the number of sets.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) sets: BTreeMap<SetId, Folder>,
    pub(super) proofs: BTreeMap<SetId, Folder>,
    pub(super) holds: BTreeMap<SetId, Folder>,
    pub(super) uploads: Vec<PendingUpload>,
    /// Objects written to read the store's clock.
    pub(super) probes: Vec<ObjectMeta>,
    /// Entries of lease logs, by lease.
    pub(super) lease_logs: BTreeMap<String, Vec<(u64, ObjectMeta)>>,
    pub(super) foreign: Foreign,
    /// Newest time seen: the store's clock shows at least this.
    pub(super) newest: Option<Timestamp>,
}

/// Objects below one folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folder {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) newest: Timestamp,
    pub(super) has_manifest: bool,
}

/// Objects that are none of ours, and are never touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Foreign {
    /// How many.
    pub objects: u64,
    /// The first of them.
    pub examples: Vec<Key>,
}

impl Inventory {
    /// Takes stock of the sets, proofs, holds and leases of a stanza. Other folders are not looked at.
    pub(super) async fn take(repository: &Repository, stanza: &Stanza) -> Result<Self, Error> {
        let mut inventory = Self::default();
        let (sets, proofs, holds) =
            (layout::sets(stanza), layout::all_proofs(stanza), layout::all_holds(stanza));
        let leases = layout::leases(stanza);
        inventory.list(repository, &sets, Self::add_object).await?;
        inventory.list(repository, &proofs, Self::add_proof).await?;
        inventory.list(repository, &holds, Self::add_hold).await?;
        inventory.list(repository, &leases, Self::add_lease).await?;
        for below in [sets, proofs, holds, leases] {
            let uploads = repository.store().list_uploads(&below).await;
            inventory.uploads.extend(uploads.map_err(|source| repository.failed("list uploads", source))?);
        }
        Ok(inventory)
    }

    async fn list(
        &mut self,
        repository: &Repository,
        below: &Prefix,
        add: fn(&mut Self, &Prefix, ObjectMeta),
    ) -> Result<(), Error> {
        let mut listing = repository.store().list(below);
        while let Some(meta) =
            listing.try_next().await.map_err(|source| repository.failed("list the stanza", source))?
        {
            self.newest = self.newest.max(Some(meta.modified));
            add(self, below, meta);
        }
        Ok(())
    }

    fn add_object(&mut self, below: &Prefix, meta: ObjectMeta) {
        match layout::split(below, &meta.key) {
            Some((set, name)) => {
                count(&mut self.sets, set, &meta).has_manifest |= name == layout::MANIFEST;
            }
            None => self.foreign.add(meta.key),
        }
    }

    fn add_proof(&mut self, below: &Prefix, meta: ObjectMeta) {
        match layout::split(below, &meta.key) {
            Some((set, name)) if proof::kind_of(&name).is_some() => _ = count(&mut self.proofs, set, &meta),
            _ => self.foreign.add(meta.key),
        }
    }

    fn add_hold(&mut self, below: &Prefix, meta: ObjectMeta) {
        match layout::split(below, &meta.key) {
            Some((set, name)) if hold::is_event(&name) => _ = count(&mut self.holds, set, &meta),
            _ => self.foreign.add(meta.key),
        }
    }

    fn add_lease(&mut self, below: &Prefix, meta: ObjectMeta) {
        let name = meta.key.as_str().strip_prefix(below.as_str()).unwrap_or_default().to_owned();
        match name.split_once('/') {
            None if name.ends_with(".json") => {}
            Some(("clock", "now")) => {}
            Some(("clock", probe)) if probe.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                self.probes.push(meta);
            }
            Some((lease, entry)) => match register::number_of(entry) {
                Some(number) => {
                    self.lease_logs.entry(lease.to_owned()).or_default().push((number, meta));
                }
                None => self.foreign.add(meta.key),
            },
            None => self.foreign.add(meta.key),
        }
    }
}

fn count<'a>(folders: &'a mut BTreeMap<SetId, Folder>, set: SetId, meta: &ObjectMeta) -> &'a mut Folder {
    let empty = Folder { objects: 0, bytes: 0, newest: meta.modified, has_manifest: false };
    let folder = folders.entry(set).or_insert(empty);
    folder.objects += 1;
    folder.bytes += meta.size;
    folder.newest = folder.newest.max(meta.modified);
    folder
}

impl Foreign {
    fn add(&mut self, key: Key) {
        self.objects += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(key);
        }
    }
}
