//! Brings snapshots from the spool into the repositories as sets, and takes new ones when they are due.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::error::describe;
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::FollowError;
use super::connection::Place;
use super::decide::{BasePolicy, base_is_due, pause};
use super::facts::{FollowFacts, Shared};
use super::spool::{Snapshot, Spool};
use super::uploader::is_final;
use crate::archive::{Position, StreamArchive, bases};
use crate::psync::{self, Answer, PsyncOptions};
use crate::rdb::{RdbFacts, RdbScanner};
use crate::server::{Shard, TopologyKind};
use crate::snapshot::{RedisFacts, ShardFacts, Via};

/// Bytes of a snapshot read at a time.
const PIECE: usize = 1 << 20;

/// How often it looks whether a base is due.
const LOOK: Duration = Duration::from_secs(30);

/// Stores snapshots.
pub(super) struct Snapshots {
    pub(super) place: Place,
    pub(super) archive: StreamArchive,
    pub(super) spool: Arc<Spool>,
    pub(super) shared: Shared,
    pub(super) spec: SetSpec,
    pub(super) policy: BasePolicy,
}

impl Snapshots {
    /// Stores what waits, and takes what is due, until `done` is cancelled and nothing waits any more, or `stop` is.
    ///
    /// # Errors
    /// What will never succeed.
    pub(super) async fn run(
        &self,
        done: &CancellationToken,
        stop: &CancellationToken,
    ) -> Result<(), FollowError> {
        let mut failures = 0_u32;
        let mut known = false;
        loop {
            let ready = self.shared.get(|facts| facts.lease);
            if ready && !known {
                known = self.look_up().await;
            }
            let worked = async { if ready { self.work(done).await } else { Ok(false) } };
            let worked = tokio::select! {
                worked = worked => worked,
                // What is left behind is litter at worst.
                () = stop.cancelled() => return Ok(()),
            };
            match worked {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => failures = 0,
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    self.place.access.hear(&error);
                    failures += 1;
                    if failures == 1 {
                        tracing::error!(problem = describe(&error), "no base can be stored; trying again");
                    }
                    self.shared.store_problem(Some(describe(&error)));
                }
            }
            if done.is_cancelled() && failures == 0 && self.shared.queue().snapshots.is_empty() {
                return Ok(());
            }
            let (mut facts, mut lease) = (self.shared.watch(), self.shared.watch());
            let waiting = !self.shared.queue().snapshots.is_empty();
            let wait = if failures > 0 { pause(failures) } else { LOOK };
            let ending = async {
                if done.is_cancelled() { std::future::pending().await } else { done.cancelled().await }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = begun(&mut facts), if failures == 0 && !waiting => {}
                () = leased(&mut lease), if waiting && !ready => {}
                () = ending => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Stores the next snapshot, or takes one that is due; false when there is nothing to do.
    async fn work(&self, done: &CancellationToken) -> Result<bool, FollowError> {
        let next = self.shared.queue().snapshots.front().cloned();
        if let Some(snapshot) = next {
            match self.store(&snapshot).await {
                Err(error @ FollowError::Server(crate::Error::Rdb { .. })) => {
                    tracing::error!(
                        problem = describe(&error),
                        "a snapshot is damaged; another one is taken"
                    );
                    self.drop_first(&snapshot)?;
                    self.take().await?;
                    return Ok(true);
                }
                stored => stored?,
            }
            let none = self.drop_first(&snapshot)?;
            self.shared.change(|facts| {
                facts.bases += 1;
                facts.base_pending = !none || facts.receiving_base;
                facts.base = Some(snapshot.position);
                facts.base_at = Some(Timestamp::now());
            });
            return Ok(true);
        }
        if self.is_due() && !done.is_cancelled() {
            self.take().await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Forgets the oldest snapshot of the spool; whether it was the last one.
    fn drop_first(&self, snapshot: &Snapshot) -> Result<bool, FollowError> {
        self.spool.remove(&snapshot.path)?;
        let mut queue = self.shared.queue();
        queue.snapshots.pop_front();
        Ok(queue.snapshots.is_empty())
    }

    fn is_due(&self) -> bool {
        let now = Timestamp::now();
        self.shared.get(|facts| {
            let (Some(base), Some(at), Some(received)) = (facts.base, facts.base_at, facts.received) else {
                return false;
            };
            let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
            let bytes = facts.last_write.min(received.offset).since(base.offset);
            !facts.base_pending && base_is_due(age, bytes, &self.policy)
        })
    }

    /// Finds the newest base that is there already; false when it cannot be told now.
    async fn look_up(&self) -> bool {
        let archive = &self.archive;
        let catalog = Catalog::load(archive.repositories(), archive.stanza()).await;
        let survey = archive.survey().await;
        let (Ok(catalog), Ok(survey)) = (catalog, survey) else { return false };
        let Some(received) = self.shared.get(|facts| facts.received) else { return true };
        let line = survey.line(received.replication_id);
        let bases = bases(&catalog);
        let newest = bases
            .iter()
            .filter(|base| base.good && line.has(base.position))
            .max_by_key(|base| base.position.offset);
        if let Some(base) = newest {
            self.shared.change(|facts| {
                if facts.base.is_none() {
                    (facts.base, facts.base_at) = (Some(base.position), Some(base.taken));
                }
            });
        }
        true
    }

    /// Takes a snapshot over a connection of its own; the stream is not touched.
    async fn take(&self) -> Result<(), FollowError> {
        let shard = self.place.find().await?;
        let options = PsyncOptions::default().snapshot_only();
        let answer = psync::connect(&shard.endpoint, psync::Position::New, &options).await?;
        let Answer::Full(mut snapshot) = answer else {
            let (address, doing) = (shard.endpoint.address.clone(), "asking for a snapshot");
            return Err(crate::Error::Protocol { address, doing, found: "+CONTINUE".to_owned() }.into());
        };
        let position = Position::new(snapshot.id(), snapshot.offset());
        tracing::info!(%position, "a new base is taken");
        let (path, mut file) = self.spool.begin_snapshot(position)?;
        let received = async {
            while let Some(bytes) = snapshot.next().await? {
                let write = tokio::task::spawn_blocking(move || file.write_all(&bytes).map(|()| file));
                let written = write.await.map_err(std::io::Error::other).and_then(|written| written);
                file = written.map_err(self.spool.failed("write"))?;
            }
            self.spool.close_snapshot(position, &path, &file)
        };
        match received.await {
            Ok(snapshot) => self.shared.queue().snapshots.push_back(snapshot),
            Err(error) => {
                self.spool.remove(&path)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Stores a snapshot as a set, after a look at every byte of it.
    async fn store(&self, snapshot: &Snapshot) -> Result<(), FollowError> {
        let facts = self.scan(&snapshot.path).await?;
        let taken = taken(&facts, snapshot);
        let archive = &self.archive;
        let writer = SetWriter::begin(archive.repositories(), self.spec.clone(), DataPath::default()).await?;
        let file = tokio::fs::File::open(&snapshot.path).await.map_err(self.spool.failed("read"))?;
        let name = format!("{}.rdb.zst", archive.stream());
        let stored = writer.object(&name, Codec::Zstd, ReaderStream::with_capacity(file, PIECE)).await;
        let entry = match stored {
            Ok(entry) => entry,
            Err(error) => {
                writer.abort().await;
                return Err(error.into());
            }
        };
        let described = self.describe(snapshot, &entry.name, facts).await;
        let value = serde_json::to_value(&described)
            .map_err(|error| CoreError::Internal { what: error.to_string() })?;
        let receipt = writer.commit(SetContents::new(taken, vec![entry]).facts(value)).await?;
        tracing::info!(set = %receipt.manifest.set, position = %snapshot.position, "base stored");
        Ok(())
    }

    /// What the manifest says, with what the server tells of itself now.
    async fn describe(&self, snapshot: &Snapshot, object: &str, rdb: RdbFacts) -> RedisFacts {
        let shard: Option<Shard> = self.place.find().await.ok();
        let server = shard.as_ref().map(|shard| shard.endpoint.to_string()).unwrap_or_default();
        let told = shard.as_ref().and_then(|shard| shard.facts.clone());
        let aux = |name: &str| rdb.aux.get(name).cloned();
        let version = aux("valkey-ver").or(aux("redis-ver")).unwrap_or_default();
        let facts = ShardFacts {
            name: self.archive.stream().to_string(),
            object: object.to_owned(),
            users: None,
            server,
            product: told.map_or_else(String::new, |told| told.product),
            version,
            primary: shard.as_ref().and_then(|shard| shard.primary.as_ref().map(ToString::to_string)),
            replication_id: Some(snapshot.position.replication_id),
            offset: Some(snapshot.position.offset),
            slots: shard.map(|shard| shard.slots).unwrap_or_default(),
            modules: Vec::new(),
            rdb,
        };
        let topology = if facts.slots.is_empty() { TopologyKind::Single } else { TopologyKind::Cluster };
        RedisFacts { topology, via: Via::Psync, shards: vec![facts], settings: None }
    }

    async fn scan(&self, path: &Path) -> Result<RdbFacts, FollowError> {
        let path = path.to_owned();
        let scanning = tokio::task::spawn_blocking(move || {
            let mut file = File::open(path)?;
            let (mut scanner, mut buffer) = (RdbScanner::new(), vec![0; PIECE]);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(scanner.finish()),
                    read => {
                        if let Err(error) = scanner.push(&buffer[..read]) {
                            return Ok(Err(error));
                        }
                    }
                }
            }
        });
        let scanned = scanning.await.map_err(std::io::Error::other).and_then(|scanned| scanned);
        let scanned = scanned.map_err(self.spool.failed("read"))?;
        scanned.map_err(|source| crate::Error::Rdb { source }.into())
    }
}

/// Waits until a snapshot is being received, and a moment: its end comes a while after its beginning.
async fn begun(facts: &mut watch::Receiver<FollowFacts>) {
    _ = facts.wait_for(|facts| facts.base_pending && facts.lease).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn leased(facts: &mut watch::Receiver<FollowFacts>) {
    _ = facts.wait_for(|facts| facts.lease).await;
}

/// The moment that a snapshot holds, by the server's clock, to the second; by ours where the server does not tell.
fn taken(facts: &RdbFacts, snapshot: &Snapshot) -> Timestamp {
    let told = facts.aux.get("ctime").and_then(|seconds| seconds.parse().ok());
    let told = told.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let written = std::fs::metadata(&snapshot.path).and_then(|file| file.created());
    let written = written.ok().and_then(|at| Timestamp::try_from(at).ok());
    told.or(written).unwrap_or_else(Timestamp::now)
}
