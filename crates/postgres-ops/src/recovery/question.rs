use jiff::Timestamp;
use serde::Serialize;

use crate::wal::{Lsn, Timeline, Xid};
use crate::wal_records::{LogEnd, Outcome, RecordSpan};

/// A part of the log of which every segment is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// The timeline whose path is followed.
    pub timeline: Timeline,
    /// Records that begin here or later are meant …
    pub from: Lsn,
    /// … and before this.
    pub until: Lsn,
    /// The end of the last segment that is there: a record that is not whole by then does not count.
    pub end: Lsn,
}

/// What a decision depends on and only the log can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which record is the last? Answered by [`Answer::Tail`].
    Tail(LogRange),
    /// Which record is the first that begins at a position or later? Answered by [`Answer::Record`].
    RecordAt(LogRange, Lsn),
    /// Which is the first end of a transaction after a time? Answered by [`Answer::Record`].
    After {
        /// Where to look.
        range: LogRange,
        /// The time.
        at: Timestamp,
        /// Whether ends at this very time come before it.
        inclusive: bool,
    },
    /// Where did a transaction end? Answered by [`Answer::Transaction`].
    Transaction(LogRange, Xid),
    /// Where are the restore points of a name? Answered by [`Answer::RestorePoints`].
    RestorePoints(LogRange, String),
    /// How many transactions were committed? Answered by [`Answer::Commits`].
    Commits(LogRange),
}

/// What the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The end of the log.
    Tail(LogTail),
    /// A record; `None` when there is no such.
    Record(Option<Landmark>),
    /// The end of a transaction, or, where it is a subtransaction, the one it is a part of.
    Transaction {
        /// Where it ended.
        found: Option<Landmark>,
        /// The transaction that it is a part of.
        part_of: Option<Xid>,
    },
    /// Restore points of a name, in order.
    RestorePoints(Vec<Landmark>),
    /// Number of commits.
    Commits(u64),
}

/// A record that a decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landmark {
    /// Where it stands.
    pub span: RecordSpan,
    /// The time in it, for ends of transactions and restore points.
    pub at: Option<Timestamp>,
    /// The transaction that it ends, and how.
    pub transaction: Option<(Xid, Outcome)>,
    /// The last commit before it, where one was seen on the way.
    pub before: Option<Timestamp>,
}

/// How a log ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogTail {
    /// The last whole record.
    pub last: Option<RecordSpan>,
    /// The last commit, when it is not too far from the end.
    pub commit: Option<Commit>,
    /// Where the log breaks although more segments are there.
    pub damage: Option<LogEnd>,
}

/// A commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Commit {
    /// The transaction.
    pub xid: Xid,
    /// When.
    pub at: Timestamp,
    /// Where its record ends.
    pub end: Lsn,
}

/// What is known of the log so far.
#[derive(Clone, Debug, Default)]
pub struct LogFacts(Vec<(Question, Answer)>);

impl LogFacts {
    /// Notes an answer.
    pub fn learn(&mut self, question: Question, answer: Answer) {
        self.0.push((question, answer));
    }

    /// The answer to a question, if it was asked before.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Option<&Answer> {
        self.0.iter().find(|(asked, _)| asked == question).map(|(_, answer)| answer)
    }
}
