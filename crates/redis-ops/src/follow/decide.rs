//! What an archiver decides, as pure functions: when to cut, what to acknowledge, what to ask a server for and what its answer
//! means, what to store together, what to merge, and when the spool is too full.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::{Position, Span};
use crate::{Offset, ReplicationId};

/// When a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutPolicy {
    /// So long after the first write in it; bounds what is lost when server and archiver die together. 1 s by default.
    pub interval: Duration,
    /// At the next place between two commands when it is so long. 8 MiB by default.
    pub bytes: u64,
    /// At any byte when it is so long; within a single long command that is. 16 MiB by default.
    pub at_most: u64,
}

impl Default for CutPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), bytes: 8 << 20, at_most: 16 << 20 }
    }
}

/// What was received since the last cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFacts {
    /// Where it begins.
    pub(super) start: Offset,
    /// The last place between two commands.
    pub(super) boundary: Offset,
    /// Where it ends.
    pub(super) end: Offset,
    /// How long ago the first write in it was received; `None` when there is nothing but filler.
    pub(super) oldest_write: Option<Duration>,
}

/// Whether to cut now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Here.
    At(Offset),
    /// Not before so much time has passed, or more was received.
    In(Duration),
    /// Not before more was received.
    Wait,
}

/// When to end the segment at hand. Filler alone (`PING`, `REPLCONF`) never ends one: an idle server costs nothing.
pub(super) fn cut(open: &OpenFacts, policy: &CutPolicy) -> Cut {
    if open.end.since(open.start) >= policy.at_most {
        // A whole command is better, as long as it is most of it.
        let whole = open.boundary.since(open.start) >= policy.bytes;
        return Cut::At(if whole { open.boundary } else { open.end });
    }
    if open.boundary.since(open.start) >= policy.bytes {
        return Cut::At(open.boundary);
    }
    match open.oldest_write {
        None => Cut::Wait,
        Some(age) if age < policy.interval => Cut::In(policy.interval - age),
        Some(_) if open.boundary > open.start => Cut::At(open.boundary),
        // A command that takes its time to arrive.
        Some(_) => Cut::Wait,
    }
}

/// The offset to acknowledge: what is durable, and the filler behind it, which holds nothing that could be lost. A server that
/// is told to stop waits until everything it sent is acknowledged.
pub(super) fn acknowledged(durable: Option<Offset>, last_write: Offset, received: Offset) -> Offset {
    match durable {
        Some(durable) if durable >= last_write => durable.max(received),
        Some(durable) => durable,
        None => Offset(0),
    }
}

/// What a server answered to the wish to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It goes on from there, under this id.
    Continue(ReplicationId),
    /// It begins anew with a snapshot.
    Full(Position),
}

/// What the answer means for the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Meaning {
    /// The same history goes on.
    SameHistory,
    /// Another server took over and goes on from where this one had come to: one line.
    Promotion {
        /// Where the former history ended for us.
        parent: Position,
    },
    /// The first snapshot of a stream.
    Beginning {
        /// Where it begins.
        at: Position,
    },
    /// Bytes of one history are missing: the server does not have them any more.
    GapInHistory {
        /// The last place that was received.
        from: Position,
        /// Where it goes on, with a snapshot.
        to: Position,
    },
    /// A history that has nothing to do with the one before.
    NewHistory {
        /// The last place that was received.
        from: Position,
        /// Where the new one begins, with a snapshot.
        to: Position,
    },
    /// The server has gone back behind what was received: another one took over that had not received everything.
    Rewound {
        /// The last place that was received.
        from: Position,
        /// Where the new one begins, with a snapshot.
        to: Position,
    },
}

/// What a server's answer means.
pub(super) fn meaning(known: Option<Position>, answer: Answer) -> Option<Meaning> {
    Some(match (known, answer) {
        (Some(known), Answer::Continue(id)) if id == known.replication_id => Meaning::SameHistory,
        (Some(known), Answer::Continue(_)) => Meaning::Promotion { parent: known },
        (None, Answer::Full(at)) => Meaning::Beginning { at },
        (Some(from), Answer::Full(to)) if from.replication_id == to.replication_id => {
            if to.offset == from.offset {
                Meaning::SameHistory
            } else if to.offset > from.offset {
                Meaning::GapInHistory { from, to }
            } else {
                Meaning::Rewound { from, to }
            }
        }
        (Some(from), Answer::Full(to)) if to.offset < from.offset => Meaning::Rewound { from, to },
        (Some(from), Answer::Full(to)) => Meaning::NewHistory { from, to },
        // Nobody asked for that.
        (None, Answer::Continue(_)) => return None,
    })
}

