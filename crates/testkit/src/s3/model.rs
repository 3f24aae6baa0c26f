//! What the store knows: buckets, versions, uploads, and the changes that lead there.
//!
//! Every mutation is a [`Change`]. The running server and the journal apply the same changes through the same code, so
//! what is reopened is what was there.

use std::collections::BTreeMap;
use std::sync::Arc;

use s3s::dto::Timestamp;
use serde::{Deserialize, Serialize};

use super::blob::Segment;
use super::digest::{Algorithm, Coverage, StoredChecksum};

/// Version id of objects written while versioning was off.
pub(super) const NULL_VERSION: &str = "null";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Versioning {
    Off,
    Enabled,
    Suspended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LockMode {
    Governance,
    Compliance,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retention {
    pub(super) mode: LockMode,
    pub(super) until: Timestamp,
}

/// Retention a bucket gives to objects that bring none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DefaultRule {
    pub(super) mode: LockMode,
    pub(super) days: u32,
}

/// What a client says about an object besides its bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) expires: Option<Timestamp>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) storage_class: Option<String>,
    pub(super) encryption: Option<String>,
    pub(super) kms_key: Option<String>,
    pub(super) bucket_key: Option<bool>,
}

/// What can change after an object was written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Marks {
    pub(super) tags: Vec<(String, String)>,
    pub(super) retention: Option<Retention>,
    pub(super) legal_hold: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) size: u64,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) segments: Vec<Segment>,
    /// Whether the object came from a multipart upload; then each segment is a part.
    pub(super) multipart: bool,
    pub(super) checksum: Option<StoredChecksum>,
    pub(super) attributes: Attributes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) modified: Timestamp,
    /// `None` is a delete marker.
    pub(super) object: Option<Object>,
    pub(super) marks: Marks,
}

impl Version {
    fn segments(&self) -> &[Segment] {
        self.object.as_ref().map_or(&[], |object| &object.segments)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) etag: String,
    pub(super) md5: [u8; 16],
    pub(super) modified: Timestamp,
    pub(super) segment: Segment,
    /// Digest by the algorithm of the upload.
    pub(super) digest: Vec<u8>,
    /// Checksum the client sent along, if any.
    pub(super) sent: Option<(Algorithm, Vec<u8>)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) initiated: Timestamp,
    pub(super) attributes: Attributes,
    pub(super) marks: Marks,
    /// `None`: not declared, CRC64NVME is computed.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) coverage: Coverage,
    pub(super) parts: BTreeMap<u16, Part>,
}

impl Upload {
    pub(super) fn effective_algorithm(&self) -> Algorithm {
        self.algorithm.unwrap_or(Algorithm::Crc64Nvme)
    }
}

/// All versions of one key, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Vec<Arc<Version>>);

impl History {
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.0.iter().rev()
    }

    pub(super) fn latest(&self) -> Option<&Arc<Version>> {
        self.0.last()
    }

    pub(super) fn find(&self, id: &str) -> Option<&Arc<Version>> {
        self.0.iter().find(|version| version.id == id)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) created: Timestamp,
    pub(super) versioning: Versioning,
    pub(super) lock: bool,
    pub(super) default_rule: Option<DefaultRule>,
    pub(super) keys: BTreeMap<String, History>,
    /// By key, then by id, which grows with time.
    pub(super) uploads: BTreeMap<(String, String), Upload>,
}

impl Bucket {
    /// Newest version of the key, unless there is none or it is a delete marker.
    pub(super) fn current(&self, key: &str) -> Option<(&Arc<Version>, &Object)> {
        let version = self.keys.get(key)?.latest()?;
        Some((version, version.object.as_ref()?))
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) buckets: BTreeMap<String, Bucket>,
}

/// One step from one state of the index to the next.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Change {
    BucketCreated {
        bucket: String,
        created: Timestamp,
        lock: bool,
    },
    BucketDeleted {
        bucket: String,
    },
    VersioningSet {
        bucket: String,
        versioning: Versioning,
    },
    LockSet {
        bucket: String,
        default_rule: Option<DefaultRule>,
    },
    /// Becomes the newest of its key; a version with the same id goes.
    VersionStored {
        bucket: String,
        key: String,
        version: Version,
    },
    MarksSet {
        bucket: String,
        key: String,
        id: String,
        marks: Marks,
    },
    VersionRemoved {
        bucket: String,
        key: String,
        id: String,
    },
    UploadStarted {
        bucket: String,
        upload: Upload,
    },
    PartStored {
        bucket: String,
        key: String,
        upload: String,
        number: u16,
        part: Part,
    },
    /// The parts in `used` live on in an object.
    UploadRemoved {
        bucket: String,
        key: String,
        upload: String,
        used: Vec<u16>,
    },
}

