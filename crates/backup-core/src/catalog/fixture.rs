//! Repositories with hand-made sets, whose every byte, time and fault a test controls.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::clock::{Clock, ManualClock};
use crate::fault::Fault;
use crate::id::{SetId, Stanza};
use crate::key::{Key, Prefix};
use crate::manifest::{Codec, FORMAT_MAJOR, Manifest, ObjectEntry, SetKind, Sha256Hex, Source};
use crate::memory::MemoryStore;
use crate::replicas::Repositories;
use crate::repository::{Repository, layout};
use crate::store::{Attributes, ObjectMeta, PutMode};

pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn start() -> Timestamp {
    "2026-11-22T02:00:00Z".parse().unwrap()
}

pub(crate) fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

pub(crate) fn id(number: u32) -> SetId {
    SetId::parse(format!("20261122T020000Z-{number:010x}")).unwrap()
}

/// A set to be written; change what the test is about.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) manifest: Manifest,
    pub(crate) objects: Vec<(String, Vec<u8>)>,
}

impl Shape {
    pub(crate) fn new(number: u32, at: Timestamp) -> Self {
        let objects: Vec<(String, Vec<u8>)> = [("globals.sql", 90), ("db/shop.dump", 300)]
            .map(|(name, len)| {
                let bytes = (0..len).map(|n: u32| (n * 7 + number) as u8).collect();
                (name.to_owned(), bytes)
            })
            .into();
        let source = Source { database: "shop".to_owned(), ..Source::default() };
        let manifest = Manifest {
            format: FORMAT_MAJOR,
            kind: SetKind::new(SetKind::POSTGRES_LOGICAL),
            stanza: stanza(),
            set: id(number),
            tool: "test".to_owned(),
            source,
            started: at,
            finished: at,
            recovery_point: at,
            parent: None,
            complete: true,
            objects: objects.iter().map(|(name, bytes)| entry(name, bytes)).collect(),
            facts: Value::Null,
            annotations: BTreeMap::new(),
            unknown: Map::new(),
        };
        Self { manifest, objects }
    }
}

pub(crate) fn entry(name: &str, bytes: &[u8]) -> ObjectEntry {
    ObjectEntry {
        name: name.to_owned(),
        stored: bytes.len() as u64,
        plain: bytes.len() as u64,
        sha256: Sha256Hex::of(bytes),
        codec: Codec::None,
        recipients: Vec::new(),
        unknown: Map::new(),
    }
}

/// Some repositories on stores with one clock; the host has a clock of its own.
pub(crate) struct Site {
    pub(crate) store_clock: ManualClock,
    pub(crate) host_clock: ManualClock,
    pub(crate) faults: Vec<Arc<Fault>>,
    pub(crate) repositories: Repositories,
}

impl Site {
    pub(crate) async fn new(names: &[&str]) -> Self {
        let store_clock = ManualClock::at(start());
        let host_clock = ManualClock::at(start());
        let mut faults = Vec::new();
        let mut members = Vec::new();
        for name in names {
            let memory = Arc::new(MemoryStore::new(Arc::new(store_clock.clone())));
            let fault = Arc::new(Fault::new(memory, 1));
            members.push(Repository::create(name, fault.clone(), &host_clock).await.unwrap());
            faults.push(fault);
        }
        let repositories = Repositories::new(members, 1, Arc::new(host_clock.clone())).unwrap();
        Self { store_clock, host_clock, faults, repositories }
    }

    /// One repository with a set each day; the clocks stand at the arrival of the newest.
    pub(crate) async fn daily(days: u32) -> Self {
        let site = Self::new(&["near"]).await;
        for day in 0..days {
            if day > 0 {
                site.pass(DAY);
            }
            site.write(&Shape::new(day, site.now())).await;
        }
        site
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.store_clock.now()
    }

    pub(crate) fn pass(&self, time: SignedDuration) {
        self.store_clock.advance(time);
        self.host_clock.advance(time);
    }

    pub(crate) fn repository(&self, index: usize) -> &Repository {
        &self.repositories.members()[index]
    }

    pub(crate) async fn write(&self, shape: &Shape) {
        for member in self.repositories.members() {
            self.write_to(member, shape).await;
        }
    }

    pub(crate) async fn write_to(&self, repository: &Repository, shape: &Shape) {
        let set = &shape.manifest.set;
        for (name, bytes) in &shape.objects {
            put(repository, &layout::object(&stanza(), set, name).unwrap(), bytes).await;
        }
        put(repository, &layout::manifest(&stanza(), set), &shape.manifest.encode().unwrap()).await;
    }

    /// All keys with their sizes, of one repository.
    pub(crate) async fn keys(&self, index: usize) -> Vec<Key> {
        let store = self.repository(index).store();
        store.list(&Prefix::root()).map_ok(|meta| meta.key).try_collect().await.unwrap()
    }
}

pub(crate) async fn put(repository: &Repository, key: &Key, bytes: &[u8]) -> ObjectMeta {
    let body = Bytes::copy_from_slice(bytes);
    repository.store().put(key, body, PutMode::Create, &Attributes::default()).await.unwrap()
}

pub(crate) async fn get(repository: &Repository, key: &Key) -> Vec<u8> {
    let body = repository.store().get(key, None).await.unwrap().body;
    let chunks: Vec<Bytes> = body.try_collect().await.unwrap();
    chunks.concat()
}

/// Changes an object behind everybody's back.
pub(crate) async fn overwrite(repository: &Repository, key: &Key, bytes: &[u8]) {
    repository.store().delete(key).await.unwrap();
    put(repository, key, bytes).await;
}
