//! Compares staged files with live ones. Reads only.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::stage::Staged;
use crate::accounts::Accounts;
use crate::attributes::{self, Attributes};
use crate::error::Error;
use crate::files::{Root, handle_path, stat_in};
use crate::path::{ArchivePath, printable};
use crate::tar::{Kind, TarEntry};
use crate::walk::State;

/// What is compared with what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanOptions {
    /// The live system, `/` by default.
    pub root: PathBuf,
    /// Takes owners by their numbers, also where the name has another number here.
    pub numeric_owners: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), numeric_owners: false }
    }
}

/// What an installation would change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Plan {
    /// The set.
    pub set: String,
    /// The live system.
    pub root: PathBuf,
    /// What would be done, in that order.
    pub steps: Vec<Step>,
    /// How many are the same already.
    pub same: u64,
    /// What is in the way, and is left alone: path and reason.
    pub conflicts: Vec<(ArchivePath, String)>,
}

/// What would be done to one file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Step {
    /// Which.
    pub path: ArchivePath,
    /// What.
    pub what: What,
    /// How the live one differs.
    pub details: Vec<String>,
    /// What it shall be, its owner as numbered here.
    #[serde(skip)]
    pub(super) entry: TarEntry,
    /// What it was when it was compared.
    #[serde(skip)]
    pub(super) live: Option<State>,
}

impl Step {
    /// How long a secret is, nobody is told.
    fn hide_length(&mut self) {
        let words = self.details.iter_mut().filter(|words| words.starts_with("content: "));
        words.for_each(|words| "content".clone_into(words));
    }
}

/// Kinds of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum What {
    /// There is no such file or link.
    Create,
    /// There is another one.
    Replace,
    /// There is no such folder.
    CreateFolder,
    /// The folder has another owner or other permissions.
    ChangeFolder,
}

/// Compares. Blocks.
///
/// # Errors
/// The live system or a staged file cannot be read, or it was cancelled.
pub fn plan_restore(
    staged: &Staged,
    options: &PlanOptions,
    cancel: &CancellationToken,
) -> Result<Plan, Error> {
    let open = |path: &Path| Root::open(path).map_err(|error| Error::io("open", path, error.into()));
    let planner = Planner {
        live: open(&options.root)?,
        staged: open(&staged.files)?,
        accounts: (!options.numeric_owners).then(|| Accounts::of(&options.root)),
        root: &options.root,
    };
    let mut plan = Plan {
        set: staged.set.clone(),
        root: options.root.clone(),
        steps: Vec::new(),
        same: 0,
        conflicts: Vec::new(),
    };
    for entry in &staged.entries {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match planner.compare(entry.clone()) {
            Ok(Some(mut step)) => {
                if staged.secrets.contains(&step.path) {
                    step.hide_length();
                }
                plan.steps.push(step);
            }
            Ok(None) => plan.same += 1,
            Err(Obstacle::InTheWay(reason)) => plan.conflicts.push((entry.path.clone(), reason)),
            Err(Obstacle::Error(error)) => return Err(error),
        }
    }
    Ok(plan)
}

struct Planner<'a> {
    live: Root,
    staged: Root,
    accounts: Option<Accounts>,
    root: &'a Path,
}

enum Obstacle {
    InTheWay(String),
    Error(Error),
}

