//! Follows a server: attaches, hands what comes to the segmenter, acknowledges, and attaches again when it ends.
//!
//! Whatever happens to the stores, this reads on. Only a full spool stops it: then it detaches, so that the server need not keep
//! everything for it, and attaches again when there is room.

use std::time::Duration;

use backstay_backup_core::Class;
use backstay_backup_core::error::describe;
use backstay_backup_core::id::Stanza;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::FollowError;
use super::access::Access;
use super::again::{CameTo, Failures, Word};
use super::decide::{self, Fill, Meaning, meaning};
use super::facts::Shared;
use super::segmenter::{Piece, Received};
use crate::archive::{Boundary, HistoryRecord, Position, StreamId};
use crate::psync::{self, Answer, FullSync, PsyncOptions, Replication};
use crate::resp::StreamState;
use crate::server::{Attach, Server, ServerFacts, Shard, find_shards};
use crate::source::Endpoint;

/// How long it reads on when it is told to stop: several times the longest rest of a reader.
const LEAVING: Duration = Duration::from_millis(25);

/// Which server is followed.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) access: Access,
    pub(super) attach: Attach,
    /// Name of the shard; any, if there is only one.
    pub(super) shard: Option<String>,
}

impl Place {
    /// Looks for the server to attach to: another one after a failover.
    pub(super) async fn find(&self) -> Result<Shard, FollowError> {
        let mut topology = find_shards(&self.access.source(), self.attach).await?;
        let names: Vec<_> = topology.shards.iter().map(|shard| shard.name.clone()).collect();
        let wanted = match &self.shard {
            Some(name) => names.iter().position(|it| it == name),
            None => (names.len() == 1).then_some(0),
        };
        match wanted {
            Some(at) => Ok(topology.shards.swap_remove(at)),
            None => Err(FollowError::NoShard { wanted: self.shard.clone(), shards: names }),
        }
    }
}

/// The connection's side of an archiver.
pub(super) struct Follower {
    pub(super) place: Place,
    pub(super) stanza: Stanza,
    pub(super) stream: StreamId,
    pub(super) tool: String,
    /// Ends with the first failure instead of trying again.
    pub(super) once: bool,
    pub(super) shared: Shared,
    pub(super) pieces: mpsc::Sender<Piece>,
    /// Where the stream goes on, and what holds there.
    pub(super) known: Option<(Position, StreamState)>,
    /// How far the attempt at hand has come.
    pub(super) came_to: CameTo,
}

