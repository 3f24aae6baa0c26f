//! The foundation of Backstay: stores, the backup repository on top of them, and what every tool shares.
//!
//! Reading order: [`store`] is the seam to whatever keeps objects, [`repository`] and [`manifest`] say what a backup
//! set is, [`set_writer`] and [`object_reader`] are the data path in both directions, [`catalog`], [`verify`],
//! [`retention`] and [`prune`] look after the sets once they exist.
//!
//! Nothing here prints, exits, or reads arguments or the environment; time comes from a [`clock::Clock`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod catalog;
pub mod clock;
pub mod codec;
pub mod config;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod encryption;
pub mod error;
pub mod fault;
pub mod hold;
pub mod id;
pub mod key;
pub mod lease;
pub mod limit;
pub mod local;
pub mod manifest;
pub mod memory;
pub mod object_reader;
pub mod pipeline;
pub mod process;
pub mod progress;
pub mod proof;
pub mod prune;
pub mod replicas;
pub mod repository;
pub mod retention;
pub mod retry;
pub mod sealed;
pub mod secret;
pub mod secret_sources;
pub mod set_writer;
pub mod store;
pub mod upload;
pub mod verify;

pub use error::{Class, Error};
