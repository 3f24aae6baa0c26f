//! What the backup programs do; each program is one screen on top of one module.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod archive_redis;
pub mod cluster;
pub mod code;
pub mod config;
pub mod database;
pub mod file_sets;
pub mod listing;
pub mod pruning;
pub mod redis;
pub mod storage;
pub mod verification;

/// Name and version of these programs, for the proofs they leave.
pub const TOOL: &str = concat!("backstay ", env!("CARGO_PKG_VERSION"));
