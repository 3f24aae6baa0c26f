//! What `backup-code` prints.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use backstay_cli::human::{Bytes, Remedy};
use backstay_cli::{Exit, Failure, Opened};
use backstay_file_ops::code::{CodePlan, CodeReport, Dirty, Head, State};
use backstay_file_ops::config_set::{Outcome, Problem};
use jiff::Timestamp;
use serde::Serialize;

use crate::file_sets::{exit, print_missing, print_problems};

/// What `--dry-run` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Plan {
    pub(super) repositories: Vec<CodePlan>,
}

impl Plan {
    pub(super) fn exit(&self) -> Exit {
        let stopped = self.repositories.iter().any(|plan| !plan.findings.is_empty() && !plan.encrypted);
        if stopped { Exit::Usage } else { Exit::Done }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, plan) in self.repositories.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            let how = if plan.encrypted { "encrypted" } else { "without encryption" };
            write!(f, "would back up {} as {}: {}, {how}", plan.folder, plan.name, Summary(&plan.state))?;
            beside(f, &plan.state, plan.uncommitted)?;
            print_problems(f, &plan.problems)?;
            for finding in &plan.findings {
                write!(f, "\n! a secret: {finding}")?;
            }
        }
        Ok(())
    }
}

/// HEAD and numbers.
struct Summary<'a>(&'a State);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0;
        write!(f, "{}, {} refs", head(&state.head), state.refs.len())?;
        if !state.lfs.is_empty() {
            let bytes = state.lfs.iter().map(|object| object.size).sum();
            write!(f, ", {} LFS objects with {}", state.lfs.len(), Bytes(bytes))?;
        }
        Ok(())
    }
}

fn head(head: &Head) -> String {
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    let commit = head.commit.as_ref().map(|commit| short(commit.as_str()));
    match (&head.branch, commit) {
        (Some(branch), Some(commit)) => format!("{branch} at {commit}"),
        (Some(branch), None) => format!("{branch} without a commit"),
        (None, Some(commit)) => format!("detached at {commit}"),
        (None, None) => "no HEAD".to_owned(),
    }
}

/// What is not in the bundle.
fn beside(f: &mut fmt::Formatter<'_>, state: &State, uncommitted: bool) -> fmt::Result {
    if let Some(dirty) = state.dirty.as_ref().filter(|dirty| dirty.is_dirty()) {
        let taken = if uncommitted { "in the set" } else { "not in the set, --uncommitted takes it" };
        write!(f, "\n- not committed: {} ({taken})", counts(dirty))?;
    }
    if !state.submodules.is_empty() {
        let number = state.submodules.len();
        write!(
            f,
            "\n- {number} submodules: their commits are recorded, their repositories are not in the set; name them too"
        )?;
    }
    Ok(())
}

fn counts(dirty: &Dirty) -> String {
    let counts = [
        (dirty.staged, "staged"),
        (dirty.unstaged, "unstaged"),
        (dirty.untracked, "untracked"),
        (dirty.unmerged, "in conflict"),
        (dirty.moved_submodules, "submodules elsewhere"),
    ];
    let words =
        counts.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}"));
    words.collect::<Vec<_>>().join(", ")
}

/// What a run did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    #[serde(rename = "repositories")]
    pub(super) entries: Vec<Entry>,
    unavailable: Vec<(String, String)>,
}

/// What became of one folder.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub(super) enum Entry {
    Stored(Box<Stored>),
    Unchanged(Unchanged),
    Files(Files),
    Failed(Failed),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Stored {
    name: String,
    set: String,
    stanza: String,
    /// The set that it builds on; absent when it is a full one.
    parent: Option<String>,
    builds_on: u64,
    recovery_point: String,
    complete: bool,
    encrypted: bool,
    bundle: bool,
    state: State,
    lfs_stored: usize,
    uncommitted: bool,
    stored_bytes: u64,
    problems: Vec<Problem>,
    notes: Vec<String>,
    tag: Option<String>,
    tag_problem: Option<String>,
    stored_in: Vec<String>,
    missing_in: Vec<(String, String)>,
    warnings: Vec<String>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Unchanged {
    name: String,
    set: String,
    recovery_point: String,
    refs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirty: Option<bool>,
    seconds: f64,
}

/// A folder that is no repository.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Files {
    name: String,
    set: String,
    unchanged: bool,
    complete: bool,
    files: u64,
    stored_bytes: u64,
    problems: Vec<Problem>,
    missing_in: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Failed {
    name: String,
    folder: String,
    problem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    exit_code: u8,
    #[serde(skip)]
    exit: Exit,
}

impl Entry {
    pub(super) fn stored(report: &CodeReport, warnings: Vec<String>) -> Self {
        let (manifest, facts) = (&report.receipt.manifest, &report.facts);
        Self::Stored(Box::new(Stored {
            name: manifest.source.database.clone(),
            set: manifest.set.to_string(),
            stanza: manifest.stanza.to_string(),
            parent: manifest.parent.as_ref().map(ToString::to_string),
            builds_on: facts.builds_on,
            recovery_point: manifest.recovery_point.to_string(),
            complete: manifest.complete,
            encrypted: manifest.objects.iter().all(|object| !object.recipients.is_empty()),
            bundle: facts.bundle,
            state: report.state.clone(),
            lfs_stored: facts.lfs.stored.len(),
            uncommitted: facts.uncommitted.is_some(),
            stored_bytes: manifest.stored_size(),
            problems: report.problems.clone(),
            notes: report.notes.clone(),
            tag: report.mark.clone().and_then(Result::ok),
            tag_problem: report.mark.clone().and_then(Result::err),
            stored_in: report.receipt.stored_in.clone(),
            missing_in: report.receipt.missing_in.clone(),
            warnings,
            seconds: report.elapsed.as_secs_f64(),
        }))
    }

    pub(super) fn unchanged(
        name: &str,
        set: String,
        recovery_point: Timestamp,
        refs: u64,
        dirty: Option<bool>,
        elapsed: Duration,
    ) -> Self {
        let (name, recovery_point) = (name.to_owned(), recovery_point.to_string());
        Self::Unchanged(Unchanged { name, set, recovery_point, refs, dirty, seconds: elapsed.as_secs_f64() })
    }

    pub(super) fn files(name: &str, outcome: Outcome) -> Result<Self, Failure> {
        let name = name.to_owned();
        match outcome {
            Outcome::Stored(report) => Ok(Self::Files(Files {
                name,
                set: report.receipt.manifest.set.to_string(),
                unchanged: false,
                complete: report.receipt.manifest.complete,
                files: report.facts.files,
                stored_bytes: report.receipt.manifest.stored_size(),
                problems: report.problems.clone(),
                missing_in: report.receipt.missing_in.clone(),
            })),
            Outcome::Unchanged { set, looked_at, .. } => Ok(Self::Files(Files {
                name,
                set: set.to_string(),
                unchanged: true,
                complete: true,
                files: looked_at,
                stored_bytes: 0,
                problems: Vec::new(),
                missing_in: Vec::new(),
            })),
            _ => Err(Failure::usage("this program is older than its library")),
        }
    }

    pub(super) fn failed(name: &str, folder: &Path, failure: &Failure) -> Self {
        Self::Failed(Failed {
            name: name.to_owned(),
            folder: folder.display().to_string(),
            problem: failure.message(),
            hint: failure.hint().map(str::to_owned),
            exit_code: failure.exit().code(),
            exit: failure.exit(),
        })
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Stored(set) => exit(set.complete, !set.missing_in.is_empty() || set.tag_problem.is_some()),
            Self::Files(set) => exit(set.complete, !set.missing_in.is_empty()),
            Self::Unchanged(_) => Exit::Done,
            Self::Failed(failed) => failed.exit,
        }
    }
}

