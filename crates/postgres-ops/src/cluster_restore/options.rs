use std::collections::BTreeMap;
use std::path::PathBuf;

/// How and where to restore the files of a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterRestoreOptions {
    /// The data directory to make.
    pub target: PathBuf,
    /// Directories of tablespaces, by oid or name; others go below `<target>.tablespaces/`.
    pub tablespaces: BTreeMap<String, PathBuf>,
    /// Puts tablespaces that are not named above where they were on the source. On the source's own host that is
    /// where the living cluster has them.
    pub original_tablespaces: bool,
    /// Reuses what is already right in an old data directory. Everything else in it is replaced or removed.
    pub delta: bool,
    /// Takes an old data directory of another cluster for that.
    pub other_cluster: bool,
    /// Packs read at the same time; each takes about 16 MiB of memory. The number of cores by default, at least 2.
    pub parallel: usize,
}

impl ClusterRestoreOptions {
    /// A restore into a new or empty directory.
    #[must_use]
    pub fn new(target: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            target: target.into(),
            tablespaces: BTreeMap::new(),
            original_tablespaces: false,
            delta: false,
            other_cluster: false,
            parallel: cores.max(2),
        }
    }

    /// Puts a tablespace, named by oid or name, into that directory.
    #[must_use]
    pub fn tablespace(mut self, oid_or_name: &str, directory: impl Into<PathBuf>) -> Self {
        self.tablespaces.insert(oid_or_name.to_owned(), directory.into());
        self
    }

    /// Whether tablespaces go where they were.
    #[must_use]
    pub fn original_tablespaces(mut self, original: bool) -> Self {
        self.original_tablespaces = original;
        self
    }

    /// Whether an old data directory is reused.
    #[must_use]
    pub fn delta(mut self, delta: bool) -> Self {
        self.delta = delta;
        self
    }

    /// Whether that may be one of another cluster.
    #[must_use]
    pub fn other_cluster(mut self, other: bool) -> Self {
        self.other_cluster = other;
        self
    }

    /// Sets how many packs are read at the same time.
    #[must_use]
    pub fn parallel(mut self, parallel: usize) -> Self {
        self.parallel = parallel.max(1);
        self
    }
}
