//! How fast a dump goes through the data path, beside what the machine can do at best and what `zstd -T0` does.
//!
//! `cargo bench -p backstay-backup-core --bench pipeline [-- <MiB> <rounds> [frame KiB]]`
//!
//! Every round runs all variants one after another, so that a machine that changes its speed does so for all; the
//! medians are printed. The local repository ends durable, `zstd` writes to a file and does not.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use age::secrecy::ExposeSecret;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::{Codec, Manifest, SetKind};
use backstay_backup_core::pipeline::read_frames;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_backup_core::store::SharedStore;
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;

const WORDS: [&str; 24] = [
    "pending",
    "shipped",
    "returned",
    "customer",
    "invoice",
    "2026-03-",
    "T12:",
    "false",
    "true",
    "null",
    "EUR",
    "{\"id\":",
    "\"total\":",
    "\"name\":",
    "\"tags\":[",
    "]}",
    "Berlin",
    "Lisboa",
    "Oslo",
    "@example.org",
    "urgent",
    "north",
    "warehouse",
    "express",
];

/// Rows as a dump has them; zstd -3 makes about a third of it.
fn rows(len: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut text = Vec::with_capacity(len + 256);
    let mut id = 0;
    while text.len() < len {
        id += 1;
        write!(text, "{id}\t{}\t", next() % 100_000_000).unwrap();
        for _ in 0..8 {
            let random = next();
            text.extend_from_slice(WORDS[(random % 24) as usize].as_bytes());
            write!(text, "{}", (random >> 32) % 1000).unwrap();
        }
        text.push(b'\n');
    }
    text.truncate(len);
    text.into()
}

/// The best that is possible: threads that only compress, and throw the result away.
fn bare(data: &Bytes, frame: usize, threads: usize) -> u64 {
    let (next, total) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
                compressor.include_checksum(true).unwrap();
                let mut output = Vec::with_capacity(zstd::zstd_safe::compress_bound(frame));
                loop {
                    let start = next.fetch_add(frame, Ordering::Relaxed);
                    if start >= data.len() {
                        return;
                    }
                    output.clear();
                    let input = &data[start..data.len().min(start + frame)];
                    let len = compressor.compress_to_buffer(input, &mut output).unwrap();
                    total.fetch_add(len as u64, Ordering::Relaxed);
                }
            });
        }
    });
    total.into_inner()
}

/// The command line tool, fed through a pipe as in `pg_dump | zstd`.
fn command_line(data: &Bytes, target: &Path) -> Option<u64> {
    let output = std::fs::File::create(target).unwrap();
    let mut zstd =
        Command::new("zstd").args(["-3", "-T0", "-q"]).stdin(Stdio::piped()).stdout(output).spawn().ok()?;
    let mut stdin = zstd.stdin.take().unwrap();
    data.chunks(64 << 10).for_each(|chunk| stdin.write_all(chunk).unwrap());
    drop(stdin);
    assert!(zstd.wait().unwrap().success());
    Some(std::fs::metadata(target).unwrap().len())
}

async fn repositories(root: &Path) -> Repositories {
    let store: SharedStore = Arc::new(LocalStore::create(root.to_path_buf()).unwrap());
    let repository = Repository::create("local", store, &SystemClock).await.unwrap();
    Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap()
}

/// The data path into a local repository; `piped` puts a real pipe in front, as behind a child process.
async fn data_path(
    data: &Bytes,
    root: &Path,
    recipients: Recipients,
    path: DataPath,
    piped: bool,
) -> Manifest {
    let repositories = repositories(root).await;
    let spec =
        SetSpec::new(SetKind::new("bench"), Stanza::parse("bench").unwrap(), "bench").recipients(recipients);
    let frame = path.frame;
    let writer = SetWriter::begin(&repositories, spec, path).await.unwrap();
    let entry = if piped {
        let (sender, receiver) = tokio::net::unix::pipe::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&receiver, 1 << 20).unwrap();
        let mut sender = std::fs::File::from(sender.into_blocking_fd().unwrap());
        let data = data.clone();
        let feeding = std::thread::spawn(move || {
            data.chunks(64 << 10).for_each(|chunk| sender.write_all(chunk).unwrap());
        });
        let entry = writer.object("rows", Codec::Zstd, read_frames(receiver, writer.frame_buffers())).await;
        feeding.join().unwrap();
        entry
    } else {
        let chunks =
            (0..data.len()).step_by(frame).map(|start| Ok(data.slice(start..data.len().min(start + frame))));
        writer.object("rows", Codec::Zstd, stream::iter(chunks)).await
    };
    writer.commit(SetContents::new(Timestamp::UNIX_EPOCH, vec![entry.unwrap()])).await.unwrap().manifest
}

