use std::path::PathBuf;

use crate::Result;
use crate::postgres::PostgresInstall;

/// How a [`TestPostgres`](crate::TestPostgres) is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// Which programs to use; `None` means the distribution's.
    pub install: Option<PostgresInstall>,
    /// Lines for `postgresql.conf`, later ones win. Values are quoted when written.
    pub settings: Vec<(String, String)>,
    /// The cluster's locale. `C.UTF-8` is on every Debian; others must be generated on the machine.
    pub locale: String,
    /// The cluster's encoding.
    pub encoding: String,
    /// Further arguments of `initdb`, such as `--locale-provider=icu` or `--wal-segsize=1`.
    pub initdb_args: Vec<String>,
    /// Whether pages carry checksums; they do by default, as a server worth backing up should.
    pub data_checksums: bool,
    /// Whether writes are forced to disk. Off by default: a test machine that loses power loses the test anyway, and
    /// a killed *process* loses nothing without it. Benchmarks switch it on.
    pub fsync: bool,
    /// An existing data directory to run instead of a new cluster, with its superuser's password.
    pub existing: Option<(PathBuf, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            install: None,
            settings: vec![],
            locale: "C.UTF-8".to_owned(),
            encoding: "UTF8".to_owned(),
            initdb_args: vec![],
            data_checksums: true,
            fsync: false,
            existing: None,
        }
    }
}

impl PostgresOptions {
    /// Uses the programs of `install`.
    #[must_use]
    pub fn install(mut self, install: &PostgresInstall) -> Self {
        self.install = Some(install.clone());
        self
    }

    /// Uses a major version.
    ///
    /// # Errors
    /// When it is not on this machine, with the command that gets it.
    pub fn version(self, major: u32) -> Result<Self> {
        Ok(self.install(&PostgresInstall::find(major)?))
    }

    /// Adds a server setting; the value is written as it is meant, quoting is done here.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets locale and encoding of the cluster, such as `"C"` and `"LATIN1"`.
    #[must_use]
    pub fn locale(mut self, locale: &str, encoding: &str) -> Self {
        locale.clone_into(&mut self.locale);
        encoding.clone_into(&mut self.encoding);
        self
    }

    /// Adds an argument of `initdb`.
    #[must_use]
    pub fn initdb_arg(mut self, argument: &str) -> Self {
        self.initdb_args.push(argument.to_owned());
        self
    }

    /// Sets whether pages carry checksums.
    #[must_use]
    pub fn data_checksums(mut self, on: bool) -> Self {
        self.data_checksums = on;
        self
    }

    /// Sets whether writes are forced to disk.
    #[must_use]
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// Runs an existing data directory, for example a restored one. It is given to the server's account and gets
    /// this server's settings; it is not removed with the server.
    #[must_use]
    pub fn existing(mut self, data_directory: impl Into<PathBuf>, password: &str) -> Self {
        self.existing = Some((data_directory.into(), password.to_owned()));
        self
    }

    /// The lines for `postgresql.conf`.
    pub(super) fn configuration(&self) -> String {
        let fsync = if self.fsync { "on" } else { "off" };
        // File-backed: a killed server leaves nothing in /dev/shm.
        let defaults = [("fsync", fsync), ("dynamic_shared_memory_type", "mmap"), ("max_connections", "50")];
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let lines = defaults.into_iter().chain(given).map(|(name, value)| {
            let escaped = value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n");
            format!("{name} = '{escaped}'\n")
        });
        std::iter::once("\n# test server\n".to_owned()).chain(lines).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_and_later_ones_follow_the_defaults() {
        let options = PostgresOptions::default().fsync(true).setting("archive_command", "echo 'a' \\b");
        let text = options.configuration();
        assert!(text.contains("fsync = 'on'\n"), "{text}");
        assert!(text.ends_with("archive_command = 'echo ''a'' \\\\b'\n"), "{text}");
    }
}
