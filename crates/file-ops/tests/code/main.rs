//! Sets of code: written into a real directory repository, opened with stock git and by ourselves.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

mod chains;
mod damage;
mod forms;
mod hostile;
mod kills;
mod round_trip;
#[path = "../scene/mod.rs"]
mod scene;
mod secrets;
mod support;
