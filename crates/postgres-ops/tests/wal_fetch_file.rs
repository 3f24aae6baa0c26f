//! Files fetched straight to disk: the same content as in memory, the same proofs, and nothing held.
#![allow(clippy::unwrap_used, missing_docs)]

mod wal_scene;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstay_backup_core::Class;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::error::Classified;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::wal_archive::{OpenTarget, WalArchive, WalArchiveError};
use wal_scene::{MIB, archive, memory, name, repository, segment};

fn target(path: &Path) -> OpenTarget {
    let path = path.to_owned();
    OpenTarget::new(move || File::create(&path))
}

/// Fetches, and compares with what is fetched into memory.
async fn is_fetched(archive: &WalArchive, file: &str, keys: &Identities, content: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let fetched = archive.fetch_file(name(file), keys, &target(&path)).await.unwrap().unwrap();
    assert_eq!(fetched.length, content.len() as u64, "{file}");
    assert!(fs::read(&path).unwrap() == content, "{file}");
}

#[tokio::test]
async fn every_kind_of_file_comes_back_as_it_was_pushed() {
    let identity = age::x25519::Identity::generate();
    let recipients = Recipients::parse([&*identity.to_public().to_string()]).unwrap();
    let keys = {
        use age::secrecy::ExposeSecret;
        Identities::parse(identity.to_string().expose_secret()).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    for encrypted in [false, true] {
        let place = folder.path().join(encrypted.to_string());
        let local: SharedStore = Arc::new(LocalStore::create(place).unwrap());
        let mut archive = archive(vec![repository("a", local).await], 1);
        if encrypted {
            archive = archive.recipients(recipients.clone());
        }
        for (file, content) in [
            ("000000010000000000000003", segment(1, 3, 7, MIB)),
            ("000000010000000000000005", segment(1, 5, 7, 64 * MIB)),
            ("000000010000000000000004.partial", segment(1, 4, 7, 4 * MIB)),
            ("00000002.history", b"1\t0/300000\tx\n".to_vec()),
            ("000000010000000000000003.00000028.backup", b"START WAL LOCATION: 0/3000028\n".to_vec()),
        ] {
            archive.push(name(file), content.clone().into()).await.unwrap();
            is_fetched(&archive, file, &keys, &content).await;
            if encrypted {
                let path = folder.path().join("none");
                let refused = archive.fetch_file(name(file), &Identities::none(), &target(&path)).await;
                assert_eq!(refused.unwrap_err().class(), Class::Usage, "{file}");
            }
        }
    }
}

#[tokio::test]
async fn another_copy_is_taken_when_one_is_damaged_or_breaks_off() {
    let first = Arc::new(Fault::new(memory(), 1));
    let members = vec![repository("a", first.clone()).await, repository("b", memory()).await];
    let archive = archive(members, 2);
    let (file, content) = ("000000010000000000000003", segment(1, 3, 7, 4 * MIB));
    archive.push(name(file), content.clone().into()).await.unwrap();
    for mishap in [
        Mishap::Flip,
        Mishap::Cut { after: 100, loud: false },
        Mishap::Cut { after: 1_500_000, loud: false },
        Mishap::Cut { after: 1_500_000, loud: true },
        Mishap::Error(ErrorKind::Temporary),
        Mishap::Error(ErrorKind::Absent),
    ] {
        first.always(Operation::Get, mishap);
        is_fetched(&archive, file, &Identities::none(), &content).await;
        first.calm();
    }
}

#[tokio::test]
async fn what_is_damaged_and_what_breaks_off_is_told_apart() {
    let fault = Arc::new(Fault::new(memory(), 1));
    let archive = archive(vec![repository("a", fault.clone()).await], 1);
    let (file, content) = (name("000000010000000000000003"), segment(1, 3, 7, 4 * MIB));
    archive.push(file, content.into()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = target(&folder.path().join("file"));
    for (mishap, class) in [
        (Mishap::Flip, Class::Data),
        (Mishap::Cut { after: 1_500_000, loud: false }, Class::Data),
        (Mishap::Cut { after: 1_500_000, loud: true }, Class::Temporary),
        (Mishap::Cut { after: 100, loud: true }, Class::Temporary),
        (Mishap::Error(ErrorKind::Denied), Class::Usage),
    ] {
        fault.always(Operation::Get, mishap);
        let error = archive.fetch_file(file, &Identities::none(), &target).await.unwrap_err();
        assert_eq!(error.class(), class, "{mishap:?}: {error:?}");
        fault.calm();
    }
    let next = name("000000010000000000000004");
    assert!(archive.fetch_file(next, &Identities::none(), &target).await.unwrap().is_none());
    let hole = name("000000010000000000000002");
    let error = archive.fetch_file(hole, &Identities::none(), &target).await.unwrap_err();
    assert!(matches!(error, WalArchiveError::Hole { .. }), "{error:?}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_ends_the_search() {
    let members = vec![repository("a", memory()).await, repository("b", memory()).await];
    let archive = archive(members, 2);
    let (text, file) = (name("00000002.history"), name("000000010000000000000003"));
    archive.push(text, b"1\t0/300000\tx\n".to_vec().into()).await.unwrap();
    archive.push(file, segment(1, 3, 7, MIB).into()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    File::create(&path).unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let counted = opened.clone();
    let closed = OpenTarget::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Err(io::ErrorKind::PermissionDenied.into())
    });
    // What is open for reading only fails with the first write.
    let unwritable = OpenTarget::new(move || File::open(&path));
    for file in [text, file] {
        let error = archive.fetch_file(file, &Identities::none(), &closed).await.unwrap_err();
        assert!(matches!(error, WalArchiveError::Target { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Usage);
        let error = archive.fetch_file(file, &Identities::none(), &unwritable).await.unwrap_err();
        assert!(matches!(error, WalArchiveError::Target { .. }), "{error:?}");
    }
    assert_eq!(opened.load(Ordering::Relaxed), 2, "once for each file, not for each copy");
}
