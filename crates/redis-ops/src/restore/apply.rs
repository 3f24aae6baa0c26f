//! Makes the data directory what the plan says.
//!
//! ```text
//! lock ─▶ (ready already? then only swap) ─▶ snapshot ─▶ stream ─▶ manifest ─▶ rehearsal, or replay into a snapshot
//!      ─▶ is it in use? ─▶ mark ─▶ swap
//! ```
//!
//! Until the swap the old data is as it was. Killed anywhere, the same command completes; see [`super::swap`].

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use backstay_backup_core::encryption::Identities;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use rustix::fs::{FlockOperation, flock};
use tokio_util::sync::CancellationToken;

use super::cut::CutReport;
use super::ephemeral::Ephemeral;
use super::error::RestoreError;
use super::expected::{Expected, counts};
use super::live::LiveFacts;
use super::place::{Place, Shape, size_of};
use super::plan::RestorePlan;
use super::receipt::{Phase, RestoreReceipt};
use super::swap::{Ready, Staging, make_folder, remove};
use super::ttl::{TtlChange, TtlPolicy};
use super::write::{AppendFiles, Work, blocking};
use crate::Offset;
use crate::archive::{Position, StreamPath};
use crate::resp::StreamState;

/// Name of the snapshot that a throwaway server writes.
const DUMP: &str = "dump.rdb";
/// Names of append-only files in a workshop.
const APPEND_FOLDER: &str = "appendonlydir";
const APPEND_FILE: &str = "appendonly.aof";

impl RestorePlan {
    /// Restores, and swaps the old data for the new. No server is started.
    ///
    /// # Errors
    /// Any [`RestoreError`]. The old data is in its place then, and the same command begins anew or completes.
    ///
    /// # Cancel safety
    /// As after an error.
    pub async fn apply(
        &self,
        repositories: &Repositories,
        identities: &Identities,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<RestoreReceipt, RestoreError> {
        let begun = Instant::now();
        self.place.refuse_if_used()?;
        let clock = repositories.clock().clone();
        let change = TtlChange::new(self.ttl, self.time, clock.now());
        let work = Work {
            repositories: repositories.clone(),
            identities: identities.clone(),
            owner: self.place.owner,
            change,
            progress: progress.clone(),
            cancel: cancel.clone(),
        };
        let staging = Staging::new(&self.place.directory, self.place.owner);
        let mut job = Job { plan: self, work, staging, phases: Vec::new(), begun };
        let _lock = lock(&self.place)?;
        let left = job.staging.ready()?.filter(|ready| ready.identity == self.identity());
        // Expiry times that an earlier run moved would be too early by now.
        let left = left.filter(|ready| self.ttl != TtlPolicy::Shift || job.staging.is_swapped(ready));
        let ready = match left {
            Some(ready) => ready,
            None => job.prepare().await?,
        };
        let mut receipt: RestoreReceipt = serde_json::from_value(ready.report.clone())
            .map_err(|error| RestoreError::content("what an earlier run left", error.to_string()))?;
        // Somebody may have started the server meanwhile.
        self.place.refuse_if_used()?;
        let staging = job.staging.clone();
        progress.begin("swapping");
        receipt.old = blocking(move || staging.commit(&ready)).await?;
        job.end_phase("swap");
        receipt.phases.append(&mut job.phases);
        receipt.rto_seconds = begun.elapsed().as_secs_f64();
        receipt.finished = clock.now();
        Ok(receipt)
    }

    /// Refuses a disk without room for it; to be asked before the server is stopped.
    ///
    /// # Errors
    /// There is too little room. Not where an earlier run has written everything and was killed before the swap.
    pub fn refuse_if_full(&self) -> Result<(), RestoreError> {
        let staging = Staging::new(&self.place.directory, self.place.owner);
        let is_ready = staging.ready()?.is_some_and(|ready| ready.identity == self.identity());
        if is_ready { Ok(()) } else { self.place.refuse_if_full(self.needed_bytes) }
    }

    /// The same restore is known again by this.
    fn identity(&self) -> String {
        let Self { set, end, ttl, shape, configuration, .. } = self;
        let name = shape.active(configuration);
        format!("{set} {end} {ttl} {shape:?} {name}")
    }
}

/// A lock that ends with this, even where a child that is just being started has inherited its file.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Keeps a second restore out of the directory.
fn lock(place: &Place) -> Result<Lock, RestoreError> {
    let directory = if place.exists { place.directory.as_path() } else { parent(&place.directory) };
    let file = File::open(directory).map_err(RestoreError::io("open", directory))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let remedy = "wait for the other restore, or stop it";
            Err(RestoreError::target(directory, "is being restored by another process", remedy))
        }
        Err(error) => Err(RestoreError::io("lock", directory)(error.into())),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

struct Job<'a> {
    plan: &'a RestorePlan,
    work: Work,
    staging: Staging,
    phases: Vec<Phase>,
    begun: Instant,
}