impl Report {
    pub(super) fn new(opened: &Opened) -> Self {
        let out = opened.unavailable.iter().map(|out| (out.name.clone(), out.failure.message()));
        Self { entries: Vec::new(), unavailable: out.collect() }
    }

    /// Damage before a conflict before the rest; what was only missed comes last.
    pub(super) fn exit(&self) -> Exit {
        let rank = |exit: &Exit| match exit {
            Exit::Internal => 7,
            Exit::Data => 6,
            Exit::Conflict => 5,
            Exit::Usage => 4,
            Exit::Temporary => 3,
            Exit::Absent => 2,
            Exit::Missed => 1,
            Exit::Done => 0,
        };
        let missed = (!self.unavailable.is_empty()).then_some(Exit::Missed);
        self.entries.iter().map(Entry::exit).chain(missed).max_by_key(rank).unwrap_or(Exit::Done)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, entry) in self.entries.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            match entry {
                Entry::Stored(set) => set.fmt(f)?,
                Entry::Unchanged(set) => set.fmt(f)?,
                Entry::Files(set) => set.fmt(f)?,
                Entry::Failed(failed) => failed.fmt(f)?,
            }
        }
        for (repository, problem) in &self.unavailable {
            write!(f, "\n! repository {repository} could not be opened: {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.complete { "" } else { "incomplete " };
        let kind = if self.parent.is_some() { "increment" } else { "full set" };
        write!(
            f,
            "{state}{kind} {} of {}: {}, stored as {} in {:.1} s ({}{})",
            self.set,
            self.name,
            Summary(&self.state),
            Bytes(self.stored_bytes),
            self.seconds,
            self.stored_in.join(", "),
            if self.encrypted { "" } else { "; not encrypted" }
        )?;
        if let Some(parent) = &self.parent {
            let new = if self.bundle { "" } else { ", without new objects" };
            write!(f, "\n  it builds on set {parent}, {} in all{new}", self.builds_on + 1)?;
        }
        print_missing(f, &self.missing_in)?;
        if let Some(tag) = &self.tag {
            write!(f, "\n  tagged as {tag}")?;
        }
        beside(f, &self.state, self.uncommitted)?;
        print_problems(f, &self.problems)?;
        let problem = self.tag_problem.iter().map(|problem| format!("no tag was left: {problem}"));
        problem.chain(self.warnings.iter().cloned()).try_for_each(|warning| write!(f, "\n! {warning}"))?;
        self.notes.iter().try_for_each(|note| write!(f, "\n- {note}"))
    }
}

impl fmt::Display for Unchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is unchanged since set {} of {}: nothing was stored ({} refs looked at in {:.1} s)",
            self.name, self.set, self.recovery_point, self.refs, self.seconds
        )
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unchanged {
            write!(f, "{} is unchanged since set {}: nothing was stored", self.name, self.set)?;
        } else {
            let state = if self.complete { "" } else { "incomplete " };
            let (files, bytes) = (self.files, Bytes(self.stored_bytes));
            write!(f, "{state}set {} of {}: {files} files, stored as {bytes}", self.set, self.name)?;
        }
        write!(
            f,
            "\n- it is no git repository, and was taken as files: restore-config --name {}",
            self.name
        )?;
        print_missing(f, &self.missing_in)?;
        print_problems(f, &self.problems)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "! {} was not backed up: {}{}", self.name, self.problem, Remedy(self.hint.as_deref()))
    }
}
