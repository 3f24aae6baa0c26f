//! Misbehaviour that no real server at hand shows, told by stores that lie in one point and are honest otherwise.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::store::{
    Attributes, Capabilities, GetResult, Multipart, ObjectMeta, ObjectStore, PartNumber, PartTag,
    PendingUpload, PutMode, StoreError, UploadId,
};
use backstay_storage_s3::doctor::{
    Asked, Diagnosis, DoctorOptions, Odd, Probe, Retention, Role, S3Probe, Status, StoredHeaders, diagnose,
};
use backstay_storage_s3::{Encryption, LockMode};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Other bytes come back.
    OtherBytes,
    /// The range is off by one.
    OtherRange,
    /// A refused create has replaced the object.
    RefusesAndReplaces,
    /// Of racing creates one wins, and reads another's bytes.
    WinnerIsOverwritten,
    /// A replacement of a missing key creates it.
    CreatesMissing,
    /// The current tag is refused.
    RefusesCurrent,
    /// No tags at all.
    NoTags,
    /// An upload is visible as soon as a part is there.
    VisibleEarly,
    /// A completed upload loses its last byte.
    ShortUpload,
    /// Pending uploads are not listed.
    HidesUploads,
    /// A delete is confirmed and does nothing.
    KeepsDeleted,
    /// Listings are backwards.
    Backwards,
    /// Bodies with trailers are stored with the framing.
    KeepsFraming,
    /// Trailers are refused.
    RefusesTrailers,
    /// The lock can be shortened.
    Shortens,
    /// The lock is recorded in the weaker mode.
    WeakerLock,
    /// The storage class is ignored.
    OtherClass,
    /// The encryption is ignored.
    NoEncryption,
}

#[derive(Debug)]
struct Liar {
    truth: MemoryStore,
    lie: Lie,
    /// Time of each lock asked for.
    locks: std::sync::Mutex<Option<Timestamp>>,
}

impl Liar {
    fn lies(&self, lie: Lie) -> bool {
        self.lie == lie
    }

    async fn force(&self, key: &Key, body: Bytes) {
        self.truth.delete(key).await.unwrap();
        self.truth.put(key, body, PutMode::Create, &Attributes::default()).await.unwrap();
    }
}

#[async_trait]
impl ObjectStore for Liar {
    fn location(&self) -> String {
        "memory".into()
    }

    fn capabilities(&self) -> Capabilities {
        self.truth.capabilities()
    }

    async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
        attributes: &Attributes,
    ) -> Result<ObjectMeta, StoreError> {
        let create = mode == PutMode::Create;
        if !create && self.lies(Lie::RefusesCurrent) {
            return Err(StoreError::Conflict { key: key.clone() });
        }
        let mut done = self.truth.put(key, body.clone(), mode, attributes).await;
        let replaces = create && key.as_str().ends_with("/create-only") && self.lies(Lie::RefusesAndReplaces);
        let races = key.as_str().ends_with("/create-race") && self.lies(Lie::WinnerIsOverwritten);
        if done.is_err() && (replaces || races) {
            self.force(key, body.clone()).await;
        }
        if !create && self.lies(Lie::CreatesMissing) && self.truth.head(key).await.is_err() {
            done = self.truth.put(key, body, PutMode::Create, attributes).await;
        }
        if self.lies(Lie::NoTags) {
            done = done.map(|meta| ObjectMeta { etag: None, ..meta });
        }
        done
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        let off = self.lies(Lie::OtherRange);
        let range = range.map(|range| if off { range.start + 1..range.end + 1 } else { range });
        let mut got = self.truth.get(key, range).await?;
        if self.lies(Lie::OtherBytes) {
            got.body = stream::iter([Ok(Bytes::from_static(b"something else"))]).boxed();
        }
        Ok(got)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let meta = self.truth.head(key).await?;
        Ok(if self.lies(Lie::NoTags) { ObjectMeta { etag: None, ..meta } } else { meta })
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        let listing = async move {
            let mut all: Vec<_> = self.truth.list_after(&prefix, after.as_ref()).collect().await;
            if self.lies(Lie::Backwards) {
                all.reverse();
            }
            stream::iter(all)
        };
        stream::once(listing).flatten().boxed()
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if self.lies(Lie::KeepsDeleted) {
            return Ok(());
        }
        self.truth.delete(key).await
    }
}

