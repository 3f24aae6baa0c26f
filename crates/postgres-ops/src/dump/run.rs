use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::manifest::{ObjectEntry, SetKind, Source};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::set_writer::{SetContents, SetReceipt, SetSpec, SetWriter};
use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use sqlx::Row;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::facts::{FinishedStream, absorb, foreign_names, rename};
use super::globals::{self, object_name};
use super::stream::{ObjectInput, ScannedStream, pump};
use super::{DumpOptions, StreamPlan, plan_streams};
use crate::archive::ScanOptions;
use crate::client::{Client, lost_thread};
use crate::error::Error;
use crate::facts::LogicalFacts;
use crate::inspect::{self, ServerFacts, Snapshot, query_error};
use crate::relation::{Relation, relations};
use crate::server::Server;
use crate::sessions;
use crate::tools::{Tool, find_tool};

/// Tables of this size get objects of their own.
const LARGE_TABLE: u64 = 32 << 20;

/// What a backup would do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DumpPlan {
    /// Host, port and database.
    pub server: String,
    /// Version of the server.
    pub server_version: String,
    /// The client that would run.
    pub client: String,
    /// Major version of the client.
    pub client_major: u32,
    /// Size of the database on the server in bytes.
    pub database_size: u64,
    /// Tables whose rows would be taken.
    pub tables: usize,
    /// Streams, with the estimated bytes of rows in each.
    pub streams: Vec<(String, u64)>,
    /// Local disk that would be used; streams go straight to the repository.
    pub local_disk: u64,
    /// What deserves a word, such as an exclusion that excludes nothing.
    pub warnings: Vec<String>,
}

/// How long a part of an operation took.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl Phase {
    pub(crate) fn since(name: &str, start: Instant) -> Self {
        Self { name: name.to_owned(), seconds: start.elapsed().as_secs_f64() }
    }
}

/// What a backup did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// Where the set is, with its manifest.
    pub receipt: SetReceipt,
    /// Facts of the set.
    pub facts: LogicalFacts,
    /// What deserves a word, such as an exclusion that excluded nothing.
    pub warnings: Vec<String>,
    /// How long it took.
    pub phases: Vec<Phase>,
    /// Everything together.
    pub elapsed: Duration,
}

/// Looks at the server and says what a backup would do. Reads only.
///
/// # Errors
/// Everything that would stop the backup before its first byte.
pub async fn plan_backup(server: &Server, options: &DumpOptions) -> Result<DumpPlan, Error> {
    let prepared = Prepared::new(server, options).await?;
    let plan = prepared.plan(server, options);
    prepared.snapshot.release().await;
    Ok(plan)
}

