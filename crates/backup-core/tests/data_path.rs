//! The data path from end to end: what is written is what is read, with stock tools too, and nothing half-done shows.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "data_path/cancel.rs"]
mod cancel;
#[path = "data_path/damage.rs"]
mod damage;
#[path = "data_path/quorum.rs"]
mod quorum;
#[path = "data_path/repository.rs"]
mod repository;
#[path = "data_path/round_trip.rs"]
mod round_trip;
#[path = "data_path/stock_tools.rs"]
mod stock_tools;
#[path = "data_path/support.rs"]
mod support;
