//! The continuous archive of a Redis: every byte of its replication stream, in write-once objects, beside snapshots of it.
//!
//! ```text
//! <stanza>/stream/<stream>/segments/<replication id>/<start>-<end>   as it came, sealed
//! <stanza>/stream/<stream>/merged/<replication id>/<start>-<end>     the same bytes again, in larger objects, sealed
//! <stanza>/stream/<stream>/merged/…/<start>-<end>.times              when they were received, sealed
//! <stanza>/stream/<stream>/histories/<replication id>.json           where a history comes from
//! ```
//!
//! A segment holds the bytes between two offsets and nothing else: unsealed and joined they are what the server sent, so no
//! command has to be understood to archive it. What a reader wants to know beforehand stands in a note that needs no key
//! ([`SegmentHead`]). Two archivers that write the same bytes of one history write the same content, so that writing it twice is
//! no conflict, and other content under one name is one.
//!
//! Recovery begins with a [`Base`], which is a snapshot in any good set, and goes on along a [`Line`] of histories. Start
//! reading at `line.rs` (what can be recovered), then `reader.rs`.

mod bases;
mod coverage;
mod error;
mod head;
mod history;
mod line;
mod name;
mod object;
mod prune;
mod reader;
mod status;
mod survey;
mod times;
mod write;

pub use bases::{BaseFacts, bases};
pub use coverage::Coverage;
pub use error::ArchiveError;
pub use head::{Boundary, HeadError, SegmentHead};
pub use history::HistoryRecord;
pub use line::{Base, Gap, HistoryFacts, Line, LineFacts, Window, line_facts, lines};
pub use name::{Level, Position, SegmentName, Span, StreamId};
pub use prune::{OneStreamPlan, RepositoryStreamPlan, StreamPrunePlan, StreamPruneReport, plan_stream_prune};
pub use reader::{StreamPath, StreamReader};
pub use status::{StreamStatus, WindowStatus, stream_statuses};
pub use survey::{RepositoryStream, SegmentObject, StreamSurvey, survey_streams};
pub use times::TimeIndex;
pub use write::StoreReceipt;

use backstay_backup_core::id::Stanza;
use backstay_backup_core::replicas::Repositories;

/// Most bytes of a stream in one segment: 32 MiB.
pub const MAX_SEGMENT: u64 = 32 << 20;

/// The archive of one stream.
#[derive(Clone, Debug)]
pub struct StreamArchive {
    repositories: Repositories,
    stanza: Stanza,
    stream: StreamId,
}

impl StreamArchive {
    /// The archive of a stream of a stanza.
    #[must_use]
    pub fn new(repositories: Repositories, stanza: Stanza, stream: StreamId) -> Self {
        Self { repositories, stanza, stream }
    }

    /// Where it is kept.
    #[must_use]
    pub fn repositories(&self) -> &Repositories {
        &self.repositories
    }

    /// The stanza.
    #[must_use]
    pub fn stanza(&self) -> &Stanza {
        &self.stanza
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }
}

#[cfg(test)]
mod tests;
