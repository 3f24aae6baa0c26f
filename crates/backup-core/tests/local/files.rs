//! Objects as files.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::{Attributes, Multipart as _, ObjectStore as _, PartNumber, StoreError};
use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_oneof, proptest};

use super::{create, files_below, fresh, key, keys, read};

#[tokio::test]
async fn an_object_is_a_plain_file_of_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("deep/below");
    let store = LocalStore::create(root.clone()).unwrap();
    // Neither an open nor a closed umask changes the permissions.
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    create(&store, "main/sets/x", b"plain").await.unwrap();
    rustix::process::umask(before);
    assert_eq!(std::fs::read(root.join("main/sets/x")).unwrap(), b"plain");
    let mode = |path: &str| root.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("main/sets/x"), mode("main/sets"), mode("main"), mode("")),
        (0o600, 0o700, 0o700, 0o700)
    );
}

#[tokio::test]
async fn the_time_of_an_upload_is_that_of_its_completion() {
    let (folder, store) = fresh();
    let name = key("a/big");
    let upload = store.start_upload(&name, &Attributes::default()).await.unwrap();
    let part = PartNumber { number: 1, offset: 0 };
    let tag = store.put_part(&name, &upload, part, Bytes::from_static(b"x")).await.unwrap();
    let temporary = files_below(folder.path()).pop().unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(temporary).unwrap().set_modified(old).unwrap();
    let pending = store.list_uploads(&Prefix::root()).await.unwrap();
    assert!(Timestamp::now().duration_since(pending[0].started) > SignedDuration::from_hours(23));
    let meta = store.complete_upload(&name, &upload, &[tag]).await.unwrap();
    assert!(Timestamp::now().duration_since(meta.modified) < SignedDuration::from_mins(1));
    assert_eq!(store.head(&name).await.unwrap(), meta);
}

#[tokio::test]
async fn folders_go_with_their_last_object() {
    let (folder, store) = fresh();
    create(&store, "a/b/c/one", b"1").await.unwrap();
    create(&store, "a/two", b"2").await.unwrap();
    store.delete(&key("a/b/c/one")).await.unwrap();
    assert!(!folder.path().join("a/b").exists());
    assert!(folder.path().join("a/two").exists());
    store.delete(&key("a/two")).await.unwrap();
    assert!(folder.path().exists(), "the root stays");
}

#[tokio::test]
async fn links_are_neither_listed_nor_followed_nor_called_absent() {
    let (folder, store) = fresh();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("secret"), b"elsewhere").unwrap();
    symlink(other.path(), folder.path().join("linked")).unwrap();
    symlink(other.path().join("secret"), folder.path().join("file")).unwrap();
    create(&store, "own", b"1").await.unwrap();
    assert_eq!(keys(&store, "").await.unwrap(), ["own"]);
    for name in ["linked/secret", "file"] {
        let error = read(&store, name).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{name}: {error:?}");
    }
    assert!(matches!(create(&store, "linked/new", b"").await, Err(StoreError::Failed { .. })));
    assert_eq!(files_below(other.path()).len(), 1);
}

#[tokio::test]
async fn what_is_no_key_is_not_seen() {
    let (folder, store) = fresh();
    for name in [".hidden", "with space", "ümlaut", ".x.0123456789abcdef.part.bak"] {
        std::fs::write(folder.path().join(name), b"").unwrap();
    }
    std::fs::create_dir(folder.path().join(".snapshot")).unwrap();
    std::fs::write(folder.path().join(".snapshot/x"), b"").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(keys(&store, "").await.unwrap().is_empty());
    assert!(store.list_uploads(&Prefix::root()).await.unwrap().is_empty());
    let error = store.get(&key("pipe"), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
}

#[tokio::test]
async fn an_object_is_no_folder_and_a_folder_no_object() {
    let (_folder, store) = fresh();
    create(&store, "a/b", b"1").await.unwrap();
    assert!(store.head(&key("a")).await.unwrap_err().is_absent());
    assert!(store.head(&key("a/b/c")).await.unwrap_err().is_absent());
    assert!(matches!(create(&store, "a", b"").await, Err(StoreError::Failed { .. })));
    assert!(matches!(create(&store, "a/b/c", b"").await, Err(StoreError::Failed { .. })));
    store.delete(&key("a")).await.unwrap();
    assert_eq!(read(&store, "a/b").await.unwrap(), b"1");
}

#[tokio::test]
async fn opening_what_is_no_directory_is_a_missing_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), b"").unwrap();
    for name in ["absent", "file"] {
        let error = LocalStore::open(folder.path().join(name)).unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{name}: {error:?}");
    }
    assert!(!folder.path().join("absent").exists());
    let again = folder.path().join("made");
    LocalStore::create(again.clone()).unwrap();
    LocalStore::create(again).unwrap();
    let relative = PathBuf::from(".");
    assert!(LocalStore::open(relative).is_ok());
}

/// Segments that sort differently beside a `/`.
fn segment() -> impl Strategy<Value = String> {
    let tricky =
        prop_oneof![Just("a"), Just("a-b"), Just("a.b"), Just("a0"), Just("a+"), Just("A"), Just("a_")];
    prop_oneof![tricky.prop_map(str::to_owned), "[a-b0.+-]{1,3}".prop_map(|text| format!("x{text}"))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn listings_are_in_the_order_of_whole_keys(
        mut names in prop::collection::btree_set(prop::collection::vec(segment(), 1..4), 1..40),
    ) {
        // Files may not be folders of others, and every last segment says that it is a file.
        let names: std::collections::BTreeSet<String> =
            std::mem::take(&mut names).into_iter().map(|parts| format!("{}.f", parts.join("/"))).collect();
        let folder = tempfile::tempdir().unwrap();
        for name in &names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = LocalStore::open(folder.path().to_path_buf()).unwrap();
        let listed = runtime.block_on(keys(&store, "")).unwrap();
        assert_eq!(listed, names.iter().cloned().collect::<Vec<_>>());
        let below: Vec<_> = names.iter().filter(|name| name.starts_with("a/")).cloned().collect();
        assert_eq!(runtime.block_on(keys(&store, "a")).unwrap(), below);
    }
}

#[tokio::test]
async fn a_long_listing_comes_in_pages_and_bears_deletions() {
    let (folder, store) = fresh();
    std::fs::create_dir(folder.path().join("many")).unwrap();
    for number in 0..1000 {
        std::fs::write(folder.path().join(format!("many/{number:04}")), b"").unwrap();
    }
    let prefix = Prefix::parse("many").unwrap();
    let mut listing = store.list(&prefix);
    let first = listing.try_next().await.unwrap().unwrap();
    assert_eq!(first.key, key("many/0000"));
    std::fs::remove_file(folder.path().join("many/0900")).unwrap();
    let rest: Vec<_> = listing.try_collect().await.unwrap();
    assert_eq!(rest.len(), 998);
    std::fs::remove_dir_all(folder.path().join("many")).unwrap();
    assert!(keys(&store, "many").await.unwrap().is_empty());
}