impl Planner<'_> {
    fn error(&self, path: &ArchivePath, error: impl Into<std::io::Error>) -> Obstacle {
        Obstacle::Error(Error::io("read", &self.root.join(path.as_path()), error.into()))
    }

    fn compare(&self, mut entry: TarEntry) -> Result<Option<Step>, Obstacle> {
        if let Some(accounts) = &self.accounts {
            accounts.number(&mut entry.attributes);
        }
        let path = entry.path.clone();
        let parent = match self.live.open_parent(&path) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(Some(created(entry))),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(Obstacle::InTheWay(
                    "a folder on the way to it is a link or a file here".to_owned(),
                ));
            }
            Err(error) => return Err(self.error(&path, error)),
        };
        let stat = stat_in(&parent, path.name()).map_err(|error| self.error(&path, error))?;
        let Some(stat) = stat else { return Ok(Some(created(entry))) };
        let live = State::of(&stat);
        let (is_folder, wants_folder) =
            (live.file_type() == FileType::Directory, entry.kind == Kind::Directory);
        match (is_folder, wants_folder) {
            (true, false) => return Err(Obstacle::InTheWay("it is a folder here".to_owned())),
            (false, true) => return Err(Obstacle::InTheWay("it is no folder here".to_owned())),
            _ => {}
        }
        let details = self.differences(&entry, &parent, &live)?;
        if details.is_empty() {
            return Ok(None);
        }
        let what = if wants_folder { What::ChangeFolder } else { What::Replace };
        Ok(Some(Step { path, what, details, entry, live: Some(live) }))
    }

    fn differences(
        &self,
        entry: &TarEntry,
        parent: impl AsFd,
        live: &State,
    ) -> Result<Vec<String>, Obstacle> {
        let failed = |error: Errno| self.error(&entry.path, error);
        let name = entry.path.name();
        let mut details = Vec::new();
        let extended = match (&entry.kind, live.file_type()) {
            (Kind::Directory, _) | (Kind::File { .. } | Kind::Hardlink { .. }, FileType::RegularFile) => {
                let open = self.live.open_file(&entry.path).map_err(failed)?;
                if entry.kind != Kind::Directory {
                    details.extend(self.content(
                        entry,
                        live,
                        std::fs::File::from(
                            open.try_clone().map_err(|error| self.error(&entry.path, error))?,
                        ),
                    )?);
                }
                attributes::extended(&open).map_err(failed)?
            }
            (Kind::Symlink { target }, FileType::Symlink) => {
                let points = rustix::fs::readlinkat(&parent, name, Vec::new()).map_err(failed)?;
                if points.as_bytes() != target.as_slice() {
                    details.push(format!(
                        "points to {}, not to {}",
                        printable(points.as_bytes()),
                        printable(target)
                    ));
                }
                attributes::extended_of_link(&handle_path(&parent, name)).map_err(failed)?
            }
            (kind, _) => {
                let wanted = if matches!(kind, Kind::Symlink { .. }) { "a link" } else { "a file" };
                return Ok(vec![format!("is no such thing: {wanted} is wanted")]);
            }
        };
        let is_link = matches!(entry.kind, Kind::Symlink { .. });
        details.extend(attribute_differences(&entry.attributes, live, &extended, is_link));
        Ok(details)
    }

    fn content(&self, entry: &TarEntry, live: &State, file: std::fs::File) -> Result<Vec<String>, Obstacle> {
        let staged = self.staged.open_file(&entry.path).map_err(|error| self.error(&entry.path, error))?;
        let size =
            State::of(&rustix::fs::fstat(&staged).map_err(|error| self.error(&entry.path, error))?).size;
        let mut details = Vec::new();
        if size != live.size {
            details.push(format!("content: {} bytes here, {size} in the set", live.size));
        } else if !same_content(file, std::fs::File::from(staged))
            .map_err(|error| self.error(&entry.path, error))?
        {
            details.push("content".to_owned());
        }
        if let Kind::Hardlink { target } = &entry.kind {
            let other = self.live.stat(target).map_err(|error| self.error(target, error))?;
            let same = other.is_some_and(|other| (other.st_dev, other.st_ino) == (live.device, live.inode));
            if !same {
                details.push(format!("is no further name of /{target}"));
            }
        }
        Ok(details)
    }
}

fn created(entry: TarEntry) -> Step {
    let what = if entry.kind == Kind::Directory { What::CreateFolder } else { What::Create };
    Step { path: entry.path.clone(), what, details: Vec::new(), entry, live: None }
}

fn attribute_differences(
    wanted: &Attributes,
    live: &State,
    extended: &BTreeMap<Vec<u8>, Vec<u8>>,
    is_link: bool,
) -> Vec<String> {
    let mut details = Vec::new();
    let mode = live.raw_mode & 0o7777;
    if mode != wanted.mode && !is_link {
        details.push(format!("mode: {mode:04o} here, {:04o} in the set", wanted.mode));
    }
    if (live.user, live.group) != (wanted.user, wanted.group) {
        details.push(format!(
            "owner: {}:{} here, {}:{} in the set",
            live.user, live.group, wanted.user, wanted.group
        ));
    }
    let names = extended.keys().chain(wanted.extended.keys()).collect::<std::collections::BTreeSet<_>>();
    for name in names.into_iter().filter(|name| extended.get(*name) != wanted.extended.get(*name)) {
        details.push(printable(name));
    }
    details
}

/// Whether two files hold the same bytes.
pub(super) fn same_content(mut one: impl Read, mut other: impl Read) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = fill(&mut one, &mut left)?;
        if fill(&mut other, &mut right)? != length || left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
