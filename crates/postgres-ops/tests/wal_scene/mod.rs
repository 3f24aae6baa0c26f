//! What tests of the archive share: segments as PostgreSQL 15 writes them, and repositories.
#![allow(dead_code, unreachable_pub)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::wal::{SystemId, WalFile};
use backstay_postgres_ops::wal_archive::{WalArchive, WalSource};

pub const SYSTEM: SystemId = SystemId::new(7_301_234_567_890_123_456);
pub const MIB: usize = 1 << 20;

/// A segment of `size` bytes, with what compresses by half.
pub fn segment(timeline: u32, number: u64, filling: u8, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(0xD110u16.to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(timeline.to_le_bytes());
    bytes.extend((number * size as u64).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(SYSTEM.number().to_le_bytes());
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend(8192u32.to_le_bytes());
    let mut state = u64::from(filling) | 1;
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
        bytes.extend([filling; 8]);
    }
    bytes.truncate(size);
    bytes
}

pub fn name(text: &str) -> WalFile {
    text.parse().unwrap()
}

pub fn memory() -> SharedStore {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

pub async fn repository(name: &str, store: SharedStore) -> Repository {
    Repository::open_or_create(name, store, &SystemClock).await.unwrap()
}

pub fn stanza() -> Stanza {
    Stanza::parse("main").unwrap()
}

pub fn repositories(members: Vec<Repository>, quorum: usize) -> Repositories {
    Repositories::new(members, quorum, Arc::new(SystemClock)).unwrap()
}

pub fn archive(members: Vec<Repository>, quorum: usize) -> WalArchive {
    WalArchive::new(repositories(members, quorum), stanza(), SYSTEM)
}

pub fn source(file: &str, path: &Path) -> WalSource {
    WalSource::new(name(file), File::open(path).unwrap()).unwrap()
}
