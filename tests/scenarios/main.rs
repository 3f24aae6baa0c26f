//! What no single crate can show: whole backups and restores while stores fail, bytes rot and permissions are narrow.
//!
//! The sizes are those of `make test`; with `BACKSTAY_SOAK` in the environment every case there is runs, which takes
//! a long while.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod faults;
mod flips;
mod ground;
mod s3_faults;
mod scene;
mod sweep;
mod upkeep_faults;
mod writer;
