//! What to start: where bytes live, which buckets exist, who may do what.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Smallest size S3 accepts for every part but the last.
pub const MIN_PART_SIZE: u64 = 5 * 1024 * 1024;

/// Options of an [`S3Server`](super::S3Server).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct S3Options {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Directory that keeps objects and their records; `None` keeps everything in memory.
    pub directory: Option<PathBuf>,
    /// Buckets created at start when they do not exist yet.
    pub buckets: Vec<BucketOptions>,
    /// Who may connect; when empty, one administrator with [`Credential::DEFAULT_ACCESS_KEY`].
    pub credentials: Vec<Credential>,
    /// Smallest size of every part but the last; tests lower it to stay small.
    pub min_part_size: u64,
    /// Entity tags that are not MD5 digests, as S3 gives for KMS-encrypted objects. Saves the server most of its CPU.
    pub opaque_etags: bool,
    /// Threads that serve requests; they belong to the server and are independent of the caller's runtime.
    pub worker_threads: usize,
}

impl S3Options {
    /// Keeps all objects in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            directory: None,
            buckets: Vec::new(),
            credentials: Vec::new(),
            min_part_size: MIN_PART_SIZE,
            opaque_etags: false,
            worker_threads: 2,
        }
    }

    /// Keeps object bytes in files below `path` and reopens what an earlier server left there.
    #[must_use]
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self { directory: Some(path.into()), ..Self::memory() }
    }

    /// Listens on `address` instead of a free loopback port.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Creates a bucket at start.
    #[must_use]
    pub fn bucket(mut self, bucket: impl Into<BucketOptions>) -> Self {
        self.buckets.push(bucket.into());
        self
    }

    /// Admits one more access key.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credentials.push(credential);
        self
    }

    /// Lowers or raises the smallest part size.
    #[must_use]
    pub fn min_part_size(mut self, bytes: u64) -> Self {
        self.min_part_size = bytes;
        self
    }

    /// Gives entity tags that are not MD5 digests.
    #[must_use]
    pub fn opaque_etags(mut self) -> Self {
        self.opaque_etags = true;
        self
    }

    /// Sets the number of threads that serve requests.
    #[must_use]
    pub fn worker_threads(mut self, threads: usize) -> Self {
        self.worker_threads = threads.max(1);
        self
    }
}

/// A bucket to create at start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BucketOptions {
    /// Name, by the rules of S3.
    pub name: String,
    /// Keeps every version of an object.
    pub versioning: bool,
    /// Allows retention and legal holds; implies versioning and cannot be turned off.
    pub object_lock: bool,
}

impl BucketOptions {
    /// A plain bucket.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), versioning: false, object_lock: false }
    }

    /// Keeps every version.
    #[must_use]
    pub fn versioning(mut self) -> Self {
        self.versioning = true;
        self
    }

    /// Allows retention and legal holds.
    #[must_use]
    pub fn object_lock(mut self) -> Self {
        self.object_lock = true;
        self.versioning = true;
        self
    }
}

impl From<&str> for BucketOptions {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for BucketOptions {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

/// What the holder of an access key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, the bypass of governance retention included.
    Admin,
    /// Reads, creates and lists; never deletes, never overwrites.
    ///
    /// A write without `If-None-Match: *` is refused with 403, as a bucket policy on `s3:if-none-match` does.
    /// Keys named by [`Credential::may_replace`] may also be written with `If-Match`.
    Writer,
    /// Reads and lists.
    Reader,
}

/// An access key, its secret and its role.
#[derive(Clone)]
pub struct Credential {
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) role: Role,
    pub(super) replaceable: Vec<String>,
}

impl Credential {
    /// Access key of the administrator a server has when no credential was given.
    pub const DEFAULT_ACCESS_KEY: &'static str = "testkit";
    /// Secret key of that administrator.
    pub const DEFAULT_SECRET_KEY: &'static str = "testkit-secret";

    /// A credential with the given role.
    #[must_use]
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>, role: Role) -> Self {
        Self {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            role,
            replaceable: vec!["leases/".to_owned()],
        }
    }

    /// May do everything.
    #[must_use]
    pub fn admin(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self::new(access_key, secret_key, Role::Admin)
    }

    /// May read and create, but neither delete nor overwrite; leases (`leases/`) may be swapped.
    #[must_use]
    pub fn writer(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self::new(access_key, secret_key, Role::Writer)
    }

    /// May read and list.
    #[must_use]
    pub fn reader(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self::new(access_key, secret_key, Role::Reader)
    }

    /// Names the folders whose keys a writer may replace with `If-Match`; takes the place of `leases/`.
    ///
    /// A key is meant when it starts with the text or has it right after a slash.
    #[must_use]
    pub fn may_replace<I>(mut self, folders: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.replaceable = folders.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn is_replaceable(&self, key: &str) -> bool {
        self.replaceable
            .iter()
            .any(|folder| key.starts_with(folder.as_str()) || key.contains(&format!("/{folder}")))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("access_key", &self.access_key)
            .field("role", &self.role)
            .field("replaceable", &self.replaceable)
            .finish_non_exhaustive()
    }
}
