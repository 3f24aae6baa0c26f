//! Stores that break one rule each: a suite that nobody fails proves nothing.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::conformance;
use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::store::{
    Attributes, Capabilities, GetResult, Multipart, ObjectMeta, ObjectStore, PartNumber, PartTag,
    PendingUpload, PutMode, SharedStore, StoreError, UploadId,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    CreateOverwrites,
    SwapIgnoresTags,
    ReplaceCreates,
    AbsenceIsFailure,
    FailureIsAbsence,
    RangeIsIgnored,
    RangeEndIsInclusive,
    ListingLosesTheLast,
    ListingIsReversed,
    ListingLeaks,
    ListingBeginsAtTheBeginning,
    DeleteDoesNothing,
    UploadsAreVisible,
    PartsJoinAsTheyCame,
    AbortDoesNothing,
    UploadsAreNotListed,
    KeysAreFolded,
    TagsChange,
}

#[derive(Debug)]
struct Liar {
    store: MemoryStore,
    lie: Lie,
    arrived: std::sync::Mutex<Vec<Bytes>>,
}

impl Liar {
    fn store(lie: Lie) -> SharedStore {
        let can = Capabilities {
            create_only: lie != Lie::CreateOverwrites,
            compare_and_swap: lie != Lie::SwapIgnoresTags,
            min_part: 1,
            max_parts: 10_000,
        };
        let store = MemoryStore::with_capabilities(Arc::new(SystemClock), can);
        Arc::new(Self { store, lie, arrived: std::sync::Mutex::default() })
    }

    fn key(&self, key: &Key) -> Key {
        match self.lie {
            Lie::KeysAreFolded => Key::parse(key.as_str().to_lowercase()).unwrap(),
            _ => key.clone(),
        }
    }

    fn failed(&self, key: &Key) -> StoreError {
        StoreError::Failed { op: "read", what: key.to_string(), source: "lie".into() }
    }

    fn tell<T>(&self, key: &Key, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        match outcome {
            Err(StoreError::Absent { .. }) if self.lie == Lie::AbsenceIsFailure => Err(self.failed(key)),
            Err(StoreError::AlreadyExists { key }) if self.lie == Lie::FailureIsAbsence => {
                Err(StoreError::Absent { key })
            }
            outcome => outcome,
        }
    }
}

#[async_trait]
impl ObjectStore for Liar {
    fn location(&self) -> String {
        format!("{:?}", self.lie)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { create_only: true, compare_and_swap: true, min_part: 1, max_parts: 10_000 }
    }

    async fn put(
        &self,
        key: &Key,
        body: Bytes,
        mode: PutMode,
        attributes: &Attributes,
    ) -> Result<ObjectMeta, StoreError> {
        let key = self.key(key);
        let absent = self.store.head(&key).await.is_err();
        let mode = if self.lie == Lie::ReplaceCreates && absent { PutMode::Create } else { mode };
        let outcome = self.store.put(&key, body, mode, attributes).await;
        let mut meta = self.tell(&key, outcome)?;
        if self.lie == Lie::TagsChange {
            meta.etag = None;
        }
        Ok(meta)
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<GetResult, StoreError> {
        let key = self.key(key);
        let asked = match self.lie {
            Lie::RangeIsIgnored => None,
            Lie::RangeEndIsInclusive => range.map(|range| range.start..range.end.saturating_add(1)),
            _ => range,
        };
        let opened = self.store.get(&key, asked).await;
        self.tell(&key, opened)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let key = self.key(key);
        let meta = self.store.head(&key).await;
        self.tell(&key, meta)
    }

    fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let lie = self.lie;
        let folder = prefix.as_str().trim_end_matches('/').to_owned();
        let root = Prefix::root();
        let after = after.filter(|_| lie != Lie::ListingBeginsAtTheBeginning);
        let all = self.store.list_after(if lie == Lie::ListingLeaks { &root } else { prefix }, after);
        let listed = stream::once(all.collect::<Vec<_>>()).flat_map(move |mut all| {
            match lie {
                Lie::ListingLosesTheLast => drop(all.pop()),
                Lie::ListingIsReversed => all.reverse(),
                Lie::ListingLeaks => {
                    all.retain(|meta| meta.as_ref().unwrap().key.as_str().starts_with(&folder));
                }
                _ => {}
            }
            stream::iter(all)
        });
        listed.boxed()
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if self.lie == Lie::DeleteDoesNothing {
            return Ok(());
        }
        self.store.delete(&self.key(key)).await
    }
}

