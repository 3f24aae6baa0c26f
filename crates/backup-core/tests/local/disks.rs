//! Disks that are full, read-only, gone or exchanged.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::{
    Attributes, Multipart as _, ObjectStore as _, PartNumber, PutMode, StoreError, UploadId,
};
use backstay_backup_core::upload::{UploadOptions, Uploader};
use bytes::Bytes;

use super::{child, child_store, create, files_below, fresh, key, keys, read};

/// A small file system in memory, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        disk.command("mount", &["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).then_some(disk)
    }

    fn command(&self, program: &str, args: &[&str]) -> bool {
        let output = Command::new(program).args(args).arg(self.0.path()).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.command("umount", &["-l"]);
    }
}

#[test]
fn a_full_disk_is_one_clear_error_and_leaves_nothing() {
    match SmallDisk::mount() {
        Some(disk) => {
            let store = LocalStore::open(disk.0.path().to_path_buf()).unwrap();
            runtime().block_on(fill(&store, disk.0.path()));
        }
        // Without the right to mount, a limit on file sizes has to stand in for the full disk.
        None => limited_files(),
    }
}

/// The kernel's limit on file sizes is reported as a full store too.
#[test]
fn a_limit_on_file_sizes_is_a_full_store() {
    limited_files();
}

fn limited_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = child("disks::limited_child", folder.path());
    let mut limited = Command::new("prlimit");
    limited.args(["--fsize=200000", "--", "env", "--ignore-signal=XFSZ"]).arg(run.get_program());
    limited.args(run.get_args()).envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn limited_child() {
    let Some(store) = child_store() else { return };
    let root = std::path::PathBuf::from(store.location());
    runtime().block_on(fill(&store, &root));
}

async fn fill(store: &LocalStore, root: &Path) {
    create(store, "before", b"kept").await.unwrap();
    let error = create(store, "folder/large", &[1; 1 << 20]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    let options = UploadOptions::default().part_size(64 << 10);
    let shared = Arc::new(store.clone());
    let mut uploader = Uploader::new(shared, key("folder/streamed"), Attributes::default(), options);
    let mut outcome = Ok(());
    for _ in 0..16 {
        outcome = uploader.write(Bytes::from(vec![2; 64 << 10])).await;
        if outcome.is_err() {
            break;
        }
    }
    let error = match outcome {
        Ok(()) => uploader.finish().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(keys(store, "").await.unwrap(), ["before"]);
    assert_eq!(files_below(root).len(), 1, "no temporary file is left either");
    create(store, "folder/small", b"fits").await.unwrap();
    assert_eq!(read(store, "before").await.unwrap(), b"kept");
}

#[test]
fn a_read_only_store_reads_and_denies_writes() {
    let runtime = runtime();
    match SmallDisk::mount() {
        Some(disk) => {
            let store = LocalStore::open(disk.0.path().to_path_buf()).unwrap();
            runtime.block_on(async {
                create(&store, "a/x", b"1").await.unwrap();
                assert!(disk.command("mount", &["-o", "remount,ro"]));
                check_read_only(&store).await;
            });
        }
        None => {
            let (folder, store) = fresh();
            runtime.block_on(create(&store, "a/x", b"1")).unwrap();
            let set = |path: &str, mode| {
                let path = folder.path().join(path);
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            };
            set("a", 0o500);
            set("", 0o500);
            runtime.block_on(check_read_only(&store));
            set("", 0o700);
            set("a", 0o700);
        }
    }
}

async fn check_read_only(store: &LocalStore) {
    let meta = store.head(&key("a/x")).await.unwrap();
    assert_eq!(read(store, "a/x").await.unwrap(), b"1");
    let none = Attributes::default();
    let replace = PutMode::Replace(meta.etag.clone().unwrap());
    let outcomes = [
        create(store, "a/y", b"2").await.map(drop),
        create(store, "b/y", b"2").await.map(drop),
        store.put(&key("a/x"), Bytes::new(), replace, &none).await.map(drop),
        store.delete(&key("a/x")).await,
        store.start_upload(&key("a/z"), &none).await.map(drop),
    ];
    for (step, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "step {step}: {error:?}");
    }
    assert!(matches!(create(store, "a/x", b"").await, Err(StoreError::AlreadyExists { .. })));
    assert_eq!(keys(store, "").await.unwrap(), ["a/x"]);
}

#[tokio::test]
async fn a_vanished_root_is_missing_and_not_made_again() {
    let (folder, store) = fresh();
    create(&store, "a/x", b"1").await.unwrap();
    let root = folder.path().to_path_buf();
    let aside = tempfile::tempdir().unwrap();
    std::fs::rename(&root, aside.path().join("moved")).unwrap();
    check_missing(&store).await;
    assert!(!root.exists());
    // An unmounted disk leaves its mount point: an empty directory in the same place.
    std::fs::create_dir(&root).unwrap();
    check_missing(&store).await;
    assert!(files_below(&root).is_empty());
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(aside.path().join("moved"), &root).unwrap();
    assert_eq!(read(&store, "a/x").await.unwrap(), b"1");
}

async fn check_missing(store: &LocalStore) {
    let (name, none) = (key("a/x"), Attributes::default());
    let upload = UploadId("0123456789abcdef".to_owned());
    let part = PartNumber { number: 1, offset: 0 };
    let outcomes = [
        create(store, "a/y", b"2").await.map(drop),
        store.put(&name, Bytes::new(), PutMode::Replace(store_tag()), &none).await.map(drop),
        read(store, "a/x").await.map(drop),
        store.head(&name).await.map(drop),
        keys(store, "").await.map(drop),
        keys(store, "a").await.map(drop),
        store.delete(&name).await,
        store.start_upload(&name, &none).await.map(drop),
        store.put_part(&name, &upload, part, Bytes::new()).await.map(drop),
        store.complete_upload(&name, &upload, &[]).await.map(drop),
        store.abort_upload(&name, &upload).await,
        store.list_uploads(&Prefix::root()).await.map(drop),
    ];
    for (step, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "step {step}: {error:?}");
    }
}

fn store_tag() -> backstay_backup_core::store::ETag {
    backstay_backup_core::store::ETag("sha256:00".to_owned())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}
