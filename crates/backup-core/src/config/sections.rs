//! Decodes each section; the key names here are the public ones.

use std::num::NonZeroU32;

use super::document::{Entry, Node};
use super::error::{ConfigError, Origin};
use super::model::{
    Checksums, CompressionConfig, EncryptionConfig, LimitsConfig, LockMode, ObjectLock, PostgresConfig,
    RedisConfig, RepositoryConfig, RetentionConfig, S3Config, Sse, WalConfig,
};
use super::reader::Reader;
use crate::manifest::Codec;
use crate::secret::SecretRef;

type Result<T> = std::result::Result<T, ConfigError>;

fn count(reader: &Reader<'_>, key: &'static str) -> Result<Option<NonZeroU32>> {
    Ok(reader.count(key)?.and_then(NonZeroU32::new))
}

/// Every `[[repository]]` of the file.
pub(super) fn repositories(root: &Reader<'_>) -> Result<Vec<RepositoryConfig>> {
    let decode = |item| self::repository(root, item);
    let all = root.each("repository", REPOSITORY_FORMS, decode, |repository| &repository.name)?;
    Ok(all.into_iter().map(|(repository, _)| repository).collect())
}

const REPOSITORY_FORMS: &str = "write a [[repository]] section with `path` or `s3`";

/// One repository, of the file or of a flag.
pub(super) fn repository(root: &Reader<'_>, item: &Entry) -> Result<RepositoryConfig> {
    let Node::Table(table) = &item.node else {
        return Err(root.bad("repository", &item.origin, REPOSITORY_FORMS));
    };
    let named = table.get("name").or_else(|| table.get("path"));
    let name = match named.map(|entry| &entry.node) {
        Some(Node::Text(name) | Node::Loose(name)) if !name.is_empty() => name.clone(),
        Some(_) => return Err(root.bad("repository.name", &item.origin, "expected a text")),
        None => address(table.get("s3")).unwrap_or_else(|| "repository".to_owned()),
    };
    let reader = Reader::new(root.layers, &format!("repository.{name}"), Some(table));
    // Asked for so that it is a known key; a flag cannot rename what it is addressed by.
    let _ = reader.in_file("name");
    let path = reader.path("path")?;
    let section = reader.section("s3")?;
    let s3 = if section.is_present() { Some(s3(section)?) } else { None };
    let retention = retention(reader.section("retention")?)?;
    let limits = limits(reader.section("limits")?)?;
    let problem = match (&path, &s3) {
        (Some(_), Some(_)) => Some("it has both `path` and `s3`: keep one"),
        (None, None) => Some("it has neither `path` nor `s3`"),
        _ => None,
    };
    reader.finish()?;
    match problem {
        Some(problem) => Err(root.bad("repository", &item.origin, problem)),
        None => Ok(RepositoryConfig { name, path, s3, retention, limits }),
    }
}

fn address(s3: Option<&Entry>) -> Option<String> {
    let Some(Entry { node: Node::Table(table), .. }) = s3 else { return None };
    let text = |key: &str| match table.get(key).map(|entry| &entry.node) {
        Some(Node::Text(text) | Node::Loose(text)) => Some(text.trim_matches('/')),
        _ => None,
    };
    let bucket = text("bucket")?;
    Some(text("prefix").map_or_else(|| format!("s3://{bucket}"), |prefix| format!("s3://{bucket}/{prefix}")))
}

pub(super) fn s3(reader: Reader<'_>) -> Result<S3Config> {
    let bucket = reader.string("bucket")?;
    let prefix = reader.parsed_prefix("prefix")?;
    let object_lock = object_lock(reader.section("object-lock")?)?;
    let sse = reader.choice("sse", &[("AES256", Sse::Aes256), ("aws:kms", Sse::AwsKms)])?;
    let kms_key = reader.text("kms-key")?;
    if let (Some((_, origin)), true) = (&kms_key, sse != Some(Sse::AwsKms)) {
        return Err(reader.bad("kms-key", origin, "it needs sse = \"aws:kms\""));
    }
    let config = S3Config {
        bucket: bucket.unwrap_or_default(),
        prefix,
        region: reader.string("region")?,
        endpoint: endpoint(&reader)?,
        path_style: reader.boolean("path-style")?.unwrap_or(false),
        profile: reader.string("profile")?,
        access_key_id: access_key(&reader)?,
        secret_access_key: reader.secret("secret-access-key")?,
        storage_class: reader.string("storage-class")?,
        sse,
        kms_key: kms_key.map(|(key, _)| key),
        object_lock,
        checksums: reader
            .choice("checksums", &[("full", Checksums::Full), ("compatible", Checksums::Compatible)])?
            .unwrap_or_default(),
        conditional_writes: reader.boolean("conditional-writes")?.unwrap_or(true),
        tags: reader.pairs("tags")?.unwrap_or_default(),
    };
    let key = |name: &str| reader.key_path(name);
    if config.bucket.is_empty() {
        let problem = "an s3 repository needs the name of its bucket".to_owned();
        return Err(ConfigError::Missing { key: key("bucket"), problem });
    }
    if config.access_key_id.is_some() != config.secret_access_key.is_some() {
        let missing = if config.access_key_id.is_some() { "secret-access-key" } else { "access-key-id" };
        let problem = "an access key has two halves".to_owned();
        return Err(ConfigError::Missing { key: key(missing), problem });
    }
    reader.finish()?;
    Ok(config)
}