#[async_trait]
impl Multipart for Liar {
    async fn start_upload(&self, key: &Key, attributes: &Attributes) -> Result<UploadId, StoreError> {
        self.arrived.lock().unwrap().clear();
        if self.lie == Lie::UploadsAreVisible {
            let _ = self.store.put(key, Bytes::new(), PutMode::Create, attributes).await;
        }
        self.store.start_upload(key, attributes).await
    }

    async fn put_part(
        &self,
        key: &Key,
        upload: &UploadId,
        part: PartNumber,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        self.arrived.lock().unwrap().push(body.clone());
        self.store.put_part(key, upload, part, body).await
    }

    async fn complete_upload(
        &self,
        key: &Key,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<ObjectMeta, StoreError> {
        if self.lie == Lie::PartsJoinAsTheyCame {
            let joined = self.arrived.lock().unwrap().concat();
            self.store.abort_upload(key, upload).await?;
            return self.store.put(key, joined.into(), PutMode::Create, &Attributes::default()).await;
        }
        self.store.complete_upload(key, upload, parts).await
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<(), StoreError> {
        if self.lie == Lie::AbortDoesNothing {
            return Ok(());
        }
        self.store.abort_upload(key, upload).await
    }

    async fn list_uploads(&self, prefix: &Prefix) -> Result<Vec<PendingUpload>, StoreError> {
        if self.lie == Lie::UploadsAreNotListed {
            return Ok(Vec::new());
        }
        self.store.list_uploads(prefix).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_caught_and_named() {
    let lies = [
        (Lie::CreateOverwrites, "an_existing_object_is_never_overwritten"),
        (Lie::CreateOverwrites, "of_concurrent_creators_exactly_one_wins"),
        (Lie::CreateOverwrites, "of_concurrent_completions_exactly_one_wins"),
        (Lie::SwapIgnoresTags, "replacing_needs_the_current_tag"),
        (Lie::SwapIgnoresTags, "of_concurrent_replacements_exactly_one_wins"),
        (Lie::ReplaceCreates, "an_absent_key_is_not_replaced"),
        (Lie::AbsenceIsFailure, "absence_is_told_apart_from_failure"),
        (Lie::FailureIsAbsence, "an_existing_object_is_never_overwritten"),
        (Lie::RangeIsIgnored, "ranges_are_cut_at_the_end"),
        (Lie::RangeEndIsInclusive, "ranges_are_cut_at_the_end"),
        (Lie::ListingLosesTheLast, "listings_are_sorted_and_complete"),
        (Lie::ListingBeginsAtTheBeginning, "listings_begin_behind_a_key"),
        (Lie::ListingIsReversed, "listings_are_sorted_and_complete"),
        (Lie::ListingLeaks, "listings_stay_in_their_folder"),
        (Lie::DeleteDoesNothing, "deleted_objects_are_gone_and_their_keys_free"),
        (Lie::UploadsAreVisible, "an_upload_is_invisible_until_it_is_complete"),
        (Lie::PartsJoinAsTheyCame, "parts_join_in_order_whatever_order_they_came_in"),
        (Lie::AbortDoesNothing, "an_aborted_upload_leaves_nothing"),
        (Lie::UploadsAreNotListed, "pending_uploads_are_listed_by_folder"),
        (Lie::KeysAreFolded, "every_valid_key_is_an_object_of_its_own"),
        (Lie::TagsChange, "facts_are_the_same_wherever_they_come_from"),
    ];
    let behaviours = conformance::behaviours();
    for (lie, name) in lies {
        let behaviour = behaviours.iter().find(|behaviour| behaviour.name == name).unwrap();
        let violation = behaviour.check(Liar::store(lie)).await.expect_err(&format!("{lie:?} passed {name}"));
        assert_eq!(violation.behaviour, name);
    }
}

#[tokio::test]
async fn a_run_reports_all_violations_by_name() {
    let store = Liar::store(Lie::ListingIsReversed);
    let violations = conformance::run(async || store.clone()).await.unwrap_err();
    let found: Vec<_> = violations.found.iter().map(|found| found.behaviour).collect();
    assert!(found.contains(&"listings_are_sorted_and_complete"), "{found:?}");
    assert!(found.contains(&"listings_stay_in_their_folder"), "{found:?}");
    assert!(!found.contains(&"ranges_are_cut_at_the_end"), "{found:?}");
    let told = violations.to_string();
    assert!(
        told.contains("ListingIsReversed violates: listings_are_sorted_and_complete: the order is"),
        "{told}"
    );
}
