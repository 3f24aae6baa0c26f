//! Takes an installation back.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::apply::clear_temporaries;
use super::install;
use super::record::{self, Run, RunStep, temporary};
use crate::attributes::give;
use crate::error::Error;
use crate::files::Root;
use crate::path::ArchivePath;
use crate::tar::{Kind, TarEntry};
use crate::unpack::{UnpackOptions, unpack};
use crate::walk::State;

/// What was taken back.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Undone {
    /// How many files are what they were again.
    pub restored: u64,
    /// How many were removed, because they had not been there.
    pub removed: u64,
    /// How many were what they had been already.
    pub already: u64,
    /// What was left alone, and why.
    pub left: Vec<(String, String)>,
}

/// Takes a run back that [`super::apply`] kept in `folder`, also one that was killed. Blocks. What somebody changed since is
/// left alone, unless `force`. May be repeated.
///
/// # Errors
/// The folder is not what an installation left, or something cannot be written.
pub fn undo(folder: &Path, force: bool, cancel: &CancellationToken) -> Result<Undone, Error> {
    let run = record::read_run(folder)?;
    let files = folder.join("files");
    if files.exists() {
        fs::remove_dir_all(&files).map_err(|error| Error::io("empty", &files, error))?;
    }
    fs::create_dir(&files).map_err(|error| Error::io("create", &files, error))?;
    let archive = folder.join(record::OLD);
    let opened = File::open(&archive).map_err(|error| Error::io("open", &archive, error))?;
    let options = UnpackOptions { allow_case_collisions: true, ..UnpackOptions::default() };
    let old = unpack(std::io::BufReader::new(opened), &files, &options, cancel)?;
    let open = |path: &Path| Root::open(path).map_err(|error| Error::io("open", path, error.into()));
    let (live, source) = (open(&run.root)?, open(&files)?);
    clear_temporaries(&live, &run);
    let old = old.entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
    let mut undoing = Undoing { run: &run, live, source, old, force, undone: Undone::default() };
    for (number, step) in run.steps.iter().enumerate().rev() {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        undoing.step(number, step)?;
    }
    let undone = undoing.undone;
    record::write_durably(&folder.join(record::DONE), b"undone\n")?;
    fs::remove_dir_all(&files).map_err(|error| Error::io("empty", &files, error))?;
    Ok(undone)
}

struct Undoing<'a> {
    run: &'a Run,
    live: Root,
    source: Root,
    old: HashMap<ArchivePath, TarEntry>,
    force: bool,
    undone: Undone,
}

impl Undoing<'_> {
    fn failed(&self, op: &'static str, path: &ArchivePath, error: Errno) -> Error {
        Error::io(op, &self.run.root.join(path.as_path()), error.into())
    }

    fn left(&mut self, step: &RunStep, reason: &str) {
        self.undone.left.push((step.path.clone(), reason.to_owned()));
    }

    fn step(&mut self, number: usize, step: &RunStep) -> Result<(), Error> {
        let Some(path) = step.archive_path() else {
            self.left(step, "its path is broken in the record");
            return Ok(());
        };
        match (&step.installed, step.created) {
            (None, true) => self.remove_folder(step, &path),
            (None, false) => self.change_folder(step, &path),
            (Some(installed), true) => self.remove(step, &path, installed),
            (Some(installed), false) => self.put_back(number, step, &path, installed),
        }
    }

    fn remove_folder(&mut self, step: &RunStep, path: &ArchivePath) -> Result<(), Error> {
        let removed = self
            .live
            .open_parent(path)
            .and_then(|parent| rustix::fs::unlinkat(&parent, path.name(), AtFlags::REMOVEDIR));
        match removed {
            Ok(()) => self.undone.removed += 1,
            Err(Errno::NOENT) => self.undone.already += 1,
            Err(Errno::NOTEMPTY | Errno::EXIST) => self.left(step, "there are other things in the folder"),
            Err(error) => return Err(self.failed("remove", path, error)),
        }
        Ok(())
    }

    fn change_folder(&mut self, step: &RunStep, path: &ArchivePath) -> Result<(), Error> {
        let Some(old) = self.old.get(path) else {
            self.left(step, "it was not kept");
            return Ok(());
        };
        let open = match self.live.open_folder(Some(path)) {
            Ok(open) => open,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.left(step, "it is no folder any more");
                return Ok(());
            }
            Err(error) => return Err(self.failed("open", path, error)),
        };
        give(&open, &old.attributes).map_err(|error| self.failed("change", path, error))?;
        self.undone.restored += 1;
        Ok(())
    }

    fn now(&self, path: &ArchivePath) -> Result<Option<String>, Error> {
        match install::digest(&self.live, path) {
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
            other => other.map_err(|error| self.failed("read", path, error)),
        }
    }

    fn remove(&mut self, step: &RunStep, path: &ArchivePath, installed: &str) -> Result<(), Error> {
        match self.now(path)? {
            None => self.undone.already += 1,
            Some(now) if now != installed && !self.force => {
                self.left(step, "somebody changed it after it was installed");
            }
            Some(_) => {
                let parent = self.live.open_parent(path).map_err(|error| self.failed("open", path, error))?;
                rustix::fs::unlinkat(&parent, path.name(), AtFlags::empty())
                    .map_err(|error| self.failed("remove", path, error))?;
                self.undone.removed += 1;
            }
        }
        Ok(())
    }

    fn put_back(
        &mut self,
        number: usize,
        step: &RunStep,
        path: &ArchivePath,
        installed: &str,
    ) -> Result<(), Error> {
        let Some(old) = self.old.get(path).cloned() else {
            self.left(step, "it was not kept");
            return Ok(());
        };
        let before = install::digest(&self.source, path).map_err(|error| self.failed("read", path, error))?;
        let now = self.now(path)?;
        let is_ours = now.as_deref() == Some(installed) || now == before;
        if !is_ours && !self.force {
            let reason =
                if now.is_none() { "it is gone" } else { "somebody changed it after it was installed" };
            self.left(step, reason);
            return Ok(());
        }
        let live = self.live.stat(path).map_err(|error| self.failed("read", path, error))?;
        let live = live.map(|stat| State::of(&stat));
        if now == before && live.as_ref().is_some_and(|live| is_old(&self.live, live, &old)) {
            self.undone.already += 1;
            return Ok(());
        }
        let prepared = install::prepare(&self.live, &self.source, &old, temporary(&self.run.id, number));
        let (one, _) = prepared.map_err(|error| self.failed("write beside", path, error))?;
        install::sync([&one]).map_err(|error| self.failed("sync", path, error))?;
        if one.commit(live.as_ref()).map_err(|error| self.failed("replace", path, error))? {
            install::sync([&one]).map_err(|error| self.failed("sync", path, error))?;
            self.undone.restored += 1;
        } else {
            self.left(step, "it changed at this moment");
        }
        Ok(())
    }
}

/// Whether something that holds what the old one held is the old one in everything else too.
fn is_old(live: &Root, state: &State, old: &TarEntry) -> bool {
    let wanted = &old.attributes;
    let time = i128::from(wanted.modified) * 1_000_000_000 + i128::from(wanted.modified_nanos);
    let is_link = matches!(old.kind, Kind::Symlink { .. });
    let mode = state.raw_mode & 0o7777 == wanted.mode || is_link;
    let owner = (state.user, state.group) == (wanted.user, wanted.group);
    let extended = || {
        let open = live.open_file(&old.path).ok()?;
        crate::attributes::extended(open).ok()
    };
    mode && owner && state.modified == time && (is_link || extended().as_ref() == Some(&wanted.extended))
}
