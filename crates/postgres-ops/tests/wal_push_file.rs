//! Files pushed from disk: the same objects as from memory, whatever their size, and races.
#![allow(clippy::unwrap_used, missing_docs)]

mod wal_scene;

use std::fs;
use std::sync::Arc;

use backstay_backup_core::Class;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::error::Classified;
use backstay_backup_core::fault::{ErrorKind, Fault, Mishap, Operation};
use backstay_backup_core::key::Prefix;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::sealed::Seal;
use backstay_backup_core::store::SharedStore;
use backstay_postgres_ops::wal_archive::{Fetched, WalArchiveError};
use futures::TryStreamExt;
use futures::future::join_all;
use wal_scene::{MIB, archive, memory, name, repository, segment, source};

#[tokio::test]
async fn a_file_becomes_the_same_object_as_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let none = Identities::none();
    for (file, content) in [
        ("000000010000000000000003", segment(1, 3, 7, MIB)),
        ("000000010000000000000003", segment(1, 3, 7, 16 * MIB)),
        ("000000010000000000000004.partial", segment(1, 4, 7, 4 * MIB)),
        ("00000002.history", b"1\t0/300000\tx\n".to_vec()),
        ("000000010000000000000003.00000028.backup", b"START WAL LOCATION: 0/3000028\n".to_vec()),
    ] {
        fs::write(&path, &content).unwrap();
        let archive = archive(vec![repository("a", memory()).await], 1).threads(2).one_at_a_time();
        let pushed = archive.push_file(source(file, &path)).await.unwrap();
        assert_eq!((pushed.stored.len(), pushed.seal), (1, Seal::of(&content)));
        assert_eq!(archive.push(name(file), content.clone().into()).await.unwrap().present, ["a"], "{file}");
        assert_eq!(archive.fetch(name(file), &none).await.unwrap(), Fetched::Content(content.into()));
    }
}

#[tokio::test]
async fn a_large_segment_is_streamed_to_every_repository_and_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let content = segment(1, 3, 7, 128 * MIB);
    fs::write(&path, &content).unwrap();
    let identity = age::x25519::Identity::generate();
    let recipients = Recipients::parse([&*identity.to_public().to_string()]).unwrap();
    let keys = {
        use age::secrecy::ExposeSecret;
        Identities::parse(identity.to_string().expose_secret()).unwrap()
    };
    let local: SharedStore = Arc::new(LocalStore::create(folder.path().join("r")).unwrap());
    let broken = Arc::new(Fault::new(memory(), 1));
    let members = vec![repository("a", local).await, repository("b", broken.clone()).await];
    let file = "000000010000000000000003";
    broken.always(Operation::PutPart, Mishap::Error(ErrorKind::Temporary));
    let archive = archive(members, 1).recipients(recipients);
    let pushed = archive.push_file(source(file, &path)).await.unwrap();
    assert_eq!((pushed.stored, pushed.missing.len()), (vec!["a".to_owned()], 1));
    broken.calm();
    let pushed = archive.push_file(source(file, &path)).await.unwrap();
    assert_eq!((pushed.present, pushed.stored), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(archive.fetch(name(file), &keys).await.unwrap(), Fetched::Content(content.into()));
    fs::write(&path, segment(1, 3, 9, 128 * MIB)).unwrap();
    let error = archive.push_file(source(file, &path)).await.unwrap_err();
    assert!(matches!(error, WalArchiveError::Conflict { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_not_its_name_is_refused_before_anything_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let store = memory();
    let archive = archive(vec![repository("a", store.clone()).await], 1);
    let good = segment(1, 3, 7, MIB);
    let mut other_cluster = good.clone();
    other_cluster[24] ^= 1;
    for (file, content, class) in [
        ("000000010000000000000004", good.clone(), Class::Data),
        ("000000010000000000000003", good[..MIB - 1].to_vec(), Class::Data),
        ("000000010000000000000003", good[..20].to_vec(), Class::Data),
        ("000000010000000000000003", Vec::new(), Class::Data),
        ("000000010000000000000003", vec![7; MIB], Class::Data),
        ("000000010000000000000003", other_cluster, Class::Conflict),
        ("00000002.history", vec![b'#'; 2 * MIB], Class::Data),
        ("00000002.history", Vec::new(), Class::Data),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(archive.push_file(source(file, &path)).await.unwrap_err().class(), class, "{file}");
    }
    let prefix = Prefix::parse("main/wal").unwrap();
    assert!(store.list(&prefix).try_collect::<Vec<_>>().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_was_written_to_after_it_was_opened_is_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, segment(1, 3, 7, MIB)).unwrap();
    let archive = archive(vec![repository("a", memory()).await], 1);
    let opened = source("000000010000000000000003", &path);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let error = archive.push_file(opened).await.unwrap_err();
    assert_eq!(error.class(), Class::Temporary);
}

/// Pairs of pushes of one name at the same time, half of them of different content: 2,000 when soaked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_double_pushes_overwrite_nothing() {
    let pairs = if std::env::var_os("BACKSTAY_SOAK").is_some() { 2000 } else { 100 };
    let folder = tempfile::tempdir().unwrap();
    let local: SharedStore = Arc::new(LocalStore::create(folder.path().join("r")).unwrap());
    let archive = archive(vec![repository("a", local).await], 1);
    let none = Identities::none();
    let (mut same, mut conflicts) = (0, 0);
    for number in 1..=pairs {
        let file = format!("00000001{:08X}{:08X}", number / 4096, number % 4096);
        let fillings = [1, if number % 2 == 0 { 1 } else { 2 }];
        let paths = fillings.map(|filling| {
            let path = folder.path().join(format!("{filling}"));
            fs::write(&path, segment(1, number, filling, MIB)).unwrap();
            path
        });
        let outcomes = join_all(paths.iter().map(|path| archive.push_file(source(&file, path)))).await;
        let won: Vec<u8> =
            fillings.iter().zip(&outcomes).filter(|(_, it)| it.is_ok()).map(|(f, _)| *f).collect();
        match number % 2 {
            0 => same += won.len(),
            _ => {
                assert_eq!(won.len(), 1, "{outcomes:?}");
                let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
                conflicts +=
                    refused.filter(|error| matches!(error, WalArchiveError::Conflict { .. })).count();
            }
        }
        let stored = archive.fetch(name(&file), &none).await.unwrap();
        assert_eq!(stored, Fetched::Content(segment(1, number, won[0], MIB).into()), "{file}");
    }
    let half = usize::try_from(pairs / 2).unwrap();
    assert_eq!((same, conflicts), (2 * half, half));
}
