//! `archive-redis` against a real server, through kills of either or both, outages of the store, full disks, and a network
//! that breaks off and loses packets: what was
//! acknowledged to a client is in the archive, byte for byte, without a gap.
//!
//! A few rounds of each, many with `BACKSTAY_SOAK` in the environment.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, unreachable_pub)]

#[path = "redis/certificates.rs"]
mod certificates;
#[path = "archive_redis/disk.rs"]
mod disk;
#[path = "archive_redis/durable.rs"]
mod durable;
#[path = "archive_redis/kills.rs"]
mod kills;
#[path = "archive_redis/lines.rs"]
mod lines;
#[path = "archive_redis/logins.rs"]
mod logins;
#[path = "archive_redis/network.rs"]
mod network;
#[path = "archive_redis/outage.rs"]
mod outage;
#[path = "archive_redis/rivals.rs"]
mod rivals;
#[path = "archive_redis/scene.rs"]
mod scene;
#[path = "archive_redis/sentinel.rs"]
mod sentinel;
#[path = "../../restore/tests/redis/syncs.rs"]
#[allow(dead_code)]
mod syncs;
#[path = "archive_redis/tls.rs"]
mod tls;
#[path = "archive_redis/usual.rs"]
mod usual;
#[path = "archive_redis/writer.rs"]
mod writer;

/// How often something is repeated.
fn rounds(usual: usize, soak: usize) -> usize {
    if std::env::var_os("BACKSTAY_SOAK").is_some() { soak } else { usual }
}
