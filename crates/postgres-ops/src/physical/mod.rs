//! Physical sets: the files of a whole cluster, from which WAL leads to any later moment.
//!
//! ```text
//! pack-00001.tar.zst …   files of the data directory and of tablespaces, in tar streams
//! last.tar.zst           backup_label, and pg_control as the very last file
//! backup_manifest.zst    PostgreSQL's own manifest: pg_verifybackup accepts what was restored
//! index.zst              where each file lies, and a digest of each block of it
//! ```
//!
//! A set holds no WAL. It is committed only when every segment that makes it consistent is in the WAL archive, and its
//! facts name them.

mod backup;
pub mod control;
mod facts;
mod index;
pub mod manifest_file;
pub mod page;
mod path;
pub mod rules;
pub mod scan;

pub use backup::{
    BackupError, BackupOptions, ClusterBackupPlan, ClusterBackupReport, backup_cluster, check_cluster,
    plan_cluster_backup,
};
pub use control::ControlFile;
pub use facts::{ClusterFacts, CorruptPage, Tablespace, WalRange};
pub use index::{BLOCK, BlockDigest, IndexDirectory, IndexEnd, IndexFile, IndexLine, IndexPack};
pub use path::{ClusterPath, ClusterPathError};
