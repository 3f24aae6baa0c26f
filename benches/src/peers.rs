//! The peers installed on this machine, and how they are told what to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_testkit::cache_directories;

/// One installed pgBackRest.
#[derive(Clone, Debug)]
pub struct PgBackRest {
    program: PathBuf,
    version: (u32, u32),
}

impl PgBackRest {
    /// The distribution's own.
    #[must_use]
    pub fn distribution() -> Option<Self> {
        Self::at(Path::new("/usr/bin/pgbackrest"))
    }

    /// The newest private copy that `scripts/setup.sh --pgbackrest` made.
    #[must_use]
    pub fn newest() -> Option<Self> {
        let folders = cache_directories().into_iter().map(|cache| cache.join("pgbackrest"));
        let copies = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let found = copies.filter_map(|copy| Self::at(&copy.path().join("bin/pgbackrest")));
        found.max_by_key(|copy| copy.version)
    }

    fn at(program: &Path) -> Option<Self> {
        let output = Command::new(program).arg("version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut numbers = text.trim().strip_prefix("pgBackRest ")?.split('.');
        let mut number = || numbers.next()?.parse().ok();
        Some(Self { program: program.to_owned(), version: (number()?, number()?) })
    }

    /// Name and version, for tables.
    #[must_use]
    pub fn name(&self) -> String {
        format!("pgBackRest {}.{}", self.version.0, self.version.1)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it talks to an S3 server without TLS.
    #[must_use]
    pub fn speaks_plain_http(&self) -> bool {
        self.version >= (2, 60)
    }
}

/// The wal-rus that `scripts/setup.sh --wal-rus` built.
#[must_use]
pub fn wal_rus() -> Option<PathBuf> {
    let places = cache_directories().into_iter().map(|cache| cache.join("wal-rus/bin/walrus"));
    places.into_iter().find(|program| program.is_file())
}
