//! Restores a Redis to any moment that is stored, and proves that the server has it.
//!
//! ```text
//! target ─▶ resolve (which snapshot, up to which offset) ─▶ plan ─▶ apply ─▶ receipt
//!                                                                     │
//!     snapshot ─▶ expiries ─▶ base.rdb ┐                              │
//!     stream ─▶ cut ─▶ expiries ─▶ incr.aof ├─▶ staged beside the old data ─▶ one rename ─▶ server loads ─▶ compared
//!     manifest                         ┘
//! ```
//!
//! No command is understood here but those that carry an expiry: the server itself replays the stream, as an append-only
//! file of several parts that begins with the snapshot. Where it is configured to load a snapshot, a throwaway server replays
//! and dumps one.
//!
//! Guarantees: the end is always behind a whole command and outside a transaction; a gap or damage on the way is an error
//! that names it; the old data stays until everything new is durable, and is kept; a server that came up with something
//! else is never called restored. Not handled here: starting and stopping the server, which the caller does.

mod apply;
mod configuration;
mod cut;
mod ephemeral;
mod error;
mod expected;
mod glob;
mod live;
mod node;
mod place;
mod plan;
mod receipt;
mod resolve;
mod restore_test;
mod search;
mod snapshots;
mod swap;
mod synced;
mod target;
mod ttl;
mod ttl_command;
mod write;

pub use configuration::ServerConfiguration;
pub use cut::{CutError, CutReport, StreamCutter};
pub use ephemeral::{ServerProgram, ServerVersion};
pub use error::RestoreError;
pub use expected::{Comparison, Expected};
pub use live::{KeyCount, LiveFacts};
pub use place::{Owner, Place, Present, Shape};
pub use plan::{RestoreOptions, RestorePlan, RestoreRequest, plan_restore};
pub use receipt::{Outcome, Phase, RestoreReceipt};
pub use resolve::Missing;
pub use restore_test::{RestoreTestOptions, RestoreTestReport, TestedSnapshot, test_restore};
pub use search::FoundCommand;
pub use target::{CommandSearch, RestoreTarget};
pub use ttl::{Expiry, TtlChange, TtlPolicy};
pub use ttl_command::rewrite;
