//! Backs up a whole cluster by copying its files, while it is in use.
//!
//! ```text
//! 1 inspect     versions, rights, archiving, the right data directory        refused here: nothing was written
//! 2 start       pg_backup_start in a session that stays open                 the server does a checkpoint
//! 3 list        what belongs to the cluster; not before the start, or what came between would be missing
//! 4 copy        readers fill packs; pages are checked, blocks digested       index and manifest grow beside them
//! 5 pg_control  after all files
//! 6 stop        pg_backup_stop; the last pack; index and manifest end
//! 7 wait        until every WAL segment from start to stop is in the archive
//! 8 commit      objects checked, manifest with all facts written last        only now the set exists
//! ```
//!
//! | what fails | what remains |
//! |---|---|
//! | server, rights, directory, archiving switched off | nothing |
//! | the session, also by a restart of the server or the promotion of a standby | litter without a manifest |
//! | a file cannot be read | litter; the server is out of backup mode |
//! | a page is damaged | a set that names it and counts as incomplete |
//! | the WAL does not arrive | litter |
//! | this process (kill -9) | litter; the session ends by itself, and the backup on the server with it |
//!
//! Memory is bounded by [`DataPath`](backstay_backup_core::set_writer::DataPath), three frames and a part for each
//! reader, and about 40 bytes for each file.

mod copy;
mod corruption;
mod digest;
mod error;
mod frames;
mod label;
mod last;
mod ledger;
mod options;
mod pace;
mod plan;
mod run;
mod session;
mod source;
mod tar;
mod wal;

pub use error::BackupError;
pub use options::BackupOptions;
pub use plan::{ClusterBackupPlan, check_cluster, plan_cluster_backup};
pub use run::{ClusterBackupReport, backup_cluster};
