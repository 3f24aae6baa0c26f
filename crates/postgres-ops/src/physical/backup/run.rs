use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::manifest::{ObjectEntry, SetKind, Source as SetSource};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::set_writer::{FramedObject, SetContents, SetReceipt, SetSpec, SetWriter};
use futures::future::try_join_all;
use jiff::Timestamp;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::copy::Copying;
use super::corruption::Damage;
use super::frames::FrameWriter;
use super::last::LastPack;
use super::ledger::{Ledger, Totals};
use super::pace::Pace;
use super::session::{BackupSession, Stopped};
use super::source::{Source, read_control};
use super::tar::Owner;
use super::wal::{WalWait, keep_history, ranges, read_history, segments, with_the_byte_behind};
use super::{BackupError, BackupOptions};
use crate::client::lost_thread;
use crate::dump::Phase;
use crate::error::Error;
use crate::physical::manifest_file::BACKUP_MANIFEST;
use crate::physical::{ClusterFacts, IndexPack, Tablespace, WalRange};
use crate::server::Server;
use crate::sessions;
use crate::wal_archive::{ClusterRegistry, WalArchive};

/// What a backup of a cluster did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterBackupReport {
    /// Where the set is, with its manifest.
    pub receipt: SetReceipt,
    /// Facts of the set.
    pub facts: ClusterFacts,
    /// What deserves a word.
    pub warnings: Vec<String>,
    /// How long it took.
    pub phases: Vec<Phase>,
    /// Everything together.
    pub elapsed: Duration,
}

/// Backs up the cluster of `server`, whose data directory is on this machine, into a new set. See the module page for
/// the order of events.
///
/// A set with damaged pages is stored too; its facts name them, and it counts as incomplete unless the options say
/// otherwise.
///
/// # Errors
/// Any [`Error`]; no set exists then.
///
/// # Cancel safety
/// Dropping the future ends the session and with it the backup on the server, and leaves at most litter. Cancelling the
/// token does the same and also aborts uploads.
pub async fn backup_cluster(
    server: &Server,
    repositories: &Repositories,
    options: &BackupOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<ClusterBackupReport, Error> {
    let begun = Instant::now();
    let server = &server.with_own_session_name();
    let (source, connection) = tokio::select! {
        inspected = inspect(server, options) => inspected?,
        () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
    };
    // A stanza is of one cluster; the WAL that its server archives elsewhere would never be found.
    let registry = ClusterRegistry::new(repositories.clone(), options.stanza.clone());
    tokio::select! {
        checked = registry.check(source.control.system) => checked.map_err(BackupError::from)?,
        () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
    }
    let inspected = Phase::since("inspect", begun);
    let set =
        SetWriter::begin(repositories, spec(server, options, &source), options.data_path.clone()).await?;
    let system = source.control.system;
    let archive = WalArchive::new(repositories.clone(), options.stanza.clone(), system)
        .recipients(options.recipients.clone());
    let run = Run { set: &set, server, options, source: &source, archive: &archive, progress };
    let filled = tokio::select! {
        filled = Box::pin(run.fill(connection)) => filled.map_err(|error| reason(error, set.given_up())),
        () = cancel.cancelled() => Err(CoreError::Cancelled.into()),
    };
    let filled = match filled {
        Ok(filled) => filled,
        Err(error) => {
            end_session(server).await;
            set.abort().await;
            return Err(error);
        }
    };
    let committing = Instant::now();
    let facts = filled.facts;
    let value = serde_json::to_value(&facts)
        .map_err(|error| CoreError::Internal { what: format!("facts that JSON cannot express: {error}") })?;
    let complete = facts.corrupt_page_count == 0 || options.allow_corrupt;
    let contents = SetContents::new(filled.state_of, filled.objects).facts(value).complete(complete);
    let receipt = set.commit(contents).await?;
    let mut phases = vec![inspected];
    phases.extend(filled.phases);
    phases.push(Phase::since("commit", committing));
    let mut warnings = source.warnings.clone();
    warnings.extend(filled.warnings);
    Ok(ClusterBackupReport { receipt, facts, warnings, phases, elapsed: begun.elapsed() })
}

pub(super) async fn inspect(
    server: &Server,
    options: &BackupOptions,
) -> Result<(Source, PgConnection), Error> {
    let mut connection = server.connect().await?;
    let source = Source::inspect(&mut connection, server, options).await?;
    Ok((source, connection))
}

fn spec(server: &Server, options: &BackupOptions, source: &Source) -> SetSpec {
    let mut from = SetSource::default();
    from.host = server.address();
    from.server_version.clone_from(&source.facts.version);
    from.system_identifier = source.control.system.to_string();
    SetSpec::new(SetKind::new(SetKind::POSTGRES_PHYSICAL), options.stanza.clone(), &options.tool)
        .source(from)
        .recipients(options.recipients.clone())
        .retain_until(options.retain_until)
        .annotations(options.annotations.clone())
}

/// Ends the session of a backup that is given up, should its backend not have noticed yet.
async fn end_session(server: &Server) {
    let ending = async {
        if let Ok(mut connection) = server.connect().await {
            sessions::end(&mut connection, server).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), ending).await.is_err() {
        tracing::debug!("the server does not answer; the session ends by itself");
    }
}

/// Everything that a set is committed with.
struct Filled {
    objects: Vec<ObjectEntry>,
    facts: ClusterFacts,
    state_of: Timestamp,
    warnings: Vec<String>,
    phases: Vec<Phase>,
}

/// What was copied, and how the backup ended on the server.
struct Copied {
    packs: Vec<ObjectEntry>,
    stopped: Stopped,
    ranges: Vec<WalRange>,
    totals: Totals,
    damage: Damage,
    tablespaces: Vec<Tablespace>,
    warnings: Vec<String>,
    connection: PgConnection,
    phases: Vec<Phase>,
}

/// What the steps of one backup share.
struct Run<'a> {
    set: &'a SetWriter,
    server: &'a Server,
    options: &'a BackupOptions,
    source: &'a Source,
    archive: &'a WalArchive,
    progress: &'a Progress,
}

