//! Physical sets made of any directory with stock `tar`, also such as no backup would write.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Recipients;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::{Codec, Manifest, SetKind};
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_postgres_ops::physical::{
    BLOCK, BlockDigest, ClusterPath, IndexDirectory, IndexEnd, IndexFile, IndexLine, IndexPack,
};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};

/// Plain bytes of a frame; small, so that files span several.
const FRAME: usize = 256 << 10;

/// Repositories in directories.
pub(crate) async fn repositories(folders: &[PathBuf]) -> Repositories {
    let mut members = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let store = Arc::new(LocalStore::create(folder.clone()).unwrap());
        members.push(Repository::open_or_create(name, store, &SystemClock).await.unwrap());
    }
    let count = members.len();
    Repositories::new(members, count, Arc::new(SystemClock)).unwrap()
}

/// Makes a set.
pub(crate) struct SetMaker<'a> {
    pub(crate) repositories: &'a Repositories,
    pub(crate) recipients: Recipients,
    pub(crate) facts: Value,
    /// Changes the lines of the index before they are stored.
    pub(crate) tweak: fn(&mut Vec<IndexLine>),
    /// Changes the plain bytes of packs after the index was made.
    pub(crate) spoil: fn(&mut Vec<Vec<u8>>),
}

impl<'a> SetMaker<'a> {
    pub(crate) fn new(repositories: &'a Repositories) -> Self {
        Self {
            repositories,
            recipients: Recipients::none(),
            facts: facts(&json!([])),
            tweak: |_| {},
            spoil: |_| {},
        }
    }

    /// Packs the files of a directory, so many of them in each pack but the last, which has the control file.
    pub(crate) async fn make(&self, folder: &Path, files_in_a_pack: usize) -> Manifest {
        let (mut files, directories) = walk(folder);
        files.retain(|path| !path.starts_with("pg_wal/"));
        files.sort_by_key(|path| path == "global/pg_control");
        let last = files.len() - 1;
        let mut groups: Vec<&[String]> = files[..last].chunks(files_in_a_pack).collect();
        groups.push(&files[last..]);
        let mut plain: Vec<Vec<u8>> = groups.iter().map(|names| tar(folder, names)).collect();
        let mut lines = Vec::new();
        for (number, plain) in (1..).zip(&plain) {
            lines.extend(contents(number, plain).into_iter().map(IndexLine::File));
        }
        for path in directories {
            lines.push(IndexLine::Directory(IndexDirectory {
                path: ClusterPath::parse(path).unwrap(),
                mode: 0o700,
            }));
        }
        (self.spoil)(&mut plain);
        self.store(plain, lines).await
    }

    async fn store(&self, packs: Vec<Vec<u8>>, mut lines: Vec<IndexLine>) -> Manifest {
        let spec =
            SetSpec::new(SetKind::new(SetKind::POSTGRES_PHYSICAL), Stanza::parse("main").unwrap(), "test 1")
                .recipients(self.recipients.clone());
        let path = DataPath::default().frame(FRAME);
        let writer = SetWriter::begin(self.repositories, spec, path).await.unwrap();
        let mut objects = Vec::new();
        for (number, plain) in (1_u32..).zip(packs) {
            let object = self.name(&format!("pack-{number:05}.tar.zst"));
            lines.push(IndexLine::Pack(IndexPack {
                number,
                object: object.clone(),
                frame: FRAME as u64,
                plain: plain.len() as u64,
                stored: plain.chunks(FRAME).map(stored_length).collect(),
            }));
            objects.push(put(&writer, &object, plain).await);
        }
        lines.sort_by_key(|line| !matches!(line, IndexLine::Pack(_)));
        let count = |is: fn(&IndexLine) -> bool| lines.iter().filter(|line| is(line)).count();
        let end = IndexEnd {
            files: count(|line| matches!(line, IndexLine::File(_))) as u64,
            directories: count(|line| matches!(line, IndexLine::Directory(_))) as u64,
            packs: count(|line| matches!(line, IndexLine::Pack(_))) as u32,
        };
        lines.push(IndexLine::End(end));
        (self.tweak)(&mut lines);
        let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        objects.push(put(&writer, &self.name("index.zst"), text.into_bytes()).await);
        let contents = SetContents::new(jiff::Timestamp::now(), objects).facts(self.facts.clone());
        writer.commit(contents).await.unwrap().manifest
    }

    fn name(&self, plain: &str) -> String {
        if self.recipients.is_empty() { plain.to_owned() } else { format!("{plain}.age") }
    }
}

async fn put(writer: &SetWriter, name: &str, plain: Vec<u8>) -> backstay_backup_core::manifest::ObjectEntry {
    let plain = Bytes::from(plain);
    let frames: Vec<_> =
        (0..plain.len()).step_by(FRAME).map(|at| Ok(plain.slice(at..plain.len().min(at + FRAME)))).collect();
    writer.object(name, Codec::Zstd, stream::iter(frames)).await.unwrap()
}

