//! Several writers at once, as threads and as processes.

use std::process::Stdio;

use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::{Attributes, ObjectStore as _, PutMode, StoreError};
use bytes::Bytes;

use super::{child, child_store, create, fresh, key, keys, read};

const PROCESSES: usize = 4;
const ROUNDS: usize = 25;

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_exactly_one_wins() {
    let (_folder, store) = fresh();
    for round in 0..20 {
        let name = format!("race/{round}/x");
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..8_u8 {
            let (store, name) = (store.clone(), name.clone());
            tasks.spawn(async move { (writer, create(&store, &name, &[writer; 100]).await) });
        }
        let mut winners = Vec::new();
        for (writer, outcome) in tasks.join_all().await {
            match outcome {
                Ok(_) => winners.push(writer),
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(read(&store, &name).await.unwrap(), [winners[0]; 100]);
    }
}

/// Folders that become empty are removed while others are about to write into them.
#[tokio::test(flavor = "multi_thread")]
async fn removing_empty_folders_never_fails_a_writer() {
    let (_folder, store) = fresh();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let name = format!("shared/deep/folder/{writer}");
            for _ in 0..50 {
                create(&store, &name, b"x").await.unwrap();
                store.delete(&key(&name)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[test]
fn processes_race_to_create_and_to_increment() {
    let (folder, store) = fresh();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(create(&store, "counter", b"0")).unwrap();
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| child("races::racing_child", folder.path()).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for mut running in children {
        assert!(running.wait().unwrap().success());
    }
    let total = runtime.block_on(read(&store, "counter")).unwrap();
    assert_eq!(String::from_utf8(total).unwrap(), (PROCESSES * ROUNDS).to_string());
    for round in 0..ROUNDS {
        assert!(runtime.block_on(read(&store, &format!("once/{round}"))).is_ok());
    }
    let wins = runtime.block_on(keys(&store, "wins")).unwrap();
    assert_eq!(wins.len(), ROUNDS, "every key has exactly one creator: {wins:?}");
}

#[test]
fn racing_child() {
    let Some(store) = child_store() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for round in 0..ROUNDS {
            match create(&store, &format!("once/{round}"), b"x").await {
                Ok(_) => {
                    let mine = format!("wins/{round}-{}", std::process::id());
                    create(&store, &mine, b"").await.unwrap();
                }
                Err(error) => assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}"),
            }
            increment(&store).await;
        }
    });
}

async fn increment(store: &LocalStore) {
    let counter = key("counter");
    loop {
        let opened = store.get(&counter, None).await.unwrap();
        let tag = opened.meta.etag.unwrap();
        let now: usize = String::from_utf8(read(store, "counter").await.unwrap()).unwrap().parse().unwrap();
        let next = Bytes::from((now + 1).to_string());
        match store.put(&counter, next, PutMode::Replace(tag), &Attributes::default()).await {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}
