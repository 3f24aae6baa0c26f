//! One run: shared facts, the time limit, cleaning up.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstay_backup_core::error::{CLOCK_REMEDY, Classified as _};
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::{Attributes, ObjectMeta, PutMode, SharedStore, StoreError};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt as _, TryStreamExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::finding::{Answer, Diagnosis, Finding, Leftover, Probe, verdict};
use super::seam::S3Probe;
use super::{DoctorOptions, Role};
use crate::reply::chain;

/// Share of the limit that is kept for cleaning up.
const CLEANUP_SHARE: u32 = 4;
/// Probe objects deleted at the same time.
const DELETIONS: usize = 8;

/// The answer of a probe, or the error that kept it from finding out.
pub(super) type Answered = Result<Answer, StoreError>;

pub(super) struct Run {
    pub(super) store: SharedStore,
    pub(super) special: Option<Arc<dyn S3Probe>>,
    pub(super) options: DoctorOptions,
    folder: Prefix,
    written: Mutex<Vec<Written>>,
}

/// A key that may exist, and why it may have to stay.
#[derive(Clone, Debug)]
struct Written {
    key: Key,
    locked: Option<String>,
}

impl Run {
    pub(super) fn new(store: SharedStore, special: Option<Arc<dyn S3Probe>>, options: DoctorOptions) -> Self {
        let folder = Prefix::parse(&format!("probe/{:016x}", options.nonce))
            .expect("hexadecimal digits are valid in a key");
        Self { store, special, options, folder, written: Mutex::default() }
    }

    pub(super) async fn diagnose(self) -> Diagnosis {
        let start = Instant::now();
        let end = start + self.options.limit.saturating_sub(self.options.limit / CLEANUP_SHARE);
        let first = self.bounded(Probe::RoundTrip, end, self.round_trip()).await;
        let findings = match first {
            Err(error) => self.unreachable(&error),
            Ok(first) => {
                let rest = join_all(
                    self.others().into_iter().map(|(probe, answer)| self.finding(probe, end, answer)),
                );
                [vec![first], rest.await].concat()
            }
        };
        let left = self.options.limit.saturating_sub(start.elapsed());
        let leftovers = self.clean_up(left).await;
        Diagnosis {
            location: self.store.location(),
            role: self.options.role,
            verdict: verdict(&findings),
            findings,
            folder: self.folder,
            leftovers,
        }
    }

    fn others(&self) -> Vec<(Probe, BoxFuture<'_, Answered>)> {
        vec![
            (Probe::CreateOnly, self.create_only().boxed()),
            (Probe::CreateRace, self.create_race().boxed()),
            (Probe::CreateOnlyUpload, self.create_only_upload().boxed()),
            (Probe::CompareAndSwap, self.compare_and_swap().boxed()),
            (Probe::SwapRace, self.swap_race().boxed()),
            (Probe::ListAfterWrite, self.list_after_write().boxed()),
            (Probe::Multipart, self.multipart().boxed()),
            (Probe::Clock, self.clock().boxed()),
            (Probe::DeletePermission, self.delete_permission().boxed()),
            (Probe::OverwritePermission, self.overwrite_permission().boxed()),
            (Probe::WrongChecksum, self.wrong_checksum().boxed()),
            (Probe::TrailingChecksum, self.trailing_checksum().boxed()),
            (Probe::ObjectLock, self.object_lock().boxed()),
            (Probe::StoredAs, self.stored_as().boxed()),
        ]
    }

    async fn finding(&self, probe: Probe, end: Instant, answer: BoxFuture<'_, Answered>) -> Finding {
        match self.bounded(probe, end, answer).await {
            Ok(finding) => finding,
            Err(error) => Answer::unknown(format!("could not be found out: {}", chain(&error))).of(probe),
        }
    }

    async fn bounded(
        &self,
        probe: Probe,
        end: Instant,
        answer: impl Future<Output = Answered>,
    ) -> Result<Finding, StoreError> {
        match timeout_at(end, answer).await {
            Ok(answer) => answer.map(|answer| answer.of(probe)),
            Err(_) => {
                Ok(Answer::unknown("the store was too slow to find out within the time limit").of(probe))
            }
        }
    }

    /// Nothing can be asked; only the reason is known. One that may pass says nothing of the store's nature.
    fn unreachable(&self, error: &StoreError) -> Vec<Finding> {
        let reason = chain(error);
        let failed = format!("a small object could not be written and read: {reason}");
        let passing = matches!(error, StoreError::Temporary { .. } | StoreError::Full { .. });
        let answer = |probe| match probe {
            Probe::RoundTrip if passing => Answer { remedy: error.hint(), ..Answer::unknown(failed.clone()) },
            Probe::RoundTrip => Answer::unsafe_because(
                failed.clone(),
                "make the store reachable and writable for this credential; nothing else was probed",
            ),
            Probe::Clock if matches!(error, StoreError::Clock { .. }) => {
                Answer::unsafe_because(reason.clone(), CLOCK_REMEDY)
            }
            _ => Answer::unknown("not probed, because the first write failed"),
        };
        Probe::ALL.into_iter().map(|probe| answer(probe).of(probe)).collect()
    }

