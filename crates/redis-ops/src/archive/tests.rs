//! Segments in stores of several kinds and states, and what surveys and readers make of them.

use std::sync::Arc;

use age::secrecy::ExposeSecret;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::fault::Fault;
use backstay_backup_core::id::SetId;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::{SealOptions, seal_from};
use backstay_backup_core::store::{Attributes, PutMode, SharedStore};
use bytes::Bytes;
use jiff::Timestamp;

use super::name::{history_key, segment_key};
use super::*;
use crate::{Offset, ReplicationId};

pub(super) fn id(digit: char) -> ReplicationId {
    String::from(digit).repeat(40).parse().unwrap()
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_764_000_000 + second).unwrap()
}

/// The byte of the stream behind an offset.
fn byte(at: u64) -> u8 {
    (at * 7 % 251) as u8
}

fn bytes(start: u64, end: u64) -> Vec<u8> {
    (start..end).map(byte).collect()
}

pub(super) struct World {
    pub(super) archive: StreamArchive,
    pub(super) stores: Vec<SharedStore>,
    options: SealOptions,
}

pub(super) async fn world(repositories: usize, quorum: usize) -> World {
    let store = |_| -> SharedStore { Arc::new(MemoryStore::new(Arc::new(SystemClock))) };
    World::on((0..repositories).map(store).collect(), quorum).await
}

pub(super) fn named(level: Level, digit: char, start: u64, end: u64) -> SegmentName {
    SegmentName { replication_id: id(digit), span: Span::new(start, end), level }
}

impl World {
    pub(super) async fn on(stores: Vec<SharedStore>, quorum: usize) -> Self {
        let clock = Arc::new(SystemClock);
        let mut members = Vec::new();
        for (at, store) in stores.iter().enumerate() {
            members.push(Repository::create(&format!("r{at}"), store.clone(), &*clock).await.unwrap());
        }
        let repositories = Repositories::new(members, quorum, clock).unwrap();
        let archive = StreamArchive::new(repositories, Stanza::parse("shop").unwrap(), StreamId::default());
        Self { archive, stores, options: SealOptions::default() }
    }

    /// On stores that misbehave when they are told to; one of them is enough.
    pub(super) async fn with_faults(repositories: usize) -> (Self, Vec<Arc<Fault>>) {
        let fault = |_| Arc::new(Fault::new(Arc::new(MemoryStore::new(Arc::new(SystemClock))), 1));
        let faults: Vec<_> = (0..repositories).map(fault).collect();
        let stores = faults.iter().cloned().map(|fault| fault as SharedStore).collect();
        (Self::on(stores, 1).await, faults)
    }

    pub(super) async fn put(&self, level: Level, digit: char, start: u64, end: u64) -> StoreReceipt {
        let name = named(level, digit, start, end);
        let head = SegmentHead::new(&name, second(start as i64), second(end as i64));
        let content = Bytes::from(bytes(start, end));
        self.archive.store_segment(&name, &head, content, &self.options).await.unwrap()
    }

    pub(super) async fn record(&self, digit: char, parent: Option<(char, u64)>) {
        let archive = &self.archive;
        let record = HistoryRecord::new(archive.stanza(), archive.stream(), id(digit), second(0), "test")
            .parent(parent.map(|(digit, at)| Position::new(id(digit), Offset(at))));
        archive.store_history(&record).await.unwrap();
    }

    async fn read(
        &self,
        line: char,
        start: u64,
        end: u64,
        key: &Identities,
    ) -> Result<Vec<u8>, ArchiveError> {
        let survey = Arc::new(self.archive.survey().await?);
        let path = survey.path(&survey.line(id(line)), Offset(start), Offset(end))?;
        let mut reader = self.archive.open(survey, path, key);
        let mut all = Vec::new();
        while let Some(chunk) = reader.next().await? {
            all.extend_from_slice(&chunk);
            assert_eq!(reader.offset(), Offset(start + all.len() as u64));
        }
        Ok(all)
    }

