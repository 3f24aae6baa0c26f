use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::SetId;
use backstay_backup_core::manifest::{Manifest, SetKind};
use backstay_backup_core::replicas::Repositories;
use serde::Serialize;

use super::ClusterRestoreError;
use super::leftovers::Leftovers;
use super::options::ClusterRestoreOptions;
use super::roots::Roots;
use super::set_index::SetIndex;
use super::target::{self, RestoreMode, TablespacePlan};
use crate::account::Account;
use crate::physical::ClusterFacts;

/// What restoring the files of a set would do. Nothing was touched.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct FilesPlan {
    /// The set.
    pub set: SetId,
    /// The data directory.
    pub target: PathBuf,
    /// How it is filled.
    pub mode: RestoreMode,
    /// Where tablespaces go.
    pub tablespaces: Vec<TablespacePlan>,
    /// Files of the set.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the set as stored; a delta restore fetches fewer.
    pub stored_bytes: u64,
    /// Files and directories that are in the target and not in the set, and would be removed.
    pub removals: u64,
    /// Bytes of the files among them.
    pub removed_bytes: u64,
    #[serde(skip)]
    pub(super) prepared: Prepared,
}

/// What a plan found out, for carrying it out.
pub(super) struct Prepared {
    pub(super) manifest: Arc<Manifest>,
    pub(super) facts: ClusterFacts,
    pub(super) index: Arc<SetIndex>,
    pub(super) owner: Option<Account>,
    pub(super) options: ClusterRestoreOptions,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a physical set says of itself.
///
/// # Errors
/// [`ClusterRestoreError::Unsuitable`] for a set of another kind, or facts that cannot be understood.
pub fn cluster_facts(manifest: &Manifest) -> Result<ClusterFacts, ClusterRestoreError> {
    let unsuitable = |problem: String| ClusterRestoreError::Unsuitable {
        problem: format!("set {} {problem}", manifest.set),
        remedy: "`list-backups` shows the sets of a cluster (postgres-physical)",
    };
    if manifest.kind != SetKind::new(SetKind::POSTGRES_PHYSICAL) {
        return Err(unsuitable(format!("is {}, no backup of a cluster's files", manifest.kind)));
    }
    serde_json::from_value(manifest.facts.clone())
        .map_err(|error| unsuitable(format!("has facts that cannot be understood ({error})")))
}

/// Reads the index of a set, looks at the target, and says what would be done there.
///
/// # Errors
/// [`ClusterRestoreError::Target`] when something is in the way, [`ClusterRestoreError::Index`] for an index that
/// contradicts itself, and whatever the repository fails with.
pub async fn plan_files(
    repositories: &Repositories,
    manifest: &Manifest,
    identities: &Identities,
    options: &ClusterRestoreOptions,
) -> Result<FilesPlan, ClusterRestoreError> {
    let mut options = options.clone();
    options.target = absolute(&options.target)?;
    let facts = cluster_facts(manifest)?;
    let tablespaces = target::map_tablespaces(&options, &facts.tablespaces)?;
    let mode = target::examine(&options, &manifest.set, &facts, &tablespaces)?;
    let owner = owner(&options)?;
    let index = SetIndex::load(repositories, manifest, identities, &facts).await?;
    let leftovers = match mode {
        RestoreMode::Fresh => Leftovers::default(),
        RestoreMode::Continue | RestoreMode::Delta => {
            let directories = target::directories(&tablespaces);
            let there = directories.into_iter().filter(|(_, path)| path.is_dir()).collect();
            let roots = Roots::open(&options.target, &there, owner)?;
            Leftovers::find(&roots, &index, &target::version_directory(&facts))?
        }
    };
    let manifest = Arc::new(manifest.clone());
    Ok(FilesPlan {
        set: manifest.set.clone(),
        target: options.target.clone(),
        mode,
        tablespaces,
        files: index.files,
        bytes: index.bytes,
        stored_bytes: manifest.stored_size(),
        removals: leftovers.count(),
        removed_bytes: leftovers.bytes,
        prepared: Prepared { manifest, facts, index: Arc::new(index), owner, options },
    })
}

/// The target as the server will know it. It stands in files that are text.
fn absolute(target: &Path) -> Result<PathBuf, ClusterRestoreError> {
    let failed = ClusterRestoreError::io("find", target);
    let whole = std::path::absolute(target).map_err(failed)?;
    if whole.to_str().is_none_or(|text| text.contains('\n')) || whole.file_name().is_none() {
        return Err(target::refusal(
            &whole,
            "cannot be a data directory".to_owned(),
            "name a directory whose path is UTF-8 text",
        ));
    }
    Ok(whole)
}

/// Who owns what root restores: whoever owns the target, or else the account of servers.
fn owner(options: &ClusterRestoreOptions) -> Result<Option<Account>, ClusterRestoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let there = std::fs::metadata(&options.target).ok().filter(|meta| meta.uid() != 0);
    match there {
        Some(meta) => Ok(Some(Account { uid: meta.uid(), gid: meta.gid() })),
        None => Account::for_servers().map_err(ClusterRestoreError::io("find an owner for", &options.target)),
    }
}
