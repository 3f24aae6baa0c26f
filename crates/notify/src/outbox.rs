//! The outbox: what was to be told is on disk before anybody tries to tell it, and stays until every channel has it.
//!
//! ```text
//! pending/<seq>.json              a parcel: a notice, its channels, and the event of the incident, in one object
//! state/<seq>/<channel>.json      how far one channel is; replaced by compare-and-swap
//! done/<seq>-<mark>.json          the parcel and its end, for a while
//! damaged/<seq>-<n>.json          bytes that are no parcel
//! refs/<channel>/<mark>.json      what a channel calls a thread: a message, an issue
//! tasks/<mark>.json               a task that succeeded once
//! noticed/<incident>-<second>.json  when this host noticed what is still to come by its clock
//! ```
//!
//! All of it lies in a [`LocalStore`](backstay_backup_core::local::LocalStore): temporary file, fsync, rename, fsync of
//! the folder. One parcel is one object, so a notice is in the outbox for all its channels, with the event that
//! caused it, or not at all. Before each attempt the intent is written, and its outcome after it; whoever finds an
//! intent without an outcome knows that the message may have arrived, and treats it as [`Outcome::Unknown`].
//!
//! What is done next is decided by pure functions: [`lane::next`] and [`schedule::after`].

mod ends;
pub mod lane;
mod memory;
mod record;
pub mod schedule;
mod spool;

pub use record::{Attempted, Parcel, Phase, Settled};
pub use schedule::{Consequence, Outcome, Rules};
pub(crate) use spool::mark;
pub use spool::{Finding, Mark, Pending, Spool, SpoolError};
