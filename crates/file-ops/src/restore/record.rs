//! What an installation leaves behind so that it can be taken back.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::path::ArchivePath;

/// The steps of a run.
pub(super) const RUN: &str = "run.json";
/// What was replaced, with all attributes.
pub(super) const OLD: &str = "old.tar";
/// Made when a run has done what it could.
pub(super) const DONE: &str = "done";

/// A run of an installation, written before it changes anything.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Run {
    pub(super) format: u32,
    /// Part of the names of temporary files.
    pub(super) id: String,
    pub(super) set: String,
    pub(super) root: PathBuf,
    pub(super) steps: Vec<RunStep>,
}

/// What was to be done to one file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RunStep {
    /// The path for people.
    pub(super) path: String,
    /// The path, in hexadecimal: it need not be text.
    pub(super) bytes: String,
    /// Whether there was nothing before.
    pub(super) created: bool,
    /// Digest of what was installed; absent for folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) installed: Option<String>,
}

impl RunStep {
    pub(super) fn archive_path(&self) -> Option<ArchivePath> {
        ArchivePath::parse(&hex::decode(&self.bytes).ok()?).ok()
    }
}

/// Name of the temporary file of a step.
pub(super) fn temporary(id: &str, number: usize) -> Vec<u8> {
    format!(".backstay-{id}-{number}").into_bytes()
}

/// Writes a small file so that it is there whole, or not at all.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| Error::io("write", path, error))
}

/// Reads the steps of a run.
pub(super) fn read_run(folder: &Path) -> Result<Run, Error> {
    let path = folder.join(RUN);
    let bytes = fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
    let wrong = |problem: String| Error::Staging { path: folder.to_owned(), problem };
    let run: Run = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if run.format != 1 {
        return Err(wrong(format!("it has format {}, this program reads 1", run.format)));
    }
    Ok(run)
}
