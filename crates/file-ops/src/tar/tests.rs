//! What is written is read back, and by stock tar.

use std::collections::BTreeMap;
use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::attributes::Attributes;
use crate::path::ArchivePath;

fn entry(path: ArchivePath, kind: Kind, attributes: Attributes) -> TarEntry {
    TarEntry { path, kind, attributes }
}

/// An archive of these, the content of files being their index.
fn archive(entries: &[TarEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let kind = match &entry.kind {
            Kind::File { size, extents: None } => EntryKind::File(*size),
            Kind::File { size, extents: Some(extents) } => EntryKind::Sparse(*size, extents),
            Kind::Directory => EntryKind::Directory,
            Kind::Symlink { target } => EntryKind::Symlink(target),
            Kind::Hardlink { target } => EntryKind::Hardlink(target),
        };
        encode(&Entry { path: &entry.path, kind, attributes: &entry.attributes }, &mut bytes);
        let stored = stored(entry);
        bytes.resize(bytes.len() + stored as usize, number as u8);
        bytes.resize(bytes.len() + padding(stored), 0);
    }
    bytes.extend(END);
    bytes
}

fn stored(entry: &TarEntry) -> u64 {
    match &entry.kind {
        Kind::File { extents: Some(extents), .. } => extents.iter().map(|extent| extent.length).sum(),
        Kind::File { size, .. } => *size,
        _ => 0,
    }
}

fn read_all(bytes: &[u8]) -> Result<Vec<(TarEntry, Vec<u8>)>, TarProblem> {
    let mut reader = TarReader::new(bytes);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            match reader.read_content(&mut buffer)? {
                0 => break,
                length => content.extend(&buffer[..length]),
            }
        }
        all.push((entry, content));
    }
    Ok(all)
}

fn any_path() -> impl Strategy<Value = ArchivePath> {
    let name = prop::collection::vec(1_u8..=255, 1..60).prop_map(|mut name| {
        name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
        name
    });
    prop::collection::vec(name, 1..5)
        .prop_filter_map("dots", |names| ArchivePath::parse(&names.join(&b'/')).ok())
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let extents = prop::collection::vec((1_u64..10_000, 0_u64..700), 1..100).prop_map(|pieces| {
        let mut at = 0;
        let extents: Vec<_> = pieces
            .into_iter()
            .map(|(hole, length)| {
                let extent = Extent { offset: at + hole, length };
                at = extent.offset + length;
                extent
            })
            .collect();
        Kind::File { size: at + 5, extents: Some(extents) }
    });
    prop_oneof![
        (0_u64..3000).prop_map(|size| Kind::File { size, extents: None }),
        Just(Kind::Directory),
        prop::collection::vec(1_u8..=255, 1..300).prop_map(|target| Kind::Symlink { target }),
        any_path().prop_map(|target| Kind::Hardlink { target }),
        extents,
    ]
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let name = prop::collection::vec(1_u8..=127, 0..50);
    let extended = prop::collection::btree_map(
        prop::collection::vec(1_u8..=255, 1..20),
        prop::collection::vec(any::<u8>(), 0..100),
        0..4,
    );
    let time = (-10_000_000_000_i64..1_000_000_000_000, 0_u32..1_000_000_000);
    (0_u32..=0o7777, 0..u32::MAX, 0..u32::MAX, name.clone(), name, time, extended).prop_map(
        |(mode, user, group, user_name, group_name, (modified, modified_nanos), extended)| Attributes {
            mode,
            user,
            group,
            user_name,
            group_name,
            modified,
            modified_nanos,
            extended,
        },
    )
}

fn any_entry() -> impl Strategy<Value = TarEntry> {
    (any_path(), any_kind(), any_attributes())
        .prop_map(|(path, kind, attributes)| entry(path, kind, attributes))
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in prop::collection::vec(any_entry(), 0..6)) {
        let read = read_all(&archive(&entries)).unwrap();
        prop_assert_eq!(read.len(), entries.len());
        for (number, ((read, content), written)) in read.iter().zip(&entries).enumerate() {
            prop_assert_eq!(read, written);
            prop_assert_eq!(content.len() as u64, stored(written));
            prop_assert!(content.iter().all(|byte| *byte == number as u8));
        }
    }

    #[test]
    fn a_cut_archive_is_never_a_shorter_one(entries in prop::collection::vec(any_entry(), 1..4), at in any::<prop::sample::Index>()) {
        let whole = archive(&entries);
        let cut = &whole[..at.index(whole.len())];
        prop_assert!(read_all(cut).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5)) {
        let _ = read_all(&bytes);
        let path = ArchivePath::parse(b"x").unwrap();
        let mut almost = archive(&[entry(path, Kind::File { size: 700, extents: None }, Attributes::default())]);
        for (at, byte) in flips {
            let at = at.index(almost.len());
            almost[at] = byte;
        }
        let _ = read_all(&almost);
    }
}

/// Also where a byte has no meaning: two readers could give it two.
#[test]
fn any_changed_byte_is_refused_or_read_as_something_else() {
    let path = |name: &[u8]| ArchivePath::parse(name).unwrap();
    let extended = BTreeMap::from([(b"user.a".to_vec(), b"value".to_vec())]);
    let attributes = Attributes { user_name: b"ada".to_vec(), extended, ..Attributes::default() };
    let extents = vec![Extent { offset: 512, length: 600 }];
    let whole = archive(&[
        entry(path(b"folder"), Kind::Directory, Attributes::default()),
        entry(path(&[b'x'; 200]), Kind::File { size: 3, extents: None }, attributes.clone()),
        entry(path(b"holes"), Kind::File { size: 5000, extents: Some(extents) }, attributes),
        entry(path(b"link"), Kind::Symlink { target: b"folder".to_vec() }, Attributes::default()),
    ]);
    let read = read_all(&whole).unwrap();
    for at in 0..whole.len() {
        // Not 0x20: the number of a checksum may end with a blank as with a NUL.
        for flip in [1, 0x40, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            assert!(read_all(&changed).is_err() || read_all(&changed).unwrap() != read, "byte {at}");
        }
    }
}

#[test]
fn stock_tar_restores_attributes() {
    let folder = tempfile::tempdir().unwrap();
    let extended = BTreeMap::from([
        (b"user.a=b%".to_vec(), b"\0x\n\xff".to_vec()),
        (b"user.empty".to_vec(), Vec::new()),
        (
            b"system.posix_acl_access".to_vec(),
            crate::acl::to_binary("user::rw-,user:7:r--,group::r--,mask::r--,other::---").unwrap(),
        ),
    ]);
    let attributes = Attributes {
        mode: 0o640,
        modified: -4,
        modified_nanos: 750_000_000,
        extended,
        ..Attributes::default()
    };
    let path = ArchivePath::parse(b"file").unwrap();
    let written = entry(path, Kind::File { size: 3, extents: None }, attributes.clone());
    std::fs::write(folder.path().join("a.tar"), archive(&[written])).unwrap();
    let unpacked = std::process::Command::new("tar")
        .args(["--acls", "--xattrs", "--xattrs-include=*", "--no-same-owner", "-xpf", "a.tar"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let mut file = std::fs::File::open(folder.path().join("file")).unwrap();
    assert_eq!(crate::attributes::extended(&file).unwrap(), attributes.extended);
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content, [0, 0, 0]);
}
