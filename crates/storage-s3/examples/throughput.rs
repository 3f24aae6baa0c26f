//! Measures what one process gets out of a store: `throughput ENDPOINT BUCKET MIB [compatible|crc32]`.
//!
//! Credentials and region come from the AWS chain. Prints MiB/s of wall time, CPU seconds per GiB and peak memory.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use backstay_backup_core::key::{Key, Prefix};
use backstay_backup_core::store::{Attributes, ObjectStore as _, SharedStore};
use backstay_backup_core::upload::{UploadOptions, Uploader};
use backstay_storage_s3::{Checksums, S3Options, S3Store};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

const PART: u64 = 8 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, bucket, mib, rest @ ..] = arguments.as_slice() else {
        return Err("usage: throughput ENDPOINT BUCKET MIB [compatible|crc32]".into());
    };
    let checksums = match rest.first().map(String::as_str) {
        Some("compatible") => Checksums::Compatible,
        Some("crc32") => Checksums::Crc32,
        _ => Checksums::Crc64Nvme,
    };
    let total = mib.parse::<u64>()? << 20;
    let nonce = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let options = S3Options::new(bucket)
        .endpoint(endpoint)
        .checksums(checksums)
        .prefix(Prefix::parse(&format!("throughput/{nonce}"))?);
    let store = S3Store::open(options).await?;
    let key = Key::parse("object")?;
    measured("multipart upload, 2 parts in flight", total, upload(Arc::new(store.clone()), &key, total))
        .await?;
    measured("one download", total, download(&store, &key, 0..total)).await?;
    measured("4 ranges at a time", total, ranges(&store, &key, total)).await?;
    store.delete(&key).await?;
    Ok(())
}

async fn upload(store: SharedStore, key: &Key, total: u64) -> Result<(), Box<dyn std::error::Error>> {
    let options = UploadOptions::default().part_size(PART).parts_in_flight(2);
    let mut uploader = Uploader::new(store, key.clone(), Attributes::default(), options);
    let chunk: Bytes = (0..1 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for _ in 0..total >> 20 {
        uploader.write(chunk.clone()).await?;
    }
    uploader.finish().await?;
    Ok(())
}

async fn download(
    store: &S3Store,
    key: &Key,
    range: std::ops::Range<u64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let wanted = range.end - range.start;
    let body = store.get(key, Some(range)).await?.body;
    let got = body.try_fold(0, async |sum, chunk| Ok(sum + chunk.len() as u64)).await?;
    assert_eq!(got, wanted);
    Ok(())
}

async fn ranges(store: &S3Store, key: &Key, total: u64) -> Result<(), Box<dyn std::error::Error>> {
    stream::iter((0..total).step_by(PART as usize))
        .map(|at| download(store, key, at..total.min(at + PART)))
        .buffer_unordered(4)
        .try_collect()
        .await
}

async fn measured(
    what: &str,
    total: u64,
    work: impl Future<Output = Result<(), Box<dyn std::error::Error>>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (start, before) = (Instant::now(), cpu_seconds());
    work.await?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - before);
    let mib = (total >> 20) as f64;
    println!(
        "{what}: {:.0} MiB/s, {:.2} CPU seconds per GiB, peak {} so far",
        mib / wall,
        cpu * 1024.0 / mib,
        status("VmHWM:")
    );
    Ok(())
}

/// User and system time of this process; the kernel counts in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn status(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("unknown").trim().to_owned()
}