async fn read_back(root: &Path, manifest: &Manifest) -> u64 {
    let store: SharedStore = Arc::new(LocalStore::open(root.to_path_buf()).unwrap());
    let repository = Repository::open("local", store).await.unwrap();
    let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
    let mut reader = repositories.open_object(manifest, &manifest.objects[0], &Identities::none()).unwrap();
    tokio::task::spawn_blocking(move || io::copy(&mut reader, &mut io::sink())).await.unwrap().unwrap()
}

fn command_line_back(stored: &Path) {
    let status = Command::new("zstd").args(["-dqc"]).arg(stored).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
}

/// Processor time of this process and its finished children so far, in seconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

struct Timed {
    name: &'static str,
    rates: Vec<f64>,
    processor: Vec<f64>,
    stored: u64,
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let size = arguments.first().copied().unwrap_or(512) << 20;
    let rounds = arguments.get(1).copied().unwrap_or(5);
    let path = DataPath::default();
    let frame = arguments.get(2).map_or(path.frame, |kib| kib << 10);
    let path = path.frame(frame);
    let data = rows(size);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let key = age::x25519::Identity::generate();
    let recipients = Identities::parse(key.to_string().expose_secret()).unwrap().recipients();
    let mut results: Vec<Timed> = Vec::new();
    let mut record = |name, plain: usize, work: &mut dyn FnMut() -> u64| {
        let (start, used) = (Instant::now(), processor_time());
        let stored = work();
        let rate = plain as f64 / 1e6 / start.elapsed().as_secs_f64();
        let used = processor_time() - used;
        match results.iter_mut().find(|timed| timed.name == name) {
            Some(timed) => {
                timed.rates.push(rate);
                timed.processor.push(used);
            }
            None => results.push(Timed { name, rates: vec![rate], processor: vec![used], stored }),
        }
    };
    for _ in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let root = |name: &str| folder.path().join(name);
        let write = |name: &str, recipients: Recipients, piped: bool| {
            runtime.block_on(data_path(&data, &root(name), recipients, path.clone(), piped))
        };
        record("bare threads, result thrown away", size, &mut || bare(&data, frame, path.workers));
        record("data path", size, &mut || write("a", Recipients::none(), false).stored_size());
        record("zstd -3 -T0 behind a pipe", size, &mut || {
            command_line(&data, &root("rows.zst")).unwrap_or_default()
        });
        let mut manifest = None;
        record("data path behind a pipe", size, &mut || {
            manifest.insert(write("b", Recipients::none(), true)).stored_size()
        });
        record("data path, encrypted", size, &mut || write("c", recipients.clone(), false).stored_size());
        let manifest = manifest.unwrap();
        let stored = root("b").join(format!("bench/sets/{}/rows", manifest.set));
        record("back: data path", size, &mut || runtime.block_on(read_back(&root("b"), &manifest)));
        record("back: zstd -d", size, &mut || {
            command_line_back(&stored);
            0
        });
    }
    println!(
        "{} MiB, frames of {} KiB, {} workers, median of {rounds}",
        size >> 20,
        frame >> 10,
        path.workers
    );
    for timed in &mut results {
        let rate = median(&mut timed.rates);
        let (low, high) = (timed.rates[0], timed.rates[timed.rates.len() - 1]);
        let used = median(&mut timed.processor);
        let name = timed.name;
        println!("{name:34} {rate:6.0} MB/s ({low:.0}–{high:.0}), {used:5.2} CPU s, {} bytes", timed.stored);
    }
}
