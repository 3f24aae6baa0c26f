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

mod facts;
mod index;
mod path;

pub use facts::{ClusterFacts, CorruptPage, Tablespace, WalRange};
pub use index::{BLOCK, BlockDigest, IndexDirectory, IndexEnd, IndexFile, IndexLine, IndexPack};
pub use path::{ClusterPath, ClusterPathError};
