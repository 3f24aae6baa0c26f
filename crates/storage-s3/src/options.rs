//! What a store on S3 can be told, with the effect and the price of each choice.

use std::time::Duration;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::secret::Secret;

/// Options of an [`S3Store`](crate::S3Store).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct S3Options {
    /// Name of the bucket (or ARN of an access point).
    pub bucket: String,
    /// Folder below which all keys live.
    pub prefix: Prefix,
    /// Region; without one the credential chain's, and `us-east-1` where an endpoint is given.
    pub region: Option<String>,
    /// URL of an S3-compatible service; without one Amazon's own.
    pub endpoint: Option<String>,
    /// Addresses the bucket as `endpoint/bucket` instead of `bucket.endpoint`; most compatible services need it.
    pub path_style: bool,
    /// Where the credentials come from.
    pub credentials: Credentials,
    /// Storage class such as `STANDARD_IA`; the bucket's default without one. Archive classes cannot be read within
    /// any useful recovery time.
    pub storage_class: Option<String>,
    /// Encryption by the store, which protects against stolen disks and not against stolen credentials.
    pub encryption: Option<Encryption>,
    /// Locks objects that come with a retention, in this mode; without a mode such objects are written unlocked.
    pub lock: Option<LockMode>,
    /// Tags of every object, before those of the object itself. Needs `s3:PutObjectTagging`.
    pub tags: Vec<(String, String)>,
    /// Checksums that travel with the bytes.
    pub checksums: Checksums,
    /// Whether request bodies are part of the signature.
    pub payload_signing: PayloadSigning,
    /// Relies on `If-None-Match` and `If-Match`. Without them a create asks first and then writes, which two writers
    /// at the same moment can both pass; [`Capabilities`](backstay_backup_core::store::Capabilities) say so.
    pub conditional_writes: bool,
    /// How long a call may take.
    pub timeouts: Timeouts,
}

impl S3Options {
    /// The default options for a bucket: Amazon S3, credentials and region from the chain.
    #[must_use]
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: Prefix::root(),
            region: None,
            endpoint: None,
            path_style: false,
            credentials: Credentials::Chain { profile: None },
            storage_class: None,
            encryption: None,
            lock: None,
            tags: Vec::new(),
            checksums: Checksums::default(),
            payload_signing: PayloadSigning::default(),
            conditional_writes: true,
            timeouts: Timeouts::default(),
        }
    }

    /// Sets the folder below which all keys live.
    #[must_use]
    pub fn prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }

    /// Sets the region.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the URL of a compatible service, addressed path-style.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self.path_style = true;
        self
    }

    /// Sets the style of addresses.
    #[must_use]
    pub fn path_style(mut self, path_style: bool) -> Self {
        self.path_style = path_style;
        self
    }

    /// Sets where the credentials come from.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Sets the storage class.
    #[must_use]
    pub fn storage_class(mut self, class: impl Into<String>) -> Self {
        self.storage_class = Some(class.into());
        self
    }

    /// Sets the encryption by the store.
    #[must_use]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// Sets the mode of object locks.
    #[must_use]
    pub fn lock(mut self, mode: LockMode) -> Self {
        self.lock = Some(mode);
        self
    }

    /// Adds a tag to every object.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }

    /// Sets the checksums.
    #[must_use]
    pub fn checksums(mut self, checksums: Checksums) -> Self {
        self.checksums = checksums;
        self
    }

    /// Sets whether bodies are signed.
    #[must_use]
    pub fn payload_signing(mut self, signing: PayloadSigning) -> Self {
        self.payload_signing = signing;
        self
    }

    /// Sets whether the store can be relied on for conditional writes.
    #[must_use]
    pub fn conditional_writes(mut self, reliable: bool) -> Self {
        self.conditional_writes = reliable;
        self
    }

    /// Sets the time limits.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}

/// Where credentials come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Credentials {
    /// The AWS chain: environment, profile files, web identity, container, instance. The SDK reads the environment.
    Chain {
        /// Profile to take instead of the default one.
        profile: Option<String>,
    },
    /// An access key; nothing else is looked at.
    Static {
        /// Public part.
        access_key_id: String,
        /// Secret part.
        secret_access_key: Secret<String>,
        /// Token of temporary credentials.
        session_token: Option<Secret<String>>,
    },
}

/// Encryption by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encryption {
    /// Keys of the store (`AES256`).
    Aes256,
    /// A key of AWS KMS (`aws:kms`); its permissions and request limits become part of every write and read.
    Kms {
        /// Key id, alias or ARN; the account's default key without one.
        key: Option<String>,
        /// Uses one data key for many objects, which saves most KMS requests.
        bucket_key: bool,
    },
}

/// Who may lift a lock early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Roles with `s3:BypassGovernanceRetention`.
    Governance,
    /// Nobody, the account's owner included.
    Compliance,
}

impl LockMode {
    /// The word of the S3 protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

/// Checksums that travel with the bytes and are checked by the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksums {
    /// CRC-64/NVME of every request and of the whole object, Amazon's own choice.
    #[default]
    Crc64Nvme,
    /// CRC-32, for services that know no CRC-64.
    Crc32,
    /// None, except where S3 demands one (locked objects). For services that refuse or, worse, store the trailers of
    /// newer SDKs. Bodies are then always signed, so the store still checks a SHA-256 of each.
    Compatible,
}

/// Whether request bodies are part of the signature, which costs one SHA-256 pass over the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadSigning {
    /// Not where a checksum goes along and the connection is encrypted or stays on this machine.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Time limits of one call; a call over its limit fails as temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For a connection to be made.
    pub connect: Duration,
    /// For an answer, besides the time that the request's body needs. Completing an upload may take four times as
    /// long, and 50 ms more for each part.
    pub reply: Duration,
    /// For the next bytes of a body to arrive. Time in which the reader does not ask does not count.
    pub idle: Duration,
    /// Slowest acceptable upload in bytes per second; a body of n bytes may take n / this besides `reply`.
    pub slowest_upload: u64,
}

impl Default for Timeouts {
    /// 5 s, 30 s, 30 s and 32 KiB/s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            reply: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            slowest_upload: 32 * 1024,
        }
    }
}

impl Timeouts {
    /// Sets the limit for connections.
    #[must_use]
    pub fn connect(mut self, limit: Duration) -> Self {
        self.connect = limit;
        self
    }

    /// Sets the limit for answers to begin.
    #[must_use]
    pub fn reply(mut self, limit: Duration) -> Self {
        self.reply = limit;
        self
    }

    /// Sets the limit for silence in a body.
    #[must_use]
    pub fn idle(mut self, limit: Duration) -> Self {
        self.idle = limit;
        self
    }

    /// Sets the slowest acceptable upload.
    #[must_use]
    pub fn slowest_upload(mut self, bytes_per_second: u64) -> Self {
        self.slowest_upload = bytes_per_second;
        self
    }

    /// The limit of a call that sends this many bytes.
    pub(crate) fn limit(&self, bytes: u64) -> Duration {
        self.reply.saturating_add(Duration::from_secs(bytes / self.slowest_upload.max(1)))
    }

    /// The limit of a completion: S3 puts large objects together before it answers, which takes minutes for thousands
    /// of parts.
    pub(crate) fn completion(&self, parts: usize) -> Duration {
        self.reply.saturating_mul(4).saturating_add(
            Duration::from_millis(50).saturating_mul(u32::try_from(parts).unwrap_or(u32::MAX)),
        )
    }
}