/// The id of an access key is no secret, so it may be written down without a warning.
fn access_key(reader: &Reader<'_>) -> Result<Option<SecretRef>> {
    reader.reference_or_text("access-key-id")
}

fn endpoint(reader: &Reader<'_>) -> Result<Option<String>> {
    let Some((text, origin)) = reader.text("endpoint")? else { return Ok(None) };
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') && !host.contains('@') => Ok(Some(text)),
        _ => Err(reader.bad("endpoint", &origin, "write it as https://host or https://host:port")),
    }
}

fn object_lock(reader: Reader<'_>) -> Result<Option<ObjectLock>> {
    let modes = [("governance", LockMode::Governance), ("compliance", LockMode::Compliance)];
    let mode = reader.choice("mode", &modes)?;
    let days = count(&reader, "days")?;
    let key = |name: &str| reader.key_path(name);
    let lock = match (mode, days) {
        (Some(mode), Some(days)) => Some(ObjectLock { mode, days }),
        (None, None) if !reader.is_present() => None,
        (None, _) => {
            let problem = "write governance or compliance".to_owned();
            return Err(ConfigError::Missing { key: key("mode"), problem });
        }
        (_, None) => {
            let problem = "say how many days objects are locked".to_owned();
            return Err(ConfigError::Missing { key: key("days"), problem });
        }
    };
    reader.finish()?;
    Ok(lock)
}

pub(super) fn retention(reader: Reader<'_>) -> Result<RetentionConfig> {
    let keep_within = reader.span("keep-within")?;
    let config = RetentionConfig {
        keep_last: count(&reader, "keep-last")?,
        keep_within,
        keep_hourly: count(&reader, "keep-hourly")?,
        keep_daily: count(&reader, "keep-daily")?,
        keep_weekly: count(&reader, "keep-weekly")?,
        keep_monthly: count(&reader, "keep-monthly")?,
        keep_yearly: count(&reader, "keep-yearly")?,
        min_age: reader.span("min-age")?,
        keep_incomplete: reader.span("keep-incomplete")?,
        max_silence: reader.span("max-silence")?,
    };
    reader.finish()?;
    Ok(config)
}

pub(super) fn limits(reader: Reader<'_>) -> Result<LimitsConfig> {
    let config = LimitsConfig {
        bytes_per_second: reader.size("bytes-per-second")?.filter(|size| size.bytes() > 0),
        concurrency: count(&reader, "concurrency")?,
    };
    reader.finish()?;
    Ok(config)
}

pub(super) fn encryption(reader: Reader<'_>) -> Result<EncryptionConfig> {
    let identity = reader.secret("identity")?;
    let alone = reader.boolean("allow-single-recipient")?.unwrap_or(false);
    let recipients = recipients(&reader, alone)?;
    reader.finish()?;
    Ok(EncryptionConfig { recipients, identity, allow_single_recipient: alone })
}

/// The key `recipients` of a section.
pub(super) fn recipients(reader: &Reader<'_>, alone: bool) -> Result<Vec<String>> {
    let recipients = reader.list("recipients")?.unwrap_or_default();
    for (recipient, origin) in &recipients {
        if recipient.starts_with("AGE-SECRET-KEY-") {
            let problem = "this is a private key: take the public one, which begins with age1";
            return Err(reader.bad("recipients", origin, problem));
        }
        if !recipient.starts_with("age1") {
            let problem = format!("{recipient:?} is no public key: they begin with age1");
            return Err(reader.bad("recipients", origin, problem));
        }
    }
    if let ([(_, origin)], false) = (recipients.as_slice(), alone) {
        let problem = "with one recipient every backup is lost when its key is lost: add a second one that is kept \
                       elsewhere, or set allow-single-recipient = true";
        return Err(reader.bad("recipients", origin, problem));
    }
    Ok(recipients.into_iter().map(|(recipient, _)| recipient).collect())
}