    /// A new key of this run that will be cleaned up.
    pub(super) fn key(&self, name: &str) -> Key {
        let key = self.folder_key(name);
        self.written().push(Written { key: key.clone(), locked: None });
        key
    }

    /// A key of this run that another probe wrote.
    pub(super) fn folder_key(&self, name: &str) -> Key {
        self.folder.key(name).expect("probe names are valid in a key")
    }

    /// Keeps the clean-up away from an object that nobody can delete yet.
    pub(super) fn locked(&self, key: &Key, reason: &str) {
        for written in self.written().iter_mut().filter(|written| written.key == *key) {
            written.locked = Some(reason.to_owned());
        }
    }

    pub(super) fn folder(&self, name: &str) -> Prefix {
        self.folder.folder(name).expect("probe names are valid in a key")
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Vec<Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn create(&self, key: &Key, body: &Bytes) -> Result<ObjectMeta, StoreError> {
        self.store.put(key, body.clone(), PutMode::Create, &Attributes::default()).await
    }

    pub(super) async fn read(&self, key: &Key) -> Result<Vec<u8>, StoreError> {
        let chunks: Vec<Bytes> = self.store.get(key, None).await?.body.try_collect().await?;
        Ok(chunks.concat())
    }

    pub(super) async fn exists(&self, key: &Key) -> Result<bool, StoreError> {
        match self.store.head(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes what may be deleted and tells what stays. One refusal is enough to stop asking.
    async fn clean_up(&self, limit: Duration) -> Vec<Leftover> {
        let written = std::mem::take(&mut *self.written());
        let end = Instant::now() + limit;
        let _ = timeout_at(end, self.abort_uploads()).await;
        let mut left = Vec::new();
        let mut refused =
            self.options.role == Role::Writer && self.writer_cannot_delete(&written, limit).await;
        for group in written.chunks(DELETIONS) {
            let outcomes = join_all(group.iter().map(|object| self.remove(object, refused, end))).await;
            refused |= outcomes.iter().flatten().any(|(_, denied)| *denied);
            left.extend(outcomes.into_iter().flatten().map(|(leftover, _)| leftover));
        }
        if !refused && let Some(special) = &self.special {
            left.extend(self.delete_versions(&**special, &left, end).await);
        }
        left
    }

    /// Where the store keeps versions, deleting only hid the objects. Those that stay for a reason stay.
    async fn delete_versions(&self, special: &dyn S3Probe, left: &[Leftover], end: Instant) -> Vec<Leftover> {
        // Without versions, or the permission to see them, nothing more can be said or done.
        let Ok(Ok(versions)) = timeout_at(end, special.versions(&self.folder)).await else {
            return Vec::new();
        };
        let hidden: Vec<_> =
            versions.iter().filter(|(key, _)| !left.iter().any(|left| left.key == *key)).collect();
        let mut stay = Vec::new();
        for group in hidden.chunks(DELETIONS) {
            let deletions = group.iter().map(|(key, version)| async move {
                let reason = match timeout_at(end, special.delete_version(key, version)).await {
                    Ok(Ok(())) => return None,
                    Ok(Err(error)) => format!("an old version could not be deleted: {}", chain(&error)),
                    Err(_) => "there was no time left to delete an old version".to_owned(),
                };
                Some(Leftover { key: key.clone(), reason })
            });
            stay.extend(join_all(deletions).await.into_iter().flatten());
        }
        stay
    }

    /// Uploads that a probe had no time to finish; what cannot be aborted expires by the bucket's lifecycle rule.
    async fn abort_uploads(&self) -> Result<(), StoreError> {
        for pending in self.store.list_uploads(&self.folder).await? {
            self.store.abort_upload(&pending.key, &pending.upload).await?;
        }
        Ok(())
    }

    /// Asks once before the crowd does, so that a good writer's credential shows one denied call and not twenty.
    async fn writer_cannot_delete(&self, written: &[Written], limit: Duration) -> bool {
        match written.first() {
            Some(first) => {
                matches!(
                    timeout(limit, self.store.delete(&first.key)).await,
                    Ok(Err(StoreError::Denied { .. }))
                )
            }
            None => false,
        }
    }

    /// What is left of one object, and whether it stays for lack of permission.
    async fn remove(&self, object: &Written, refused: bool, end: Instant) -> Option<(Leftover, bool)> {
        let left = |reason: String, denied| Some((Leftover { key: object.key.clone(), reason }, denied));
        if let Some(reason) = &object.locked {
            return left(reason.clone(), false);
        }
        let removed = async {
            match refused {
                true if self.exists(&object.key).await? => {
                    Ok(Some("the credential may not delete".to_owned()))
                }
                true => Ok(None),
                false => self.store.delete(&object.key).await.map(|()| None),
            }
        };
        match timeout_at(end, removed).await {
            Ok(Ok(None)) => None,
            Ok(Ok(Some(reason))) => left(reason, true),
            Ok(Err(error)) => left(chain(&error), matches!(error, StoreError::Denied { .. })),
            Err(_) => left("there was no time left to delete it".to_owned(), false),
        }
    }
}