    async fn overwrite(&self, store: usize, name: &SegmentName, body: &[u8]) {
        let key = segment_key(self.archive.stanza(), self.archive.stream(), name);
        self.stores[store].delete(&key).await.unwrap();
        self.place(store, name, body).await;
    }

    /// Puts an object into one of the repositories.
    async fn place(&self, store: usize, name: &SegmentName, body: &[u8]) {
        let key = segment_key(self.archive.stanza(), self.archive.stream(), name);
        let body = Bytes::copy_from_slice(body);
        self.stores[store].put(&key, body, PutMode::Create, &Attributes::default()).await.unwrap();
    }

    /// What one of the repositories has under a name.
    async fn object(&self, repository: usize, name: &SegmentName) -> Vec<u8> {
        let key = segment_key(self.archive.stanza(), self.archive.stream(), name);
        let repository = &self.archive.repositories().members()[repository];
        super::object::read_small(repository, &key, 1 << 20).await.unwrap()
    }
}

#[tokio::test]
async fn the_exact_bytes_come_back_across_segments_and_a_promotion() {
    let world = world(1, 1).await;
    world.record('a', None).await;
    world.put(Level::Fresh, 'a', 100, 150).await;
    world.put(Level::Fresh, 'a', 150, 170).await;
    world.record('b', Some(('a', 170))).await;
    world.put(Level::Fresh, 'b', 170, 400).await;
    let none = Identities::none();
    for (start, end) in [(100, 400), (120, 171), (150, 150), (169, 170), (399, 400)] {
        assert_eq!(world.read('b', start, end, &none).await.unwrap(), bytes(start, end), "{start}..{end}");
    }
    let survey = world.archive.survey().await.unwrap();
    let base = Base::new(
        SetId::parse("20261122T221354Z-3f9a2c01d7").unwrap(),
        "dump.rdb.zst",
        Position::new(id('a'), Offset(120)),
        second(120),
        true,
    );
    let lines = survey.lines(std::slice::from_ref(&base));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].windows[0].to, Position::new(id('b'), Offset(400)));
    assert_eq!(lines[0].unreachable, [Span::new(100, 120)]);
    assert_eq!(world.archive.survey().await.unwrap().repositories[0].objects, 5);
}

#[tokio::test]
async fn a_gap_is_an_error_that_names_it() {
    let world = world(1, 1).await;
    world.put(Level::Fresh, 'a', 100, 150).await;
    world.put(Level::Fresh, 'a', 160, 170).await;
    let error = world.read('a', 100, 170, &Identities::none()).await.unwrap_err();
    assert!(
        matches!(error, ArchiveError::Gap { from, to }
        if from.offset == Offset(150) && to.offset == Offset(170)),
        "{error}"
    );
}

