//! What PostgreSQL starts for every file of its log: `archive-wal` and `restore-wal`.
//!
//! A server calls these programs one file at a time and waits. Both therefore work ahead of it: the first call that finds
//! more to do starts a *helper*, the same program in a session of its own, which archives or fetches what comes next and
//! ends by itself. A later call finds the result in the *spool* and returns at once.
//!
//! ```text
//! call ─ mark in the spool that fits the file? ── yes → done, in milliseconds
//!      └ no: is a helper at it? ── yes → wait for it
//!                               └─ no → do it, and leave a helper behind if there is more
//! ```
//!
//! Nothing in the spool is ever the truth. A mark is written after a segment is durable, and names the file on disk by
//! its identity and times, and where these cannot tell by every byte. What a mark does not fit is done anew. Whatever a
//! crash loses, tears or leaves behind there costs time, and nothing else. Helpers and calls agree by `flock`, which ends
//! with whoever holds it. How the programs become each other: `program.rs`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod archive;
mod claim;
mod data_directory;
mod destination;
mod helper;
mod identity;
mod mark;
mod program;
pub mod restore;
mod spool;

pub use program::{archive_wal, backstay_wal, restore_wal};

/// The key of the configuration that `--spool` sets.
fn spool_setting(spool: Option<&str>) -> Vec<backstay_backup_core::config::Setting> {
    let setting = |path| backstay_backup_core::config::Setting::new("wal.spool", path, "--spool");
    spool.into_iter().map(setting).collect()
}