#[async_trait]
impl Multipart for Liar {
    async fn start_upload(&self, key: &Key, attributes: &Attributes) -> Result<UploadId, StoreError> {
        self.truth.start_upload(key, attributes).await
    }

    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        if self.lies(Lie::VisibleEarly) && key.as_str().ends_with("/whole") {
            self.force(key, body.clone()).await;
        }
        self.truth.put_part(key, upload, part, body).await
    }

    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        let meta = self.truth.complete_upload(key, upload, parts).await?;
        if self.lies(Lie::ShortUpload) {
            let body: Vec<_> = self.truth.get(key, Some(0..meta.size - 1)).await?.body.collect().await;
            let body: Vec<Bytes> = body.into_iter().map(Result::unwrap).collect();
            self.force(key, body.concat().into()).await;
        }
        Ok(meta)
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError> {
        self.truth.abort_upload(key, upload).await
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        if self.lies(Lie::HidesUploads) {
            return Ok(Vec::new());
        }
        self.truth.list_uploads(prefix).await
    }
}

fn refused(op: &'static str, key: &Key) -> StoreError {
    StoreError::Denied { op, what: key.to_string(), source: "locked".into() }
}

#[async_trait]
impl S3Probe for Liar {
    fn asked(&self) -> Asked {
        let mut asked = Asked::default();
        asked.storage_class = Some("STANDARD_IA".into());
        asked.encryption = Some(Encryption::Aes256);
        asked.lock = Some(LockMode::Compliance);
        asked.trailing_checksums = true;
        asked
    }

    async fn put_oddly(&self, key: &Key, body: Bytes, how: Odd) -> Result<Option<String>, StoreError> {
        let plain = Attributes::default();
        let honest = |body| self.truth.put(key, body, PutMode::Create, &plain);
        match (how, self.lie) {
            (Odd::WrongChecksum, _) => Err(StoreError::Checksum { key: key.clone() }),
            (Odd::Unconditional, _) => Err(refused("store", key)),
            (Odd::Locked(until), _) => {
                *self.locks.lock().unwrap() = Some(until);
                let attributes = Attributes::default().retain_until(Some(until));
                self.truth.put(key, body, PutMode::Create, &attributes).await?;
                Ok(Some("v1".into()))
            }
            (_, Lie::RefusesTrailers) => {
                Err(StoreError::Failed { op: "store", what: key.to_string(), source: "no trailers".into() })
            }
            (_, Lie::KeepsFraming) => {
                let end = &b"\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"[..];
                honest([b"32000\r\n", &body[..], end].concat().into()).await.map(|_| None)
            }
            _ => honest(body).await.map(|_| None),
        }
    }

    async fn retention(&self, _: &Key, _: &str) -> Result<Option<Retention>, StoreError> {
        let mode = if self.lies(Lie::WeakerLock) { "GOVERNANCE" } else { "COMPLIANCE" };
        Ok(self.locks.lock().unwrap().map(|until| Retention { mode: mode.into(), until }))
    }

    async fn set_retention(&self, key: &Key, _: &str, _: Timestamp) -> Result<(), StoreError> {
        if self.lies(Lie::Shortens) { Ok(()) } else { Err(refused("change the lock of", key)) }
    }

    async fn delete_version(&self, key: &Key, _: &str) -> Result<(), StoreError> {
        self.truth.delete(key).await
    }

    async fn versions(&self, _: &Prefix) -> Result<Vec<(Key, String)>, StoreError> {
        Ok(Vec::new())
    }

    async fn stored_headers(&self, _: &Key) -> Result<StoredHeaders, StoreError> {
        let class = if self.lies(Lie::OtherClass) { "STANDARD" } else { "STANDARD_IA" };
        let encryption = (!self.lies(Lie::NoEncryption)).then(|| "AES256".to_owned());
        Ok(StoredHeaders::new(Some(class.into()), encryption, None))
    }
}

