//! A repository with snapshots and an archived stream, and servers that are restored from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_backup_core::catalog::Catalog;
use backstay_backup_core::clock::SystemClock;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::id::Stanza;
use backstay_backup_core::local::LocalStore;
use backstay_backup_core::manifest::{Codec, Manifest, SetKind};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::repository::Repository;
use backstay_backup_core::sealed::SealOptions;
use backstay_backup_core::set_writer::{DataPath, SetContents, SetSpec, SetWriter};
use backstay_redis_ops::archive::{
    Boundary, HistoryRecord, Level, Position, SegmentHead, SegmentName, Span, StreamArchive, StreamId,
};
use backstay_redis_ops::rdb::{RdbFacts, RdbScanner};
use backstay_redis_ops::resp::{CommandScanner, StreamState};
use backstay_redis_ops::restore::{
    RestoreError, RestoreOptions, RestorePlan, RestoreReceipt, RestoreRequest, RestoreTarget,
    ServerConfiguration, ServerProgram, TtlPolicy, plan_restore,
};
use backstay_redis_ops::{Offset, ReplicationId};
use backstay_testkit::{RedisOptions, TestRedis};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use crate::recorder::Recorder;

pub(crate) const PROGRAM: &str = "/usr/bin/redis-server";

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) repositories: Repositories,
    pub(crate) stanza: Stanza,
}

/// A server that answers `DEBUG`.
pub(crate) async fn server(settings: &[(&str, &str)]) -> TestRedis {
    let mut options = RedisOptions::default().setting("enable-debug-command", "local");
    for (name, value) in settings {
        options = options.setting(name, value);
    }
    // Recorders are replicas that take a whole file, at once.
    let options = options.setting("repl-diskless-sync", "no").setting("repl-diskless-sync-delay", "0");
    TestRedis::start(options).await.unwrap()
}

pub(crate) async fn connect(server: &TestRedis) -> MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

pub(crate) async fn ask<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, words: &str) -> T {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query_async(connection).await.unwrap()
}

/// The content of a server, as it sums it up itself.
pub(crate) async fn digest(connection: &mut MultiplexedConnection) -> String {
    ask(connection, "DEBUG DIGEST").await
}

/// Where its stream ends.
pub(crate) async fn offset(connection: &mut MultiplexedConnection) -> Offset {
    let info: String = ask(connection, "INFO replication").await;
    let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).unwrap();
    line.trim().parse().unwrap()
}

