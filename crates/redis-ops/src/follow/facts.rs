//! What an archiver knows of itself, shared by its tasks and told to whoever asks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::decide::{Fill, Meaning, acknowledged, fill};
use super::spool::{Closed, Snapshot};
use crate::Offset;
use crate::archive::{HistoryRecord, Position};

/// What an archiver is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct FollowFacts {
    /// The server it is attached to; `None` while it is not.
    pub server: Option<String>,
    /// Whether it is the one archiver of this stream. It stores nothing while it is not.
    pub lease: bool,
    /// How far the stream was received.
    pub received: Option<Position>,
    /// When something was received last, by this machine's clock.
    pub received_at: Option<Timestamp>,
    /// Where the last write ended; behind it there is only filler.
    pub last_write: Offset,
    /// Up to where everything is in the repositories.
    pub durable: Option<Position>,
    /// When a segment was stored last.
    pub stored_at: Option<Timestamp>,
    /// The newest base known to be in the repositories.
    pub base: Option<Position>,
    /// When it was taken.
    pub base_at: Option<Timestamp>,
    /// A snapshot is being received, or waits for the repositories.
    pub base_pending: bool,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// How full the spool is.
    pub spool: Fill,
    /// Segments in the spool that wait for the repositories.
    pub waiting: u64,
    /// Segments stored since the start.
    pub segments: u64,
    /// Merged segments stored since the start.
    pub merged: u64,
    /// Bases stored since the start.
    pub bases: u64,
    /// Connections since the start that went on where the last one ended.
    pub continued: u64,
    /// Connections since the start that began with a snapshot.
    pub full_syncs: u64,
    /// What was lost, or may have been, since the start.
    pub losses: Vec<String>,
    /// Why no server is followed, while that is so.
    pub server_problem: Option<String>,
    /// Why nothing can be stored, while that is so.
    pub store_problem: Option<String>,
    /// A snapshot is being received.
    pub receiving_base: bool,
    /// What is stored shall make room soon, long before there is reason for an alarm.
    #[serde(skip)]
    pub(super) pressed: bool,
    /// Grows with every snapshot that begins the stream anew.
    #[serde(skip)]
    pub(super) epoch: u32,
}

/// The facts, as tasks share them.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    facts: Arc<watch::Sender<FollowFacts>>,
    queue: Arc<Mutex<Queue>>,
    pub(super) work: Arc<Notify>,
}

/// What waits in the spool, oldest first. Contents are on disk.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// With the epoch of each.
    pub(super) closed: VecDeque<(u32, Closed)>,
    pub(super) stored: VecDeque<Closed>,
    pub(super) snapshots: VecDeque<Snapshot>,
    pub(super) histories: VecDeque<HistoryRecord>,
}

impl Shared {
    pub(super) fn new(queue: Queue) -> Self {
        let facts = FollowFacts { waiting: queue.closed.len() as u64, ..FollowFacts::default() };
        Self {
            facts: Arc::new(watch::Sender::new(facts)),
            queue: Arc::new(Mutex::new(queue)),
            work: Arc::default(),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the facts; whoever waits for a change hears of it.
    pub(super) fn change(&self, change: impl FnOnce(&mut FollowFacts)) {
        self.facts.send_modify(change);
    }

    pub(super) fn get<T>(&self, look: impl FnOnce(&FollowFacts) -> T) -> T {
        look(&self.facts.borrow())
    }

    pub(super) fn watch(&self) -> watch::Receiver<FollowFacts> {
        self.facts.subscribe()
    }

    /// The offset that a server may take for safe.
    pub(super) fn acknowledged(&self) -> Offset {
        self.get(FollowFacts::acknowledged)
    }

    /// Notes how full the spool is, and raises the alarm when that gets worse.
    pub(super) fn spool(&self, bytes: u64, limit: u64) {
        let now = fill(bytes, limit);
        let before = self.get(|facts| facts.spool);
        self.change(|facts| {
            (facts.spool_bytes, facts.spool) = (bytes, now);
            facts.pressed = bytes >= limit / 4;
        });
        if now > before {
            let percent = bytes.saturating_mul(100) / limit.max(1);
            tracing::error!(
                bytes,
                limit,
                percent,
                "the spool is filling: the repositories do not take what is received"
            );
        } else if now < before {
            tracing::info!(bytes, limit, "the spool is emptying");
        }
    }

    pub(super) fn server_problem(&self, problem: Option<String>) {
        if self.get(|facts| facts.server_problem != problem) {
            self.change(|facts| facts.server_problem = problem);
        }
    }

    pub(super) fn store_problem(&self, problem: Option<String>) {
        if self.get(|facts| facts.store_problem != problem) {
            self.change(|facts| facts.store_problem = problem);
        }
    }

    /// Notes what a server's answer meant.
    pub(super) fn note(&self, meaning: &Meaning) {
        self.change(|facts| {
            match meaning {
                Meaning::SameHistory | Meaning::Promotion { .. } => facts.continued += 1,
                _ => facts.full_syncs += 1,
            }
            facts.losses.extend(meaning.loss());
        });
    }
}

impl Queue {
    /// Whether nothing waits for the repositories.
    pub(super) fn is_idle(&self) -> bool {
        self.is_stored() && self.snapshots.is_empty()
    }

    /// Whether nothing but snapshots does.
    pub(super) fn is_stored(&self) -> bool {
        self.closed.is_empty() && self.histories.is_empty()
    }
}

impl FollowFacts {
    /// The offset that a server may take for safe: everything before it is in the repositories, or no write.
    #[must_use]
    pub fn acknowledged(&self) -> Offset {
        let durable = self.durable.filter(|_| !self.base_pending).map(|durable| durable.offset);
        acknowledged(durable, self.last_write, self.received.map_or(Offset(0), |received| received.offset))
    }

    /// Whether everything that was received is in the repositories.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        let durable = self.durable.map(|durable| durable.offset);
        !self.base_pending && self.waiting == 0 && durable.is_some_and(|durable| durable >= self.last_write)
    }
}
