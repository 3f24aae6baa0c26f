//! Measures whole commands fairly: variants take turns, round after round, so that a machine that speeds up or slows
//! down does so for all of them, and medians and ratios come from one run.
//!
//! A variant is a shell command. Wall time, CPU of the command and of the server beside it, the largest memory of any
//! single process of ours, and the size of what was written are noted for every run.

mod bars;
mod bucket;
pub mod data;
mod measure;
mod peers;
pub mod processes;
mod report;
mod shell;

pub use bars::{Bar, Better, median, verdicts};
pub use bucket::open_bucket;
pub use measure::{Measured, Variant, measure_rounds, size};
pub use peers::{PgBackRest, wal_rus};
pub use report::table;
pub use shell::Shell;