#[tokio::test]
async fn merged_segments_are_read_first_and_fresh_ones_in_their_place_when_they_are_damaged() {
    let world = world(2, 2).await;
    for start in (0..100).step_by(10) {
        world.put(Level::Fresh, 'a', start, start + 10).await;
    }
    world.put(Level::Merged, 'a', 0, 100).await;
    let survey = world.archive.survey().await.unwrap();
    assert_eq!(survey.path(&survey.line(id('a')), Offset(5), Offset(95)).unwrap().pieces.len(), 1);
    let merged = named(Level::Merged, 'a', 0, 100);
    // One good copy is enough.
    world.overwrite(0, &merged, b"nonsense").await;
    assert_eq!(world.read('a', 5, 95, &Identities::none()).await.unwrap(), bytes(5, 95));
    world.overwrite(1, &merged, b"nonsense").await;
    assert_eq!(world.read('a', 5, 95, &Identities::none()).await.unwrap(), bytes(5, 95));
    // And a fresh one that is gone bad too leaves nothing.
    for store in [0, 1] {
        world.overwrite(store, &named(Level::Fresh, 'a', 50, 60), b"nonsense").await;
    }
    let error = world.read('a', 5, 95, &Identities::none()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn overlapping_segments_of_two_archivers_are_one_stream() {
    let world = world(1, 1).await;
    for (start, end) in [(0, 60), (30, 90), (20, 50), (85, 120)] {
        world.put(Level::Fresh, 'a', start, end).await;
    }
    assert_eq!(world.read('a', 0, 120, &Identities::none()).await.unwrap(), bytes(0, 120));
}

#[tokio::test]
async fn the_same_content_twice_is_no_conflict_and_another_one_is() {
    let world = world(2, 1).await;
    assert_eq!(world.put(Level::Fresh, 'a', 0, 60).await.stored, ["r0", "r1"]);
    // Another archiver received it at another time.
    let name = named(Level::Fresh, 'a', 0, 60);
    let mut head = SegmentHead::new(&name, second(99), second(99));
    head.commands = 9;
    let content = Bytes::from(bytes(0, 60));
    let receipt = world.archive.store_segment(&name, &head, content, &world.options).await.unwrap();
    assert_eq!(receipt.present, ["r0", "r1"]);
    let other = Bytes::from(bytes(1, 61));
    let error = world.archive.store_segment(&name, &head, other, &world.options).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Conflict { .. }) && error.is_fenced(), "{error}");
}

/// Two archivers of two servers wrote under one name: whichever the most repositories have, it is not ours to choose.
#[tokio::test]
async fn other_bytes_in_one_repository_are_not_outvoted_by_the_others() {
    for odd in 0..3 {
        let world = world(3, 2).await;
        let name = named(Level::Fresh, 'a', 0, 60);
        let head = SegmentHead::new(&name, second(0), second(60));
        let (_, other) = seal_from(&bytes(1, 61)[..], &world.options.clone().note(&head.encode())).unwrap();
        world.place(odd, &name, &other).await;
        let content = Bytes::from(bytes(0, 60));
        let stored = world.archive.store_segment(&name, &head, content, &world.options).await;
        let error = stored.unwrap_err();
        let ArchiveError::Conflict { name: found, repository, .. } = &error else { panic!("{error:?}") };
        assert_eq!((*found, repository.as_str()), (name, format!("r{odd}").as_str()));
        assert!(error.is_fenced(), "it would be tried again for ever: {error}");
        assert_eq!(world.object(odd, &name).await, other, "it was overwritten");
    }
}

/// Sealed whole, under a head that says what its name says, and yet not the bytes of that place.
#[tokio::test]
async fn a_segment_with_fewer_or_more_bytes_than_its_name_says_is_damaged() {
    for length in [59, 61] {
        let world = world(1, 1).await;
        let name = named(Level::Fresh, 'a', 0, 60);
        let head = SegmentHead::new(&name, second(0), second(60));
        let sealed = seal_from(&bytes(0, length)[..], &world.options.clone().note(&head.encode()));
        world.place(0, &name, &sealed.unwrap().1).await;
        let error = world.read('a', 0, 60, &Identities::none()).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Damaged { .. }), "{length} bytes: {error}");
        assert_eq!(error.class(), backstay_backup_core::Class::Data, "{error}");
    }
}

#[tokio::test]
async fn encrypted_segments_tell_their_heads_without_a_key_and_their_bytes_with_one() {
    let identity = age::x25519::Identity::generate();
    let identities = Identities::parse(identity.to_string().expose_secret()).unwrap();
    let mut world = world(1, 1).await;
    world.options = SealOptions::default().recipients(identities.recipients());
    world.put(Level::Fresh, 'a', 0, 60).await;
    let survey = world.archive.survey().await.unwrap();
    let object = survey.all_segments().next().unwrap();
    assert_eq!(world.archive.head(object).await.unwrap().last_received, second(60));
    assert_eq!(world.read('a', 0, 60, &identities).await.unwrap(), bytes(0, 60));
    let error = world.read('a', 0, 60, &Identities::none()).await.unwrap_err();
    assert_eq!(error.class(), backstay_backup_core::Class::Usage, "{error}");
    assert!(Recipients::none().is_empty());
}

