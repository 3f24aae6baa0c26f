//! P9: memory stays bounded whatever the size of the data. Measured on a process of its own.
#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(target_os = "linux")]

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};

use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::{Codec, Manifest, ObjectEntry, SetKind};
use backstay_backup_core::pipeline::read_frames;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_backup_core::store::SharedStore;
use jiff::Timestamp;
use tokio::io::{AsyncRead, ReadBuf};

const ROOT: &str = "BACKSTAY_TEST_MEMORY_ROOT";
const TOTAL: u64 = 1 << 30;
/// Of the 64 MiB that a whole process may take, this much is for data; the rest is for TLS, SQL and AWS clients.
const BOUND_KIB: u64 = 48 << 10;

/// Bytes that nothing can compress.
struct Noise {
    left: u64,
    state: u64,
}

impl AsyncRead for Noise {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.left.min(64 << 10).min(buf.remaining() as u64);
        let mut block = vec![0; len as usize];
        for word in block.chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes()[..word.len()]);
        }
        buf.put_slice(&block);
        self.left -= len;
        Poll::Ready(Ok(()))
    }
}

/// Largest resident size of this process so far.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn write(repositories: &Repositories, streams: u64) -> (Manifest, Vec<ObjectEntry>) {
    let spec = SetSpec::new(SetKind::new("test"), Stanza::parse("main").unwrap(), "test")
        .recipients(Recipients::none());
    let path = DataPath::default().workers(2);
    let writer = SetWriter::begin(repositories, spec, path).await.unwrap();
    let names: Vec<_> = (0..streams).map(|n| format!("noise-{n}")).collect();
    let writes = names.iter().zip(1..).map(|(name, seed)| {
        let noise = Noise { left: TOTAL / streams, state: seed };
        writer.object(name, Codec::Zstd, read_frames(noise, writer.frame_buffers()))
    });
    let entries = futures::future::try_join_all(writes).await.unwrap();
    let receipt = writer.commit(SetContents::new(Timestamp::UNIX_EPOCH, entries.clone())).await.unwrap();
    (receipt.manifest, entries)
}

async fn read(repositories: &Repositories, manifest: &Manifest, entry: &ObjectEntry) {
    let mut reader = repositories.open_object(manifest, entry, &Identities::none()).unwrap();
    let drain = move || io::copy(&mut reader, &mut io::sink());
    assert_eq!(tokio::task::spawn_blocking(drain).await.unwrap().unwrap(), entry.plain);
}

async fn child(root: &Path, streams: u64) {
    let store: SharedStore = Arc::new(LocalStore::open(root.to_path_buf()).unwrap());
    let repository = Repository::create("local", store, &SystemClock).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
    let (manifest, entries) = write(&repositories, streams).await;
    let written = peak_kib();
    for entry in &entries {
        read(&repositories, &manifest, entry).await;
    }
    assert_eq!(manifest.plain_size(), TOTAL);
    let all = peak_kib();
    std::fs::write(root.join("peak"), format!("{written} {all}")).unwrap();
}

fn measure(test: &str, streams: u64) {
    if let Some(root) = std::env::var_os(ROOT) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(child(Path::new(&root), streams));
    }
    let root = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(ROOT, root.path())
        .status()
        .unwrap();
    assert!(status.success());
    let peaks = std::fs::read_to_string(root.path().join("peak")).unwrap();
    for peak in peaks.split(' ') {
        let peak: u64 = peak.parse().unwrap();
        assert!(peak <= BOUND_KIB, "{streams} streams: {peaks} KiB (written, read) instead of {BOUND_KIB}");
    }
}

#[test]
fn one_stream_of_a_gibibyte_fits_48_mebibytes() {
    measure("one_stream_of_a_gibibyte_fits_48_mebibytes", 1);
}

#[test]
fn two_streams_at_once_fit_48_mebibytes() {
    measure("two_streams_at_once_fit_48_mebibytes", 2);
}
