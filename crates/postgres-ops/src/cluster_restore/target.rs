//! What is in the target already, and whether a restore may go there.
//!
//! | found | without `delta` | with it |
//! |---|---|---|
//! | nothing, or an empty directory | restored | restored |
//! | an unfinished restore of this very set | completed | completed |
//! | an unfinished restore of another set | refused | made into this one |
//! | a data directory of this cluster, its server down | refused | what is right is kept |
//! | the same with WAL that was never archived | refused | refused: it may be the only copy |
//! | a data directory of another cluster | refused | refused, unless that is asked for |
//! | a data directory whose server runs, or anything else | refused | refused |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use backstay_backup_core::id::SetId;
use serde::Serialize;

use super::ClusterRestoreError;
use super::marker::{self, Marker};
use super::options::ClusterRestoreOptions;
use super::set_index::CONTROL;
use crate::physical::{ClusterFacts, ControlFile, Tablespace};

/// How the target is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RestoreMode {
    /// Into an empty directory.
    Fresh,
    /// A restore of this set that was interrupted is completed.
    Continue,
    /// An old data directory is made into what the set holds.
    Delta,
}

/// Where a tablespace goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct TablespacePlan {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Where it was on the source.
    pub original: String,
    /// Where it is restored.
    pub directory: PathBuf,
}

/// Looks at the target and decides; reads only.
pub(super) fn examine(
    options: &ClusterRestoreOptions,
    set: &SetId,
    facts: &ClusterFacts,
    tablespaces: &[TablespacePlan],
) -> Result<RestoreMode, ClusterRestoreError> {
    let target = &options.target;
    let Some(first) = first_entry(target)? else {
        tablespaces.iter().try_for_each(|it| check_free(it, facts))?;
        return Ok(RestoreMode::Fresh);
    };
    refuse_running(target)?;
    if let Some(marker) = Marker::read(target)? {
        if marker.set == *set && marker.tablespaces == directories(tablespaces) {
            return Ok(RestoreMode::Continue);
        }
        if !options.delta {
            return Err(refusal(
                target,
                format!(
                    "holds an unfinished restore of set {} with its tablespaces elsewhere or another set",
                    marker.set
                ),
                "run the command that began it again, remove the directory, or reuse it with --delta",
            ));
        }
        tablespaces
            .iter()
            .filter(|it| !marker.tablespaces.values().any(|known| *known == it.directory))
            .try_for_each(|it| check_free(it, facts))?;
        return Ok(RestoreMode::Delta);
    }
    let control = read_control(target)?.ok_or_else(|| {
        refusal(
            target,
            format!("is not empty and no data directory: it holds {}", first.display()),
            "name a new or an empty directory",
        )
    })?;
    if !options.delta {
        return Err(refusal(
            target,
            format!("holds a cluster (system identifier {})", control.system),
            "name a new or an empty directory, or reuse what is right in this one with --delta",
        ));
    }
    if control.system != facts.system && !options.other_cluster {
        return Err(refusal(
            target,
            format!("holds the cluster {}, and the set is of {}", control.system, facts.system),
            "name another directory; to overwrite a cluster with another one, add --other-cluster",
        ));
    }
    refuse_unarchived(target)?;
    tablespaces.iter().try_for_each(|it| check_own(it, target, facts))?;
    Ok(RestoreMode::Delta)
}

/// Where each tablespace goes.
pub(super) fn map_tablespaces(
    options: &ClusterRestoreOptions,
    tablespaces: &[Tablespace],
) -> Result<Vec<TablespacePlan>, ClusterRestoreError> {
    let is_of = |key: &str, it: &Tablespace| key == it.name || key.parse() == Ok(it.oid);
    if let Some(unknown) = options.tablespaces.keys().find(|key| !tablespaces.iter().any(|it| is_of(key, it)))
    {
        return Err(ClusterRestoreError::Unsuitable {
            problem: format!("the set has no tablespace {unknown}"),
            remedy: "the plan (--dry-run) lists its tablespaces",
        });
    }
    let mut beside = options.target.clone().into_os_string();
    beside.push(".tablespaces");
    let beside = PathBuf::from(beside);
    let place = |it: &Tablespace| {
        let given = options.tablespaces.iter().find(|(key, _)| is_of(key, it)).map(|(_, path)| path.clone());
        given.unwrap_or_else(|| {
            if options.original_tablespaces {
                PathBuf::from(&it.location)
            } else {
                beside.join(it.oid.to_string())
            }
        })
    };
    let plans: Vec<_> = tablespaces
        .iter()
        .map(|it| TablespacePlan {
            oid: it.oid,
            name: it.name.clone(),
            original: it.location.clone(),
            directory: place(it),
        })
        .collect();
    for (number, plan) in plans.iter().enumerate() {
        let same = plans[..number].iter().any(|other| other.directory == plan.directory);
        if same || !plan.directory.is_absolute() || plan.directory.starts_with(&options.target) {
            return Err(refusal(
                &plan.directory,
                format!("cannot be the directory of tablespace {}", plan.name),
                "give each tablespace an absolute directory of its own outside of the data directory",
            ));
        }
    }
    Ok(plans)
}

