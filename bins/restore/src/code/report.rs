//! What `restore-code` prints.

use std::fmt;
use std::path::{Path, PathBuf};

use backstay_backup_core::manifest::Manifest;
use backstay_cli::Exit;
use backstay_cli::human::Bytes;
use backstay_file_ops::code::{Described, Head, Restored};
use serde::Serialize;

/// Most refs that are printed.
const PRINTED: usize = 20;

fn head(head: &Head) -> String {
    match (&head.branch, &head.commit) {
        (Some(branch), Some(commit)) => format!("HEAD is {branch} at {commit}"),
        (Some(branch), None) => format!("HEAD is {branch}, which has no commit"),
        (None, Some(commit)) => format!("HEAD is detached at {commit}"),
        (None, None) => "there is no HEAD".to_owned(),
    }
}

/// What a restore would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Planned {
    set: String,
    name: String,
    recovery_point: String,
    to: PathBuf,
    #[serde(flatten)]
    described: Described,
}

impl Planned {
    pub(super) fn new(manifest: &Manifest, to: &Path, described: Described) -> Self {
        Self {
            set: manifest.set.to_string(),
            name: manifest.source.database.clone(),
            recovery_point: manifest.recovery_point.to_string(),
            to: to.to_owned(),
            described,
        }
    }

    pub(super) fn exit(&self) -> Exit {
        if self.described.in_the_way.is_some() { Exit::Conflict } else { Exit::Done }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Described { chain, state, facts, in_the_way, .. } = &self.described;
        let bytes = chain.iter().map(|link| link.stored_bytes).sum();
        write!(
            f,
            "set {} (state of {}) of {} would be restored to {}: {} sets are read, {}",
            self.set,
            self.recovery_point,
            self.name,
            self.to.display(),
            chain.len(),
            Bytes(bytes)
        )?;
        write!(f, "\n{}; {} refs", head(&state.head), state.refs.len())?;
        for reference in state.refs.iter().take(PRINTED) {
            match &reference.target {
                Some(target) => write!(f, "\n  {} -> {target}", reference.name)?,
                None => write!(f, "\n  {} {}", reference.id, reference.name)?,
            }
        }
        if state.refs.len() > PRINTED {
            write!(f, "\n  and {} more; --json names them all", state.refs.len() - PRINTED)?;
        }
        if !state.lfs.is_empty() {
            write!(f, "\n{} LFS objects with {}", facts.lfs.objects, Bytes(facts.lfs.bytes))?;
        }
        for submodule in &state.submodules {
            write!(
                f,
                "\n- submodule {} at {}; its repository is not in the set",
                submodule.path, submodule.commit
            )?;
        }
        if let Some(part) = &facts.uncommitted {
            write!(
                f,
                "\nnot committed: {} staged, {} unstaged, {} untracked files with {}; --uncommitted applies it",
                Bytes(part.staged_bytes),
                Bytes(part.unstaged_bytes),
                part.files,
                Bytes(part.bytes)
            )?;
        }
        match in_the_way {
            Some(problem) => write!(f, "\n! {problem}"),
            None => f.write_str("\nnothing was written; --apply does it"),
        }
    }
}

/// What was restored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Done {
    set: String,
    name: String,
    recovery_point: String,
    head: Head,
    refs: usize,
    lfs_objects: usize,
    #[serde(flatten)]
    restored: Restored,
}

impl Done {
    pub(super) fn new(manifest: &Manifest, restored: Restored) -> Self {
        Self {
            set: manifest.set.to_string(),
            name: manifest.source.database.clone(),
            recovery_point: manifest.recovery_point.to_string(),
            head: restored.state.head.clone(),
            refs: restored.state.refs.len(),
            lfs_objects: restored.state.lfs.len(),
            restored,
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restored = &self.restored;
        write!(
            f,
            "set {} (state of {}) of {} is restored to {} in {:.1} s: {} refs and {} LFS objects are what they were, git fsck finds no damage",
            self.set,
            self.recovery_point,
            self.name,
            restored.to.display(),
            restored.seconds,
            self.refs,
            self.lfs_objects
        )?;
        write!(f, "\n{}", head(&self.head))?;
        if restored.uncommitted {
            f.write_str("; what was not committed is there again")?;
        }
        restored.notes.iter().try_for_each(|note| write!(f, "\n- {note}"))
    }
}

/// One file that was restored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct FileDone {
    set: String,
    name: String,
    file: String,
    commit: String,
    to: PathBuf,
}

impl FileDone {
    pub(super) fn new(manifest: &Manifest, file: &Path, commit: String, to: &Path) -> Self {
        Self {
            set: manifest.set.to_string(),
            name: manifest.source.database.clone(),
            file: file.display().to_string(),
            commit,
            to: to.to_owned(),
        }
    }
}

impl fmt::Display for FileDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.to.display();
        write!(f, "{} of commit {} of {} is restored to {to}", self.file, self.commit, self.name)
    }
}
