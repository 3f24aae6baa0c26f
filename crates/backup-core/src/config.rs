//! The configuration: one TOML file, the environment and flags, laid over each other.
//!
//! ```text
//! defaults  <  file  <  environment (BACKSTAY_…)  <  flags
//! ```
//!
//! [`Config::load`] is a pure function of these layers: this library reads neither environment nor arguments. It is
//! strict, because a misspelt key of a backup tool is found out when it is too late: unknown keys and bad values are
//! refused with their line and, where one is close, the key that was probably meant. Every key `section.key` has the
//! variable `BACKSTAY_SECTION_KEY` and the flag `--option section.key=…`; keys of a repository go by its name
//! (`repository.offsite.limits.concurrency`).

mod document;
mod error;
mod files;
mod location;
mod model;
mod notify;
mod reader;
mod sections;
mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use error::{ConfigError, ConfigWarning, Origin};
pub use files::{FilesConfig, SecretFileConfig};
pub use model::{
    Checksums, CompressionConfig, Config, EncryptionConfig, LimitsConfig, LockMode, ObjectLock, Place,
    PostgresConfig, RedisConfig, RepositoryConfig, RetentionConfig, S3Config, Sse, WalConfig,
};
pub use notify::{
    CHANNEL_KINDS, ChannelConfig, ChannelKind, IncidentPlace, NotifyConfig, NotifyOn, NotifyPolicy, PolicyRow,
};
pub use units::{ByteSize, TimeSpan, UnitError};

use document::{Entry, Node, Table};
use reader::{Layers, Reader};

use crate::id::Stanza;

/// Largest configuration file in bytes that is read.
pub const MAX_CONFIG: u64 = 1 << 20;
/// Where the configuration is looked for when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/backstay/backstay.toml";

/// A configuration file as read.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Where it is; relative paths in it are relative to its folder.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

impl ConfigFile {
    /// Reads a file. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// [`ConfigError::Read`] when it cannot be read, is no text or is larger than [`MAX_CONFIG`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        use std::io::{Error, Read};
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        let length = file.take(MAX_CONFIG + 1).read_to_string(&mut text).map_err(failed)?;
        if length as u64 > MAX_CONFIG {
            return Err(failed(Error::other("it is larger than a configuration can be")));
        }
        Ok(Self { path: path.to_owned(), text })
    }
}

/// One key that was set by a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key with its sections, such as `compression.level`.
    pub key: String,
    /// Its value as text.
    pub value: String,
    /// The flag, for messages.
    pub flag: String,
}

impl Setting {
    /// The value that a flag of its own gives to a key.
    #[must_use]
    pub fn new(key: &str, value: impl Into<String>, flag: &str) -> Self {
        Self { key: key.to_owned(), value: value.into(), flag: flag.to_owned() }
    }
}

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Repositories: names of configured ones, directories or `s3://` addresses. They replace the configured list.
    pub repositories: Vec<String>,
    /// Single keys; the last one of a key wins.
    pub settings: Vec<Setting>,
}

/// A configuration and what should be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Accepted, but worth a word.
    pub warnings: Vec<ConfigWarning>,
}

impl Config {
    /// Lays the layers over each other and checks the result.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(
        file: Option<&ConfigFile>,
        environment: &BTreeMap<String, String>,
        flags: &Flags,
    ) -> Result<Loaded, ConfigError> {
        let table = match file {
            Some(file) => document::parse(&file.path.display().to_string(), &file.text)?,
            None => Table::new(),
        };
        let mut layers = Layers::new(environment, &flags.settings);
        layers.base = file.and_then(|file| file.path.parent()).map(Path::to_owned);
        let root = Reader::new(&layers, "", Some(&table));
        let repository = chosen(&root, sections::repositories(&root)?, flags)?;
        let stanza = root.parsed::<Stanza>("stanza")?;
        let encryption = sections::encryption(root.section("encryption")?)?;
        let files = files::files(root.section("files")?, encryption.allow_single_recipient)?;
        let config = Self {
            stanza: stanza.unwrap_or_else(|| Stanza::parse("main").expect("it is a valid name")),
            quorum: quorum(&root, repository.len())?,
            repository,
            retention: sections::retention(root.section("retention")?)?,
            limits: sections::limits(root.section("limits")?)?,
            encryption,
            compression: sections::compression(root.section("compression")?)?,
            postgres: sections::postgres(root.section("postgres")?)?,
            redis: sections::redis(root.section("redis")?)?,
            wal: sections::wal(root.section("wal")?)?,
            files,
            notify: notify::notify(root.section("notify")?)?,
        };
        root.finish()?;
        layers.finish()?;
        Ok(Loaded { config: config.with_common_rules(), warnings: layers.warnings.into_inner() })
    }

    /// The JSON Schema of the file, for editors.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// Hands the common retention and limits to the repositories without their own.
    fn with_common_rules(mut self) -> Self {
        for repository in &mut self.repository {
            if repository.retention.is_empty() {
                repository.retention = self.retention.clone();
            }
            let limits = &mut repository.limits;
            limits.bytes_per_second = limits.bytes_per_second.or(self.limits.bytes_per_second);
            limits.concurrency = limits.concurrency.or(self.limits.concurrency);
        }
        self
    }
}

fn quorum(root: &Reader<'_>, repositories: usize) -> Result<usize, ConfigError> {
    let quorum = root.count("quorum")?.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX));
    match root.origin("quorum") {
        // With no repository at all the command itself says so; that is the better message.
        Some(origin) if repositories > 0 && quorum > repositories => {
            let problem = format_args!("{quorum} is more than the number of repositories, {repositories}");
            Err(root.bad("quorum", &origin, problem))
        }
        _ => Ok(quorum),
    }
}

/// The repositories that flags or environment name instead of the configured ones.
fn chosen(
    root: &Reader<'_>,
    configured: Vec<RepositoryConfig>,
    flags: &Flags,
) -> Result<Vec<RepositoryConfig>, ConfigError> {
    let variable = reader::variable("repository");
    let (texts, origin) = match root.layers.environment.get(&variable) {
        _ if !flags.repositories.is_empty() => {
            (flags.repositories.clone(), Origin::Flag { flag: "--repository".to_owned() })
        }
        Some(list) => {
            (list.split_whitespace().map(str::to_owned).collect(), Origin::Environment { variable })
        }
        None => return Ok(configured),
    };
    if texts.is_empty() {
        return Ok(configured);
    }
    let mut all: Vec<RepositoryConfig> = Vec::new();
    for text in texts {
        let repository = match configured.iter().find(|repository| repository.name == text) {
            Some(repository) => repository.clone(),
            None => {
                let node = Node::Table(location::parse(&text, &origin)?);
                sections::repository(root, &Entry { origin: origin.clone(), node })?
            }
        };
        if all.iter().any(|other| other.name == repository.name) {
            return Err(root.bad(
                "repository",
                &origin,
                format_args!("{:?} is given twice", repository.name),
            ));
        }
        all.push(repository);
    }
    Ok(all)
}