pub(super) fn compression(reader: Reader<'_>) -> Result<CompressionConfig> {
    let codecs = [("none", Codec::None), ("zstd", Codec::Zstd), ("gzip", Codec::Gzip)];
    let codec = reader.choice("codec", &codecs)?.unwrap_or(Codec::Zstd);
    let range = if codec == Codec::Gzip { 1..=9 } else { -7..=19 };
    let level = reader.number("level", range)?;
    let workers = reader.number("workers", 1..=256)?;
    reader.finish()?;
    let small = |number: i64| i32::try_from(number).expect("the range was checked");
    let workers = workers.and_then(|number| NonZeroU32::new(u32::try_from(number).ok()?));
    Ok(CompressionConfig { codec, level: level.map(small), workers })
}

pub(super) fn postgres(reader: Reader<'_>) -> Result<PostgresConfig> {
    let port = reader.number("port", 1..=i64::from(u16::MAX))?;
    let config = PostgresConfig {
        url: connection_url(
            &reader,
            &["postgresql://", "postgres://"],
            "postgresql://user@host:port/database",
            "~/.pgpass, `passfile`",
        )?,
        host: reader.string("host")?,
        port: port.and_then(|port| u16::try_from(port).ok()),
        user: reader.string("user")?,
        database: reader.string("database")?,
        password: reader.secret("password")?,
        passfile: reader.path("passfile")?,
        service: reader.string("service")?,
        service_file: reader.path("service-file")?,
        ssl_mode: reader.choice("ssl-mode", &SSL_MODES)?.map(str::to_owned),
        ssl_root_cert: reader.path("ssl-root-cert")?,
        bin_dir: reader.path("bin-dir")?,
    };
    reader.finish()?;
    Ok(config)
}

pub(super) fn redis(reader: Reader<'_>) -> Result<RedisConfig> {
    let addresses = reader.list("addresses")?.unwrap_or_default();
    let config = RedisConfig {
        url: connection_url(&reader, &["redis://", "rediss://"], "redis://user@host:port", "`password`")?,
        addresses: addresses.into_iter().map(|(address, _)| address).collect(),
        user: reader.string("user")?,
        password: reader.secret("password")?,
        tls: reader.boolean("tls")?.unwrap_or(false),
        tls_ca: reader.path("tls-ca")?,
        tls_certificate: reader.path("tls-certificate")?,
        tls_key: reader.path("tls-key")?,
        tls_server_name: reader.string("tls-server-name")?,
        sentinel: reader.string("sentinel")?,
        sentinel_user: reader.string("sentinel-user")?,
        sentinel_password: reader.secret("sentinel-password")?,
    };
    reader.finish()?;
    Ok(config)
}

/// A number of segments; 0 for none of them.
fn or_none(reader: &Reader<'_>, key: &'static str) -> Result<Option<u32>> {
    Ok(reader.number(key, 0..=100_000)?.and_then(|number| u32::try_from(number).ok()))
}

pub(super) fn wal(reader: Reader<'_>) -> Result<WalConfig> {
    let usual = WalConfig::default();
    let config = WalConfig {
        spool: reader.path("spool")?,
        look_ahead: or_none(&reader, "look-ahead")?.unwrap_or(usual.look_ahead),
        in_flight: count(&reader, "in-flight")?.map_or(usual.in_flight, NonZeroU32::get),
        prefetch: or_none(&reader, "prefetch")?.unwrap_or(usual.prefetch),
        prefetch_size: reader.size("prefetch-size")?.unwrap_or(usual.prefetch_size),
        deadline: reader.span("deadline")?.unwrap_or(usual.deadline),
    };
    reader.finish()?;
    Ok(config)
}

const SSL_MODES: [(&str, &str); 6] = [
    ("disable", "disable"),
    ("allow", "allow"),
    ("prefer", "prefer"),
    ("require", "require"),
    ("verify-ca", "verify-ca"),
    ("verify-full", "verify-full"),
];

/// A connection address is a secret only when it contains a password.
fn connection_url(
    reader: &Reader<'_>,
    schemes: &[&str],
    form: &str,
    instead: &str,
) -> Result<Option<SecretRef>> {
    let Some((text, origin)) = reader.text_if_no_table("url")? else { return reader.secret("url") };
    if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Err(reader.bad("url", &origin, format_args!("write it as {form}")));
    }
    if has_password(&text) {
        let place = match origin {
            Origin::Flag { .. } => "can be read by every user of the machine while the program runs",
            Origin::File { .. } => "stands in the file",
            Origin::Environment { .. } => "",
        };
        if !place.is_empty() {
            reader.layers.warn(format!(
                "the password in `{}` {origin} {place}: use {instead}, or {{ env = \"…\" }}",
                reader.key_path("url")
            ));
        }
    }
    Ok(Some(match origin {
        Origin::Environment { variable } => SecretRef::Env { env: variable },
        _ => SecretRef::Literal(text),
    }))
}

fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = authority.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
        || query.split('&').any(|pair| pair.starts_with("password="))
}
