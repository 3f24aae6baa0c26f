//! Backs up a Redis, step by step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::manifest::{ObjectEntry, SetKind, Source as ManifestSource};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::set_writer::{SetContents, SetReceipt, SetSpec, SetWriter};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::position::{Offset, ReplicationId};
use crate::psync::{Answer, FullSync, Position, introduced};
use crate::rdb::RdbFacts;
use crate::server::{Server, Shard, Topology, TopologyKind, find_shards};
use crate::source::Source;

use super::capture::{Captured, capture};
use super::facts::{RedisFacts, ShardFacts};
use super::options::{SnapshotOptions, Via};
use super::plan::warnings;
use super::pump::{Input, store};
use super::save::save;
use super::tune::tune;

/// What became of a backup.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// The set, and who has it.
    pub receipt: SetReceipt,
    /// What it holds.
    pub facts: RedisFacts,
    /// What was odd.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Backs up every part of a Redis into one set.
///
/// # Errors
/// Servers that cannot be read, a damaged snapshot, a repository that fails. No set exists then.
///
/// # Cancel safety
/// A dropped call leaves litter at worst; cancelling the token also aborts uploads.
pub async fn backup_redis(
    source: &Source,
    repositories: &Repositories,
    options: &SnapshotOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<SnapshotReport, Error> {
    let start = Instant::now();
    progress.begin("look");
    let topology = tokio::select! {
        topology = find_shards(source, options.attach) => topology?,
        () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
    };
    let set = SetWriter::begin(repositories, spec(&topology, options), options.data_path.clone()).await?;
    let job = Job { set: &set, options, progress, begun: repositories.clock().now() };
    let filled = tokio::select! {
        filled = job.fill(&topology) => filled,
        () = cancel.cancelled() => Err(CoreError::Cancelled.into()),
    };
    let filled = match filled {
        Ok(filled) => filled,
        Err(error) => {
            set.abort().await;
            return Err(error);
        }
    };
    let receipt = set.commit(filled.contents).await?;
    let mut warnings = warnings(&topology, options);
    warnings.extend(filled.warnings);
    Ok(SnapshotReport { receipt, facts: filled.facts, warnings, elapsed: start.elapsed() })
}

fn spec(topology: &Topology, options: &SnapshotOptions) -> SetSpec {
    SetSpec::new(SetKind::new(SetKind::REDIS_SNAPSHOT), options.stanza.clone(), &options.tool)
        .source(manifest_source(topology))
        .recipients(options.recipients.clone())
        .retain_until(options.retain_until)
        .annotations(options.annotations.clone())
}

fn manifest_source(topology: &Topology) -> ManifestSource {
    let mut source = ManifestSource::default();
    let Some(first) = topology.shards.first() else { return source };
    source.host = first.primary.as_ref().unwrap_or(&first.endpoint.address).to_string();
    if let Some(facts) = &first.facts {
        source.server_version = format!("{} {}", facts.product, facts.version);
    }
    let what = if topology.kind == TopologyKind::Cluster { "redis-cluster" } else { "redis" };
    what.clone_into(&mut source.database);
    source
}

struct Filled {
    contents: SetContents,
    facts: RedisFacts,
    warnings: Vec<String>,
}

/// One part that was stored.
struct Part {
    facts: ShardFacts,
    captured: Option<Captured>,
    entries: Vec<ObjectEntry>,
    warnings: Vec<String>,
}

/// Where a snapshot was taken.
#[derive(Clone, Copy, Default)]
struct Place {
    replication_id: Option<ReplicationId>,
    offset: Option<Offset>,
}

/// What all parts of one backup share.
struct Job<'a> {
    set: &'a SetWriter,
    options: &'a SnapshotOptions,
    progress: &'a Progress,
    begun: Timestamp,
}

