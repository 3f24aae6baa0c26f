use backstay_backup_core::id::SetId;
use jiff::Timestamp;

use crate::physical::ClusterFacts;
use crate::wal::{Lsn, SystemId, Timeline};

/// What planning needs to know of a physical set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBackup {
    /// The set.
    pub set: SetId,
    /// The cluster.
    pub system: SystemId,
    /// Timeline at `stop`.
    pub timeline: Timeline,
    /// Where recovery begins to read.
    pub start: Lsn,
    /// Where it is consistent: nothing before can be reached with this set.
    pub stop: Lsn,
    /// When the backup ended, by the server's clock.
    pub stop_time: Timestamp,
}

impl BaseBackup {
    /// Of a set with these facts.
    #[must_use]
    pub fn new(set: SetId, facts: &ClusterFacts) -> Self {
        let (system, timeline) = (facts.system, facts.timeline);
        Self {
            set,
            system,
            timeline,
            start: facts.start_lsn,
            stop: facts.stop_lsn,
            stop_time: facts.stop_time,
        }
    }
}
