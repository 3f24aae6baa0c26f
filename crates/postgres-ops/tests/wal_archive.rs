//! Pushes of WAL: what is refused, what counts as done, and races.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use backstay_backup_core::Class;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::error::Classified;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::{Seal, unseal};
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::wal::{SystemId, WalFile};
use backstay_postgres_ops::wal_archive::{Fetched, WalArchive, WalArchiveError};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;

const SYSTEM: SystemId = SystemId::new(7_301_234_567_890_123_456);
const MIB: usize = 1 << 20;

/// A segment of 1 MiB as PostgreSQL 15 writes it, up to its first record.
fn segment(timeline: u32, number: u64, filling: u8) -> Bytes {
    let mut bytes = Vec::with_capacity(MIB);
    bytes.extend(0xD110u16.to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(timeline.to_le_bytes());
    bytes.extend((number * MIB as u64).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(SYSTEM.number().to_le_bytes());
    bytes.extend((MIB as u32).to_le_bytes());
    bytes.extend(8192u32.to_le_bytes());
    bytes.resize(MIB, filling);
    bytes.into()
}

fn name(text: &str) -> WalFile {
    text.parse().unwrap()
}

async fn repository(name: &str, store: SharedStore) -> Repository {
    Repository::create(name, store, &SystemClock).await.unwrap()
}

fn memory() -> SharedStore {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

fn archive(members: Vec<Repository>, quorum: usize) -> WalArchive {
    let repositories = Repositories::new(members, quorum, Arc::new(SystemClock)).unwrap();
    WalArchive::new(repositories, Stanza::parse("main").unwrap(), SYSTEM)
}

/// Keys and contents below `main/wal`.
async fn stored(store: &SharedStore) -> Vec<(String, Vec<u8>)> {
    let prefix = Prefix::parse("main/wal").unwrap();
    let listed: Vec<_> = store.list(&prefix).try_collect().await.unwrap();
    let mut all = Vec::new();
    for meta in listed {
        let chunks: Vec<Bytes> = store.get(&meta.key, None).await.unwrap().body.try_collect().await.unwrap();
        let content = unseal(&chunks.concat(), &Identities::none()).unwrap();
        all.push((meta.key.as_str().to_owned(), content));
    }
    all
}

#[tokio::test]
async fn every_kind_of_file_is_archived_under_its_own_key() {
    let store = memory();
    let archive = archive(vec![repository("a", store.clone()).await], 1);
    let history = Bytes::from_static(b"1\t0/300000\tno recovery target specified\n");
    for (file, content) in [
        ("000000010000000A000000FE", segment(1, 0xA * 4096 + 0xFE, 7)),
        ("000000010000000A000000FF.partial", segment(1, 0xA * 4096 + 0xFF, 8)),
        ("00000002.history", history),
        ("000000010000000A000000FE.00000028.backup", Bytes::from_static(b"START WAL LOCATION: A/FE00028\n")),
    ] {
        let receipt = archive.push(name(file), content.clone()).await.unwrap();
        assert_eq!((receipt.stored, receipt.seal), (vec!["a".to_owned()], Seal::of(&content)));
    }
    let keys: Vec<String> = stored(&store).await.into_iter().map(|(key, _)| key).collect();
    let wal = "main/wal/7301234567890123456";
    assert_eq!(
        keys,
        [
            format!("{wal}/00000001/0000000A/000000010000000A000000FE"),
            format!("{wal}/00000001/0000000A/000000010000000A000000FE.00000028.backup"),
            format!("{wal}/00000001/0000000A/000000010000000A000000FF.partial"),
            format!("{wal}/history/00000002"),
        ]
    );
}

#[tokio::test]
async fn what_is_not_the_segment_of_its_name_is_refused_and_not_stored() {
    let store = memory();
    let archive = archive(vec![repository("a", store.clone()).await], 1);
    let good = segment(1, 3, 7);
    let mut other_cluster = good.to_vec();
    other_cluster[24] ^= 1;
    let cases = [
        ("000000010000000000000004", good.clone(), Class::Data),
        ("000000010000000000000003", good.slice(..MIB - 1), Class::Data),
        ("000000010000000000000003", good.slice(..20), Class::Data),
        ("000000010000000000000003", Bytes::from(vec![0; MIB]), Class::Data),
        ("000000010000000000000003", Bytes::from(other_cluster), Class::Conflict),
        ("00000002.history", Bytes::from_static(b"2\t0/300000\tx\n"), Class::Data),
        ("00000002.history", Bytes::from_static(b""), Class::Data),
        ("000000010000000000000003.00000028.backup", Bytes::from_static(&[0xFF]), Class::Data),
    ];
    for (file, content, class) in cases {
        let error = archive.push(name(file), content).await.unwrap_err();
        assert_eq!(error.class(), class, "{file}: {error:?}");
        assert!(matches!(error, WalArchiveError::Content { .. }), "{error:?}");
    }
    assert_eq!(stored(&store).await, []);
}

#[tokio::test]
async fn the_same_again_is_fine_and_something_else_is_refused_for_ever() {
    let store = memory();
    let archive = archive(vec![repository("a", store.clone()).await], 1);
    let file = name("000000010000000000000003");
    let (mine, other) = (segment(1, 3, 7), segment(1, 3, 8));
    archive.push(file, mine.clone()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(archive.push(file, mine.clone()).await.unwrap().present, ["a"]);
        let error = archive.push(file, other.clone()).await.unwrap_err();
        assert!(
            matches!(&error, WalArchiveError::Conflict { repository, .. } if repository == "a"),
            "{error:?}"
        );
        assert!(error.class() == Class::Conflict && error.hint().is_some());
    }
    assert_eq!(stored(&store).await[0].1, mine);
}

#[tokio::test]
async fn an_encrypted_segment_is_known_again_without_the_key() {
    let identity = age::x25519::Identity::generate();
    let recipients = Recipients::parse([&*identity.to_public().to_string()]).unwrap();
    let archive = archive(vec![repository("a", memory()).await], 1).recipients(recipients);
    let file = name("000000010000000000000003");
    archive.push(file, segment(1, 3, 7)).await.unwrap();
    assert_eq!(archive.push(file, segment(1, 3, 7)).await.unwrap().present, ["a"]);
    let error = archive.push(file, segment(1, 3, 8)).await.unwrap_err();
    assert!(matches!(error, WalArchiveError::Conflict { .. }));
}

#[tokio::test]
async fn a_lost_reply_is_looked_after() {
    let fault = Arc::new(Fault::new(memory(), 1));
    let archive = archive(vec![repository("a", fault.clone()).await], 1);
    fault.always(Operation::Put, Mishap::LostReply);
    let receipt = archive.push(name("000000010000000000000003"), segment(1, 3, 7)).await.unwrap();
    assert_eq!(receipt.present, ["a"]);
}

#[tokio::test]
async fn nothing_is_acknowledged_below_the_quorum() {
    let broken = Arc::new(Fault::new(memory(), 1));
    let members = vec![repository("a", memory()).await, repository("b", broken.clone()).await];
    broken.always(Operation::Put, Mishap::Error(ErrorKind::Temporary));
    let file = name("000000010000000000000003");
    let receipt = archive(members.clone(), 1).push(file, segment(1, 3, 7)).await.unwrap();
    assert_eq!((receipt.stored.len(), receipt.missing[0].0.as_str()), (1, "b"));
    let error = archive(members.clone(), 2).push(file, segment(1, 3, 7)).await.unwrap_err();
    assert_eq!(error.class(), Class::Temporary);
    broken.calm();
    let receipt = archive(members, 2).push(file, segment(1, 3, 7)).await.unwrap();
    assert_eq!((receipt.present, receipt.stored), (vec!["a".to_owned()], vec!["b".to_owned()]));
}

#[tokio::test]
async fn a_conflict_in_one_repository_is_told_although_the_quorum_has_it() {
    let (first, second) = (memory(), memory());
    let members = vec![repository("a", first).await, repository("b", second).await];
    let file = name("000000010000000000000003");
    archive(vec![members[1].clone()], 1).push(file, segment(1, 3, 8)).await.unwrap();
    let error = archive(members, 1).push(file, segment(1, 3, 7)).await.unwrap_err();
    assert!(matches!(error, WalArchiveError::Conflict { repository, .. } if repository == "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_pushes_of_different_content_one_wins_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let local: SharedStore = Arc::new(LocalStore::create(folder.path().join("r")).unwrap());
    for store in [memory(), local] {
        let archive = archive(vec![repository("a", store.clone()).await], 1);
        for number in 1..=40u64 {
            let file = name(&format!("0000000100000000{number:08X}"));
            let push = |filling| archive.push(file, segment(1, number, filling));
            let outcomes = join_all([push(1), push(2), push(1), push(2)]).await;
            let won: Vec<u8> = [1, 2, 1, 2]
                .into_iter()
                .zip(&outcomes)
                .filter(|(_, outcome)| outcome.is_ok())
                .map(|(filling, _)| filling)
                .collect();
            assert!(won.len() == 2 && won[0] == won[1], "{outcomes:?}");
            let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
            assert!(refused.clone().all(|error| matches!(error, WalArchiveError::Conflict { .. })));
            let content = &stored(&store).await.into_iter().next_back().unwrap().1;
            assert_eq!(*content, segment(1, number, won[0]));
        }
    }
}

#[tokio::test]
async fn what_was_pushed_is_fetched_from_whichever_copy_is_whole() {
    let first = Arc::new(Fault::new(memory(), 1));
    let members = vec![repository("a", first.clone()).await, repository("b", memory()).await];
    let archive = archive(members, 2);
    let (file, content) = (name("000000010000000000000003"), segment(1, 3, 7));
    archive.push(file, content.clone()).await.unwrap();
    let none = Identities::none();
    for mishap in [
        Mishap::Flip,
        Mishap::Cut { after: 100, loud: false },
        Mishap::Cut { after: 100, loud: true },
        Mishap::Error(ErrorKind::Temporary),
        Mishap::Error(ErrorKind::Denied),
        Mishap::Error(ErrorKind::Absent),
    ] {
        first.always(Operation::Get, mishap);
        assert_eq!(
            archive.fetch(file, &none).await.unwrap(),
            Fetched::Content(content.clone()),
            "{mishap:?}"
        );
        first.calm();
    }
}

#[tokio::test]
async fn only_a_proof_is_called_absent() {
    let fault = Arc::new(Fault::new(memory(), 1));
    let archive = archive(vec![repository("a", fault.clone()).await], 1);
    let (file, content) = (name("000000010000000000000003"), segment(1, 3, 7));
    archive.push(file, content).await.unwrap();
    let none = Identities::none();
    let next = name("000000010000000000000004");
    assert_eq!(archive.fetch(next, &none).await.unwrap(), Fetched::Absent);
    for kind in [ErrorKind::Temporary, ErrorKind::Denied, ErrorKind::Failed, ErrorKind::Missing] {
        for operation in [Operation::Get, Operation::List] {
            fault.always(operation, Mishap::Error(kind));
            assert!(archive.fetch(next, &none).await.is_err(), "{kind:?} of {operation:?}");
            fault.calm();
        }
    }
    for mishap in [Mishap::Flip, Mishap::Cut { after: 100, loud: false }] {
        fault.always(Operation::Get, mishap);
        let error = archive.fetch(file, &none).await.unwrap_err();
        assert!(matches!(error, WalArchiveError::Damaged { .. }), "{error:?}");
        fault.calm();
    }
    // A store that denies what it has just listed does not end the log.
    fault.always(Operation::Get, Mishap::Error(ErrorKind::Absent));
    assert!(matches!(archive.fetch(file, &none).await, Err(WalArchiveError::Contradiction { .. })));
    let earlier = name("000000010000000000000002");
    assert!(matches!(archive.fetch(earlier, &none).await, Err(WalArchiveError::Hole { .. })));
}

#[tokio::test]
async fn a_hole_in_the_log_is_not_its_end() {
    let archive = archive(vec![repository("a", memory()).await], 1);
    let none = Identities::none();
    for number in [3, 5] {
        let file = name(&format!("0000000100000000{number:08X}"));
        archive.push(file, segment(1, number, 7)).await.unwrap();
    }
    let error = archive.fetch(name("000000010000000000000004"), &none).await.unwrap_err();
    let text =
        "000000010000000000000004 is in no repository, but 000000010000000000000005 is: the log has a hole";
    assert_eq!(error.to_string(), text);
    assert_eq!(error.class(), Class::Data);
    archive.push(name("00000003.history"), Bytes::from_static(b"1\t0/400000\tx\n")).await.unwrap();
    let error = archive.fetch(name("00000002.history"), &none).await.unwrap_err();
    assert!(matches!(error, WalArchiveError::Hole { .. }), "{error:?}");
    assert_eq!(archive.fetch(name("00000004.history"), &none).await.unwrap(), Fetched::Absent);
}
