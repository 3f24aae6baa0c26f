//! A writer that is killed at any moment.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::{Attributes, Multipart as _};
use backstay_backup_core::upload::{UploadOptions, Uploader};
use bytes::Bytes;

use super::{child, child_store, create, files_below, fresh, key, keys, read};

const PART: usize = 64 << 10;
const PARTS: usize = 5;

/// Kills a busy writer again and again: whatever is visible is whole, whatever is not is listed and can be removed.
#[test]
fn a_killed_writer_leaves_whole_objects_and_listed_litter() {
    let (folder, store) = fresh();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut litter = 0;
    for round in 0..12_u64 {
        let mut running =
            child("crashes::writing_child", folder.path()).stdout(Stdio::null()).spawn().unwrap();
        wait_for_files(folder.path(), round);
        std::thread::sleep(Duration::from_micros(1700 * round));
        running.kill().unwrap();
        running.wait().unwrap();
        runtime.block_on(async {
            for name in keys(&store, "").await.unwrap() {
                assert_eq!(read(&store, &name).await.unwrap(), content(&name), "{name}");
            }
            let pending = store.list_uploads(&Prefix::root()).await.unwrap();
            let hidden = files_below(folder.path()).into_iter().filter(|path| is_temporary(path)).count();
            assert_eq!(pending.len(), hidden, "every leftover is listed");
            litter += hidden;
            for upload in pending {
                store.abort_upload(&upload.key, &upload.upload).await.unwrap();
            }
            assert!(!files_below(folder.path()).iter().any(|path| is_temporary(path)));
        });
    }
    assert!(litter > 0, "no kill came in the middle of an object: the test proves nothing");
}

/// Waits until the child has begun an object in this round; it runs for as long as it is let.
fn wait_for_files(folder: &Path, round: u64) {
    let end = Instant::now() + Duration::from_secs(20);
    let before = files_below(folder).len();
    while files_below(folder).len() <= before + usize::from(round.is_multiple_of(2)) {
        assert!(Instant::now() < end, "the child writes nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "part")
}

#[test]
fn writing_child() {
    let Some(store) = child_store() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for number in 0.. {
            let name = format!("objects/{}-{number}/small", std::process::id());
            create(&store, &name, &content(&name)).await.unwrap();
            let name = format!("objects/{}-{number}/big", std::process::id());
            stream(&store, &name).await;
        }
    });
}

async fn stream(store: &LocalStore, name: &str) {
    let options = UploadOptions::default().part_size(PART as u64);
    let store = std::sync::Arc::new(store.clone());
    let mut uploader = Uploader::new(store, key(name), Attributes::default(), options);
    for chunk in content(name).chunks(10_000) {
        uploader.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    uploader.finish().await.unwrap();
}

/// Bytes that follow from the name alone.
fn content(name: &str) -> Vec<u8> {
    let len = if name.ends_with("big") { PARTS * PART + 17 } else { 3000 };
    name.bytes().cycle().take(len).collect()
}