/// Bytes of a frame as the writer of sets stores it: level 3, with checksum and size.
fn stored_length(frame: &[u8]) -> u32 {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    compressor.include_contentsize(true).unwrap();
    compressor.compress(frame).unwrap().len() as u32
}

/// Paths of all files and directories, links to directories followed.
pub(crate) fn walk(folder: &Path) -> (Vec<String>, Vec<String>) {
    fn down(folder: &Path, below: &str, files: &mut Vec<String>, directories: &mut Vec<String>) {
        let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().into_string().unwrap();
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if entry.path().is_dir() {
                directories.push(path.clone());
                down(&entry.path(), &path, files, directories);
            } else {
                files.push(path);
            }
        }
    }
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    down(folder, "", &mut files, &mut directories);
    (files, directories)
}

fn tar(folder: &Path, names: &[String]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--format=ustar", "--dereference", "-cf", "-", "-C"])
        .arg(folder)
        .args(names)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The files of a tar stream as an index has them.
fn contents(pack: u32, plain: &[u8]) -> Vec<IndexFile> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.split(|b| *b == 0).next().unwrap().to_vec()).unwrap();
    let number = |bytes: &[u8]| u64::from_str_radix(text(bytes).trim(), 8).unwrap();
    let (mut files, mut at) = (Vec::new(), 0);
    while plain[at] != 0 {
        let header = &plain[at..at + 512];
        let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let size = number(&header[124..136]);
        at += 512;
        let content = &plain[at..at + size as usize];
        files.push(IndexFile {
            path: ClusterPath::parse(path).unwrap(),
            pack,
            at: at as u64,
            size,
            mode: number(&header[100..108]) as u32,
            modified: number(&header[136..148]) as i64,
            blocks: content.chunks(BLOCK as usize).map(BlockDigest::of).collect(),
        });
        at += size.next_multiple_of(512) as usize;
    }
    files
}

/// Facts of a cluster with the control file of [`sample`].
pub(crate) fn facts(tablespaces: &Value) -> Value {
    json!({
        "server-version-num": 150_020, "control-version": 1300, "catalog-version": 202_209_061,
        "system": SYSTEM.to_string(), "timeline": 1, "start-lsn": "0/2000028", "stop-lsn": "0/2000100",
        "start-time": "2026-11-22T14:30:00Z", "stop-time": "2026-11-22T14:31:00Z",
        "wal": [{ "timeline": 1, "start": "0/2000028", "end": "0/2000100" }],
        "segment-size": 16 << 20, "block-size": 8192, "page-checksums": true, "from-standby": false,
        "tablespaces": tablespaces, "backup-label": "", "files": 1, "bytes": 1
    })
}

/// The system identifier of samples.
pub(crate) const SYSTEM: u64 = 7_301_234_567_890_123_456;

/// Something like a data directory: small files, large ones, empty ones, one of 5 MiB that zstd cannot shrink.
pub(crate) fn sample(folder: &Path) {
    for directory in ["base/1", "base/5", "global", "pg_wal/archive_status", "pg_notify", "pg_tblspc"] {
        std::fs::create_dir_all(folder.join(directory)).unwrap();
    }
    let write = |name: &str, content: Vec<u8>| std::fs::write(folder.join(name), content).unwrap();
    write("PG_VERSION", b"15\n".to_vec());
    write("backup_label", b"START WAL LOCATION: 0/2000028\n".to_vec());
    write("postgresql.conf", b"work_mem = 4MB\n".to_vec());
    write("postgresql.auto.conf", b"archive_command = 'cp %p /archive'\n".to_vec());
    write("pg_hba.conf", b"local all all trust\n".to_vec());
    write("global/pg_control", control());
    for number in 0..40_u32 {
        write(&format!("base/1/{}", 1000 + number), noise(number, 8192 * (number as usize % 5)));
    }
    write("base/5/2000", noise(7, (5 << 20) + 8192));
    write("base/5/2000.1", vec![0; 3 << 20]);
}

fn control() -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..8].copy_from_slice(&SYSTEM.to_le_bytes());
    for (at, value) in [
        (8, 1300_u32),
        (12, 202_209_061),
        (16, 6),
        (48, 1),
        (180, 100),
        (184, 8),
        (188, 10),
        (196, 64),
        (216, 8192),
        (220, 131_072),
        (228, 16 << 20),
        (252, 1),
    ] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let crc = crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

/// Bytes without a pattern, the same for the same seed.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

/// Content of every file below a folder.
pub(crate) fn contents_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (files, _) = walk(folder);
    files.into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
}
