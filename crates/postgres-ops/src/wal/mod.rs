//! Write-ahead log as PostgreSQL hands it over: names, headers, positions, timelines. Pure.
//!
//! ```text
//! a name        000000020000000A000000FE           what archive_command and restore_command speak of
//! its position  A/FE000000 on timeline 2            when the segment size is known (from the header, never assumed)
//! its header    magic, system identifier, timeline, page address, segment size
//! its history   00000002.history                    where timeline 2 left timeline 1
//! ```
//!
//! Bytes here come from a data directory or from a store; both may lie. Everything is parsed, nothing trusted, and no
//! function in this module opens a file.
//!
//! | what is wrong | what happens |
//! |---|---|
//! | a name that PostgreSQL would not give | [`WalError::Name`]; nothing is read |
//! | no WAL in the file, or of another version | [`WalError::NotWal`] |
//! | WAL of another cluster | [`WalError::OtherCluster`]; never stored, never replayed |
//! | another segment than the name says | [`WalError::OtherSegment`] |
//! | a size that is not the segment's | [`WalError::Length`] |
//! | a history file that contradicts itself | [`WalError::History`] |

mod error;
mod file_name;
mod header;
mod history;
mod lsn;
mod segment;
mod timeline;
mod xid;

pub use error::WalError;
pub use file_name::WalFile;
pub use header::{HEADER_LENGTH, SegmentHeader, SystemId};
pub use history::{Branch, TimelineHistory};
pub use lsn::Lsn;
pub use segment::{Segment, SegmentSize};
pub use timeline::Timeline;
pub use xid::Xid;
