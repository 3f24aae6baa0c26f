//! What a configuration says, after all layers.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;

use super::files::FilesConfig;
use super::notify::NotifyConfig;
use super::units::{ByteSize, TimeSpan};
use crate::id::Stanza;
use crate::manifest::Codec;
use crate::secret::SecretRef;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields, title = "Backstay configuration")]
#[non_exhaustive]
pub struct Config {
    /// Name of the protected system; its sets lie below this name in every repository.
    #[schemars(
        with = "String",
        default = "main_stanza",
        regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    )]
    pub stanza: Stanza,
    /// Where backups are kept; every backup goes to all of them.
    #[schemars(default)]
    pub repository: Vec<RepositoryConfig>,
    /// How many repositories must have a backup before it counts as done; 1 by default.
    #[schemars(with = "NonZeroU32", default = "one")]
    pub quorum: usize,
    /// What `prune-backups` keeps, for repositories without rules of their own.
    #[schemars(default)]
    pub retention: RetentionConfig,
    /// Speed limits, for repositories without limits of their own.
    #[schemars(default)]
    pub limits: LimitsConfig,
    /// Encryption of everything that is stored.
    #[schemars(default)]
    pub encryption: EncryptionConfig,
    /// Compression of everything that is stored.
    #[schemars(default)]
    pub compression: CompressionConfig,
    /// The PostgreSQL server that is backed up or restored.
    #[schemars(default)]
    pub postgres: PostgresConfig,
    /// The Redis that is backed up or restored.
    #[schemars(default)]
    pub redis: RedisConfig,
    /// Archiving and fetching of WAL.
    #[schemars(default)]
    pub wal: WalConfig,
    /// What `backup-config` backs up.
    #[schemars(default)]
    pub files: FilesConfig,
    /// Incidents and notifications.
    #[schemars(default)]
    pub notify: NotifyConfig,
}

fn main_stanza() -> String {
    "main".to_owned()
}

fn one() -> u32 {
    1
}

/// One place that keeps backups: a directory (`path`) or a bucket (`s3`).
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct RepositoryConfig {
    /// Name used in messages and by `--repository`; its path or address by default.
    #[schemars(with = "Option<String>")]
    pub name: String,
    /// Directory; one of the file is relative to the file's own folder.
    pub path: Option<PathBuf>,
    /// Bucket of S3 or of a service that speaks its protocol.
    pub s3: Option<S3Config>,
    /// What `prune-backups` keeps here.
    #[schemars(default)]
    pub retention: RetentionConfig,
    /// Speed limits of this repository.
    #[schemars(default)]
    pub limits: LimitsConfig,
}

/// The one place of a [`RepositoryConfig`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Place<'a> {
    /// A local directory.
    Directory(&'a Path),
    /// A bucket.
    S3(&'a S3Config),
}

impl RepositoryConfig {
    /// Where it is. The loader made sure that there is exactly one answer.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        match (&self.path, &self.s3) {
            (_, Some(s3)) => Place::S3(s3),
            (Some(path), None) => Place::Directory(path),
            (None, None) => Place::Directory(Path::new(&self.name)),
        }
    }
}

/// A bucket and how to talk to it.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct S3Config {
    /// Name of the bucket.
    pub bucket: String,
    /// Folder in the bucket, the whole bucket by default.
    #[schemars(with = "Option<String>")]
    pub prefix: String,
    /// Region; `AWS_REGION` or the profile decides without it.
    pub region: Option<String>,
    /// Address of a service other than AWS, such as `https://minio.example:9000`.
    pub endpoint: Option<String>,
    /// Puts the bucket into the path instead of the host name; most services other than AWS need it.
    #[schemars(default)]
    pub path_style: bool,
    /// Profile of the shared AWS configuration.
    pub profile: Option<String>,
    /// Access key; the usual AWS chain (environment, profile, instance role) without it.
    pub access_key_id: Option<SecretRef>,
    /// Secret of the access key.
    pub secret_access_key: Option<SecretRef>,
    /// Storage class of new objects, such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// Encryption by the service.
    pub sse: Option<Sse>,
    /// Key for `aws:kms`.
    pub kms_key: Option<String>,
    /// Locks new objects against deletion.
    pub object_lock: Option<ObjectLock>,
    /// Checksums sent with uploads.
    #[schemars(default)]
    pub checksums: Checksums,
    /// Whether the service refuses to overwrite (`If-None-Match`); `check-storage` finds out.
    #[schemars(default = "yes")]
    pub conditional_writes: bool,
    /// Tags of new objects.
    #[schemars(default)]
    pub tags: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

/// Server-side encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[non_exhaustive]
pub enum Sse {
    /// Keys of the service.
    #[schemars(rename = "AES256")]
    Aes256,
    /// Keys of the key management service.
    #[schemars(rename = "aws:kms")]
    AwsKms,
}

/// Object lock of new objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct ObjectLock {
    /// Who can lift it.
    pub mode: LockMode,
    /// How many days it lasts.
    pub days: NonZeroU32,
}

/// Who can lift an object lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LockMode {
    /// Roles with a special permission.
    Governance,
    /// Nobody.
    Compliance,
}

/// Which checksums go with uploads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Checksums {
    /// The newest that AWS knows.
    #[default]
    Full,
    /// Only those that older services understand.
    Compatible,
}

