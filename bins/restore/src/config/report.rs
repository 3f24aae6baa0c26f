//! What `restore-config` prints.

use std::fmt;
use std::path::PathBuf;

use backstay_backup_core::manifest::Manifest;
use backstay_cli::{Exit, human};
use backstay_file_ops::restore::{Applied, Plan, Staged, Step, What};
use backstay_file_ops::tar::{Kind, TarEntry};
use serde::Serialize;

/// The entries of a set.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Listing {
    set: String,
    recovery_point: String,
    entries: Vec<Listed>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    path: String,
    kind: &'static str,
    mode: String,
    owner: String,
    group: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl Listing {
    pub(super) fn new(manifest: &Manifest, entries: &[TarEntry]) -> Self {
        Self {
            set: manifest.set.to_string(),
            recovery_point: manifest.recovery_point.to_string(),
            entries: entries.iter().map(listed).collect(),
        }
    }
}

fn listed(entry: &TarEntry) -> Listed {
    let attributes = &entry.attributes;
    let name = |name: &[u8], number: u32| match name {
        [] => number.to_string(),
        name => String::from_utf8_lossy(name).into_owned(),
    };
    let (kind, size, target) = match &entry.kind {
        Kind::File { size, .. } => ("file", *size, None),
        Kind::Directory => ("folder", 0, None),
        Kind::Symlink { target } => ("link", 0, Some(target.escape_ascii().to_string())),
        Kind::Hardlink { target } => ("name", 0, Some(format!("/{target}"))),
        _ => ("unknown", 0, None),
    };
    Listed {
        path: format!("/{}", entry.path),
        kind,
        mode: format!("{:04o}", attributes.mode),
        owner: name(&attributes.user_name, attributes.user),
        group: name(&attributes.group_name, attributes.group),
        size,
        target,
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = human::Table::new(&["MODE", "OWNER", "GROUP", "SIZE", "PATH"]);
        for entry in &self.entries {
            let arrow = match (&entry.target, entry.kind) {
                (Some(target), "link") => format!("{} -> {target}", entry.path),
                (Some(target), _) => format!("{} = {target}", entry.path),
                (None, "folder") => format!("{}/", entry.path),
                (None, _) => entry.path.clone(),
            };
            let cells = [&entry.mode, &entry.owner, &entry.group, &entry.size.to_string(), &arrow];
            table.row(cells.into_iter().cloned());
        }
        write!(f, "set {} of {}\n{table}", self.set, self.recovery_point)
    }
}

/// What differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Planned {
    set: String,
    recovery_point: String,
    staged_in: PathBuf,
    root: PathBuf,
    same: u64,
    steps: Vec<PlannedStep>,
    conflicts: Vec<(String, String)>,
    unset_in_staging: Vec<(String, String)>,
    /// Secrets that were fetched, by path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<String>,
    /// Secrets that the set names and nobody asked for.
    #[serde(skip_serializing_if = "is_zero")]
    secrets_left: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    diffs: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct PlannedStep {
    path: String,
    what: What,
    details: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many secrets a set names.
fn named_secrets(manifest: &Manifest) -> u64 {
    manifest.facts.get("secrets").and_then(serde_json::Value::as_u64).unwrap_or(0)
}

impl Planned {
    pub(super) fn new(manifest: &Manifest, staged: &Staged, plan: &Plan, diffs: Vec<String>) -> Self {
        let step = |step: &Step| PlannedStep {
            path: format!("/{}", step.path),
            what: step.what,
            details: step.details.clone(),
        };
        Self {
            set: manifest.set.to_string(),
            recovery_point: manifest.recovery_point.to_string(),
            staged_in: staged.files.clone(),
            root: plan.root.clone(),
            same: plan.same,
            steps: plan.steps.iter().map(step).collect(),
            conflicts: plan
                .conflicts
                .iter()
                .map(|(path, reason)| (format!("/{path}"), reason.clone()))
                .collect(),
            unset_in_staging: staged.lacking.clone(),
            secrets: staged.secrets.iter().map(|path| format!("/{path}")).collect(),
            secrets_left: if staged.secrets.is_empty() { named_secrets(manifest) } else { 0 },
            diffs,
        }
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "set {} (state of {}) is staged in {}\n{} differ from {}, {} are the same",
            self.set,
            self.recovery_point,
            self.staged_in.display(),
            self.steps.len(),
            self.root.display(),
            self.same
        )
    }

    fn body(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let mark = match step.what {
                What::Create | What::CreateFolder => '+',
                _ => '~',
            };
            write!(f, "\n{mark} {}", step.path)?;
            let fetched = self.secrets.contains(&step.path).then_some("a secret, fetched");
            let details: Vec<_> =
                fetched.into_iter().chain(step.details.iter().map(String::as_str)).collect();
            if !details.is_empty() {
                write!(f, " ({})", details.join("; "))?;
            }
        }
        for (path, reason) in &self.conflicts {
            write!(f, "\n! {path} is left alone: {reason}")?;
        }
        for (path, words) in &self.unset_in_staging {
            write!(f, "\n- staged {path}: {words}")?;
        }
        if self.secrets_left > 0 {
            let number = self.secrets_left;
            write!(f, "\n- a service keeps {number} of its secrets; --secrets fetches what it keeps")?;
        }
        self.diffs.iter().try_for_each(|diff| write!(f, "\n{}", diff.trim_end()))
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.body(f)?;
        if self.steps.is_empty() { Ok(()) } else { f.write_str("\nnothing was installed; --apply does it") }
    }
}

/// What was installed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Installed {
    #[serde(flatten)]
    plan: Planned,
    applied: Applied,
}

impl Installed {
    pub(super) fn new(plan: Planned, applied: Applied) -> Self {
        Self { plan, applied }
    }

    pub(super) fn exit(&self) -> Exit {
        let alone = self.plan.conflicts.is_empty() && self.applied.left.is_empty();
        match (alone, self.applied.lacking.is_empty()) {
            (false, _) => Exit::Conflict,
            (true, false) => Exit::Missed,
            (true, true) => Exit::Done,
        }
    }
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.head(f)?;
        self.plan.body(f)?;
        for (path, reason) in self.applied.left.iter().chain(&self.applied.lacking) {
            write!(f, "\n! {path}: {reason}")?;
        }
        write!(f, "\n{} installed", self.applied.done)?;
        match &self.applied.undo {
            Some(folder) => write!(f, "; to take it back: restore-config --undo {}", folder.display()),
            None => Ok(()),
        }
    }
}

/// What was taken back.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Undone(pub(super) backstay_file_ops::restore::Undone);

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undone = &self.0;
        write!(
            f,
            "{} are what they were, {} removed that had not been there, {} unchanged",
            undone.restored, undone.removed, undone.already
        )?;
        for (path, reason) in &undone.left {
            write!(f, "\n! {path} is left alone: {reason}")?;
        }
        if undone.left.is_empty() { Ok(()) } else { f.write_str("\n→ --force takes those back too") }
    }
}