impl Follower {
    /// Follows until cancelled.
    ///
    /// # Errors
    /// What is wrong with the first attempt, when trying again is pointless; that the segmenter has ended.
    pub(super) async fn run(&mut self, cancel: &CancellationToken) -> Result<(), FollowError> {
        let mut failures = Failures::default();
        let mut attached = false;
        while !cancel.is_cancelled() {
            self.wait_for_room(cancel).await;
            self.came_to = CameTo::Nothing;
            let tried = self.place.access.source();
            let ended = tokio::select! {
                ended = self.attach(&mut attached) => ended,
                () = told_to_leave(cancel) => Ok(()),
            };
            self.shared.change(|facts| facts.server = None);
            let Err(error) = ended else { break };
            let is_hopeless = (matches!(error.class(), Class::Usage) || self.once) && !attached;
            if is_hopeless || matches!(error, FollowError::Spool { .. }) {
                return Err(error);
            }
            let may_pass = matches!(error.class(), Class::Temporary);
            let (pause, word) = failures.note(self.came_to, may_pass, Instant::now());
            let problem = describe(&error);
            match word {
                Word::First => tracing::warn!(problem, "the connection ended; attaching again"),
                Word::Alarm => tracing::error!(problem, "the server cannot be followed"),
                Word::Nothing => {}
            }
            self.shared.server_problem(Some(problem));
            self.place.access.hear(&error);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.place.access.differs_from(&tried) => {}
                () = cancel.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn wait_for_room(&self, cancel: &CancellationToken) {
        let mut facts = self.shared.watch();
        tokio::select! {
            _ = facts.wait_for(|facts| facts.spool < Fill::Full) => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn attach(&mut self, attached: &mut bool) -> Result<(), FollowError> {
        let shard = self.that_goes_on(self.place.find().await?).await;
        let endpoint = &shard.endpoint;
        for warning in shard.warnings.iter().filter(|_| !*attached) {
            tracing::warn!(%endpoint, "{warning}");
        }
        let skew = clock_skew(&shard).await;
        let wish = match self.known {
            Some((Position { replication_id: id, offset }, state)) => {
                psync::Position::At { id, offset, state }
            }
            None => psync::Position::New,
        };
        let options = PsyncOptions::default().acknowledged(self.shared.acknowledged());
        let introduced = psync::introduced(endpoint, &options).await?;
        self.came_to = CameTo::Asked;
        let answer = introduced.ask(wish).await?.answer().await?;
        *attached = true;
        self.shared.server_problem(None);
        self.shared.change(|facts| facts.server = Some(endpoint.to_string()));
        let what = match &answer {
            Answer::Continue(stream) => decide::Answer::Continue(stream.id()),
            Answer::Full(snapshot) => decide::Answer::Full(Position::new(snapshot.id(), snapshot.offset())),
        };
        let Some(meaning) = meaning(self.known.map(|(known, _)| known), what) else {
            let (address, doing) = (endpoint.address.clone(), "asking to follow");
            return Err(crate::Error::Protocol { address, doing, found: format!("{what:?}") }.into());
        };
        tell(endpoint, &meaning);
        self.shared.note(&meaning);
        let (stream, anew) = match answer {
            Answer::Continue(stream) => (*stream, None),
            Answer::Full(snapshot) => (self.receive_snapshot(*snapshot).await?, Some(Timestamp::now())),
        };
        self.came_to = CameTo::Stream { at: Instant::now(), anew: anew.is_some(), further: false };
        let position = Position::new(stream.id(), stream.offset());
        let record = self.record(&meaning, position).map(Box::new);
        let state = stream.state();
        self.send(Piece::Stream { position, state, anew, record, clock_skew_millis: skew }).await?;
        self.known = Some((position, state));
        self.follow(stream).await
    }

    /// A replica that came lately may lack what its primary still has: a snapshot of it would leave a gap for nothing.
    async fn that_goes_on(&self, shard: Shard) -> Shard {
        let (Some((known, _)), Some(facts), Some(primary)) = (self.known, &shard.facts, &shard.primary)
        else {
            return shard;
        };
        let goes_on = |facts: &ServerFacts| facts.backlog.goes_on_from(known.replication_id, known.offset);
        let is_primary = *primary == shard.endpoint.address;
        if is_primary || self.place.attach != Attach::Replica || goes_on(facts) {
            return shard;
        }
        let endpoint = self.place.access.source().endpoint(primary);
        let asked = async { Server::connect(&endpoint).await?.facts().await };
        match asked.await {
            Ok(facts) if goes_on(&facts) => {
                tracing::info!(replica = %shard.endpoint, %endpoint, "the primary goes on where the replica cannot");
                Shard { endpoint, facts: Some(facts), ..shard }
            }
            _ => shard,
        }
    }

    async fn receive_snapshot(&self, mut snapshot: FullSync) -> Result<Replication, FollowError> {
        self.send(Piece::Snapshot(Position::new(snapshot.id(), snapshot.offset()))).await?;
        while let Some(bytes) = snapshot.next().await? {
            self.send(Piece::SnapshotBytes(bytes)).await?;
        }
        self.send(Piece::SnapshotEnd).await?;
        Ok(snapshot.into_stream()?)
    }

    async fn follow(&mut self, mut stream: Replication) -> Result<(), FollowError> {
        let mut facts = self.shared.watch();
        let acknowledger = stream.acknowledger();
        loop {
            let (mut first, mut last_write) = (None, None);
            let chunk = tokio::select! {
                chunk = stream.next_with(|command| {
                    first.get_or_insert(Boundary::at(command.end, command.after));
                    if !command.is_filler() {
                        last_write = Some(command.end);
                    }
                }) => Some(chunk?),
                _ = facts.changed() => None,
            };
            if let Some(chunk) = chunk {
                let last = Boundary::at(chunk.boundary, chunk.state);
                if let CameTo::Stream { further, .. } = &mut self.came_to {
                    *further |= chunk.commands > 0;
                }
                self.known = Some((Position::new(stream.id(), last.offset), last.state));
                let (at, bytes, commands) = (Timestamp::now(), chunk.bytes, chunk.commands);
                let received = Received { at, bytes, commands, first, last, last_write };
                self.send(Piece::Bytes(Box::new(received))).await?;
            }
            acknowledger.durable(self.shared.acknowledged());
            if self.shared.get(|facts| facts.spool) == Fill::Full {
                tracing::error!("the spool is full: detached from the server until there is room");
                let source = std::io::Error::other("the spool is full");
                return Err(FollowError::Full { source });
            }
        }
    }

    /// What to record of a history that begins.
    fn record(&self, meaning: &Meaning, position: Position) -> Option<HistoryRecord> {
        let (id, now) = (position.replication_id, Timestamp::now());
        let record = HistoryRecord::new(&self.stanza, &self.stream, id, now, &self.tool);
        match meaning {
            Meaning::SameHistory | Meaning::GapInHistory { .. } => None,
            Meaning::Promotion { parent } => Some(record.parent(Some(*parent))),
            Meaning::Beginning { .. } => Some(record),
            Meaning::NewHistory { from, to } | Meaning::Rewound { from, to } => {
                (from.replication_id != to.replication_id).then(|| record.broke_off(Some(*from)))
            }
        }
    }

    async fn send(&self, piece: Piece) -> Result<(), FollowError> {
        self.pieces.send(piece).await.map_err(|_| FollowError::Ended)
    }
}

/// Cancelled, and so long ago that what the server had sent before has been read.
async fn told_to_leave(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(LEAVING).await;
}

/// How much later the server's clock is, in milliseconds; `None` where it may not be asked.
async fn clock_skew(shard: &Shard) -> Option<i64> {
    shard.facts.as_ref()?;
    let mut server = Server::connect(&shard.endpoint).await.ok()?;
    let before = Timestamp::now().as_millisecond();
    let told = server.texts(&["TIME"], "TIME").await.ok()?;
    let [seconds, micros] = told.as_slice() else { return None };
    let told = seconds.parse::<i64>().ok()?.checked_mul(1000)? + micros.parse::<i64>().ok()? / 1000;
    Some(told - before.midpoint(Timestamp::now().as_millisecond()))
}

fn tell(endpoint: &Endpoint, meaning: &Meaning) {
    match (meaning, meaning.loss()) {
        (_, Some(loss)) => {
            tracing::error!(%endpoint, loss, "the archive has a gap; a new base heals it from here on");
        }
        (Meaning::Promotion { parent }, None) => {
            tracing::info!(%endpoint, %parent, "another server took over; the stream goes on");
        }
        (Meaning::Beginning { at }, None) => {
            tracing::info!(%endpoint, %at, "following, from a first base on");
        }
        _ => tracing::info!(%endpoint, "following, from where it ended"),
    }
}
