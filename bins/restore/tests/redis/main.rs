//! `restore-redis` on real servers: the whole way, what it refuses, kills at every step, full disks, and
//! restores from what the real archiver stored.
#![allow(clippy::unwrap_used, missing_docs)]
#![expect(clippy::print_stdout, reason = "what was swept is worth a line")]

mod archived;
mod cluster;
mod disk;
mod durable;
mod kills;
mod notices;
#[path = "../../../../crates/redis-ops/tests/restore/recorder.rs"]
mod recorder;
mod scene;
#[path = "../../../wal/tests/support/steps.rs"]
#[allow(dead_code, unreachable_pub)]
mod steps;
#[allow(unreachable_pub)]
mod syncs;
#[path = "../../../backup/tests/support/notices.rs"]
#[allow(unreachable_pub)]
mod told;
mod versions;
mod whole_way;
#[path = "../../../../crates/redis-ops/tests/restore/workload.rs"]
mod workload;
#[path = "../../../../crates/redis-ops/tests/restore/world.rs"]
#[allow(dead_code)]
mod world;
