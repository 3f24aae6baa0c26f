use jiff::Timestamp;

use crate::wal::{Lsn, Timeline, Xid};

/// From 1970, where [`Timestamp`] counts from, to 2000, where PostgreSQL does, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordSpan {
    /// Position of its first byte. `recovery_target_lsn` is compared with this.
    pub start: Lsn,
    /// Where the next record may begin.
    pub end: Lsn,
}

/// A record that says something about transactions or timelines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub span: RecordSpan,
    /// Timeline of the page that it begins on. The first pages of a new timeline are copied, so it may be an older one
    /// than that of the file.
    pub timeline: Timeline,
    /// What it says.
    pub event: Event,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A transaction ended.
    Transaction(Transaction),
    /// `pg_create_restore_point`.
    RestorePoint {
        /// Its name, at most 63 bytes; what is not UTF-8 is replaced.
        name: String,
        /// By the server's clock.
        at: Timestamp,
    },
    /// A checkpoint.
    Checkpoint {
        /// Where recovery from it would begin.
        redo: Lsn,
        /// Timeline of the server.
        timeline: Timeline,
        /// The timeline before, when the checkpoint is the first of a new one; else the same.
        previous: Timeline,
        /// Written at shutdown, so that nothing runs beside it.
        shutdown: bool,
    },
    /// The first record of a timeline that a promotion began without a checkpoint.
    EndOfRecovery {
        /// The new timeline.
        timeline: Timeline,
        /// The one it left.
        previous: Timeline,
        /// By the server's clock.
        at: Timestamp,
    },
    /// `pg_backup_stop` on a primary: a backup that began at `start` is consistent from here on.
    BackupEnd {
        /// Where the backup began.
        start: Lsn,
    },
    /// `CREATE TABLESPACE`, which is replayed into the very same directory, whatever a restore did with other ones.
    NewTablespace {
        /// Its oid.
        oid: u32,
        /// Its directory; what is not UTF-8 is replaced.
        path: String,
    },
    /// The rest of the segment is empty.
    Switch,
}

/// The end of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The transaction; for a prepared one the one that was prepared.
    pub xid: Xid,
    /// How it ended.
    pub outcome: Outcome,
    /// By `COMMIT PREPARED` or `ROLLBACK PREPARED`.
    pub prepared: bool,
    /// When, by the server's clock. `recovery_target_time` is compared with this. Times of concurrent transactions may
    /// not ascend in the log.
    pub at: Timestamp,
    /// Its subtransactions, which cannot be recovery targets.
    pub subtransactions: Vec<Xid>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its changes count.
    Commit,
    /// They do not.
    Abort,
}

/// A time as the log has it; `None` for one that no clock shows.
pub(super) fn timestamp(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros.checked_add(EPOCH)?).ok()
}
