//! What a snapshot can be told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::set_writer::DataPath;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::psync::PsyncOptions;
use crate::server::Attach;

use super::custodian::Custodian;

/// How the data is got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// As a replica: nothing is written on the server's side.
    #[default]
    Psync,
    /// The server saves to its own disk, and the file is read there.
    Bgsave,
}

/// Options of [`super::backup_redis`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SnapshotOptions {
    /// Stanza that the set goes to.
    pub stanza: Stanza,
    /// How the data is got.
    pub via: Via,
    /// Which server of a shard is read.
    pub attach: Attach,
    /// Shards read at the same time.
    pub jobs: usize,
    /// The server's snapshot file as this machine sees it, for [`Via::Bgsave`]; where the server says without it.
    pub rdb_file: Option<PathBuf>,
    /// Longest wait for a `BGSAVE`.
    pub save_patience: Duration,
    /// Turn the server's own compression and its wait for more replicas off while it begins the snapshot; that process
    /// turns them back on. For [`Via::Psync`] only.
    pub tune: Option<Custodian>,
    /// How patient the replica is.
    pub psync: PsyncOptions,
    /// Compression.
    pub codec: Codec,
    /// Level, parallelism and part sizes; bounds memory.
    pub data_path: DataPath,
    /// Encrypt to these.
    pub recipients: Recipients,
    /// Lock the set's objects until then, where the store can.
    pub retain_until: Option<Timestamp>,
    /// The operator's own words.
    pub annotations: BTreeMap<String, String>,
    /// Name and version of the program, for the manifest.
    pub tool: String,
}

impl SnapshotOptions {
    /// Sensible defaults: as a replica, from a replica, zstd, no encryption.
    #[must_use]
    pub fn new(stanza: Stanza) -> Self {
        Self {
            stanza,
            via: Via::Psync,
            attach: Attach::Replica,
            jobs: 1,
            rdb_file: None,
            save_patience: Duration::from_secs(3600),
            tune: None,
            psync: PsyncOptions::default().snapshot_only(),
            codec: Codec::Zstd,
            data_path: DataPath::default(),
            recipients: Recipients::none(),
            retain_until: None,
            annotations: BTreeMap::new(),
            tool: concat!("backstay ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Sets how the data is got.
    #[must_use]
    pub fn via(mut self, via: Via) -> Self {
        self.via = via;
        self
    }

    /// Sets whom to encrypt to.
    #[must_use]
    pub fn recipients(mut self, recipients: Recipients) -> Self {
        self.recipients = recipients;
        self
    }
}
