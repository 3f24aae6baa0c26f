//! What a replica asks for.

use std::time::Duration;

use crate::position::{Offset, ReplicationId};
use crate::resp::StreamState;

/// Rules of the access list for a user that may do all this and nothing else.
pub const RULES: &str = "-@all +psync +replconf +ping";

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// With a snapshot.
    New,
    /// Between two commands of a stream that one has up to there, if the server still has the rest.
    At {
        /// The stream.
        id: ReplicationId,
        /// How much of it one has.
        offset: Offset,
        /// What holds there.
        state: StreamState,
    },
}

/// How patient one is, and what one says about oneself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PsyncOptions {
    /// Longest wait for a connection, and for each answer of the handshake.
    pub answer: Duration,
    /// Longest time in which nothing comes, once it began; servers send at least a newline or a `PING` every 10 s.
    pub silence: Duration,
    /// Longest wait for a snapshot to begin while the server says that it prepares one.
    pub preparation: Duration,
    /// Ask for a snapshot alone: the server then keeps no stream for us, and ends the connection behind it.
    pub snapshot_only: bool,
    /// How often what is durable is acknowledged; every second, if that is more often, until the stream begins.
    pub acknowledge_every: Duration,
    /// What is acknowledged at first of a stream that goes on; what one asked for unless it is set.
    pub acknowledged: Option<Offset>,
}

impl Default for PsyncOptions {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            silence: Duration::from_secs(60),
            preparation: Duration::from_secs(3600),
            snapshot_only: false,
            acknowledge_every: Duration::from_secs(1),
            acknowledged: None,
        }
    }
}

impl PsyncOptions {
    /// Asks for a snapshot alone.
    #[must_use]
    pub fn snapshot_only(mut self) -> Self {
        self.snapshot_only = true;
        self
    }

    /// Sets the longest time in which nothing comes.
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Sets the longest wait for a connection and each answer.
    #[must_use]
    pub fn answer(mut self, answer: Duration) -> Self {
        self.answer = answer;
        self
    }

    /// Sets what is acknowledged at first of a stream that goes on, for who has more of it than is durable.
    #[must_use]
    pub fn acknowledged(mut self, offset: Offset) -> Self {
        self.acknowledged = Some(offset);
        self
    }
}
