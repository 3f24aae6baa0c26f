//! Installs what a plan says.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::install::{self, Prepared, make_parents};
use super::plan::{Plan, Step, What};
use super::record::{self, Run, RunStep, temporary};
use super::stage::{Staged, UNDO};
use crate::attributes::{self, Attributes, give};
use crate::error::Error;
use crate::files::{Root, handle_path};
use crate::tar::{END, Entry, EntryKind, Kind, encode, padding};
use crate::unpack::lacking_words;
use crate::walk::State;

/// Files prepared before they are synced and renamed together.
const TOGETHER: usize = 256;

/// What an installation did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Applied {
    /// Where it can be taken back from; absent when there was nothing to do.
    pub undo: Option<PathBuf>,
    /// How many steps were done.
    pub done: u64,
    /// What was left alone, because it changed meanwhile: path and reason.
    pub left: Vec<(String, String)>,
    /// What this account could not give: path and words.
    pub lacking: Vec<(String, String)>,
}

/// Installs. Blocks. Each live file is the old one or the new one at any moment; what is replaced is kept first.
///
/// # Errors
/// Something cannot be written. What was installed until then stays, and can be taken back.
pub fn apply(
    plan: &Plan,
    staged: &Staged,
    run_id: &str,
    cancel: &CancellationToken,
) -> Result<Applied, Error> {
    let mut applied = Applied { undo: None, done: 0, left: Vec::new(), lacking: Vec::new() };
    clear_killed_runs(&staged.folder)?;
    if plan.steps.is_empty() {
        return Ok(applied);
    }
    let open = |path: &Path| Root::open(path).map_err(|error| Error::io("open", path, error.into()));
    let (live, source) = (open(&plan.root)?, open(&staged.files)?);
    let folder = keep(plan, &live, &source, &staged.folder.join(UNDO).join(run_id), run_id)?;
    applied.undo = Some(folder.clone());
    let mut installer = Installer { plan, live, source, run_id, applied };
    let numbered: Vec<_> = plan.steps.iter().enumerate().collect();
    for steps in numbered.chunks(TOGETHER) {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        installer.install(steps)?;
    }
    installer.folders()?;
    record::write_durably(&folder.join(record::DONE), b"")?;
    Ok(installer.applied)
}

struct Installer<'a> {
    plan: &'a Plan,
    live: Root,
    source: Root,
    run_id: &'a str,
    applied: Applied,
}

impl Installer<'_> {
    fn error(&self, op: &'static str, step: &Step, error: Errno) -> Error {
        Error::io(op, &self.plan.root.join(step.path.as_path()), error.into())
    }

    /// Further names of files come after the files, because they are made of what is in its place.
    fn install(&mut self, steps: &[(usize, &Step)]) -> Result<(), Error> {
        let (further, first): (Vec<_>, Vec<_>) =
            steps.iter().partition(|(_, step)| matches!(step.entry.kind, Kind::Hardlink { .. }));
        self.install_some(&first)?;
        self.install_some(&further)
    }

    fn install_some(&mut self, steps: &[(usize, &Step)]) -> Result<(), Error> {
        let mut prepared = Vec::new();
        for (number, step) in steps {
            if matches!(step.what, What::CreateFolder | What::ChangeFolder) {
                if step.what == What::CreateFolder {
                    self.create_folder(step)?;
                }
                continue;
            }
            match self.prepare(*number, step) {
                Ok(one) => prepared.push((one, *step)),
                Err(error) => {
                    prepared.iter().for_each(|(one, _): &(Prepared, &Step)| one.discard());
                    return Err(error);
                }
            }
        }
        let sync = || install::sync(prepared.iter().map(|(one, _)| one));
        let synced = |error: Errno| Error::io("sync", &self.plan.root, error.into());
        sync().map_err(synced)?;
        for (one, step) in &prepared {
            match one.commit(step.live.as_ref()).map_err(|error| self.error("replace", step, error))? {
                true => self.applied.done += 1,
                false => {
                    let reason = "it changed after it was compared".to_owned();
                    self.applied.left.push((format!("/{}", step.path), reason));
                }
            }
        }
        sync().map_err(|error| Error::io("sync", &self.plan.root, error.into()))
    }

    fn prepare(&mut self, number: usize, step: &Step) -> Result<Prepared, Error> {
        let name = temporary(self.run_id, number);
        let prepared = install::prepare(&self.live, &self.source, &step.entry, name.clone());
        let (one, lacking) = prepared.map_err(|error| {
            install::remove_temporary(&self.live, &step.path, &name);
            self.error("write beside", step, error)
        })?;
        self.note(step, lacking_words(&lacking));
        Ok(one)
    }

    fn note(&mut self, step: &Step, words: Option<String>) {
        self.applied.lacking.extend(words.map(|words| (format!("/{}", step.path), words)));
    }

    fn create_folder(&self, step: &Step) -> Result<(), Error> {
        let made = make_parents(&self.live, &step.path)
            .and_then(|parent| rustix::fs::mkdirat(&parent, step.path.name(), Mode::RWXU));
        match made {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(self.error("create", step, error)),
        }
    }

    /// Owners and permissions of folders come last, the innermost first, when nothing is made in them any more.
    fn folders(&mut self) -> Result<(), Error> {
        let steps = self.plan.steps.iter().filter(|step| step.entry.kind == Kind::Directory);
        let mut steps: Vec<_> = steps.collect();
        steps.sort_by(|one, other| other.path.cmp(&one.path));
        for step in steps {
            let open =
                self.live.open_folder(Some(&step.path)).map_err(|error| self.error("open", step, error))?;
            let lacking =
                give(&open, &step.entry.attributes).map_err(|error| self.error("change", step, error))?;
            self.note(step, lacking_words(&lacking));
            self.applied.done += 1;
        }
        Ok(())
    }
}

