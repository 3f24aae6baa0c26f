//! A set of configuration: one tar archive, and what is worth knowing beside it.
//!
//! ```text
//! walk (stat only) ─▶ fingerprint as in the newest good set? ─▶ nothing to do
//!                  ─▶ without recipients: look for secrets, stop at the first finding
//!                  ─▶ read ─▶ tar ─▶ zstd ─▶ age ─▶ files.tar.zst.age;  problems.jsonl, packages.txt, units.txt, secrets.json; manifest
//! ```
//!
//! The fingerprint is a digest of what the system says of every file (times, sizes, inode numbers), so an unchanged tree costs
//! no reading, and says nothing about content to whoever reads a manifest. Names of files stand in encrypted objects only.

mod backup;
mod facts;
mod look;

pub use crate::walk::{Problem, ProblemKind};
pub(crate) use backup::problem_lines;
pub use backup::{ConfigOptions, ConfigPlan, ConfigReport, Outcome, backup_config, plan_config};
pub use facts::{ConfigFacts, ProblemCounts};

/// Kind of such a set.
pub const KIND: &str = "config";
/// Name of the archive without the endings of compression and encryption.
pub const ARCHIVE: &str = "files.tar";