impl Run<'_> {
    async fn fill(&self, connection: PgConnection) -> Result<Filled, Error> {
        let starting = Instant::now();
        self.progress.begin("checkpoint");
        let (major, options) = (self.source.facts.major(), self.options);
        let session =
            BackupSession::start(connection, self.server, major, &options.label, options.fast).await?;
        let mut phases = vec![Phase::since("checkpoint", starting)];
        let (index, index_frames) = FrameWriter::new(self.set.frame_buffers());
        let (manifest, manifest_frames) = FrameWriter::new(self.set.frame_buffers());
        let ledger = Ledger::begin(index, manifest, major, self.source.control.system)
            .map_err(BackupError::sending)?;
        let names = ["index", BACKUP_MANIFEST].map(|name| options.object_name(name));
        let (index, manifest, mut copied) = tokio::try_join!(
            async { Ok::<_, Error>(self.set.object(&names[0], options.codec, index_frames).await?) },
            async { Ok(self.set.object(&names[1], options.codec, manifest_frames).await?) },
            Box::pin(self.copy(session, ledger)),
        )?;
        let waiting = Instant::now();
        self.wait_for_wal(&mut copied).await?;
        phases.append(&mut copied.phases);
        phases.push(Phase::since("wait for WAL", waiting));
        let (facts, state_of) = (self.facts(&copied), copied.stopped.state_of);
        let mut objects = copied.packs;
        objects.extend([manifest, index]);
        Ok(Filled { objects, facts, state_of, warnings: copied.warnings, phases })
    }

    async fn wait_for_wal(&self, copied: &mut Copied) -> Result<(), Error> {
        self.progress.begin("wait for WAL");
        let needed = segments(&self.needed_wal(copied), self.source.control.wal_segment_size);
        let wait = WalWait {
            archive: self.archive,
            connection: &mut copied.connection,
            server: self.server,
            standby: self.source.facts.in_recovery,
            patience: self.options.wal_timeout,
        };
        wait.wait(&needed).await?;
        let timeline = copied.stopped.timeline;
        let lacking = keep_history(self.archive, &self.source.data_directory, timeline).await;
        copied.warnings.extend(lacking);
        Ok(())
    }

    fn needed_wal(&self, copied: &Copied) -> Vec<WalRange> {
        with_the_byte_behind(&copied.ranges, self.source.control.wal_segment_size)
    }

    fn facts(&self, copied: &Copied) -> ClusterFacts {
        let (control, stopped) = (&self.source.control, &copied.stopped);
        ClusterFacts {
            server_version_num: self.source.facts.version_num,
            control_version: control.control_version,
            catalog_version: control.catalog_version,
            system: control.system,
            timeline: stopped.timeline,
            start_lsn: stopped.start,
            stop_lsn: stopped.stop,
            start_time: stopped.started,
            stop_time: stopped.time,
            wal: self.needed_wal(copied),
            segment_size: control.wal_segment_size.bytes(),
            block_size: control.block_size,
            page_checksums: control.checksum_version != 0,
            from_standby: self.source.facts.in_recovery,
            tablespaces: copied.tablespaces.clone(),
            backup_label: stopped.label.text.clone(),
            files: copied.totals.files,
            bytes: copied.totals.bytes,
            corrupt_page_count: copied.damage.count,
            corrupt_pages: copied.damage.pages.clone(),
            unknown: serde_json::Map::new(),
        }
    }

    /// Copies everything, and ends the backup on the server.
    async fn copy(&self, mut session: BackupSession, ledger: Ledger) -> Result<Copied, Error> {
        let copying_since = Instant::now();
        self.progress.begin("list files");
        let scan = self.source.scan().await?;
        let tablespaces = self.source.tablespaces(&scan);
        let warnings = self.source.remarks(&scan, self.options);
        self.progress.begin("copy");
        self.progress.expect_bytes(scan.bytes);
        self.progress.expect_items(scan.len() as u64);
        let mut copying = Copying::new(scan, self.source.control.clone(), ledger, self.progress.clone());
        copying.pace = Pace::new(self.options.rate);
        copying.check_pages = self.options.check_pages;
        let copying = Arc::new(copying);
        let mut packs = tokio::select! {
            packs = self.copy_files(&copying) => packs?,
            lost = session.watch() => return Err(lost),
        };
        let mut phases = vec![Phase::since("copy", copying_since)];
        let stopping = Instant::now();
        self.progress.begin("stop");
        let copying = Arc::into_inner(copying)
            .ok_or_else(|| CoreError::Internal { what: "a reader is left".to_owned() })?;
        // After everything else: what it says was reached must be in the files.
        let directory = self.source.data_directory.clone();
        let control = blocking(move || read_control(&directory)).await?.0;
        let (stopped, connection) = session.stop().await?;
        let damage = {
            let corruption = copying.corruption.into_inner().unwrap_or_default();
            corruption.judge(stopped.start, stopped.stop)
        };
        let ranges = self.wal_ranges(&stopped).await?;
        let ledger = copying
            .ledger
            .into_inner()
            .map_err(|_| CoreError::Internal { what: "a reader panicked".to_owned() })?;
        let number = u32::try_from(packs.len()).unwrap_or(u32::MAX).saturating_add(1);
        let last = LastPack {
            number,
            label: stopped.label.text.clone(),
            control,
            modified: stopped.time,
            owner: self.owner(),
        };
        let (entry, totals) = self.finish(last, ledger, &ranges).await?;
        packs.push(entry);
        phases.push(Phase::since("stop", stopping));
        Ok(Copied { packs, stopped, ranges, totals, damage, tablespaces, warnings, connection, phases })
    }

    async fn copy_files(&self, copying: &Arc<Copying>) -> Result<Vec<ObjectEntry>, Error> {
        let numbers = AtomicU32::new(0);
        let readers = (0..self.options.jobs.max(1)).map(|_| async {
            let mut packs = Vec::new();
            while let Some(first) = copying.claim() {
                let number = numbers.fetch_add(1, Ordering::Relaxed) + 1;
                packs.push((number, self.pack(copying, number, first).await?));
            }
            Ok::<_, Error>(packs)
        });
        let mut packs = try_join_all(readers).await?.concat();
        packs.sort_by_key(|(number, _)| *number);
        Ok(packs.into_iter().map(|(_, entry)| entry).collect())
    }

    async fn pack(&self, copying: &Arc<Copying>, number: u32, first: usize) -> Result<ObjectEntry, Error> {
        let name = self.options.object_name(&format!("pack-{number:05}.tar"));
        let (writer, frames) = FrameWriter::new(self.set.frame_buffers());
        let reader = Arc::clone(copying);
        let filling = blocking(move || reader.fill(number, first, writer));
        let (stored, filled) =
            tokio::join!(self.set.framed_object(&name, self.options.codec, frames), filling);
        let (stored, filled) = both(stored, filled)?;
        copying.note_stored(filled.plain, stored.entry.stored);
        let line = self.index_pack(number, &stored);
        let noting = Arc::clone(copying);
        blocking(move || noting.ledger().pack(line).map_err(BackupError::sending)).await?;
        Ok(stored.entry)
    }

    /// Writes the last pack and ends the index and the manifest.
    async fn finish(
        &self,
        last: LastPack,
        mut ledger: Ledger,
        ranges: &[WalRange],
    ) -> Result<(ObjectEntry, Totals), Error> {
        let name = self.options.object_name("last.tar");
        let (writer, frames) = FrameWriter::new(self.set.frame_buffers());
        let number = last.number;
        let writing = blocking(move || {
            last.write(&mut ledger, writer).map_err(BackupError::sending)?;
            Ok(ledger)
        });
        let (stored, written) =
            tokio::join!(self.set.framed_object(&name, self.options.codec, frames), writing);
        let (stored, mut ledger) = both(stored, written)?;
        let line = self.index_pack(number, &stored);
        let ranges = ranges.to_vec();
        let totals = blocking(move || {
            ledger.pack(line).and_then(|()| ledger.finish(&ranges)).map_err(BackupError::sending)
        });
        Ok((stored.entry, totals.await?))
    }

    fn index_pack(&self, number: u32, stored: &FramedObject) -> IndexPack {
        IndexPack {
            number,
            object: stored.entry.name.clone(),
            frame: self.options.data_path.frame as u64,
            plain: stored.entry.plain,
            stored: stored.frames.clone(),
        }
    }

    async fn wal_ranges(&self, stopped: &Stopped) -> Result<Vec<WalRange>, Error> {
        let begun = stopped.label.timeline;
        let timeline = stopped.timeline;
        let history = if timeline == begun {
            None
        } else {
            let directory = self.source.data_directory.clone();
            Some(blocking(move || read_history(&directory, timeline)).await?)
        };
        Ok(ranges(stopped, history.as_ref()))
    }

    fn owner(&self) -> Owner {
        std::fs::metadata(&self.source.data_directory)
            .map_or(Owner { user: 0, group: 0 }, |meta| Owner::of(&meta))
    }
}