/// By oid.
pub(super) fn directories(tablespaces: &[TablespacePlan]) -> BTreeMap<u32, PathBuf> {
    tablespaces.iter().map(|it| (it.oid, it.directory.clone())).collect()
}

/// The directory that a server of that version makes in each tablespace.
pub(super) fn version_directory(facts: &ClusterFacts) -> String {
    format!("PG_{}_{}", facts.server_version_num / 10_000, facts.catalog_version)
}

/// What is in a data directory, as its control file says; `None` without one.
pub(super) fn read_control(target: &Path) -> Result<Option<ControlFile>, ClusterRestoreError> {
    let path = target.join(CONTROL);
    match std::fs::read(&path) {
        Ok(bytes) => ControlFile::parse(&bytes).map(Some).map_err(|problem| {
            refusal(&path, format!("cannot be used: {problem}"), "name another directory")
        }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(ClusterRestoreError::io("read", &path)(error)),
    }
}

/// A server that runs has its process in `postmaster.pid`.
fn refuse_running(target: &Path) -> Result<(), ClusterRestoreError> {
    let path = target.join("postmaster.pid");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ClusterRestoreError::io("read", &path)(error)),
    };
    let pid = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else { return Ok(()) };
    match rustix::process::test_kill_process(pid) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        _ => Err(refusal(
            target,
            format!("is in use: its server runs as process {}", pid.as_raw_nonzero()),
            "stop that server; if the process is none, remove postmaster.pid",
        )),
    }
}

/// A delta restore removes the WAL of the old directory. What its server still waited to archive may exist nowhere else.
fn refuse_unarchived(target: &Path) -> Result<(), ClusterRestoreError> {
    let path = target.join("pg_wal/archive_status");
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ClusterRestoreError::io("read", &path)(error)),
    };
    let mut waiting = Vec::new();
    for entry in entries {
        let name = entry.map_err(ClusterRestoreError::io("read", &path))?.file_name();
        waiting.extend(name.to_str().and_then(|name| name.strip_suffix(".ready")).map(str::to_owned));
    }
    let Some(first) = waiting.iter().min() else { return Ok(()) };
    let all = if waiting.len() == 1 { String::new() } else { format!(" and {} more", waiting.len() - 1) };
    Err(refusal(
        target,
        format!("has WAL that was never archived: {first}{all}"),
        "archive it with archive-wal, or copy pg_wal away, and remove the .ready files from pg_wal/archive_status",
    ))
}

/// The first thing found in a directory; `None` when it is empty or missing.
fn first_entry(target: &Path) -> Result<Option<PathBuf>, ClusterRestoreError> {
    let entries = match std::fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ClusterRestoreError::io("read", target)(error)),
    };
    for entry in entries {
        let name = entry.map_err(ClusterRestoreError::io("read", target))?.file_name();
        // What a restore left that died before it began, and what a file system of its own has.
        if name != marker::TEMPORARY && name != "lost+found" {
            return Ok(Some(name.into()));
        }
    }
    Ok(None)
}

/// A tablespace goes only where no other is.
fn check_free(tablespace: &TablespacePlan, facts: &ClusterFacts) -> Result<(), ClusterRestoreError> {
    let taken = tablespace.directory.join(version_directory(facts));
    match taken.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ClusterRestoreError::io("look at", &taken)(error)),
        Ok(_) => Err(refusal(
            &taken,
            format!("is there already, so tablespace {} cannot be restored beside it", tablespace.name),
            "it may be of a living cluster; name another directory with --tablespace",
        )),
    }
}

/// What is in a tablespace's directory is replaced only where the old cluster itself links to it.
fn check_own(
    tablespace: &TablespacePlan,
    target: &Path,
    facts: &ClusterFacts,
) -> Result<(), ClusterRestoreError> {
    let link = target.join(super::roots::TABLESPACES).join(tablespace.oid.to_string());
    match std::fs::read_link(&link) {
        Ok(found) if found == tablespace.directory => Ok(()),
        _ => check_free(tablespace, facts),
    }
}

pub(super) fn refusal(path: &Path, problem: String, remedy: &'static str) -> ClusterRestoreError {
    ClusterRestoreError::Target { path: path.to_owned(), problem, remedy }
}
