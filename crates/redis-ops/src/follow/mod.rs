//! The archiver of a stream: follows a Redis as a replica does, and keeps every byte.
//!
//! ```text
//! server ─▶ connection ─▶ segmenter ─▶ spool (local disk) ─▶ uploader ─▶ repositories
//!     ▲ acknowledges        cuts, syncs                        │ merges
//!     └──────────────── what is durable there ◀────────────────┘
//! ```
//!
//! Each arrow is a bounded channel or the disk, each stage a task of its own. So a store that is out never stops the reading of
//! the socket: the spool grows, raises an alarm at half of its limit, and only a full one ends the connection. Acknowledged is what
//! the quorum of the repositories has, and the filler (`PING`) behind it.
//!
//! | what fails | what happens |
//! |---|---|
//! | a store | tried again for ever; the spool grows, nothing is acknowledged, nothing is lost |
//! | the server or the network | attached again, where it ended: nothing is lost while the server's backlog reaches back so far |
//! | the backlog did not | a gap, named by offsets; a snapshot heals it from there on |
//! | the password is changed | told to whoever runs this, who may [renew](Access::renew) it; nothing is lost while the backlog reaches back |
//! | another server is promoted and takes the old id | the same line goes on under the new id |
//! | this process (kill -9) | everything received is in the spool; the next process goes on with it |
//! | this machine (power) | what was cut and synced is in the spool; the rest comes again from the server |
//! | the spool's disk is full or fails | it ends with an error; the server keeps the rest in its backlog |
//! | the lease is lost to another archiver | it ends; what is in the spool stays there |
//!
//! Decisions are in `decide.rs` and pure.

mod access;
mod again;
mod begin;
mod connection;
mod decide;
mod error;
mod facts;
mod lease;
mod run;
mod segmenter;
mod snapshots;
mod spool;
mod uploader;

pub use access::Access;
pub use decide::{BasePolicy, CutPolicy, Fill, Meaning, MergePolicy};
pub use error::FollowError;
pub use facts::FollowFacts;
pub use run::{FollowOptions, FollowReport, follow, read_status, receive_until};

#[cfg(test)]
mod tests;