pub(crate) fn facts(snapshot: &[u8]) -> RdbFacts {
    let mut scanner = RdbScanner::new();
    scanner.push(snapshot).unwrap();
    scanner.finish().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(LocalStore::create(folder.path().join("repository")).unwrap());
        let repository = Repository::open_or_create("local", store, &SystemClock).await.unwrap();
        let repositories = Repositories::new(vec![repository], 1, Arc::new(SystemClock)).unwrap();
        Self { folder, repositories, stanza: Stanza::parse("main").unwrap() }
    }

    pub(crate) fn archive(&self) -> StreamArchive {
        StreamArchive::new(self.repositories.clone(), self.stanza.clone(), StreamId::default())
    }

    /// Stores a snapshot as a set.
    pub(crate) async fn set(&self, recorder: &Recorder) -> Manifest {
        let (snapshot, position) = (recorder.snapshot.clone(), Position::new(recorder.id, recorder.start));
        self.set_of(snapshot.clone(), facts(&snapshot), position, recorder.taken).await
    }

    pub(crate) async fn set_of(
        &self,
        snapshot: Vec<u8>,
        rdb: RdbFacts,
        position: Position,
        taken: Timestamp,
    ) -> Manifest {
        let spec = SetSpec::new(SetKind::new("redis-snapshot"), self.stanza.clone(), "test");
        let writer = SetWriter::begin(&self.repositories, spec, DataPath::default()).await.unwrap();
        let input = stream::iter([Ok(Bytes::from(snapshot))]);
        let entry = writer.object("main.rdb.zst", Codec::Zstd, input).await.unwrap();
        let facts = serde_json::json!({ "topology": "standalone", "via": "psync", "shards": [{
            "name": "main", "object": entry.name, "server": "test", "product": "redis",
            "version": rdb.aux["redis-ver"], "replication-id": position.replication_id, "offset": position.offset,
            "rdb": rdb,
        }]});
        let contents = SetContents::new(taken, vec![entry]).facts(facts);
        writer.commit(contents).await.unwrap().manifest
    }

    /// Archives a stream in segments of the lengths that are given.
    pub(crate) async fn segments(
        &self,
        id: ReplicationId,
        start: Offset,
        (bytes, times): (Vec<u8>, Vec<(usize, Timestamp)>),
        lengths: impl IntoIterator<Item = usize>,
    ) {
        let archive = self.archive();
        let record = HistoryRecord::new(archive.stanza(), archive.stream(), id, Timestamp::now(), "test");
        archive.store_history(&record).await.unwrap();
        let mut boundaries = vec![Boundary { offset: start, state: StreamState::default() }];
        let mut scanner = CommandScanner::new(start, StreamState::default());
        scanner.scan(&bytes, |it| boundaries.push(Boundary { offset: it.end, state: it.after })).unwrap();
        let received =
            |at: usize| times.iter().find(|(until, _)| at < *until).map_or_else(Timestamp::now, |it| it.1);
        let (mut at, mut lengths) = (0, lengths.into_iter());
        while at < bytes.len() {
            let end = lengths.next().map_or(bytes.len(), |length| (at + length.max(1)).min(bytes.len()));
            let span = Span { start: start.plus(at as u64), end: start.plus(end as u64) };
            let name = SegmentName { replication_id: id, span, level: Level::Fresh };
            let mut head = SegmentHead::new(&name, received(at), received(end - 1));
            let mut inside = boundaries.iter().filter(|it| span.start <= it.offset && it.offset <= span.end);
            head.first = inside.next().copied();
            head.last = inside.next_back().copied().or(head.first);
            let content = Bytes::copy_from_slice(&bytes[at..end]);
            archive.store_segment(&name, &head, content, &SealOptions::default()).await.unwrap();
            at = end;
        }
    }

    pub(crate) async fn plan(
        &self,
        request: &RestoreRequest,
        options: &RestoreOptions,
    ) -> Result<RestorePlan, RestoreError> {
        let catalog = Catalog::load(&self.repositories, &self.stanza).await.unwrap();
        plan_restore(&self.repositories, &catalog, &Identities::none(), request, options).await
    }

    pub(crate) async fn restore(
        &self,
        target: RestoreTarget,
        options: &RestoreOptions,
    ) -> Result<RestoreReceipt, RestoreError> {
        let plan = self.plan(&RestoreRequest::new(target), options).await?;
        self.apply(&plan).await
    }

    pub(crate) async fn apply(&self, plan: &RestorePlan) -> Result<RestoreReceipt, RestoreError> {
        let (none, progress, cancel) = (Identities::none(), Progress::new(), CancellationToken::new());
        plan.apply(&self.repositories, &none, &progress, &cancel).await
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("repository")
    }
}

/// How a server that is stopped will be restored.
pub(crate) async fn options(server: &TestRedis, ttl: TtlPolicy) -> RestoreOptions {
    let configuration = ServerConfiguration::read(&server.configuration()).unwrap();
    let program = ServerProgram::find(Some(Path::new(PROGRAM)), None).await.unwrap();
    RestoreOptions::new(server.data_directory(), configuration).program(Some(program)).ttl(ttl)
}

impl World {
    /// Archives bytes as one segment without boundaries.
    pub(crate) async fn raw_segment(&self, id: ReplicationId, start: Offset, bytes: Vec<u8>) {
        let span = Span { start, end: start.plus(bytes.len() as u64) };
        let name = SegmentName { replication_id: id, span, level: Level::Fresh };
        let head = SegmentHead::new(&name, Timestamp::now(), Timestamp::now());
        let options = SealOptions::default();
        self.archive().store_segment(&name, &head, Bytes::from(bytes), &options).await.unwrap();
    }
}