impl Index {
    /// Changes naming what does not exist do nothing: the caller looked under the same lock.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::BucketCreated { bucket, created, lock } => {
                let versioning = if lock { Versioning::Enabled } else { Versioning::Off };
                let (keys, uploads) = Default::default();
                let state = Bucket { created, versioning, lock, default_rule: None, keys, uploads };
                self.buckets.entry(bucket).or_insert(state);
            }
            Change::BucketDeleted { bucket } => {
                self.buckets.remove(&bucket);
            }
            Change::VersioningSet { bucket, versioning } => {
                self.with(&bucket, |bucket| bucket.versioning = versioning);
            }
            Change::LockSet { bucket, default_rule } => self.with(&bucket, |bucket| {
                bucket.lock = true;
                bucket.default_rule = default_rule;
            }),
            Change::VersionStored { bucket, key, version } => {
                self.with(&bucket, |bucket| store_version(bucket, key, version));
            }
            Change::MarksSet { bucket, key, id, marks } => {
                self.with(&bucket, |bucket| set_marks(bucket, &key, &id, marks));
            }
            Change::VersionRemoved { bucket, key, id } => {
                self.with(&bucket, |bucket| remove_version(bucket, &key, &id));
            }
            Change::UploadStarted { bucket, upload } => self.with(&bucket, |bucket| {
                bucket.uploads.insert((upload.key.clone(), upload.id.clone()), upload);
            }),
            Change::PartStored { bucket, key, upload, number, part } => {
                self.with(&bucket, |bucket| store_part(bucket, &(key, upload), number, part));
            }
            Change::UploadRemoved { bucket, key, upload, used } => {
                self.with(&bucket, |bucket| remove_upload(bucket, &(key, upload), &used));
            }
        }
    }

    fn with(&mut self, bucket: &str, act: impl FnOnce(&mut Bucket)) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            act(bucket);
        }
    }

    /// Every segment something refers to.
    pub(super) fn segments_mut(&mut self) -> Vec<&mut Segment> {
        let mut all = Vec::new();
        for bucket in self.buckets.values_mut() {
            for version in bucket.keys.values_mut().flat_map(|history| &mut history.0) {
                let version = Arc::get_mut(version).expect("nobody else has seen an index being opened");
                all.extend(version.object.iter_mut().flat_map(|object| &mut object.segments));
            }
            let parts = bucket.uploads.values_mut().flat_map(|upload| upload.parts.values_mut());
            all.extend(parts.map(|part| &mut part.segment));
        }
        all
    }

    /// The shortest list of changes that leads to this state.
    pub(super) fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, bucket) in &self.buckets {
            let (created, lock) = (bucket.created.clone(), bucket.lock);
            changes.push(Change::BucketCreated { bucket: name.clone(), created, lock });
            changes.push(Change::VersioningSet { bucket: name.clone(), versioning: bucket.versioning });
            if bucket.lock {
                changes.push(Change::LockSet { bucket: name.clone(), default_rule: bucket.default_rule });
            }
            for (key, history) in &bucket.keys {
                changes.extend(history.0.iter().map(|version| Change::VersionStored {
                    bucket: name.clone(),
                    key: key.clone(),
                    version: Version::clone(version),
                }));
            }
            let uploads = bucket.uploads.values().cloned();
            changes.extend(uploads.map(|upload| Change::UploadStarted { bucket: name.clone(), upload }));
        }
        changes
    }
}

fn store_version(bucket: &mut Bucket, key: String, version: Version) {
    let history = &mut bucket.keys.entry(key).or_default().0;
    history.retain(|old| {
        let replaced = old.id == version.id;
        if replaced {
            old.segments().iter().for_each(Segment::discard);
        }
        !replaced
    });
    version.segments().iter().for_each(Segment::keep);
    history.push(Arc::new(version));
}

fn set_marks(bucket: &mut Bucket, key: &str, id: &str, marks: Marks) {
    let history = bucket.keys.get_mut(key).map(|history| &mut history.0);
    if let Some(version) = history.and_then(|all| all.iter_mut().find(|version| version.id == id)) {
        Arc::make_mut(version).marks = marks;
    }
}

fn remove_version(bucket: &mut Bucket, key: &str, id: &str) {
    let Some(History(history)) = bucket.keys.get_mut(key) else { return };
    if let Some(position) = history.iter().position(|version| version.id == id) {
        history.remove(position).segments().iter().for_each(Segment::discard);
    }
    if history.is_empty() {
        bucket.keys.remove(key);
    }
}

fn store_part(bucket: &mut Bucket, upload: &(String, String), number: u16, part: Part) {
    if let Some(upload) = bucket.uploads.get_mut(upload) {
        part.segment.keep();
        if let Some(replaced) = upload.parts.insert(number, part) {
            replaced.segment.discard();
        }
    }
}

fn remove_upload(bucket: &mut Bucket, upload: &(String, String), used: &[u16]) {
    if let Some(upload) = bucket.uploads.remove(upload) {
        let unused = upload.parts.iter().filter(|(number, _)| !used.contains(number));
        unused.for_each(|(_, part)| part.segment.discard());
    }
}