async fn told(lie: Lie) -> Diagnosis {
    let truth = MemoryStore::new(Arc::new(SystemClock));
    let liar = Arc::new(Liar { truth, lie, locks: std::sync::Mutex::default() });
    let options =
        DoctorOptions::new(Arc::new(SystemClock), 1).role(Role::Maintainer).lock(Duration::from_secs(60));
    diagnose(liar.clone(), Some(liar), options).await
}

async fn unsafe_probes(lie: Lie) -> Vec<Probe> {
    let diagnosis = told(lie).await;
    let unsafe_ones = diagnosis.findings.iter().filter(|finding| finding.status == Status::Unsafe);
    unsafe_ones.map(|finding| finding.probe).collect()
}

#[tokio::test]
async fn an_honest_store_is_safe() {
    let diagnosis = told(Lie::None).await;
    let not_safe: Vec<_> = diagnosis
        .findings
        .iter()
        .filter(|finding| finding.status != Status::Safe && finding.probe != Probe::OverwritePermission)
        .collect();
    assert!(not_safe.is_empty(), "{not_safe:#?}");
    assert_eq!(diagnosis.verdict, Status::Safe);
    let left: Vec<_> = diagnosis.leftovers.iter().map(|left| left.key.file_name().to_owned()).collect();
    assert_eq!(left, ["locked"]);
}

#[tokio::test]
async fn each_lie_is_found_by_its_probe() {
    for (lie, probe) in [
        (Lie::OtherBytes, Probe::RoundTrip),
        (Lie::OtherRange, Probe::RoundTrip),
        (Lie::RefusesAndReplaces, Probe::CreateOnly),
        (Lie::WinnerIsOverwritten, Probe::CreateRace),
        (Lie::CreatesMissing, Probe::CompareAndSwap),
        (Lie::RefusesCurrent, Probe::CompareAndSwap),
        (Lie::NoTags, Probe::CompareAndSwap),
        (Lie::VisibleEarly, Probe::Multipart),
        (Lie::ShortUpload, Probe::Multipart),
        (Lie::HidesUploads, Probe::Multipart),
        (Lie::KeepsDeleted, Probe::DeletePermission),
        (Lie::Backwards, Probe::ListAfterWrite),
        (Lie::KeepsFraming, Probe::TrailingChecksum),
        (Lie::Shortens, Probe::ObjectLock),
        (Lie::WeakerLock, Probe::ObjectLock),
        (Lie::OtherClass, Probe::StoredAs),
        (Lie::NoEncryption, Probe::StoredAs),
    ] {
        let found = unsafe_probes(lie).await;
        assert!(found.contains(&probe), "{lie:?}: {found:?}");
    }
}

#[tokio::test]
async fn a_lie_in_one_point_accuses_nothing_else() {
    for (lie, probes) in [
        (Lie::CreatesMissing, vec![Probe::CompareAndSwap]),
        (Lie::RefusesCurrent, vec![Probe::CompareAndSwap, Probe::SwapRace]),
        (Lie::NoTags, vec![Probe::CompareAndSwap, Probe::SwapRace]),
        (Lie::RefusesAndReplaces, vec![Probe::CreateOnly]),
        (Lie::HidesUploads, vec![Probe::Multipart]),
        (Lie::KeepsFraming, vec![Probe::TrailingChecksum]),
        (Lie::Shortens, vec![Probe::ObjectLock]),
        (Lie::OtherClass, vec![Probe::StoredAs]),
    ] {
        assert_eq!(unsafe_probes(lie).await, probes, "{lie:?}");
    }
}

#[tokio::test]
async fn refused_trailers_are_no_fault_and_say_why() {
    let diagnosis = told(Lie::RefusesTrailers).await;
    let finding = diagnosis.finding(Probe::TrailingChecksum).unwrap();
    assert_eq!(finding.status, Status::NotApplicable);
    assert!(finding.meaning.contains("no trailers"), "{finding:?}");
    assert_eq!(diagnosis.verdict, Status::Safe);
}
