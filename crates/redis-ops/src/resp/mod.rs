//! Frames of the replication stream, found without understanding or changing a byte.
//!
//! A primary sends its replicas every write as one RESP array of bulk strings, one after another, with `PING`s and
//! `REPLCONF GETACK`s in between; all of it counts for the offset. [`CommandScanner`] takes the stream in any pieces and
//! says for each whole command where it begins and ends, its name, which database it leads to, and whether a transaction
//! is open behind it. Values pass by without being kept, so memory is bounded by [`Capture`] whatever is in the stream.
//!
//! A stream may be cut where [`Command::is_cut`] says so: after a whole command, outside `MULTI` … `EXEC`.

mod command;
mod scanner;

pub use command::{Argument, Capture, Command, StreamState};
pub use scanner::CommandScanner;

use crate::position::Offset;

/// The stream is not what a primary sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at offset {at}: {problem}")]
pub struct RespError {
    /// Where.
    pub at: Offset,
    /// What is wrong.
    pub problem: &'static str,
}

#[cfg(test)]
mod tests;