#[tokio::test]
async fn an_object_under_the_name_of_another_is_refused() {
    let world = world(1, 1).await;
    world.put(Level::Fresh, 'a', 0, 60).await;
    world.put(Level::Fresh, 'a', 60, 120).await;
    let (first, second) = (named(Level::Fresh, 'a', 0, 60), named(Level::Fresh, 'a', 60, 120));
    let key = segment_key(world.archive.stanza(), world.archive.stream(), &first);
    let body =
        super::object::read_small(&world.archive.repositories().members()[0], &key, 1 << 20).await.unwrap();
    world.overwrite(0, &second, &body).await;
    let error = world.read('a', 60, 120, &Identities::none()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Head { .. }), "{error}");
}

#[tokio::test]
async fn a_time_leads_to_the_last_offset_received_by_then() {
    let world = world(1, 1).await;
    for start in (100..200).step_by(10) {
        world.put(Level::Fresh, 'a', start, start + 10).await;
    }
    let merged = named(Level::Merged, 'a', 200, 300);
    let mut times = TimeIndex::default();
    for end in (220..=300).step_by(20) {
        times.push(Offset(end), second(end as i64));
    }
    world.archive.store_times(&merged, &times).await.unwrap();
    world.put(Level::Merged, 'a', 200, 300).await;
    let survey = world.archive.survey().await.unwrap();
    let line = survey.line(id('a'));
    for (at, expected) in
        [(110, 110), (111, 110), (199, 190), (219, 200), (259, 240), (300, 300), (5000, 300)]
    {
        let found = world.archive.offset_at(&survey, &line, Offset(100), second(at)).await.unwrap();
        assert_eq!(found, (Offset(expected), second(expected as i64)), "{at}");
    }
    let error = world.archive.offset_at(&survey, &line, Offset(100), second(109)).await.unwrap_err();
    assert!(matches!(error, ArchiveError::TooEarly { .. }), "{error}");
}

#[tokio::test]
async fn a_repository_that_lacks_something_is_named() {
    let world = world(2, 1).await;
    world.put(Level::Fresh, 'a', 0, 60).await;
    world.put(Level::Fresh, 'a', 60, 100).await;
    let archive = &world.archive;
    let key = segment_key(archive.stanza(), archive.stream(), &named(Level::Fresh, 'a', 60, 100));
    world.stores[1].delete(&key).await.unwrap();
    let survey = archive.survey().await.unwrap();
    assert_eq!(survey.repositories.iter().map(|it| it.missing).collect::<Vec<_>>(), [0, 40]);
    assert_eq!(world.read('a', 0, 100, &Identities::none()).await.unwrap(), bytes(0, 100));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_hides_no_bytes() {
    let world = world(1, 1).await;
    world.put(Level::Fresh, 'a', 0, 60).await;
    let key = history_key(world.archive.stanza(), world.archive.stream(), id('a'));
    let body = Bytes::from_static(b"{}");
    world.stores[0].put(&key, body, PutMode::Create, &Attributes::default()).await.unwrap();
    let survey = world.archive.survey().await.unwrap();
    assert!(survey.histories[&id('a')].problem.is_some());
    assert_eq!(world.read('a', 0, 60, &Identities::none()).await.unwrap(), bytes(0, 60));
    // The first record counts, so a good one cannot take its place.
    let record =
        HistoryRecord::new(world.archive.stanza(), world.archive.stream(), id('a'), second(0), "test");
    assert!(matches!(world.archive.store_history(&record).await, Err(ArchiveError::Record { .. })));
}