/// Writes down what will be replaced, and what by. Nothing live was touched when it returns, and everything is durable.
fn keep(plan: &Plan, live: &Root, source: &Root, folder: &Path, run_id: &str) -> Result<PathBuf, Error> {
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(folder)
        .map_err(|error| Error::io("create", folder, error))?;
    let path = folder.join(record::OLD);
    let archive = File::create(&path).map_err(|error| Error::io("create", &path, error))?;
    let mut archive = io::BufWriter::new(archive);
    let mut steps = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let failed = |error: io::Error| Error::io("keep", &plan.root.join(step.path.as_path()), error);
        if step.live.is_some() {
            keep_one(live, step, &mut archive).map_err(failed)?;
        }
        let installed = install::digest(source, &step.path).map_err(|error| failed(error.into()))?;
        steps.push(RunStep {
            path: format!("/{}", step.path),
            bytes: hex::encode(step.path.as_bytes()),
            created: step.live.is_none(),
            installed,
        });
    }
    let finish = |mut archive: io::BufWriter<File>| {
        archive.write_all(&END)?;
        archive.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    finish(archive).map_err(|error| Error::io("write", &path, error))?;
    let root = plan.root.clone();
    let run = Run { format: 1, id: run_id.to_owned(), set: plan.set.clone(), root, steps };
    let bytes = serde_json::to_vec(&run).unwrap_or_default();
    record::write_durably(&folder.join(record::RUN), &bytes)?;
    Ok(folder.to_owned())
}

fn keep_one(live: &Root, step: &Step, archive: &mut impl io::Write) -> io::Result<()> {
    let parent = live.open_parent(&step.path)?;
    let name = step.path.name();
    let stat = crate::files::stat_in(&parent, name)?.ok_or(Errno::NOENT)?;
    let state = State::of(&stat);
    let mut attributes = attributes_of(&state);
    let mut header = Vec::new();
    let mut write = |kind: EntryKind<'_>, attributes: &Attributes, archive: &mut dyn io::Write| {
        encode(&Entry { path: &step.path, kind, attributes }, &mut header);
        archive.write_all(&header)
    };
    match state.file_type() {
        FileType::Symlink => {
            attributes.extended = attributes::extended_of_link(&handle_path(&parent, name))?;
            let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
            write(EntryKind::Symlink(target.as_bytes()), &attributes, archive)
        }
        FileType::Directory => {
            attributes.extended = attributes::extended(live.open_folder(Some(&step.path))?)?;
            write(EntryKind::Directory, &attributes, archive)
        }
        FileType::RegularFile => {
            let file = live.open_file(&step.path)?;
            attributes.extended = attributes::extended(&file)?;
            write(EntryKind::File(state.size), &attributes, archive)?;
            let copied = io::copy(&mut File::from(file).take(state.size), archive)?;
            if copied < state.size {
                return Err(io::Error::other("it became shorter while it was kept"));
            }
            archive.write_all(&END[..padding(state.size)])
        }
        _ => Err(io::Error::other("it is a socket, pipe or device, which cannot be kept")),
    }
}

fn attributes_of(state: &State) -> Attributes {
    Attributes {
        mode: state.raw_mode & 0o7777,
        user: state.user,
        group: state.group,
        modified: i64::try_from(state.modified.div_euclid(1_000_000_000)).unwrap_or(0),
        modified_nanos: u32::try_from(state.modified.rem_euclid(1_000_000_000)).unwrap_or(0),
        ..Attributes::default()
    }
}

/// Removes the temporary files of runs that did not come to their end.
fn clear_killed_runs(staging: &Path) -> Result<(), Error> {
    let Ok(runs) = fs::read_dir(staging.join(UNDO)) else { return Ok(()) };
    for folder in runs.flatten().map(|entry| entry.path()) {
        if folder.join(record::DONE).exists() || !folder.join(record::RUN).exists() {
            continue;
        }
        let run = record::read_run(&folder)?;
        if let Ok(live) = Root::open(&run.root) {
            clear_temporaries(&live, &run);
        }
    }
    Ok(())
}

pub(super) fn clear_temporaries(live: &Root, run: &Run) {
    for (number, step) in run.steps.iter().enumerate() {
        if let Some(path) = step.archive_path() {
            install::remove_temporary(live, &path, &temporary(&run.id, number));
        }
    }
}
