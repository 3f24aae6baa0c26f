//! The file that says: this directory is being restored, from this set, to here. Written first, removed last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstay_backup_core::id::SetId;
use serde::{Deserialize, Serialize};

use super::ClusterRestoreError;

/// Its name in the data directory.
pub(super) const NAME: &str = "backstay-restore.unfinished";
/// What it is written as before it gets its name.
pub(super) const TEMPORARY: &str = "backstay-restore.unfinished.tmp";

/// What an unfinished restore is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Marker {
    pub(super) set: SetId,
    /// Where tablespaces go, by oid.
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
}

impl Marker {
    /// The marker of a directory, where there is one.
    pub(super) fn read(data: &Path) -> Result<Option<Self>, ClusterRestoreError> {
        let path = data.join(NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ClusterRestoreError::io("read", &path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| ClusterRestoreError::Target {
            problem: format!("cannot be understood ({error})"),
            path,
            remedy: "remove the directory, or name another one",
        })
    }

    pub(super) fn content(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("names and paths are JSON");
        text.push(b'\n');
        text
    }
}
