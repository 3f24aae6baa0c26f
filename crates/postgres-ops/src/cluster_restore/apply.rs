//! Makes the target what the plan says, durably, so that no step of it leaves something that starts and is wrong.
//!
//! ```text
//! marker ─▶ (old pg_control away, leftovers away, compare) ─▶ directories, links ─▶ packs, several at once
//!        ─▶ recovery settings and signal file ─▶ sync ─▶ pg_control ─▶ marker away
//! ```
//!
//! Without `global/pg_control` no server starts. It is put in place by a rename when everything else is on the disk,
//! the recovery settings included. The marker says meanwhile which set this is, so that the same command completes what
//! was interrupted, keeping what is right.

use std::cmp::Reverse;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::ObjectEntry;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::ClusterRestoreError;
use super::compare::compare;
use super::configuration;
use super::durable;
use super::fetch_blocks;
use super::leftovers::{Leftovers, remove_one};
use super::marker::{self, Marker};
use super::needs::ServerNeeds;
use super::plan::FilesPlan;
use super::roots::{Roots, make_root};
use super::set_index::{CONTROL, Pack, find_object, read_error};
use super::settings::RecoverySettings;
use super::stream_pack::Writer;
use super::target::{RestoreMode, directories, version_directory};
use super::work::{PackWork, everything};
use crate::dump::Phase;
use crate::physical::{BlockDigest, ControlFile, IndexFile};

/// Largest file that is read into memory: pg_control, configuration files.
const SMALL: u64 = 16 << 20;

/// What was done in the target.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct FilesReceipt {
    /// Bytes of blocks that were missing or wrong. Of a wrong one only the pages that differ are written.
    pub written_bytes: u64,
    /// Bytes of files that were right already.
    pub reused_bytes: u64,
    /// Files and directories that were removed.
    pub removed: u64,
    /// What differs from the source's settings and is good to know.
    pub notes: Vec<String>,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

/// A restore at work.
struct Job<'a> {
    plan: &'a FilesPlan,
    repositories: &'a Repositories,
    identities: &'a Identities,
    writer: Writer,
    phases: Vec<Phase>,
    begun: Instant,
}

