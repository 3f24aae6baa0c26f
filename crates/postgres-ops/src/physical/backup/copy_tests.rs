//! Files that vanish, shrink and grow while they are copied, at the worst moment each time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::manifest::SetKind;
use backstay_backup_core::memory::MemoryStore;
use backstay_backup_core::pipeline::FrameBuffers;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::set_writer::{DataPath, SetSpec, SetWriter};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::*;
use crate::physical::{BlockDigest, IndexLine};
use crate::wal::SystemId;

const FRAME: usize = 64 << 10;

async fn buffers() -> FrameBuffers {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let repository = Repository::create("a", store, &SystemClock).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
    let spec = SetSpec::new(SetKind::new("test"), Stanza::parse("main").unwrap(), "test");
    SetWriter::begin(&repositories, spec, DataPath::default().frame(FRAME)).await.unwrap().frame_buffers()
}

fn control() -> ControlFile {
    let mut bytes = vec![0; 8192];
    for (at, value) in [(8, 1300), (16, 6), (48, 1), (216, 8192_u32), (220, 131_072), (228, 16 << 20)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    ControlFile::parse(&bytes).unwrap()
}

/// What became of a directory: the tar stream, and the files of the index.
struct Copied {
    tar: Vec<u8>,
    files: Vec<IndexFile>,
}

/// Copies a directory; `meddle` is called after the list was made and again after two frames were read, when the reader
/// waits for somebody to take the third.
async fn copy(root: &Path, meddle: impl Fn(u32)) -> Copied {
    let buffers = buffers().await;
    let scan = Scan::read(root, 15, 202_209_061).unwrap();
    let (index, index_frames) = FrameWriter::new(buffers.clone());
    let (manifest, manifest_frames) = FrameWriter::new(buffers.clone());
    let ledger = Ledger::begin(index, manifest, 15, SystemId::new(1)).unwrap();
    let copying = Arc::new(Copying::new(scan, control(), ledger, Progress::new()));
    meddle(0);
    let (out, mut frames) = FrameWriter::new(buffers);
    let reader = copying.clone();
    let first = copying.claim().unwrap();
    let filling = tokio::task::spawn_blocking(move || reader.fill(1, first, out));
    let mut tar: Vec<u8> = Vec::new();
    for _ in 0..2 {
        tar.extend_from_slice(&frames.next().await.unwrap().unwrap());
    }
    meddle(1);
    let rest: Vec<Bytes> = frames.try_collect().await.unwrap();
    tar.extend_from_slice(&rest.concat());
    assert_eq!(filling.await.unwrap().unwrap().plain, tar.len() as u64);
    let ledger = Arc::into_inner(copying).unwrap().ledger.into_inner().unwrap();
    let ending = tokio::task::spawn_blocking(move || ledger.finish(&[]).unwrap());
    let collect = |frames: tokio_stream::wrappers::ReceiverStream<_>| frames.try_collect::<Vec<Bytes>>();
    let (lines, _, _) = tokio::join!(collect(index_frames), collect(manifest_frames), ending);
    let text = String::from_utf8(lines.unwrap().concat()).unwrap();
    let files = text.lines().filter_map(|line| match serde_json::from_str(line).unwrap() {
        IndexLine::File(file) => Some(file),
        _ => None,
    });
    Copied { tar, files: files.collect() }
}

impl Copied {
    /// Paths and contents as stock tar sees them; the index must agree.
    fn unpack(&self) -> Vec<(String, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar")
            .arg("-xf-")
            .arg("-C")
            .arg(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = tar.stdin.take().unwrap();
        input.write_all(&self.tar).unwrap();
        drop(input);
        assert!(tar.wait().unwrap().success());
        let unpacked = self.files.iter().map(|file| {
            let content = fs::read(folder.path().join(file.path.as_path())).unwrap();
            let at = usize::try_from(file.at).unwrap();
            assert_eq!(self.tar[at..at + content.len()], content, "{}", file.path);
            assert_eq!(content.len() as u64, file.size);
            assert_eq!(file.blocks, content.chunks(1 << 20).map(BlockDigest::of).collect::<Vec<_>>());
            (file.path.to_string(), content)
        });
        unpacked.collect()
    }
}

fn write(root: &Path, files: &[(&str, usize)]) {
    fs::create_dir_all(root.join("base/5")).unwrap();
    for (name, size) in files {
        fs::write(root.join("base/5").join(name), vec![b'x'; *size]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vanished_files_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("10", 300_000), ("20", 5), ("30", 700), ("40", 0)]);
    let gone = folder.path().join("base/5/20");
    let copied = copy(folder.path(), |moment| {
        if moment == 0 {
            fs::remove_file(&gone).unwrap();
        }
    })
    .await;
    let found: Vec<_> = copied.unpack().into_iter().map(|(path, content)| (path, content.len())).collect();
    let expected = [("base/5/10", 300_000), ("base/5/30", 700), ("base/5/40", 0)];
    assert_eq!(found, expected.map(|(path, size)| (path.to_owned(), size)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_off_is_filled_up_with_zeros() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("10", 900_000), ("20", 900)]);
    let path = folder.path().join("base/5/10");
    let cut = |moment| {
        if moment == 1 {
            fs::File::options().write(true).open(&path).unwrap().set_len(50_000).unwrap();
        }
    };
    let unpacked = copy(folder.path(), cut).await.unpack();
    let content = &unpacked[0].1;
    assert_eq!(content.len(), 900_000);
    let kept = content.iter().position(|byte| *byte == 0).unwrap();
    // What was read before, and nothing that was not.
    assert!(
        (2 * FRAME - 4096..=4 * FRAME).contains(&kept) && content[kept..].iter().all(|byte| *byte == 0),
        "{kept}"
    );
    assert_eq!(unpacked[1], ("base/5/20".to_owned(), vec![b'x'; 900]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_off_before_is_as_short_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("10", 300_000), ("20", 900)]);
    let path = folder.path().join("base/5/20");
    let unpacked = copy(folder.path(), |moment| {
        if moment == 0 {
            fs::write(&path, "abc").unwrap();
        }
    })
    .await
    .unpack();
    assert_eq!(unpacked[1], ("base/5/20".to_owned(), b"abc".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_grows_by_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("10", 900_000), ("20", 900)]);
    let path = folder.path().join("base/5/10");
    let grow = |moment| {
        if moment == 1 {
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            file.write_all(&[b'y'; 200_000]).unwrap();
        }
    };
    let unpacked = copy(folder.path(), grow).await.unpack();
    assert_eq!(unpacked[0].1, vec![b'x'; 900_000]);
    assert_eq!(unpacked[1].1, vec![b'x'; 900]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_stops_when_nobody_takes_its_frames() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("10", 900_000)]);
    let buffers = buffers().await;
    let scan = Scan::read(folder.path(), 15, 202_209_061).unwrap();
    let (index, _index) = FrameWriter::new(buffers.clone());
    let (manifest, _manifest) = FrameWriter::new(buffers.clone());
    let ledger = Ledger::begin(index, manifest, 15, SystemId::new(1)).unwrap();
    let copying = Copying::new(scan, control(), ledger, Progress::new());
    let (out, frames) = FrameWriter::new(buffers);
    drop(frames);
    let first = copying.claim().unwrap();
    let filled = tokio::task::spawn_blocking(move || copying.fill(1, first, out)).await.unwrap();
    assert!(matches!(filled, Err(BackupError::Unwanted)), "{filled:?}");
}

#[test]
fn packs_are_longer_where_more_is_compressed_away() {
    assert_eq!(pack_target(0, 0), 256 << 20);
    assert_eq!(pack_target(300 << 20, 280 << 20), 256 << 20);
    assert_eq!(pack_target(10 << 30, 1 << 30), 640 << 20);
    assert_eq!(pack_target(10 << 30, 1 << 20), 4 << 30);
    assert_eq!(pack_target(u64::MAX, 1), 4 << 30);
}
