//! What all Backstay programs share, so that each of them is one screen of code.
//!
//! [`run`] is the whole life of a program: it parses the arguments, loads the configuration, starts logs and progress,
//! turns signals into cancellation, awaits the one action of the program, and prints what became of it. The action
//! gets a [`Context`] and returns a report through [`Context::print`], or a [`Failure`] made from any library error.
//!
//! ```text
//! arguments ─┐
//! environment├→ Config → Context → action → report  → stdout (text, or one JSON object)
//! file ──────┘                            → failure → stderr (and one JSON object) → exit code
//! ```
//!
//! This is the only library that reads arguments and environment and writes to the terminal; everything below it gets
//! what it needs handed in.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bars;
mod choice;
mod context;
mod exit;
mod failure;
pub mod human;
mod logging;
#[cfg(feature = "notify")]
mod notify;
mod open;
mod output;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "postgres")]
mod restore_command;
mod run;
mod same;
mod secrets;
mod signals;

pub use args::{Arguments, CommonArgs, IdentityArgs, LogFormat};
pub use choice::restorable;
pub use context::{Context, LEASE_TIME};
pub use exit::Exit;
pub use failure::{Cancelled, Failure};
#[cfg(feature = "notify")]
pub use notify::OpenedNotifier;
pub use open::{BareStore, Opened, Unavailable};
#[cfg(feature = "postgres")]
pub use postgres::PostgresArgs;
#[cfg(feature = "redis")]
pub use redis::RedisArgs;
pub use run::{Ending, is_done, run, run_as};