/// Runs something that blocks on a thread for such things.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| lost_thread("the data directory", &error))??)
}

/// Why a backup failed: of a store that takes no more, whoever reads files for it may hear first that nobody wants them.
fn reason(error: Error, given_up: Option<CoreError>) -> Error {
    match (error, given_up) {
        (Error::ClusterBackup(BackupError::Unwanted), Some(failure)) => failure.into(),
        (error, _) => error,
    }
}

/// Both ends of an object; of two failures the one that is the reason.
fn both<A, B>(stored: Result<A, CoreError>, read: Result<B, Error>) -> Result<(A, B), Error> {
    match (stored, read) {
        (Ok(stored), Ok(read)) => Ok((stored, read)),
        (Err(error), Err(Error::ClusterBackup(BackupError::Unwanted)) | Ok(_)) => Err(error.into()),
        (_, Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_takes_no_more_is_told_and_not_that_its_readers_stopped() {
        let failure = || CoreError::NotARepository { location: "elsewhere".to_owned() };
        let unwanted = || Error::ClusterBackup(BackupError::Unwanted);
        let told = |error, given_up| reason(error, given_up).to_string();
        assert_eq!(told(unwanted(), Some(failure())), failure().to_string());
        assert_eq!(told(unwanted(), None), unwanted().to_string());
        let own = || Error::from(CoreError::Internal { what: "own".to_owned() });
        assert_eq!(told(own(), Some(failure())), own().to_string());
    }
}
