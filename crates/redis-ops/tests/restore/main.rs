//! Restores on real servers: streams recorded from one, archived, cut anywhere, and loaded by another.
#![allow(clippy::unwrap_used, missing_docs)]
#![expect(clippy::print_stdout, reason = "what was swept is worth a line")]

mod matrix;
mod meanwhile;
mod points;
mod proven;
mod recorder;
mod refusals;
mod ttl;
mod workload;
mod world;
