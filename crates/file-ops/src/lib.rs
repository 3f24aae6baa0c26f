//! Configuration and code for Backstay: artefacts that open with stock tools.
//!
//! Configuration becomes one tar archive ([`config_set`]): owners, modes, ACLs, extended attributes, links and holes
//! included. Nothing is read through a symbolic link, and what could not be read makes the set an incomplete one.
//! [`restore`] unpacks an archive into a folder of its own first, whoever wrote it; compares it with the live system;
//! and installs file by file, so that each is the old one or the new one at any moment, and can be taken back.
//!
//! Code becomes bundles of git ([`code`]): full ones and increments, proven by taking them apart as a clone does it.
//!
//! Without encryption a set with secrets in it is refused: [`scan`] finds them by name and by content.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod acl;
mod attributes;
mod capture;
pub mod code;
pub mod config_set;
mod error;
mod files;
mod frames;
mod path;
pub mod restore;
pub mod scan;
pub mod secret_files;
mod selection;
pub mod system;
pub mod tar;
pub mod unpack;
mod walk;

pub use attributes::Attributes;
pub use error::{Error, Finding};
pub use path::{ArchivePath, PathProblem};
pub use selection::{Selection, SelectionOptions};
