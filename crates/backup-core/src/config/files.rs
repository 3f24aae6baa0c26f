//! The section `files`: what `backup-config` backs up, so that it needs no arguments.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;

use super::document::{Entry, Node};
use super::error::ConfigError;
use super::reader::{Layers, Reader};
use super::sections::recipients;
use super::units::TimeSpan;

type Result<T> = std::result::Result<T, ConfigError>;

/// What `backup-config` backs up.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct FilesConfig {
    /// What the sets are called; `config` by default.
    pub name: Option<String>,
    /// Files, folders and patterns; one of the file is relative to the file's own folder.
    #[schemars(default)]
    pub paths: Vec<PathBuf>,
    /// What is left out, as in `.gitignore`, seen from `/`.
    #[schemars(default)]
    pub exclude: Vec<String>,
    /// Paths in which nothing is a secret, as in `.gitignore`; they matter without encryption only.
    #[schemars(default)]
    pub allow: Vec<String>,
    /// Public keys for these sets, instead of those of `encryption`.
    #[schemars(default)]
    pub recipients: Vec<String>,
    /// Stores without encryption, after a look for secrets, when there are no recipients.
    #[schemars(default)]
    pub plaintext: bool,
    /// Adds the list of installed packages.
    #[schemars(default)]
    pub packages: bool,
    /// Adds the list of systemd's units.
    #[schemars(default)]
    pub units: bool,
    /// Adds the cron tables of the system and its users.
    #[schemars(default)]
    pub crontabs: bool,
    /// Goes on into other file systems.
    #[schemars(default)]
    pub cross_file_systems: bool,
    /// Takes folders too that call themselves caches.
    #[schemars(default)]
    pub with_caches: bool,
    /// Stores what did not change when the newest set is older than this.
    pub refresh_after: Option<TimeSpan>,
    /// Secrets that a service keeps: their versions are stored, their files are left out.
    #[schemars(default)]
    pub secret: Vec<SecretFileConfig>,
}

/// A file whose content is a secret that AWS Secrets Manager keeps.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct SecretFileConfig {
    /// The file.
    pub file: PathBuf,
    /// Name or ARN of the secret.
    pub secrets_manager: String,
    /// Field of a JSON secret; the whole text without it.
    pub key: Option<String>,
}

/// Decodes the section; `alone` accepts a single recipient.
pub(super) fn files(reader: Reader<'_>, alone: bool) -> Result<FilesConfig> {
    let texts = |key| -> Result<Vec<String>> {
        Ok(reader.list(key)?.unwrap_or_default().into_iter().map(|(text, _)| text).collect())
    };
    let flag = |key| Ok::<_, ConfigError>(reader.boolean(key)?.unwrap_or(false));
    let paths = reader.list("paths")?.unwrap_or_default().into_iter();
    let config = FilesConfig {
        name: name(&reader)?,
        paths: paths.map(|(text, origin)| reader.resolved(PathBuf::from(text), &origin)).collect(),
        exclude: texts("exclude")?,
        allow: texts("allow")?,
        recipients: recipients(&reader, alone)?,
        plaintext: flag("plaintext")?,
        packages: flag("packages")?,
        units: flag("units")?,
        crontabs: flag("crontabs")?,
        cross_file_systems: flag("cross-file-systems")?,
        with_caches: flag("with-caches")?,
        refresh_after: reader.span("refresh-after")?,
        secret: secrets(&reader)?,
    };
    reader.finish()?;
    Ok(config)
}

fn name(reader: &Reader<'_>) -> Result<Option<String>> {
    match reader.text("name")? {
        Some((name, origin)) if name.contains('/') || name.len() > 64 => {
            Err(reader.bad("name", &origin, "it is a short word without /"))
        }
        name => Ok(name.map(|(name, _)| name)),
    }
}

const SECRET_FORM: &str = "write a [[files.secret]] section with `file` and `secrets-manager`";

fn secrets(reader: &Reader<'_>) -> Result<Vec<SecretFileConfig>> {
    let Some(entry) = reader.in_file("secret") else { return Ok(Vec::new()) };
    let Node::List(items) = &entry.node else { return Err(reader.bad("secret", &entry.origin, SECRET_FORM)) };
    let mut all: Vec<SecretFileConfig> = Vec::new();
    for item in items {
        let secret = secret(reader, item)?;
        if all.iter().any(|other| other.file == secret.file) {
            let problem = format!("two secrets belong into {}", secret.file.display());
            return Err(reader.bad("secret", &item.origin, problem));
        }
        all.push(secret);
    }
    Ok(all)
}

fn secret(parent: &Reader<'_>, item: &Entry) -> Result<SecretFileConfig> {
    let Node::Table(table) = &item.node else {
        return Err(parent.bad("secret", &item.origin, SECRET_FORM));
    };
    // No flag and no variable means one of several.
    let empty = BTreeMap::new();
    let mut layers = Layers::new(&empty, &[]);
    layers.base.clone_from(&parent.layers.base);
    let reader = Reader::new(&layers, &parent.key_path("secret"), Some(table));
    let file = reader.path("file")?;
    let (secret, key) = (reader.string("secrets-manager")?, reader.string("key")?);
    reader.finish()?;
    match (file, secret) {
        (Some(file), Some(secrets_manager)) => Ok(SecretFileConfig { file, secrets_manager, key }),
        _ => Err(parent.bad("secret", &item.origin, SECRET_FORM)),
    }
}
