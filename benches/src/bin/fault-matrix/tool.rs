//! The tools that the matrix can be run with.

use std::path::{Path, PathBuf};
use std::process::Output;

use backstay_benches::PgBackRest;

use crate::backstay;
use crate::fault::Target;
use crate::lab::{Access, Lab};
use crate::pgbackrest;

/// A tool that backs up, archives and restores.
pub(crate) enum Tool {
    PgBackRest(PgBackRest),
    /// Ours, in this folder.
    Backstay(PathBuf),
}

impl Tool {
    /// Name for the table.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::PgBackRest(peer) => peer.name(),
            Self::Backstay(_) => "Backstay".to_owned(),
        }
    }

    /// Name for files.
    pub(crate) fn short(&self) -> &'static str {
        match self {
            Self::PgBackRest(_) => "pgbackrest",
            Self::Backstay(_) => "backstay",
        }
    }

    /// The text of a configuration.
    pub(crate) fn configuration(&self, lab: &Lab, access: &Access) -> String {
        match self {
            Self::PgBackRest(peer) => pgbackrest::configuration(peer, lab, access),
            Self::Backstay(_) => backstay::configuration(lab, access),
        }
    }

    /// Makes a repository.
    pub(crate) fn create(&self, lab: &Lab, configuration: &Path) {
        match self {
            Self::PgBackRest(peer) => pgbackrest::create(peer, lab, configuration),
            Self::Backstay(programs) => backstay::create(programs, lab, configuration),
        }
    }

    /// The line that archives the segment `$1`.
    pub(crate) fn archive_line(&self, lab: &Lab, configuration: &Path) -> String {
        match self {
            Self::PgBackRest(peer) => pgbackrest::archive_line(peer, lab, configuration),
            Self::Backstay(programs) => backstay::archive_line(programs, configuration),
        }
    }

    /// Takes a base backup.
    pub(crate) fn back_up(&self, lab: &Lab, configuration: &Path) {
        match self {
            Self::PgBackRest(peer) => pgbackrest::back_up(peer, lab, configuration),
            Self::Backstay(programs) => backstay::back_up(programs, lab, configuration),
        }
    }

    /// Restores into an empty folder.
    pub(crate) fn restore(&self, lab: &Lab, configuration: &Path, target: Target, data: &Path) -> Output {
        match self {
            Self::PgBackRest(peer) => pgbackrest::restore(peer, lab, configuration, target, data),
            Self::Backstay(programs) => backstay::restore(programs, lab, configuration, target, data),
        }
    }

    /// The file that holds a segment in the repository on disk.
    pub(crate) fn stored(&self, lab: &Lab, segment: &str) -> PathBuf {
        match self {
            Self::PgBackRest(_) => pgbackrest::stored(lab, segment),
            Self::Backstay(_) => backstay::stored(lab, segment),
        }
    }

    /// Name and bytes of a segment with another content, as the tool itself would have stored it.
    pub(crate) fn seal(&self, lab: &Lab, segment: &str, content: &[u8]) -> (PathBuf, Vec<u8>) {
        match self {
            Self::PgBackRest(_) => pgbackrest::seal(lab, segment, content),
            Self::Backstay(_) => backstay::seal(lab, segment, content),
        }
    }
}