impl FilesPlan {
    /// Restores the files and prepares the recovery. The target is looked at again first.
    ///
    /// # Errors
    /// Any [`ClusterRestoreError`]. The target cannot be started then, and the same command completes it.
    ///
    /// # Cancel safety
    /// As after an error. A dropped call may go on writing for the length of one block.
    pub async fn apply(
        &self,
        repositories: &Repositories,
        identities: &Identities,
        recovery: &RecoverySettings,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<FilesReceipt, ClusterRestoreError> {
        let nothing = async { Ok(Vec::new()) };
        self.apply_beside(repositories, identities, recovery, nothing, progress, cancel).await
    }

    /// The same, with something that is found out meanwhile and must be good before the cluster can be started.
    pub(super) async fn apply_beside(
        &self,
        repositories: &Repositories,
        identities: &Identities,
        recovery: &RecoverySettings,
        beside: impl Future<Output = Result<Vec<String>, ClusterRestoreError>>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<FilesReceipt, ClusterRestoreError> {
        let prepared = &self.prepared;
        let set = &self.set;
        let now = super::target::examine(&prepared.options, set, &prepared.facts, &self.tablespaces)?;
        if now != self.mode {
            return Err(super::target::refusal(
                &self.target,
                "was changed by somebody since it was looked at".to_owned(),
                "run the same command again",
            ));
        }
        let roots = Arc::new(self.make_roots()?);
        let stop = cancel.child_token();
        let _stopping = stop.clone().drop_guard();
        let writer = Writer { set: set.clone(), roots, progress: progress.clone(), cancel: stop };
        let mut job =
            Job { plan: self, repositories, identities, writer, phases: Vec::new(), begun: Instant::now() };
        job.run(recovery, beside).await
    }

    fn make_roots(&self) -> Result<Roots, ClusterRestoreError> {
        let owner = self.prepared.owner;
        make_root(&self.target, owner)?;
        let directories = directories(&self.tablespaces);
        directories.values().try_for_each(|directory| make_root(directory, owner))?;
        Roots::open(&self.target, &directories, owner)
    }
}

impl Job<'_> {
    async fn run(
        &mut self,
        recovery: &RecoverySettings,
        beside: impl Future<Output = Result<Vec<String>, ClusterRestoreError>>,
    ) -> Result<FilesReceipt, ClusterRestoreError> {
        let (work, removed) = match self.plan.mode {
            RestoreMode::Fresh => {
                self.write_marker()?;
                (everything(&self.plan.prepared.index), 0)
            }
            RestoreMode::Continue | RestoreMode::Delta => self.reuse().await?,
        };
        self.lay_out()?;
        let written = work.iter().map(PackWork::bytes).sum();
        self.writer.progress.begin("restoring files");
        self.writer.progress.expect_bytes(written);
        let ((), mut notes) = futures::try_join!(self.fetch_all(work), beside)?;
        let control = self.read_control().await?;
        notes.extend(self.configure(recovery, &control).await?);
        self.end_phase("files");
        self.writer.progress.begin("making it durable");
        let roots = self.writer.roots.clone();
        blocking(move || durable::sync_roots(&roots)).await?;
        self.install(&control)?;
        self.end_phase("sync");
        let reused_bytes = self.plan.bytes.saturating_sub(written);
        let phases = std::mem::take(&mut self.phases);
        Ok(FilesReceipt { written_bytes: written, reused_bytes, removed, notes, phases })
    }

    fn end_phase(&mut self, name: &str) {
        self.phases.push(Phase { name: name.to_owned(), seconds: self.begun.elapsed().as_secs_f64() });
        self.begun = Instant::now();
    }

    fn write_marker(&self) -> Result<(), ClusterRestoreError> {
        let marker = Marker { set: self.plan.set.clone(), tablespaces: directories(&self.plan.tablespaces) };
        let data = &self.plan.target;
        let write = || -> std::io::Result<()> {
            let temporary = data.join(marker::TEMPORARY);
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&marker.content())?;
            file.sync_all()?;
            std::fs::rename(&temporary, data.join(marker::NAME))?;
            std::fs::File::open(data)?.sync_all()
        };
        write().map_err(ClusterRestoreError::io("mark", data))
    }

    /// Makes an old data directory unable to start, removes what is not in the set, and finds out what is missing.
    async fn reuse(&mut self) -> Result<(Vec<PackWork>, u64), ClusterRestoreError> {
        self.write_marker()?;
        let roots = self.writer.roots.clone();
        remove_one(roots.data(), Path::new(CONTROL), rustix::fs::AtFlags::empty())?;
        let version = version_directory(&self.plan.prepared.facts);
        let index = self.plan.prepared.index.clone();
        let (writer, threads) = (self.writer.clone(), self.plan.prepared.options.parallel);
        self.writer.progress.begin("comparing files");
        self.writer.progress.expect_bytes(self.plan.bytes);
        let (work, leftovers) = blocking(move || {
            durable::sync_folders(roots.data(), ["", "global"])?;
            let leftovers = Leftovers::find(&roots, &index, &version)?;
            leftovers.remove(&roots)?;
            Ok((compare(&writer, &index, threads)?, leftovers))
        })
        .await?;
        self.end_phase("compare");
        Ok((work, leftovers.count()))
    }