/// Backs up the database of `server` into a new set. See the module page for the order of events.
///
/// # Errors
/// Any [`Error`]; no set exists then.
///
/// # Cancel safety
/// Dropping the future stops the client programs and leaves at most litter. Cancelling the token does the same and
/// also aborts uploads.
pub async fn backup_database(
    server: &Server,
    repositories: &Repositories,
    options: &DumpOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<BackupReport, Error> {
    let start = Instant::now();
    let server = &server.with_own_session_name();
    let mut prepared = tokio::select! {
        prepared = Prepared::new(server, options) => prepared?,
        () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
    };
    let inspected = Phase::since("inspect", start);
    let set =
        SetWriter::begin(repositories, spec(server, options, &prepared), options.data_path.clone()).await?;
    let filled = tokio::select! {
        filled = fill(&set, server, options, &mut prepared, progress) => filled,
        () = cancel.cancelled() => Err(CoreError::Cancelled.into()),
    };
    let (contents, facts, dumped) = match filled {
        Ok(filled) => filled,
        Err(error) => {
            // A backend that waits for a lock does not notice that its client is gone.
            prepared.snapshot.roll_back().await;
            sessions::end(prepared.snapshot.connection(), server).await;
            set.abort().await;
            return Err(error);
        }
    };
    let committing = Instant::now();
    let receipt = set.commit(contents).await?;
    prepared.snapshot.release().await;
    let phases = vec![inspected, dumped, Phase::since("commit", committing)];
    Ok(BackupReport { receipt, facts, warnings: prepared.warnings, phases, elapsed: start.elapsed() })
}

/// Everything that is known before the first byte is written.
struct Prepared {
    facts: ServerFacts,
    tool: Tool,
    snapshot: Snapshot,
    tables: Vec<Relation>,
    warnings: Vec<String>,
    logical: LogicalFacts,
    streams: Vec<StreamPlan>,
}

impl Prepared {
    async fn new(server: &Server, options: &DumpOptions) -> Result<Self, Error> {
        let mut connection = server.connect().await?;
        let facts = inspect::server_facts(&mut connection, server).await?;
        let (search, major) = (options.tools.clone(), facts.major());
        let finding = tokio::task::spawn_blocking(move || {
            find_tool("pg_dump", major, "the server", &search).map(Tool::with_large_output)
        });
        let tool = finding.await.map_err(|error| lost_thread("pg_dump", &error))??;
        let mut snapshot = Snapshot::take(connection, server).await?;
        snapshot.limit_lock_waits(options.lock_timeout, server).await?;
        let database = inspect::database_facts(snapshot.connection(), server, major).await?;
        let tables = relations(snapshot.connection(), server).await?;
        let schemas = inspect::schemas(snapshot.connection(), server).await?;
        if let Some((what, pattern)) = options.selection.missing(&schemas, &tables) {
            let (database, pattern) = (server.database.clone(), pattern.to_owned());
            return Err(Error::NothingFits { what, database, pattern });
        }
        let warnings = options.selection.idle_exclusions(&schemas, &tables);
        let streams = plan_streams(&tables, &options.selection, options.jobs);
        let logical = LogicalFacts {
            server_version_num: facts.version_num,
            client_major: tool.major,
            database,
            partial: !options.selection.is_everything(),
            ..LogicalFacts::default()
        };
        Ok(Self { facts, tool, snapshot, tables, warnings, logical, streams })
    }

    fn plan(&self, server: &Server, options: &DumpOptions) -> DumpPlan {
        DumpPlan {
            server: server.to_string(),
            server_version: self.facts.version.clone(),
            client: self.tool.path.display().to_string(),
            client_major: self.tool.major,
            database_size: self.logical.database.size,
            tables: self.tables.iter().filter(|table| options.selection.takes_rows(table)).count(),
            streams: self.streams.iter().map(|stream| (stream.name.clone(), stream.bytes)).collect(),
            local_disk: 0,
            warnings: self.warnings.clone(),
        }
    }
}

fn spec(server: &Server, options: &DumpOptions, prepared: &Prepared) -> SetSpec {
    let mut source = Source::default();
    source.host = server.address();
    source.server_version.clone_from(&prepared.facts.version);
    source.system_identifier.clone_from(&prepared.facts.system_identifier);
    source.database.clone_from(&server.database);
    SetSpec::new(SetKind::new(SetKind::POSTGRES_LOGICAL), options.stanza.clone(), &options.tool)
        .source(source)
        .recipients(options.recipients.clone())
        .retain_until(options.retain_until)
        .annotations(options.annotations.clone())
}

async fn fill(
    set: &SetWriter,
    server: &Server,
    options: &DumpOptions,
    prepared: &mut Prepared,
    progress: &Progress,
) -> Result<(SetContents, LogicalFacts, Phase), Error> {
    let start = Instant::now();
    progress.begin("dump");
    progress.expect_bytes(prepared.streams.iter().map(|stream| stream.bytes).sum());
    let large: Arc<HashSet<(String, String)>> = Arc::new(large_tables(&prepared.tables));
    let job = Job {
        set,
        server,
        options,
        tool: &prepared.tool,
        snapshot: &prepared.snapshot.name,
        large,
        progress,
    };
    let mut facts = std::mem::take(&mut prepared.logical);
    let superuser = prepared.facts.superuser;
    let streams = try_join_all(prepared.streams.iter().map(|plan| job.dump(plan)));
    let roles = async {
        if options.globals {
            globals::read(server, &prepared.tool, superuser).await.map(Some)
        } else {
            Ok(None)
        }
    };
    let (streams, roles) = futures::future::try_join(streams, roles).await?;
    let (streams, entries): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let mut objects: Vec<ObjectEntry> = entries.into_iter().flatten().collect();
    // Not before the rows are stored: a dump that may not even begin leaves nothing behind.
    if let Some(script) = roles {
        objects.push(globals::store(set, script, options).await?);
        facts.role_passwords = superuser;
    }
    absorb(&mut facts, &streams);
    translate_names(&mut facts, &streams, server, &mut prepared.snapshot).await?;
    let value = serde_json::to_value(&facts)
        .map_err(|error| CoreError::Internal { what: format!("facts that JSON cannot express: {error}") })?;
    let contents = SetContents::new(prepared.snapshot.taken, objects).facts(value);
    Ok((contents, facts, Phase::since("dump", start)))
}

fn large_tables(tables: &[Relation]) -> HashSet<(String, String)> {
    let large = tables.iter().filter(|table| table.bytes >= LARGE_TABLE);
    large.map(|table| (table.schema.clone(), table.name.clone())).collect()
}

/// What all streams of one backup share.
struct Job<'a> {
    set: &'a SetWriter,
    server: &'a Server,
    options: &'a DumpOptions,
    tool: &'a Tool,
    snapshot: &'a str,
    large: Arc<HashSet<(String, String)>>,
    progress: &'a Progress,
}