impl Job<'_> {
    async fn fill(&self, topology: &Topology) -> Result<Filled, Error> {
        self.progress.begin("snapshot");
        let parts = stream::iter(&topology.shards).map(|shard| Box::pin(self.part(shard)));
        let parts: Vec<Part> = parts.buffered(self.options.jobs.max(1)).try_collect().await?;
        let mut warnings = Vec::new();
        let mut entries = Vec::new();
        let mut shards = Vec::new();
        let mut settings = BTreeMap::new();
        for part in parts {
            warnings.extend(part.warnings);
            entries.extend(part.entries);
            if let Some(captured) = part.captured {
                settings.insert(part.facts.name.clone(), captured);
            }
            shards.push(part.facts);
        }
        let mut facts = RedisFacts { topology: topology.kind, via: self.options.via, shards, settings: None };
        if !settings.is_empty() {
            let text = serde_json::to_vec_pretty(&settings).map_err(|error| internal(&error))?;
            let entry = self.small("settings.json", text).await?;
            facts.settings = Some(entry.name.clone());
            entries.push(entry);
        }
        let value = serde_json::to_value(&facts).map_err(|error| internal(&error))?;
        let point = facts.shards.iter().map(|shard| self.moment(&shard.rdb)).min().unwrap_or(self.begun);
        let contents = SetContents::new(point, entries).facts(value);
        Ok(Filled { contents, facts, warnings })
    }

    /// When a snapshot was taken, by the server's clock; servers write whole seconds.
    fn moment(&self, rdb: &RdbFacts) -> Timestamp {
        let seconds = rdb.aux.get("ctime").and_then(|seconds| seconds.parse().ok());
        seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(self.begun)
    }

    async fn part(&self, shard: &Shard) -> Result<Part, Error> {
        let mut warnings = Vec::new();
        // A user that may only replicate is let in too; nothing is asked then.
        let mut server = match &shard.facts {
            Some(_) => Some(Server::connect(&shard.endpoint).await?),
            None => None,
        };
        let captured = match &mut server {
            Some(server) => Some(capture(server, shard).await),
            None => None,
        };
        let (input, place, saved_at) = match self.options.via {
            Via::Psync => {
                let full = self.attach(shard, server.as_mut(), &mut warnings).await?;
                let place = Place { replication_id: Some(full.id()), offset: Some(full.offset()) };
                (Input::Replica(Box::new(full)), place, None)
            }
            Via::Bgsave => {
                let mut server = match server.take() {
                    Some(server) => server,
                    None => Server::connect(&shard.endpoint).await?,
                };
                let file = self.options.rdb_file.as_ref();
                let (input, asked_at) = save(&mut server, file, self.options.save_patience).await?;
                (input, Place::default(), Some(asked_at))
            }
        };
        let name = self.name(&format!("{}.rdb", shard.name));
        let stored = store(self.set, &name, self.options.codec, input, self.progress).await?;
        if let Some(asked_at) = saved_at {
            check_age(shard, &stored.rdb, asked_at)?;
        }
        let mut entries = vec![stored.entry];
        let users = match &captured {
            Some(captured) => self.users(shard, captured, &mut entries, &mut warnings).await?,
            None => None,
        };
        let facts = shard_facts(shard, &name, users, place, captured.as_ref(), stored.rdb);
        warnings.extend(captured.iter().flat_map(|captured| captured.warnings.iter().cloned()));
        Ok(Part { facts, captured, entries, warnings })
    }

    async fn attach(
        &self,
        shard: &Shard,
        server: Option<&mut Server>,
        warnings: &mut Vec<String>,
    ) -> Result<FullSync, Error> {
        let introduced = introduced(&shard.endpoint, &self.options.psync).await?;
        let asked = match &self.options.tune {
            None => introduced.ask(Position::New).await?,
            Some(custodian) => {
                let mut own;
                let server = match server {
                    Some(server) => server,
                    None => {
                        own = Server::connect(&shard.endpoint).await?;
                        &mut own
                    }
                };
                let tuned = tune(server, custodian).await?;
                let asked = introduced.ask(Position::New).await;
                let problems = tuned.put_back(server).await;
                if asked.is_err() {
                    problems.iter().for_each(|problem| tracing::error!("{problem}"));
                }
                warnings.extend(problems);
                asked?
            }
        };
        match asked.answer().await? {
            Answer::Full(full) => Ok(*full),
            Answer::Continue(_) => Err(Error::Protocol {
                address: shard.endpoint.address.clone(),
                doing: "attaching",
                found: "a stream in place of a snapshot".to_owned(),
            }),
        }
    }

    /// Hashes of passwords go into encrypted sets only.
    async fn users(
        &self,
        shard: &Shard,
        captured: &Captured,
        entries: &mut Vec<ObjectEntry>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<String>, Error> {
        if !captured.has_users() {
            return Ok(None);
        }
        if self.options.recipients.texts().is_empty() {
            warnings.push(format!(
                "the users of {} are not in the backup: hashes of passwords are only stored encrypted \
                 (encryption.recipients)",
                shard.endpoint
            ));
            return Ok(None);
        }
        let text = captured.users.join("\n") + "\n";
        let entry = self.small(&format!("{}.acl", shard.name), text.into_bytes()).await?;
        let name = entry.name.clone();
        entries.push(entry);
        Ok(Some(name))
    }

    async fn small(&self, name: &str, content: Vec<u8>) -> Result<ObjectEntry, Error> {
        let content = stream::iter([Ok(Bytes::from(content))]);
        Ok(self.set.object(&self.name(name), self.options.codec, content).await?)
    }

    fn name(&self, name: &str) -> String {
        let age = if self.options.recipients.texts().is_empty() { "" } else { ".age" };
        format!("{name}{}{age}", self.options.codec.suffix())
    }
}

fn shard_facts(
    shard: &Shard,
    object: &str,
    users: Option<String>,
    place: Place,
    captured: Option<&Captured>,
    rdb: RdbFacts,
) -> ShardFacts {
    let facts = shard.facts.as_ref();
    let from_aux = |name: &str| rdb.aux.get(name).cloned();
    // A server that saved by itself wrote into the file where that was.
    let in_file = || from_aux("repl-id").and_then(|id| ReplicationId::parse(&id).ok());
    let offset_in_file = || from_aux("repl-offset").and_then(|offset| offset.parse().ok());
    ShardFacts {
        name: shard.name.clone(),
        object: object.to_owned(),
        users,
        server: shard.endpoint.to_string(),
        product: facts.map(|facts| facts.product.clone()).unwrap_or_default(),
        version: facts
            .map(|facts| facts.version.clone())
            .or_else(|| from_aux("redis-ver"))
            .unwrap_or_default(),
        primary: shard.primary.as_ref().map(ToString::to_string),
        replication_id: place.replication_id.or_else(in_file),
        offset: place.offset.or_else(offset_in_file),
        slots: shard.slots.clone(),
        modules: captured.map(|captured| captured.modules.clone()).unwrap_or_default(),
        rdb,
    }
}

/// The file must be the one that was just saved.
fn check_age(shard: &Shard, rdb: &RdbFacts, asked_at: i64) -> Result<(), Error> {
    let written = rdb.aux.get("ctime").and_then(|seconds| seconds.parse::<i64>().ok());
    if written.is_some_and(|written| written >= asked_at) {
        return Ok(());
    }
    let problem =
        "the file that was read is older than the save: name the right one with --rdb-file".to_owned();
    Err(Error::Save { address: shard.endpoint.address.clone(), problem })
}

fn internal(error: &serde_json::Error) -> Error {
    CoreError::Internal { what: format!("facts that JSON cannot express: {error}") }.into()
}
