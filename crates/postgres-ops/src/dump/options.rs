//! What a logical backup can be told.

use std::collections::BTreeMap;
use std::time::Duration;

use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::set_writer::DataPath;
use jiff::Timestamp;

use crate::selection::Selection;
use crate::tools::ToolSearch;

/// Options of [`crate::backup_database`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DumpOptions {
    /// Stanza that the set goes to.
    pub stanza: Stanza,
    /// Streams dumped at the same time; each is one session and one `pg_dump`.
    pub jobs: usize,
    /// Record a digest of every table's rows, so that a restore is compared by content. Costs about 0.3 s of CPU
    /// per GB here, and a full read of the restored database when it is compared.
    pub digests: bool,
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
    /// What to take.
    pub selection: Selection,
    /// Store roles and other things of the whole server too.
    pub globals: bool,
    /// Longest wait for a table's lock; the dump fails rather than queue in front of production DDL.
    pub lock_timeout: Duration,
    /// Where client programs are.
    pub tools: ToolSearch,
    /// Name and version of the program, for the manifest.
    pub tool: String,
}

impl DumpOptions {
    /// Sensible defaults: one stream, zstd, no encryption, everything taken.
    #[must_use]
    pub fn new(stanza: Stanza) -> Self {
        Self {
            stanza,
            jobs: 1,
            digests: false,
            codec: Codec::Zstd,
            data_path: DataPath::default(),
            recipients: Recipients::none(),
            retain_until: None,
            annotations: BTreeMap::new(),
            selection: Selection::default(),
            globals: true,
            lock_timeout: Duration::from_secs(30),
            tools: ToolSearch::default(),
            tool: concat!("backstay ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Sets the number of streams.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }

    /// Sets whether rows are digested.
    #[must_use]
    pub fn digests(mut self, digests: bool) -> Self {
        self.digests = digests;
        self
    }

    /// Sets whom to encrypt to.
    #[must_use]
    pub fn recipients(mut self, recipients: Recipients) -> Self {
        self.recipients = recipients;
        self
    }

    /// Sets where client programs are.
    #[must_use]
    pub fn tools(mut self, tools: ToolSearch) -> Self {
        self.tools = tools;
        self
    }
}
