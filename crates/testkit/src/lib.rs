//! Real servers for the tests, the demo and the benchmarks; nothing here is published.
//!
//! Every server gets a free loopback port and a directory of its own, is ready when `start` returns, and is gone
//! with its directory when its handle is dropped **or when the process that started it dies**, even by `kill -9`
//! ([`ProcessGuard`], [`ScratchDir`]). Tests may run in parallel, in several processes, as root or not: servers
//! that refuse root run as an unprivileged [`Account`].
//!
//! What a machine needs: `scripts/setup.sh` installs the distribution's PostgreSQL and Redis; `scripts/setup.sh
//! --postgres 17` (also 14, 16, 18) adds further PostgreSQL versions to the cache directory. Errors about something
//! missing name the command to run.
//!
//! ```no_run
//! # async fn example() -> Result<(), backstay_testkit::Error> {
//! use backstay_testkit::{PostgresOptions, TestPostgres};
//!
//! let server = TestPostgres::start(PostgresOptions::default().setting("wal_level", "logical")).await?;
//! server.create_database("shop")?;
//! assert_eq!(server.psql("shop", "SELECT 1")?, "1");
//! # Ok(())
//! # }
//! ```
//!
//! Only this crate reads the environment (`HOME`, `XDG_CACHE_HOME`, `TMPDIR`), so that a test needs no set-up code.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod cache;
mod error;
mod guard;
mod http_sink;
mod ports;
mod postgres;
mod process_tree;
mod redis;
mod sample;
mod scratch;
mod smtp;

pub mod s3;

pub use account::Account;
pub use cache::candidates as cache_directories;
pub use error::Error;
pub use guard::ProcessGuard;
pub use http_sink::{Answer, HttpSink, Received};
pub use ports::PortLease;
pub use postgres::{PostgresInstall, PostgresOptions, StopMode, TestPostgres};
pub use redis::{RedisOptions, RedisProgram, TestRedis};
pub use sample::{EVERYTHING_SQL, SAMPLE_SQL, SampleSize, load_everything, load_sample};
pub use scratch::ScratchDir;
pub use smtp::{Mail, SmtpSink};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