/// What `prune-backups` keeps. A set stays when any rule keeps it; without any rule everything stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct RetentionConfig {
    /// The newest sets.
    pub keep_last: Option<NonZeroU32>,
    /// Everything younger than this.
    pub keep_within: Option<TimeSpan>,
    /// The oldest set of each of the last hours that have one.
    pub keep_hourly: Option<NonZeroU32>,
    /// The oldest set of each of the last days that have one.
    pub keep_daily: Option<NonZeroU32>,
    /// The oldest set of each of the last weeks that have one.
    pub keep_weekly: Option<NonZeroU32>,
    /// The oldest set of each of the last months that have one.
    pub keep_monthly: Option<NonZeroU32>,
    /// The oldest set of each of the last years that have one.
    pub keep_yearly: Option<NonZeroU32>,
    /// Sets younger than this are kept and do not count for any rule; 1 day by default.
    pub min_age: Option<TimeSpan>,
    /// How long sets whose source could not be read completely are kept; 7 days by default.
    pub keep_incomplete: Option<TimeSpan>,
    /// A longer pause between two sets does not age what lies before it; 45 days by default.
    pub max_silence: Option<TimeSpan>,
}

impl RetentionConfig {
    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits towards one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Bytes per second in each direction; unlimited by default.
    pub bytes_per_second: Option<ByteSize>,
    /// Requests at the same time; 16 by default.
    pub concurrency: Option<NonZeroU32>,
}

/// Who can read the backups.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct EncryptionConfig {
    /// Public keys (`age1…`); any one of their private keys opens a backup. Nothing is encrypted without one.
    #[schemars(default)]
    pub recipients: Vec<String>,
    /// Private key, needed only to restore or to check the content; better not on the machine that backs up.
    pub identity: Option<SecretRef>,
    /// Accepts a single recipient, although every backup is lost with its key.
    #[schemars(default)]
    pub allow_single_recipient: bool,
}

/// Compression of stored data.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct CompressionConfig {
    /// Format; `zstd` by default.
    #[schemars(with = "Option<Codec>")]
    pub codec: Codec,
    /// For zstd -7 (fastest) to 19 (smallest) but 0, for gzip 1 to 9; the default of each is a good middle.
    pub level: Option<i32>,
    /// Threads; one for each processor by default.
    pub workers: Option<NonZeroU32>,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { codec: Codec::Zstd, level: None, workers: None }
    }
}

/// How to reach PostgreSQL: a `url`, or parts that fill in what it leaves out.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// `postgresql://user@host:port/database?sslmode=…`, or a reference to it.
    pub url: Option<SecretRef>,
    /// Host name, address, or directory of the Unix socket.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Role.
    pub user: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// Password, as a reference; a passfile is the usual place.
    pub password: Option<SecretRef>,
    /// PostgreSQL's password file instead of `~/.pgpass`.
    pub passfile: Option<PathBuf>,
    /// Entry of a PostgreSQL connection service file.
    pub service: Option<String>,
    /// The service file instead of `~/.pg_service.conf`.
    pub service_file: Option<PathBuf>,
    /// As PostgreSQL's `sslmode`.
    pub ssl_mode: Option<String>,
    /// Certificates of the authorities to trust.
    pub ssl_root_cert: Option<PathBuf>,
    /// Folder of `pg_dump` and the other client programs, when it is not in `PATH`.
    pub bin_dir: Option<PathBuf>,
}

/// Connection to Redis or Valkey.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisConfig {
    /// `redis://user@host:port`, or `rediss://…` with encryption, or a reference to it.
    pub url: Option<SecretRef>,
    /// Servers (`host:port`, or the path of a Unix socket); of a cluster any of its nodes, with `sentinel` the Sentinels.
    #[schemars(default)]
    pub addresses: Vec<String>,
    /// User of the access list.
    pub user: Option<String>,
    /// Password, as a reference.
    pub password: Option<SecretRef>,
    /// Whether connections are encrypted.
    #[schemars(default)]
    pub tls: bool,
    /// Certificates of the authorities to trust instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// Our own certificate, for servers that ask for one.
    pub tls_certificate: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Name that the server's certificate must have, when it is not the host's.
    pub tls_server_name: Option<String>,
    /// Name of the primary that the Sentinels at `addresses` watch.
    pub sentinel: Option<String>,
    /// Who one is to the Sentinels.
    pub sentinel_user: Option<String>,
    /// Password for the Sentinels, as a reference.
    pub sentinel_password: Option<SecretRef>,
}

/// How `archive-wal` and `restore-wal` work ahead of the server.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct WalConfig {
    /// Directory for marks and prefetched segments, outside every data directory; `/var/spool/backstay` where that is
    /// ours, else `/var/tmp/backstay-<user id>`.
    pub spool: Option<PathBuf>,
    /// Segments that may be archived before the server asks for it; 64 by default, 0 for none.
    #[schemars(with = "Option<u32>")]
    pub look_ahead: u32,
    /// Segments that are archived or fetched at the same time; 3 by default.
    #[schemars(with = "Option<NonZeroU32>")]
    pub in_flight: u32,
    /// Segments that may be fetched before the server asks for them; 16 by default, 0 for none.
    #[schemars(with = "Option<u32>")]
    pub prefetch: u32,
    /// Bytes that prefetched segments may take on disk; 256 MiB by default.
    #[schemars(with = "Option<ByteSize>")]
    pub prefetch_size: ByteSize,
    /// How long `restore-wal` tries before it gives up; two minutes by default.
    #[schemars(with = "Option<TimeSpan>")]
    pub deadline: TimeSpan,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            spool: None,
            look_ahead: 64,
            in_flight: 3,
            prefetch: 16,
            prefetch_size: ByteSize(256 << 20),
            deadline: TimeSpan::from_secs(120),
        }
    }
}
