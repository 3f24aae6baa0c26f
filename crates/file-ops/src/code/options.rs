//! What is backed up, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::set_writer::DataPath;
use jiff::Timestamp;

/// Sets of a chain, the full one included, unless somebody says otherwise.
const CHAIN: u64 = 30;
/// Time for git to go through a repository.
const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// One repository.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CodeOptions {
    /// The protected system.
    pub stanza: Stanza,
    /// What its sets are called.
    pub name: String,
    /// The folder of the repository: its working tree, or itself if it is a bare one.
    pub folder: PathBuf,
    /// This host, as it calls itself.
    pub host: String,
    /// Who can read the set.
    pub recipients: Recipients,
    /// Stores without encryption what has no secret in it.
    pub plaintext: bool,
    /// Paths in which nothing is a secret, as in `.gitignore`, seen from the top of the repository.
    pub allow: Vec<String>,
    /// Takes what is not committed, too.
    pub uncommitted: bool,
    /// Stores also what did not change, and all of it.
    pub full: bool,
    /// Stores all of it when the newest set is older than that, changed or not.
    pub refresh_after: Option<Duration>,
    /// Most sets that build on each other, the full one included; 30 by default. A restore reads them all.
    pub chain: u64,
    /// Leaves a tag object at the commit in the repository, under `refs/backstay/sets/`.
    pub mark: bool,
    /// Where the proof is made: room for the objects of the bundle is needed there.
    pub scratch: PathBuf,
    /// Time for git to go through the repository; 6 hours by default.
    pub timeout: Duration,
    /// How objects are compressed, but for the bundle, which is compressed already.
    pub codec: Codec,
    /// Speed and memory.
    pub data_path: DataPath,
    /// Locks objects until then.
    pub retain_until: Option<Timestamp>,
    /// The operator's own words.
    pub annotations: BTreeMap<String, String>,
    /// Name and version of the writing program.
    pub tool: String,
}

impl CodeOptions {
    /// The repository in a folder; the proof is made below `scratch`.
    #[must_use]
    pub fn new(stanza: Stanza, name: &str, folder: &Path, scratch: &Path) -> Self {
        Self {
            stanza,
            name: name.to_owned(),
            folder: folder.to_owned(),
            host: String::new(),
            recipients: Recipients::none(),
            plaintext: false,
            allow: Vec::new(),
            uncommitted: false,
            full: false,
            refresh_after: None,
            chain: CHAIN,
            mark: false,
            scratch: scratch.to_owned(),
            timeout: TIMEOUT,
            codec: Codec::Zstd,
            data_path: DataPath::default(),
            retain_until: None,
            annotations: BTreeMap::new(),
            tool: concat!("backstay-file-ops ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