impl Job<'_> {
    async fn dump(&self, plan: &StreamPlan) -> Result<(FinishedStream, Vec<ObjectEntry>), Error> {
        let mut client = Client::start("pg_dump", self.tool, &self.arguments(plan), self.server).await?;
        let pipe = client.take_stdout()?;
        let (sender, receiver) = mpsc::channel(1);
        let (large, progress) = (Arc::clone(&self.large), self.progress.clone());
        let scan = ScanOptions::default().digests(self.options.digests);
        let buffers = self.set.frame_buffers();
        let pumping = tokio::task::spawn_blocking(move || {
            let is_large = |schema: &str, name: &str| large.contains(&(schema.to_owned(), name.to_owned()));
            pump(pipe, &buffers, scan, is_large, sender, |bytes| progress.add_bytes(bytes))
        });
        let stored = self.store(&plan.name, receiver).await;
        let entries = match stored {
            Ok(entries) => entries,
            // The stream broke: if pg_dump says why, that is the better story.
            Err(error) => return Err(client.blame(error).await),
        };
        let scanned = pumping.await.map_err(|error| lost_thread("pg_dump", &error))?;
        client.finish().await?;
        let scanned = scanned.map_err(|source| Error::Spawn { program: "pg_dump", source })?;
        let ScannedStream { facts, objects } = scanned;
        if objects != entries.len() {
            let what = format!("{objects} objects were cut, {} stored", entries.len());
            return Err(CoreError::Internal { what }.into());
        }
        let names = entries.iter().map(|entry| entry.name.clone()).collect();
        Ok((FinishedStream { name: plan.name.clone(), facts, objects: names }, entries))
    }

    fn arguments(&self, plan: &StreamPlan) -> Vec<String> {
        let mut arguments = vec![
            "--format=custom".to_owned(),
            "--compress=0".to_owned(),
            "--no-password".to_owned(),
            format!("--snapshot={}", self.snapshot),
            format!("--lock-wait-timeout={}ms", self.options.lock_timeout.as_millis()),
        ];
        arguments.extend(plan.arguments.iter().cloned());
        arguments
    }

    /// Stores the objects of one stream, several at a time where one still ends while the next begins.
    async fn store(
        &self,
        stream: &str,
        mut inputs: mpsc::Receiver<ObjectInput>,
    ) -> Result<Vec<ObjectEntry>, Error> {
        let mut running = FuturesUnordered::new();
        let mut finished = BTreeMap::new();
        let mut count = 0_usize;
        loop {
            tokio::select! {
                input = inputs.recv() => match input {
                    None => break,
                    Some(input) => {
                        count += 1;
                        running.push(self.store_object(stream, count, input));
                    }
                },
                Some(done) = running.next(), if !running.is_empty() => {
                    let (number, entry): (usize, ObjectEntry) = done?;
                    finished.insert(number, entry);
                }
            }
        }
        while let Some(done) = running.next().await {
            let (number, entry) = done?;
            finished.insert(number, entry);
        }
        Ok(finished.into_values().collect())
    }

    async fn store_object(
        &self,
        stream: &str,
        number: usize,
        input: ObjectInput,
    ) -> Result<(usize, ObjectEntry), Error> {
        let name = object_name(&format!("{stream}.{number:04}.dump"), self.options);
        let entry = self.set.object(&name, self.options.codec, ReceiverStream::new(input)).await?;
        Ok((number, entry))
    }
}

/// Asks the server what names mean that are not in UTF-8.
async fn translate_names(
    facts: &mut LogicalFacts,
    streams: &[FinishedStream],
    server: &Server,
    snapshot: &mut Snapshot,
) -> Result<(), Error> {
    let Some(main) = streams.first() else { return Ok(()) };
    let encoding = main.facts.toc.encoding().unwrap_or_default();
    if matches!(encoding.as_str(), "UTF8" | "SQL_ASCII" | "") {
        return Ok(());
    }
    let mut names: Vec<Vec<u8>> =
        streams.iter().flat_map(|stream| foreign_names(&stream.facts.toc)).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query("select convert_from(name, $2) as name from unnest($1::bytea[]) with ordinality u(name, n) order by n")
        .bind(&names)
        .bind(&encoding)
        .fetch_all(snapshot.connection())
        .await
        .map_err(query_error(server, "translate names"))?;
    let lossy = names.iter().map(|name| String::from_utf8_lossy(name).into_owned());
    let right = rows.iter().map(|row| row.get::<String, _>("name"));
    rename(facts, &lossy.zip(right).collect());
    Ok(())
}
