//! The snapshots of a stanza, as places to begin a restore with.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay_backup_core::catalog::{Catalog, SetSummary};
use backstay_backup_core::id::SetId;
use backstay_backup_core::manifest::{Manifest, ObjectEntry};
use jiff::Timestamp;
use serde::Deserialize;

use super::ephemeral::ServerVersion;
use super::error::RestoreError;
use super::node::slots_in_words;
use crate::archive::{Base, Position, StreamId};
use crate::rdb::RdbFacts;
use crate::server::SlotRange;
use crate::{Offset, ReplicationId};

/// One snapshot of one server.
#[derive(Clone, Debug)]
pub(super) struct StoredSnapshot {
    pub(super) manifest: Arc<Manifest>,
    pub(super) entry: ObjectEntry,
    pub(super) facts: RdbFacts,
    pub(super) base: Base,
    /// Its slots; none outside a cluster.
    pub(super) slots: Vec<SlotRange>,
    version: ServerVersion,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Facts {
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Shard {
    name: String,
    object: String,
    #[serde(default)]
    product: String,
    #[serde(default)]
    version: String,
    replication_id: Option<ReplicationId>,
    offset: Option<Offset>,
    #[serde(default)]
    slots: Vec<SlotRange>,
    rdb: RdbFacts,
}

impl StoredSnapshot {
    /// The server that it is of.
    pub(super) fn source_version(&self) -> ServerVersion {
        self.version.clone()
    }

    /// Whether the source replicated expiries as clients sent them, counted from when they came. Version 7 ended that.
    pub(super) fn has_relative_times(&self) -> bool {
        let version = self.source_version();
        !version.is_valkey && version.major < 7
    }

    /// Refuses a server that is known not to load it.
    ///
    /// # Errors
    /// [`RestoreError::Unsuitable`], with both versions.
    pub(super) fn refuse_old_server(&self, server: &ServerVersion) -> Result<(), RestoreError> {
        let (version, source) = (self.facts.version, self.source_version());
        match server.newest_snapshot() {
            Some(newest) if version > newest => Err(RestoreError::usage(
                format!(
                    "the snapshot has version {version}, written by {source}; {server} loads up to {newest}"
                ),
                "install a server of the source's version or newer, and name it with --server-program",
            )),
            _ => Ok(()),
        }
    }
}

/// All snapshots of one server, whatever their state.
pub(super) fn snapshots(catalog: &Catalog, stream: &StreamId) -> Vec<StoredSnapshot> {
    let all = catalog.sets.iter().flat_map(of_set);
    all.filter(|(of, _)| of == stream).map(|(_, snapshot)| snapshot).collect()
}

/// All servers that there are snapshots of, in words: names, and the slots that each held in the newest of them.
pub(super) fn streams(catalog: &Catalog) -> Vec<String> {
    let all = catalog.sets.iter().flat_map(of_set);
    let mut newest: BTreeMap<StreamId, StoredSnapshot> = BTreeMap::new();
    for (stream, snapshot) in all {
        let known = newest.get(&stream).map(|known| known.base.taken);
        if known.is_none_or(|known| known <= snapshot.base.taken) {
            newest.insert(stream, snapshot);
        }
    }
    let words = |(stream, snapshot): (&StreamId, &StoredSnapshot)| match snapshot.slots.as_slice() {
        [] => stream.to_string(),
        slots => format!("{stream} ({})", slots_in_words(slots)),
    };
    newest.iter().map(words).collect()
}

/// The snapshots of one set: one, or one of each shard of a cluster.
pub(super) fn snapshots_of(catalog: &Catalog, set: &SetId) -> Result<Vec<StoredSnapshot>, RestoreError> {
    let found = catalog.sets.iter().find(|it| it.id == *set).map(of_set).unwrap_or_default();
    if found.is_empty() {
        let problem = format!("set {set} is no backup of a Redis");
        return Err(RestoreError::usage(problem, "`list-backups` shows what each set holds"));
    }
    Ok(found.into_iter().map(|(_, snapshot)| snapshot).collect())
}

fn of_set(set: &SetSummary) -> Vec<(StreamId, StoredSnapshot)> {
    let Some(manifest) = &set.manifest else { return Vec::new() };
    let Ok(facts) = serde_json::from_value::<Facts>(manifest.facts.clone()) else { return Vec::new() };
    facts.shards.into_iter().filter_map(|shard| of_shard(set, manifest, shard)).collect()
}

fn of_shard(set: &SetSummary, manifest: &Arc<Manifest>, shard: Shard) -> Option<(StreamId, StoredSnapshot)> {
    let stream = StreamId::parse(&shard.name).ok()?;
    let entry = manifest.object(&shard.object)?.clone();
    let position = match (shard.replication_id, shard.offset) {
        (Some(id), Some(offset)) => Position::new(id, offset),
        // Nobody knows where in the stream it was taken, so no history has it: it is restored alone.
        _ => Position::new(ReplicationId::parse(&"0".repeat(40)).ok()?, Offset(0)),
    };
    let base =
        Base::new(manifest.set.clone(), &entry.name, position, taken(manifest, &shard.rdb), set.is_good());
    let version = source_version(&shard);
    let manifest = manifest.clone();
    let (facts, slots) = (shard.rdb, shard.slots);
    Some((stream, StoredSnapshot { manifest, entry, facts, base, slots, version }))
}

/// When a snapshot was taken, by the server's clock; servers write whole seconds, rounded down.
fn taken(manifest: &Manifest, rdb: &RdbFacts) -> Timestamp {
    let seconds = rdb.aux.get("ctime").and_then(|text| text.parse().ok());
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(manifest.recovery_point)
}

fn source_version(shard: &Shard) -> ServerVersion {
    let valkey = shard.rdb.aux.get("valkey-ver");
    let is_valkey = valkey.is_some() || shard.product.eq_ignore_ascii_case("valkey");
    let in_file = valkey.or_else(|| shard.rdb.aux.get("redis-ver"));
    let parse = |text: &String| ServerVersion::parse(text, is_valkey);
    parse(&shard.version)
        .or_else(|| in_file.and_then(parse))
        .unwrap_or_else(|| ServerVersion::parse("7.0.0", false).expect("it is a version"))
}
