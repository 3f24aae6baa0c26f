//! What surveys find in stores: runs, gaps, copies, histories.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::wal::{SystemId, Timeline, WalFile};
use backstay_postgres_ops::wal_archive::{
    HistoryState, Runs, WalArchive, WalArchiveError, WalSurvey, survey_stanza,
};
use bytes::Bytes;

const MIB: usize = 1 << 20;

fn segment(system: u64, size: usize, timeline: u32, number: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(0xD110u16.to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(timeline.to_le_bytes());
    bytes.extend((number * size as u64).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(system.to_le_bytes());
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend(8192u32.to_le_bytes());
    bytes.resize(size, 0);
    bytes.into()
}

fn name(text: &str) -> WalFile {
    text.parse().unwrap()
}

fn line(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

async fn repository(name: &str, store: SharedStore) -> Repository {
    Repository::create(name, store, &SystemClock).await.unwrap()
}

fn memory() -> SharedStore {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

fn repositories(members: Vec<Repository>) -> Repositories {
    Repositories::new(members, 1, Arc::new(SystemClock)).unwrap()
}

fn archive(members: &[Repository], system: u64) -> WalArchive {
    WalArchive::new(repositories(members.to_vec()), Stanza::parse("main").unwrap(), SystemId::new(system))
}

async fn push(archive: &WalArchive, system: u64, timeline: u32, numbers: &[u64]) {
    for number in numbers {
        let file = name(&format!("{timeline:08X}00000000{number:08X}"));
        archive.push(file, segment(system, MIB, timeline, *number)).await.unwrap();
    }
}

fn runs(runs: &Runs) -> Vec<(u64, u64)> {
    runs.ranges().collect()
}

async fn survey(archive: &WalArchive) -> WalSurvey {
    archive.survey(&Identities::none()).await.unwrap()
}

#[tokio::test]
async fn the_union_of_all_repositories_is_surveyed_and_what_each_lacks() {
    let members = [repository("a", memory()).await, repository("b", memory()).await];
    push(&archive(&members, 73), 73, 1, &[1, 2, 3]).await;
    push(&archive(&members[..1], 73), 73, 1, &[4, 7]).await;
    push(&archive(&members[1..], 73), 73, 1, &[5]).await;
    let partial = name("000000010000000000000008.partial");
    archive(&members[1..], 73).push(partial, segment(73, MIB, 1, 8)).await.unwrap();
    let history = Bytes::from_static(b"1\t0/700028\tno recovery target specified\n");
    archive(&members[1..], 73).push(name("00000002.history"), history).await.unwrap();
    let survey = survey(&archive(&members, 73)).await;
    assert_eq!(survey.size.bytes(), MIB as u64);
    let first = &survey.timelines[&line(1)];
    assert_eq!((runs(&first.segments), runs(&first.partials)), (vec![(1, 5), (7, 7)], vec![(8, 8)]));
    let gaps: Vec<_> = first.segments.gaps().map(|gap| gap.first.to_string()).collect();
    assert_eq!(gaps, ["000000010000000000000006"]);
    let missing: Vec<_> =
        survey.repositories.iter().map(|it| it.missing.iter().map(runs).collect::<Vec<_>>()).collect();
    assert_eq!(missing, [vec![vec![(5, 5)]], vec![vec![(4, 4), (7, 7)]]]);
    assert_eq!(survey.history(line(2)).unwrap().branches()[0].end.to_string(), "0/700028");
}

#[tokio::test]
async fn every_cluster_of_a_stanza_has_a_survey_of_its_own() {
    let members = [repository("a", memory()).await];
    push(&archive(&members, 73), 73, 1, &[1]).await;
    push(&archive(&members, 74), 74, 1, &[9, 10]).await;
    let stanza = Stanza::parse("main").unwrap();
    let surveys = survey_stanza(&repositories(members.to_vec()), &stanza, &Identities::none()).await.unwrap();
    let found: Vec<_> =
        surveys.iter().map(|it| (it.system.number(), it.timelines[&line(1)].segments.count())).collect();
    assert_eq!(found, [(73, 1), (74, 2)]);
}

#[tokio::test]
async fn a_repository_that_cannot_be_listed_is_named_beside_others() {
    let broken = Arc::new(Fault::new(memory(), 1));
    let members = [repository("a", memory()).await, repository("b", broken.clone()).await];
    push(&archive(&members[..1], 73), 73, 1, &[1]).await;
    broken.always(Operation::List, Mishap::Error(ErrorKind::Temporary));
    let found = survey(&archive(&members, 73)).await;
    assert!(found.is_partial() && found.repositories[0].problem.is_none());
    assert!(found.repositories[1].problem.is_some() && found.repositories[1].missing.is_empty());
    assert_eq!(found.timelines[&line(1)].segments.count(), 1);
    let alone = archive(&members[1..], 73).survey(&Identities::none()).await;
    assert!(matches!(alone, Err(WalArchiveError::Repository(_))));
}

#[tokio::test]
async fn a_history_that_cannot_be_read_is_not_a_missing_one() {
    let identity = age::x25519::Identity::generate();
    let recipients = Recipients::parse([&*identity.to_public().to_string()]).unwrap();
    let members = [repository("a", memory()).await];
    let archive = archive(&members, 73).recipients(recipients);
    let history = Bytes::from_static(b"1\t0/700028\tx\n");
    archive.push(name("00000002.history"), history).await.unwrap();
    push(&archive, 73, 3, &[9]).await;
    let found = survey(&archive).await;
    assert!(
        matches!(&found.timelines[&line(2)].history, HistoryState::Unreadable(why) if why.contains("encrypted"))
    );
    assert_eq!(found.timelines[&line(3)].history, HistoryState::Missing);
    assert_eq!(found.size.bytes(), MIB as u64, "the seal is readable without a key");
    let key = Identities::parse(age::secrecy::ExposeSecret::expose_secret(&identity.to_string())).unwrap();
    let found = archive.survey(&key).await.unwrap();
    assert!(matches!(&found.timelines[&line(2)].history, HistoryState::Known(_)));
}

#[tokio::test]
async fn segments_of_two_sizes_are_refused_and_strange_objects_counted() {
    let members = [repository("a", memory()).await];
    let archive = archive(&members, 73);
    push(&archive, 73, 1, &[1]).await;
    let key = "main/wal/73/00000002/00000000/000000020000000000000005".parse().unwrap();
    let store = members[0].store();
    let put = |body| async {
        store.put(&key, body, backstay_backup_core::store::PutMode::Create, &Default::default()).await
    };
    put(Bytes::from_static(b"no segment")).await.unwrap();
    let found = survey(&archive).await;
    assert_eq!((found.repositories[0].foreign, found.timelines.len()), (1, 1));
    archive.push(name("000000030000000000000001"), segment(73, 2 * MIB, 3, 1)).await.unwrap();
    let refused = archive.survey(&Identities::none()).await;
    assert!(matches!(refused, Err(WalArchiveError::Content { .. })), "{refused:?}");
}
