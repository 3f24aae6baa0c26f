//! The WAL that physical sets need.

use std::collections::{BTreeMap, BTreeSet};

use backstay_backup_core::catalog::{Catalog, SetSummary};
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::verify::Depth;
use backstay_cli::{Context, Failure, Opened};
use backstay_postgres_ops::recovery::{BaseBackup, PhysicalSets, SetWal, check_wal};
use backstay_postgres_ops::wal::SystemId;
use backstay_postgres_ops::wal_archive::{WalArchive, WalSurvey};

/// What is archived of the clusters that the physical sets of a catalog are of.
pub(super) struct ArchivedWal {
    bases: Vec<BaseBackup>,
    clusters: BTreeMap<SystemId, (WalArchive, WalSurvey)>,
    identities: Identities,
}

impl ArchivedWal {
    /// Lists the WAL, if there are physical sets.
    pub(super) async fn survey(
        context: &Context,
        opened: &Opened,
        catalog: &Catalog,
    ) -> Result<Self, Failure> {
        let bases: Vec<_> = PhysicalSets::of(catalog).known().cloned().collect();
        let identities = if bases.is_empty() { Identities::none() } else { context.identities().await? };
        let mut clusters = BTreeMap::new();
        let systems: BTreeSet<_> = bases.iter().map(|base| base.system).collect();
        for system in systems {
            let archive = WalArchive::new(opened.repositories.clone(), catalog.stanza.clone(), system);
            let survey = context.stoppable(archive.survey(&identities)).await??;
            clusters.insert(system, (archive, survey));
        }
        Ok(Self { bases, clusters, identities })
    }

    /// Checks what a set needs; `None` for sets that need no WAL.
    pub(super) async fn check(&self, set: &SetSummary, depth: Depth) -> Option<SetWal> {
        let base = self.bases.iter().find(|base| base.set == set.id)?;
        let (archive, survey) = self.clusters.get(&base.system)?;
        let checked = check_wal(archive, base, survey, depth, &self.identities).await;
        // What one repository holds cannot be told by another that cannot be listed.
        Some(if survey.is_partial() { checked.doubt_missing() } else { checked })
    }
}