/// What was written.
struct Written {
    base_bytes: u64,
    stream: Option<CutReport>,
}

impl Job<'_> {
    fn end_phase(&mut self, name: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.phases.push(Phase { name: name.to_owned(), seconds });
        self.begun = Instant::now();
    }

    /// Everything up to the mark.
    async fn prepare(&mut self) -> Result<Ready, RestoreError> {
        let plan = self.plan;
        plan.place.refuse_if_full(plan.needed_bytes)?;
        self.staging.begin()?;
        match self.make().await {
            Ok(ready) => Ok(ready),
            Err(error) => {
                if let Err(error) = self.staging.discard() {
                    tracing::warn!(%error, "what an unfinished restore wrote is left behind");
                }
                Err(error)
            }
        }
    }

    async fn make(&mut self) -> Result<Ready, RestoreError> {
        let plan = self.plan;
        let name = plan.shape.active(&plan.configuration).to_owned();
        let unit = self.staging.unit(&name);
        let (written, databases, functions) = match plan.shape {
            Shape::Snapshot if plan.replays => self.replay(&unit).await?,
            Shape::Snapshot => {
                let base_bytes = self.work.snapshot(&plan.prepared.snapshot, &unit).await?;
                self.end_phase("snapshot");
                self.counted(&unit, Written { base_bytes, stream: None }).await?
            }
            shape => {
                let files = self.append_files(shape, &unit, &plan.configuration.append_file)?;
                let written = self.write(&files).await?;
                self.counted(&unit, written).await?
            }
        };
        let stream_bytes = written.stream.as_ref().map_or(0, |report| report.length);
        let expected = Expected {
            directory: plan.place.directory.clone(),
            shape: plan.shape,
            databases,
            functions,
            base_bytes: written.base_bytes,
            stream_bytes: if plan.shape == Shape::Snapshot { 0 } else { stream_bytes },
        };
        let reached = self.reached(written.stream.as_ref())?;
        let commands = written.stream.as_ref().map_or(0, |report| report.commands);
        let mut receipt = RestoreReceipt::prepared(plan, expected, reached, commands);
        receipt.ttl_shift_seconds = self.work.change.shift_millis() as f64 / 1000.0;
        receipt.phases = std::mem::take(&mut self.phases);
        let others = plan.shape.inactive(&plan.configuration);
        let kept = self.staging.name_for_old(self.work.repositories.clock().now());
        let report = serde_json::to_value(&receipt).expect("a receipt is valid JSON");
        remove(&self.staging.workshop())?;
        let (staging, identity) = (self.staging.clone(), plan.identity());
        let ready = blocking(move || staging.mark_ready(&identity, &name, others, kept, report)).await?;
        self.end_phase("sync");
        Ok(ready)
    }

    /// The end of what was written must be the end that was planned.
    fn reached(&self, stream: Option<&CutReport>) -> Result<Position, RestoreError> {
        let planned = self.plan.end;
        match stream {
            Some(report) if report.end != planned.offset => Err(RestoreError::content(
                "the archived stream",
                format!("it ends at offset {} and was planned to end at {}", report.end, planned.offset),
            )),
            _ => Ok(planned),
        }
    }

    /// What the server must have: counted by a throwaway server where that is wanted.
    async fn counted(&mut self, unit: &Path, written: Written) -> Result<Counted, RestoreError> {
        if self.plan.rehearse { self.rehearse(unit, written).await } else { Ok(self.with_counts(written)) }
    }

    /// What is known without a server: the keys of a snapshot that nothing was put behind.
    fn with_counts(&self, written: Written) -> Counted {
        let facts = &self.plan.prepared.snapshot.facts;
        let is_alone = written.stream.as_ref().is_none_or(|report| report.commands == 0);
        let known = is_alone.then(|| counts(facts)).flatten();
        let functions = known.is_some().then(|| facts.functions.clone());
        (written, known, functions)
    }

    fn append_files(&self, shape: Shape, unit: &Path, name: &str) -> Result<AppendFiles, RestoreError> {
        if shape == Shape::SingleFile {
            return Ok(AppendFiles::single(unit));
        }
        self.work.folder(unit)?;
        Ok(AppendFiles::multi_part(unit, name, self.plan.prepared.path.is_some()))
    }

    async fn write(&mut self, files: &AppendFiles) -> Result<Written, RestoreError> {
        let prepared = &self.plan.prepared;
        let base_bytes = self.work.snapshot(&prepared.snapshot, &files.base).await?;
        self.end_phase("snapshot");
        let mut stream = None;
        if let Some(path) = &prepared.path {
            stream = Some(self.stream(path, &files.stream).await?);
            self.end_phase("stream");
        }
        self.work.manifest(files)?;
        Ok(Written { base_bytes, stream })
    }

    async fn stream(&self, path: &StreamPath, file: &Path) -> Result<CutReport, RestoreError> {
        let prepared = &self.plan.prepared;
        let reader = prepared.archive.open(prepared.survey.clone(), path.clone(), &self.work.identities);
        let arrivals = self.arrivals(path).await?;
        let until = self.plan.time.as_millisecond();
        let received = move |offset: Offset| {
            arrivals.iter().find(|(end, _)| offset < *end).map_or(until, |(_, millis)| *millis)
        };
        let begin = (path.span.start, self.state_at_base(), path.span.end);
        self.work.stream(reader, begin, file, received).await
    }

    /// When which bytes arrived; only asked for where a relative expiry may be among them.
    async fn arrivals(&self, path: &StreamPath) -> Result<Vec<(Offset, i64)>, RestoreError> {
        let mut arrivals = Vec::new();
        if !self.plan.prepared.snapshot.has_relative_times() {
            return Ok(arrivals);
        }
        for (object, span) in &path.pieces {
            let head = self.plan.prepared.archive.head(object).await?;
            arrivals.push((span.end, head.by_server(head.last_received).as_millisecond()));
        }
        Ok(arrivals)
    }

    /// The database that is selected where the snapshot was taken: a replica's stream does not say it again.
    fn state_at_base(&self) -> StreamState {
        let aux = &self.plan.prepared.snapshot.facts.aux;
        let database = aux.get("repl-stream-db").and_then(|text| text.parse().ok());
        StreamState { database, in_transaction: false }
    }

    /// Loads the new files in a throwaway server, by links to them. It is a replica, so it writes to none.
    async fn rehearse(&mut self, unit: &Path, written: Written) -> Result<Counted, RestoreError> {
        let workshop = self.workshop()?;
        let (name, append_only) = match self.plan.shape {
            Shape::MultiPart => (APPEND_FOLDER, "yes"),
            Shape::SingleFile => (APPEND_FILE, "yes"),
            Shape::Snapshot => (DUMP, "no"),
        };
        let before = size_of(unit);
        link(unit, &workshop.join(name))?;
        let server = self.start(&workshop, &self.plan.configuration.append_file, append_only).await?;
        let facts = self.ask(server).await?;
        if size_of(unit) != before {
            return Err(RestoreError::server("wrote to what it was to load only", ""));
        }
        self.end_phase("rehearsal");
        Ok((written, Some(facts.databases), facts.functions))
    }

    /// Lets a throwaway server replay the stream, and takes its snapshot.
    async fn replay(&mut self, unit: &Path) -> Result<Counted, RestoreError> {
        let workshop = self.workshop()?;
        let is_old = self.program()?.version.major < 7;
        let (shape, name) =
            if is_old { (Shape::SingleFile, APPEND_FILE) } else { (Shape::MultiPart, APPEND_FOLDER) };
        let files = self.append_files(shape, &workshop.join(name), APPEND_FILE)?;
        let mut written = self.write(&files).await?;
        let mut server = self.start(&workshop, APPEND_FILE, "yes").await?;
        let facts = ask(&mut server).await?;
        self.end_phase("replay");
        let dumped = server.save(DUMP).await?;
        if let Some(owner) = self.work.owner {
            owner.give(&dumped)?;
        }
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&dumped, private).map_err(RestoreError::io("protect", &dumped))?;
        std::fs::rename(&dumped, unit).map_err(RestoreError::io("move", &dumped))?;
        let file = File::open(unit).map_err(RestoreError::io("open", unit))?;
        file.sync_all().map_err(RestoreError::io("sync", unit))?;
        written.base_bytes = file.metadata().map_err(RestoreError::io("look at", unit))?.len();
        self.end_phase("dump");
        Ok((written, Some(facts.databases), facts.functions))
    }

    fn workshop(&self) -> Result<PathBuf, RestoreError> {
        let workshop = self.staging.workshop();
        make_folder(&workshop, None)?;
        Ok(workshop)
    }

    fn program(&self) -> Result<&super::ephemeral::ServerProgram, RestoreError> {
        let program = self.plan.prepared.program.as_ref();
        program.ok_or_else(|| RestoreError::usage("no server program", "name it with --server-program"))
    }

    async fn start(
        &self,
        workshop: &Path,
        append_file: &str,
        append_only: &str,
    ) -> Result<Ephemeral, RestoreError> {
        let program = self.program()?;
        self.work.progress.begin("loading in a throwaway server");
        let settings = [
            ("appendonly", append_only),
            ("appendfilename", append_file),
            ("dbfilename", DUMP),
            // A torn file is an error here, not a warning.
            ("aof-load-truncated", "no"),
        ];
        Ephemeral::start(program, workshop, &settings, &self.work.cancel).await
    }

    async fn ask(&self, mut server: Ephemeral) -> Result<LiveFacts, RestoreError> {
        let facts = ask(&mut server).await;
        server.stop().await;
        facts
    }
}

/// Makes links to a file, or to the files of a folder.
fn link(from: &Path, to: &Path) -> Result<(), RestoreError> {
    if !from.is_dir() {
        return std::fs::hard_link(from, to).map_err(RestoreError::io("link", from));
    }
    make_folder(to, None)?;
    for entry in std::fs::read_dir(from).map_err(RestoreError::io("read", from))?.flatten() {
        let path = entry.path();
        std::fs::hard_link(&path, to.join(entry.file_name())).map_err(RestoreError::io("link", &path))?;
    }
    Ok(())
}

type Counted = (Written, Option<std::collections::BTreeMap<u32, super::live::KeyCount>>, Option<Vec<String>>);

pub(super) async fn ask(server: &mut Ephemeral) -> Result<LiveFacts, RestoreError> {
    let facts = LiveFacts::ask(server.connection()).await;
    facts.map_err(|error| RestoreError::server(format!("does not answer: {error}"), ""))
}
