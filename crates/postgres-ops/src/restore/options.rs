//! What a restore can be told.

use crate::tools::ToolSearch;

/// Options of [`crate::restore_database`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Name of the restored database; that of the source by default.
    pub target: Option<String>,
    /// Replace a database that exists; the old one is kept under another name.
    pub replace: bool,
    /// End other sessions of the database that is replaced.
    pub disconnect: bool,
    /// Drop the replaced database after the swap.
    pub drop_old: bool,
    /// Only these tables (`schema.table`, `*` and `?` allowed), with what belongs to them.
    pub tables: Vec<String>,
    /// Only these schemas.
    pub schemas: Vec<String>,
    /// Everything is owned by the role that restores.
    pub no_owner: bool,
    /// Privileges are left as the server gives them.
    pub no_privileges: bool,
    /// Everything goes into the default tablespace.
    pub no_tablespaces: bool,
    /// Create roles that the set knows and the server lacks.
    pub create_roles: bool,
    /// Tables loaded and indexes built at the same time.
    pub jobs: usize,
    /// Tables with at least this many bytes of rows are loaded on their own, and their indexes built while others load;
    /// 16 MiB by default.
    pub large_table: u64,
    /// Read and check every stored byte before the target is touched. Reads the set twice.
    pub verify_first: bool,
    /// Run `ANALYZE` at the end.
    pub analyze: bool,
    /// Where client programs are.
    pub tools: ToolSearch,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            target: None,
            replace: false,
            disconnect: false,
            drop_old: false,
            tables: Vec::new(),
            schemas: Vec::new(),
            no_owner: false,
            no_privileges: false,
            no_tablespaces: false,
            create_roles: true,
            jobs: 2,
            large_table: 16 << 20,
            verify_first: true,
            analyze: false,
            tools: ToolSearch::default(),
        }
    }
}

impl RestoreOptions {
    /// Whether the whole set is restored.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.tables.is_empty() && self.schemas.is_empty()
    }

    /// Sets the name of the restored database.
    #[must_use]
    pub fn target(mut self, database: &str) -> Self {
        self.target = Some(database.to_owned());
        self
    }

    /// Sets whether an existing database is replaced.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// Sets the tables to restore.
    #[must_use]
    pub fn tables<'a>(mut self, tables: impl IntoIterator<Item = &'a str>) -> Self {
        self.tables = tables.into_iter().map(str::to_owned).collect();
        self
    }

    /// Sets from how many bytes of rows on a table is loaded on its own.
    #[must_use]
    pub fn large_table(mut self, bytes: u64) -> Self {
        self.large_table = bytes;
        self
    }

    /// Sets how many tables are loaded at the same time.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }
}
