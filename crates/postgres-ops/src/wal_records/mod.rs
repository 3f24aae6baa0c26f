//! What is written in the log: reads records out of segments, and says where the log ends. Pure.
//!
//! ```text
//! segment │ page header │ record │ record │ rec… │ page header (continued, n bytes left) │ …ord │ record │ zeros
//!           24 or 40 bytes; 24 bytes and its data, each beginning at a multiple of 8
//! ```
//!
//! [`RecordReader`] takes segments one after another and calls back with the few records that recovery can be told to
//! stop at, or that say what became of a timeline: [`Event`]. Everything else is checked and passed over.
//!
//! Bytes may be anything. The log ends where the server would end it: at the first record that is not whole, not in
//! its place, or not what its CRC-32C says ([`LogEnd`]). That is no error, since the last segment of a log ends like this;
//! whether more should follow is for the caller to know. Formats of PostgreSQL 14 to 18; what differs between them
//! stands in `transaction.rs`.
//!
//! Memory: the segment given, and of one record that continues in the next at most [`MAX_KEPT`] bytes.

mod event;
mod page;
mod payload;
mod reader;
mod record;
#[cfg(test)]
pub(crate) mod sample;
mod transaction;

pub use event::{Event, Outcome, Record, RecordSpan, Transaction};
pub use reader::{Flaw, LogEnd, Progress, RecordReader};
pub use record::MAX_KEPT;