impl Meaning {
    /// What was lost, in words; `None` when nothing was.
    #[must_use]
    pub fn loss(&self) -> Option<String> {
        match self {
            Self::SameHistory | Self::Promotion { .. } | Self::Beginning { .. } => None,
            Self::GapInHistory { from, to } => {
                let bytes = to.offset.since(from.offset);
                Some(format!("{bytes} bytes are not archived, from {from} to {to}"))
            }
            Self::NewHistory { from, to } => {
                Some(format!("what was written between {from} and {to} is not archived"))
            }
            Self::Rewound { from, to } => Some(format!(
                "another server took over that had not received everything: {from} is followed by {to}"
            )),
        }
    }
}

/// How many of the segments that wait, oldest first, are stored as one object.
pub(super) fn together(waiting: &[(ReplicationId, Span)], most: u64) -> usize {
    let Some((id, first)) = waiting.first() else { return 0 };
    let mut bytes = first.len();
    let mut end = first.end;
    let mut count = 1;
    for (next, span) in &waiting[1..] {
        bytes += span.len();
        if next != id || span.start != end || bytes > most {
            break;
        }
        end = span.end;
        count += 1;
    }
    count
}

/// When stored segments are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergePolicy {
    /// So many bytes become one object. 8 MiB by default.
    pub bytes: u64,
    /// What is older is merged although it is less. One hour by default.
    pub age: Duration,
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self { bytes: 8 << 20, age: Duration::from_secs(3600) }
    }
}

/// What to do with the oldest segments that are stored and still in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// Nothing yet.
    Wait,
    /// So many become one object.
    Join(usize),
    /// So many need no merging: alone they are large enough, or nothing can follow them.
    Drop(usize),
}

/// One stored segment in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: ReplicationId,
    pub(super) span: Span,
    pub(super) received: Timestamp,
}

/// What to merge; everything when the spool is `pressed` for room.
pub(super) fn merge(stored: &[Stored], now: Timestamp, policy: &MergePolicy, pressed: bool) -> Merge {
    let Some(first) = stored.first() else { return Merge::Wait };
    if first.span.len() >= policy.bytes {
        return Merge::Drop(1);
    }
    let spans: Vec<_> = stored.iter().map(|it| (it.id, it.span)).collect();
    let count = together(&spans, policy.bytes.max(first.span.len()));
    let is_full = count < stored.len();
    let age = now.duration_since(first.received);
    let is_old =
        pressed || age >= jiff::SignedDuration::try_from(policy.age).unwrap_or(jiff::SignedDuration::MAX);
    match count {
        _ if !is_full && !is_old => Merge::Wait,
        1 => Merge::Drop(1),
        count => Merge::Join(count),
    }
}

/// How full the spool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// There is room.
    #[default]
    Room,
    /// More than half is taken: somebody should look.
    Alarm,
    /// Nothing more is taken in.
    Full,
}

/// How full a spool is that has `bytes` of at most `limit`.
pub(super) fn fill(bytes: u64, limit: u64) -> Fill {
    if bytes >= limit {
        Fill::Full
    } else if bytes >= limit / 2 {
        Fill::Alarm
    } else {
        Fill::Room
    }
}

/// When a new base is taken although there is no gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BasePolicy {
    /// So long after the last one; one day by default. Zero means never.
    pub every: Duration,
    /// After so many bytes of the stream, which a restore would have to replay; 16 GiB by default. Zero means never.
    pub bytes: u64,
}

impl Default for BasePolicy {
    fn default() -> Self {
        Self { every: Duration::from_secs(24 * 3600), bytes: 16 << 30 }
    }
}

/// Whether a new base is due, `age` after the last one and with so many `bytes` behind it. Never for what did not change.
pub(super) fn base_is_due(age: Duration, bytes: u64, policy: &BasePolicy) -> bool {
    let is_old = !policy.every.is_zero() && age >= policy.every && bytes > 0;
    is_old || (policy.bytes > 0 && bytes >= policy.bytes)
}

/// How long to wait before trying again, after so many failures in a row: 0.1 s, doubled each time, 10 s at most.
pub(super) fn pause(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.min(7).saturating_sub(1)).min(Duration::from_secs(10))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