    /// Directories, links to tablespaces, and the permissions of the roots.
    fn lay_out(&self) -> Result<(), ClusterRestoreError> {
        let prepared = &self.plan.prepared;
        let roots = &self.writer.roots;
        let mode = if prepared.index.is_group_readable() { 0o750 } else { 0o700 };
        for root in roots.all() {
            let changed = std::fs::set_permissions(&root.path, std::fs::Permissions::from_mode(mode));
            changed.map_err(ClusterRestoreError::io("set the permissions of", &root.path))?;
        }
        let mut directories: Vec<_> = prepared.index.directories.iter().collect();
        directories.sort_by(|a, b| a.path.cmp(&b.path));
        directories.iter().try_for_each(|it| roots.make_directory(&it.path, it.mode))?;
        // Servers do not start without these, whatever a set says.
        for needed in ["pg_wal", "pg_tblspc"] {
            let path = crate::physical::ClusterPath::parse(needed).expect("it is a path");
            roots.make_directory(&path, mode)?;
        }
        for folder in prepared.index.folders_of_files() {
            roots.make_directory(&folder, 0o700)?;
        }
        self.plan.tablespaces.iter().try_for_each(|it| roots.link_tablespace(it.oid, &it.directory))
    }

    /// Fetches packs, several at a time. After a failure no further block is written.
    async fn fetch_all(&self, work: Vec<PackWork>) -> Result<(), ClusterRestoreError> {
        let mut work: Vec<_> = work.into_iter().filter(|work| !work.files.is_empty()).collect();
        // The longest first, or one of them is alone at the end.
        work.sort_by_cached_key(|work| Reverse(work.bytes()));
        let fetching = work.into_iter().map(|work| self.fetch_pack(work));
        let mut running = stream::iter(fetching).buffer_unordered(self.plan.prepared.options.parallel);
        let mut failure = None;
        while let Some(outcome) = running.next().await {
            if let Err(error) = outcome {
                self.writer.cancel.cancel();
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// A copy that turns out to be damaged half-way is not asked again; the next one begins anew.
    async fn fetch_pack(&self, work: PackWork) -> Result<(), ClusterRestoreError> {
        let mut work = Arc::new(work);
        let mut copies = self.repositories.members().len();
        loop {
            self.writer.check_cancelled()?;
            copies -= 1;
            match self.try_pack(work.clone()).await {
                Err(ClusterRestoreError::Repository(CoreError::Damaged { .. })) if copies > 0 => {
                    work = Arc::new(work.once_more());
                }
                other => return other,
            }
        }
    }

    async fn try_pack(&self, work: Arc<PackWork>) -> Result<(), ClusterRestoreError> {
        let prepared = &self.plan.prepared;
        let pack = &prepared.index.packs[work.pack];
        let (manifest, writer) = (&prepared.manifest, self.writer.clone());
        if fetch_blocks::is_worth_it(pack, &work) {
            let reader = self.repositories.open_frames(manifest, &pack.entry, self.identities)?;
            return fetch_blocks::fetch(&writer, &reader, pack, work).await;
        }
        let reader = self.repositories.open_object(manifest, &pack.entry, self.identities)?;
        let object = pack.pack.object.clone();
        blocking(move || writer.stream(&object, reader, &work.files)).await
    }

    /// The control file of the set, which goes to its place last of all.
    async fn read_control(&self) -> Result<(IndexFile, Vec<u8>), ClusterRestoreError> {
        let index = &self.plan.prepared.index;
        let is_it = |file: &&IndexFile| super::work::is_control(file);
        let found = index.packs.iter().find_map(|pack| Some((pack, pack.files.iter().find(is_it)?)));
        let (pack, file) = found.expect("an index without a control file is refused");
        let content = self.read_file(pack, file).await?;
        let parsed = ControlFile::parse(&content)
            .map_err(|problem| self.content_error(&pack.pack.object, format!("{CONTROL}: {problem}")))?;
        if parsed.system != self.plan.prepared.facts.system {
            let problem = format!("{CONTROL} is of the cluster {}", parsed.system);
            return Err(self.content_error(&pack.pack.object, problem));
        }
        Ok((file.clone(), content))
    }

    fn content_error(&self, object: &str, problem: String) -> ClusterRestoreError {
        ClusterRestoreError::Content { set: self.plan.set.clone(), object: object.to_owned(), problem }
    }

    /// A small file out of a pack, proven.
    async fn read_file(&self, pack: &Pack, file: &IndexFile) -> Result<Vec<u8>, ClusterRestoreError> {
        if file.size > SMALL {
            return Err(self.content_error(&pack.pack.object, format!("{} is too large", file.path)));
        }
        let manifest = &self.plan.prepared.manifest;
        let reader = self.repositories.open_object(manifest, &pack.entry, self.identities)?;
        let (set, file, object) = (self.plan.set.clone(), file.clone(), pack.pack.object.clone());
        blocking(move || {
            let mut content = Vec::new();
            let mut reader = reader;
            let failed = |error| read_error(&set, error);
            std::io::copy(&mut reader.by_ref().take(file.at), &mut std::io::sink()).map_err(failed)?;
            reader.by_ref().take(file.size).read_to_end(&mut content).map_err(failed)?;
            std::io::copy(&mut reader, &mut std::io::sink()).map_err(failed)?;
            let digests = content.chunks(1 << 20).map(BlockDigest::of);
            if digests.ne(file.blocks.iter().copied()) {
                let problem = format!("{} has other content", file.path);
                return Err(ClusterRestoreError::Content { set: set.clone(), object, problem });
            }
            Ok(content)
        })
        .await
    }

    /// PostgreSQL's own manifest, settings, and the file that makes the server recover.
    async fn configure(
        &self,
        recovery: &RecoverySettings,
        control: &(IndexFile, Vec<u8>),
    ) -> Result<Vec<String>, ClusterRestoreError> {
        let manifest = self.plan.prepared.manifest.clone();
        let own = match find_object(&manifest, "backup_manifest") {
            None => None,
            Some(entry) => Some(self.read_object(entry).await?),
        };
        let (plan, roots) = (self.plan, &self.writer.roots);
        let change = configuration::Change {
            roots,
            data: &plan.target,
            major: plan.prepared.facts.server_version_num / 10_000,
            needs: &ServerNeeds::of(&control.1),
        };
        change.make(recovery, own.as_deref())
    }

    async fn read_object(&self, entry: &ObjectEntry) -> Result<Vec<u8>, ClusterRestoreError> {
        let manifest = &self.plan.prepared.manifest;
        let mut reader = self.repositories.open_object(manifest, entry, self.identities)?;
        let set = self.plan.set.clone();
        blocking(move || {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).map_err(|error| read_error(&set, error))?;
            Ok(content)
        })
        .await
    }

    /// From here on the cluster can be started.
    fn install(&self, control: &(IndexFile, Vec<u8>)) -> Result<(), ClusterRestoreError> {
        let (file, content) = control;
        let data = self.writer.roots.data();
        let temporary = Path::new("global/pg_control.restored");
        remove_one(data, temporary, rustix::fs::AtFlags::empty())?;
        let place = crate::physical::ClusterPath::parse("global/pg_control.restored").expect("it is a path");
        let mut target = self.writer.roots.create_file(&place, file.mode)?;
        let mut finish = || -> std::io::Result<()> {
            target.write_all(content)?;
            target.sync_all()?;
            let (folder, name) = data.folder_of(temporary)?;
            rustix::fs::renameat(&folder, name, &folder, "pg_control")?;
            rustix::fs::fsync(&folder)?;
            rustix::fs::unlinkat(data.fd(), marker::NAME, rustix::fs::AtFlags::empty())?;
            Ok(rustix::fs::fsync(data.fd())?)
        };
        finish().map_err(ClusterRestoreError::io("finish", &data.path))
    }
}

async fn blocking<T, F>(work: F) -> Result<T, ClusterRestoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ClusterRestoreError> + Send + 'static,
{
    spawn_blocking(work).await.map_err(|error| CoreError::Internal { what: error.to_string() })?
}
