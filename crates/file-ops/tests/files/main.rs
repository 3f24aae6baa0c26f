//! Sets of configuration: written into a real directory repository, opened with stock tools and by ourselves.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

mod changes;
mod damage;
mod hostile;
mod install;
mod kills;
mod round_trip;
#[path = "../scene/mod.rs"]
mod scene;
mod secrets;
mod support;
