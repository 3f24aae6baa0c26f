use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::set_writer::DataPath;
use jiff::Timestamp;

/// Options of [`crate::physical::backup_cluster`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupOptions {
    /// Stanza that the set goes to; the WAL must be archived to the same one.
    pub stanza: Stanza,
    /// Packs read at the same time; each is one thread, and takes three frames and a part of memory. The number of
    /// cores by default.
    pub jobs: usize,
    /// Where the data directory is; where the server says it is by default.
    pub data_directory: Option<PathBuf>,
    /// What the server calls the backup, in `backup_label`.
    pub label: String,
    /// Lets the server do its checkpoint at once, instead of spreading it over minutes.
    pub fast: bool,
    /// Checks the checksum of every page, where the cluster has them.
    pub check_pages: bool,
    /// Takes a set with damaged pages for a good one all the same.
    pub allow_corrupt: bool,
    /// Bytes per second that are read at most, by all jobs together.
    pub rate: Option<u64>,
    /// How long the last WAL segment may take to the archive.
    pub wal_timeout: Duration,
    /// Compression.
    pub codec: Codec,
    /// Level, parallelism and part sizes; bounds memory. Packs are objects written at the same time, so it should be one
    /// that is [`DataPath::side_by_side`].
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

impl BackupOptions {
    /// Sensible defaults: all cores, zstd, pages checked, no limit, no encryption.
    #[must_use]
    pub fn new(stanza: Stanza) -> Self {
        Self {
            stanza,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            data_directory: None,
            label: "backstay".to_owned(),
            fast: true,
            check_pages: true,
            allow_corrupt: false,
            rate: None,
            wal_timeout: Duration::from_secs(300),
            codec: Codec::Zstd,
            data_path: DataPath::default().side_by_side(),
            recipients: Recipients::none(),
            retain_until: None,
            annotations: BTreeMap::new(),
            tool: concat!("backstay ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Name of an object with the suffixes that say how to open it.
    pub(super) fn object_name(&self, base: &str) -> String {
        let encrypted = if self.recipients.is_empty() { "" } else { ".age" };
        format!("{base}{}{encrypted}", self.codec.suffix())
    }
}
