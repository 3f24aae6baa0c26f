use std::sync::Arc;
use std::time::Instant;

use backstay_backup_core::Error as CoreError;
use backstay_backup_core::clock::{Clock, SystemClock};
use backstay_backup_core::encryption::Identities;
use backstay_backup_core::manifest::{Manifest, SetKind};
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use sqlx::{Connection, Executor};
use tokio_util::sync::CancellationToken;

use super::RestoreOptions;
use super::durable::make_durable;
use super::job::{Job, Prepared, read_error};
use super::preflight::preflight;
use super::receipt::{RestorePlan, RestoreReceipt};
use super::source::ArchiveSource;
use super::target::{self, TargetState};
use crate::archive::TocEntry;
use crate::client::lost_thread;
use crate::compare::Comparison;
use crate::dump::Phase;
use crate::error::Error;
use crate::evidence::creates_public;
use crate::facts::LogicalFacts;
use crate::inspect::query_error;
use crate::roles;
use crate::server::Server;
use crate::sessions;

/// Looks at set and target and says what a restore would do. Reads only.
///
/// # Errors
/// Everything that would stop the restore before it touches the target.
pub async fn plan_restore(
    server: &Server,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> Result<RestorePlan, Error> {
    let facts = logical_facts(manifest)?;
    let server = &server.with_own_session_name();
    let prepared = Prepared::new(server, manifest, &facts, options).await?;
    let tables = facts.tables.iter();
    Ok(RestorePlan {
        set: manifest.set.clone(),
        recovery_point: manifest.recovery_point,
        server: server.address(),
        tables: tables.clone().count() as u64,
        rows: tables.map(|table| table.rows).sum(),
        stored_bytes: manifest.stored_size(),
        client: prepared.tool.path.display().to_string(),
        target: prepared.target,
    })
}

/// Restores a set into a database and compares every fact. See the module page for the order of events.
///
/// # Errors
/// Any [`Error`]. The target is as it was, unless it was an empty database filled in place.
///
/// # Cancel safety
/// Dropping the future stops the client programs; a database made beside the target remains, named
/// `…_restoring_…`. Cancelling the token also drops that database.
pub async fn restore_database(
    server: &Server,
    repositories: &Repositories,
    manifest: &Manifest,
    identities: &Identities,
    options: &RestoreOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RestoreReceipt, Error> {
    let facts = logical_facts(manifest)?;
    let server = &server.with_own_session_name();
    let manifest = Arc::new(manifest.clone());
    let mut clock = Stopwatch::start();
    let prepared = Prepared::new(server, &manifest, &facts, options).await?;
    let mut job =
        Job::open(server, repositories, &manifest, identities, options, &facts, prepared, progress).await?;
    clock.lap("prepare");
    if options.verify_first {
        progress.begin("verify");
        tokio::select! {
            checked = preflight(repositories, &manifest, progress) => checked?,
            () = cancel.cancelled() => return Err(CoreError::Cancelled.into()),
        }
        clock.lap("verify");
    }
    let outcome = tokio::select! {
        outcome = job.run(&mut clock) => outcome,
        () = cancel.cancelled() => Err(CoreError::Cancelled.into()),
    };
    match outcome {
        Ok(comparison) => job.receipt(comparison, &clock),
        Err(error) => {
            job.clean_up(&error).await;
            Err(error)
        }
    }
}

fn logical_facts(manifest: &Manifest) -> Result<LogicalFacts, Error> {
    let unsuitable =
        |problem: String| Error::Unsuitable { set: manifest.set.to_string(), problem, remedy: None };
    if manifest.kind.0 != SetKind::POSTGRES_LOGICAL {
        return Err(unsuitable(format!("holds {}, not a logical PostgreSQL backup", manifest.kind)));
    }
    serde_json::from_value(manifest.facts.clone())
        .map_err(|error| unsuitable(format!("has facts that cannot be read: {error}")))
}

impl Job<'_> {
    async fn run(&mut self, clock: &mut Stopwatch) -> Result<Comparison, Error> {
        self.create_roles().await?;
        self.create_target().await?;
        clock.lap("create");
        self.progress.begin("definitions");
        self.have_public().await?;
        self.pre_data().await?;
        clock.lap("definitions");
        let built = self.load().await?;
        clock.lap("data");
        self.progress.begin("indexes");
        self.post_data(&built).await?;
        clock.lap("indexes");
        let mut comparison = self.compare().await?;
        self.grant(&mut comparison).await?;
        clock.lap("compare");
        if !comparison.is_equal() {
            return Err(Error::NotEqual { comparison: Box::new(comparison) });
        }
        make_durable(&mut self.admin, &self.server).await?;
        self.finish().await?;
        clock.lap("swap");
        Ok(comparison)
    }

    async fn create_roles(&mut self) -> Result<(), Error> {
        if !self.options.create_roles || !self.prepared.superuser || self.options.no_owner {
            return Ok(());
        }
        let Some(entry) =
            self.manifest.objects.iter().find(|entry| entry.name.starts_with("globals.sql")).cloned()
        else {
            return Ok(());
        };
        let (repositories, manifest) = (self.repositories.clone(), Arc::clone(&self.manifest));
        let identities = Arc::clone(&self.identities);
        let reading = tokio::task::spawn_blocking(move || {
            ArchiveSource::text(&repositories, &manifest, &identities, &entry)
        });
        let script = reading.await.map_err(|error| lost_thread("the roles", &error))?.map_err(read_error)?;
        self.roles = roles::create_missing_roles(&mut self.admin, &self.server, &script).await?;
        Ok(())
    }

    async fn create_target(&mut self) -> Result<(), Error> {
        let plan = &self.prepared.target;
        if plan.filled_as == plan.database && plan.state != TargetState::Absent {
            return Ok(());
        }
        target::create(&mut self.admin, &self.server, &plan.filled_as, &self.facts.database).await?;
        self.made = true;
        if self.options.is_whole() {
            // Before the data: settings such as lc_monetary decide how its texts are read.
            let (filled_as, owner) = (self.prepared.target.filled_as.clone(), !self.options.no_owner);
            let refused = target::adopt(&mut self.admin, &filled_as, &self.facts.database, owner).await;
            self.adopted = refused.is_empty();
            self.warnings.extend(refused);
        }
        Ok(())
    }

    /// Sees to the schema `public`, which a dump of that schema would make though every new database has it.
    async fn have_public(&self) -> Result<(), Error> {
        let makes = |entry: &TocEntry| self.is_chosen(entry.dump_id) && creates_public(entry);
        if !self.archives.first().is_some_and(|main| main.toc.entries().iter().any(makes)) {
            return Ok(());
        }
        let mut connection = self.server.connect().await?;
        let made = connection.execute("create schema if not exists public").await;
        made.map_err(query_error(&self.server, "create the schema public"))?;
        let _ = connection.close().await;
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Error> {
        let plan = self.prepared.target.clone();
        target::swap_in(&mut self.admin, &self.server, &plan, self.options.disconnect).await?;
        if let (true, Some(old)) = (self.options.drop_old, &plan.kept_as) {
            self.warnings.extend(target::drop_made(&mut self.admin, old).await);
        }
        Ok(())
    }

    /// Ends what still runs on the server and drops what this restore made, unless it is worth a look or complete.
    async fn clean_up(&mut self, error: &Error) {
        let filled = self.prepared.target.filled_as.clone();
        sessions::end(&mut self.admin, &self.server).await;
        if !self.made {
            return;
        }
        if matches!(error, Error::NotEqual { .. } | Error::Target { .. }) {
            tracing::warn!(database = filled, "the restored database is kept for a look");
            return;
        }
        if let Some(reason) = target::drop_made(&mut self.admin, &filled).await {
            tracing::warn!(database = filled, reason, "could not drop the unfinished database");
        }
    }

    fn receipt(self, comparison: Comparison, clock: &Stopwatch) -> Result<RestoreReceipt, Error> {
        let plan = self.prepared.target;
        Ok(RestoreReceipt {
            set: self.manifest.set.clone(),
            recovery_point: self.manifest.recovery_point,
            server: self.server.address(),
            database: plan.database,
            kept_as: plan.kept_as.filter(|_| !self.options.drop_old),
            comparison,
            roles: self.roles,
            warnings: self.warnings,
            phases: clock.phases.clone(),
            rto_seconds: clock.begin.elapsed().as_secs_f64(),
            plain_bytes: self.manifest.plain_size(),
            finished: SystemClock.now(),
        })
    }
}

/// Wall-clock times of the phases.
struct Stopwatch {
    begin: Instant,
    lap: Instant,
    phases: Vec<Phase>,
}

impl Stopwatch {
    fn start() -> Self {
        let now = Instant::now();
        Self { begin: now, lap: now, phases: Vec::new() }
    }

    fn lap(&mut self, name: &str) {
        self.phases.push(Phase::since(name, self.lap));
        self.lap = Instant::now();
    }
}
