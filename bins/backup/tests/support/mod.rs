//! The programs of this package, and what tests run them with.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod bench;
mod bucket;
mod git;
mod harm;
mod memory;
mod moments;
mod noise;
pub mod table;

pub use bench::{Bench, Ended, files, flip_a_bit, until};
pub use bucket::{Bucket, address};
pub use git::git;
pub use memory::peak;
pub use moments::Moments;
pub use noise::noise;

/// The programs of this package.
pub const PROGRAMS: [&str; 10] = [
    "archive-redis",
    "backup-cluster",
    "backup-code",
    "backup-config",
    "backup-database",
    "backup-redis",
    "check-storage",
    "list-backups",
    "prune-backups",
    "verify-backups",
];

pub fn path(program: &str) -> &'static str {
    match program {
        "archive-redis" => env!("CARGO_BIN_EXE_archive-redis"),
        "backup-cluster" => env!("CARGO_BIN_EXE_backup-cluster"),
        "backup-code" => env!("CARGO_BIN_EXE_backup-code"),
        "backup-config" => env!("CARGO_BIN_EXE_backup-config"),
        "backup-database" => env!("CARGO_BIN_EXE_backup-database"),
        "backup-redis" => env!("CARGO_BIN_EXE_backup-redis"),
        "check-storage" => env!("CARGO_BIN_EXE_check-storage"),
        "list-backups" => env!("CARGO_BIN_EXE_list-backups"),
        "prune-backups" => env!("CARGO_BIN_EXE_prune-backups"),
        "verify-backups" => env!("CARGO_BIN_EXE_verify-backups"),
        other => panic!("no program {other}"),
    }
}
