//! Backs up one database with `pg_dump`, streamed into a set.
//!
//! ```text
//! 1 inspect   version, rights, a pg_dump that is new enough           refused here: nothing was written
//! 2 snapshot  one session exports it; database facts and table sizes are read under it
//! 3 streams   pg_dump -Fc -Z0 --snapshot … × jobs → scanner → objects  rows, offsets and digests as they pass
//! 4 globals   pg_dumpall --globals-only → one object
//! 5 commit    objects checked, manifest with all facts written last     only now the set exists
//! ```
//!
//! | what fails | what remains |
//! |---|---|
//! | server, password, tool, lock | nothing |
//! | `pg_dump` dies, also after gigabytes, also with exit 0 and a short stream | litter without a manifest |
//! | a repository | the set in the others, if the quorum holds; else litter |
//! | this process (kill -9) | litter; the session ends by itself |
//! | cancellation | children stopped, uploads aborted, litter |
//!
//! Memory is bounded by [`DataPath`](backstay_backup_core::set_writer::DataPath), not by the data.

mod facts;
mod globals;
mod options;
mod plan;
mod run;
mod stream;

pub use options::DumpOptions;
pub use plan::{StreamPlan, plan_streams};
pub use run::{BackupReport, DumpPlan, Phase, backup_database, plan_backup};
