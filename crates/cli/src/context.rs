//! What the action of a program works with.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backstay_backup_core::clock::{Clock, SystemClock};
use backstay_backup_core::config::Config;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::lease::{LeaseGroup, LeaseOptions};
use backstay_backup_core::manifest::Codec;
use backstay_backup_core::process::SystemRunner;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::replicas::Repositories;
use backstay_backup_core::secret::{Secret, SecretRef, SecretSource};
use backstay_backup_core::secret_sources::Chain;
use backstay_backup_core::set_writer::DataPath;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::CommonArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::open::{self, BareStore, Opened};
use crate::{output, secrets};

/// How long a lease outlives a program that was killed.
pub const LEASE_TIME: Duration = Duration::from_secs(20);
/// Time to give a lease back.
const RELEASE_TIME: Duration = Duration::from_secs(10);

/// Configuration, secrets, repositories, cancellation, progress and output of one run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Context {
    /// The configuration after all layers.
    pub config: Config,
    /// Ends when the program is told to stop.
    pub cancel: CancellationToken,
    /// Counters of the progress bar.
    pub progress: Progress,
    /// The time.
    pub clock: Arc<dyn Clock>,
    environment: BTreeMap<String, String>,
    secrets: Chain,
    json: bool,
    common: CommonArgs,
}

impl Context {
    pub(crate) fn new(config: Config, environment: BTreeMap<String, String>, common: &CommonArgs) -> Self {
        let secrets = secrets::chain(&environment);
        let clock = Arc::new(SystemClock);
        let (cancel, progress) = (CancellationToken::new(), Progress::new());
        let (json, common) = (common.json, common.clone());
        Self { config, cancel, progress, clock, environment, secrets, json, common }
    }

    pub(crate) fn common(&self) -> &CommonArgs {
        &self.common
    }

    /// The protected system.
    #[must_use]
    pub fn stanza(&self) -> &Stanza {
        &self.config.stanza
    }

    /// The variables of the environment, for libraries that take some of them.
    #[must_use]
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Starts programs with the harmless part of the environment.
    #[must_use]
    pub fn runner(&self) -> SystemRunner {
        SystemRunner::new(&self.environment)
    }

    /// Opens the repositories that exist. Those that cannot be opened are left out with a warning.
    ///
    /// # Errors
    /// The first failure when none can be opened; a usage error when none is configured.
    pub async fn open_repositories(&self) -> Result<Opened, Failure> {
        open::existing(self).await
    }

    /// Opens the repositories that exist, as [`Context::open_repositories`] does, and reads from them meanwhile, which
    /// saves a round trip to a distant store. `work` may be called twice, and must only read: what it finds the first time
    /// counts if everything that is configured is a repository.
    ///
    /// # Errors
    /// As [`Context::open_repositories`].
    pub async fn open_meanwhile<T>(
        &self,
        work: impl AsyncFn(Repositories) -> T,
    ) -> Result<(Opened, T), Failure> {
        open::meanwhile(self, work).await
    }

    /// Opens the repositories that exist, as many as the quorum needs, for whoever must not make a repository by mistake.
    ///
    /// # Errors
    /// The first failure when the quorum is missed; a usage error when none is configured.
    pub async fn open_quorum(&self) -> Result<Opened, Failure> {
        open::quorum(self).await
    }

    /// Opens the repositories for a backup, which makes an empty place a repository. Before it does, `check` has a look
    /// at the rest, so that a mistake elsewhere leaves nothing behind. Those that cannot be opened are left out with a
    /// warning as long as the quorum holds.
    ///
    /// # Errors
    /// The failure of `check`; the first failure when the quorum is missed; a usage error when none is configured.
    pub async fn open_or_create(
        &self,
        check: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Opened, Failure> {
        open::or_create(self, check).await
    }

    /// The configured stores as they are, with their names. A missing directory is made.
    ///
    /// # Errors
    /// A usage error when none is configured.
    pub async fn bare_stores(&self) -> Result<Vec<(String, Result<BareStore, Failure>)>, Failure> {
        let mut stores = Vec::new();
        for config in open::configured(self)? {
            stores.push((config.name.clone(), open::bare(self, config, true).await));
        }
        Ok(stores)
    }

    /// Does something that must not be done twice at the same time: under a lease of that name in every repository,
    /// renewed until it is done. A holder that may have died is outwaited, which takes little more than [`LEASE_TIME`].
    ///
    /// # Errors
    /// Whatever the work fails with; a failure of class conflict when somebody else holds the lease, or takes it.
    ///
    /// # Cancel safety
    /// A dropped call leaves the lease taken for [`LEASE_TIME`] at most.
    pub async fn under_lease<T>(
        &self,
        repositories: &Repositories,
        name: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let options = lease_options(name);
        let lease =
            LeaseGroup::acquire_or_outwait(repositories, self.stanza(), name, &options, &self.cancel).await?;
        beside(lease, work).await
    }

    /// As [`Context::under_lease`], for work that makes room and may be done twice without harm: where no store has
    /// room for the lease it is done without, as soon as it is certain that nobody else holds it.
    ///
    /// # Errors
    /// As [`Context::under_lease`].
    ///
    /// # Cancel safety
    /// As [`Context::under_lease`].
    pub async fn under_lease_if_room<T>(
        &self,
        repositories: &Repositories,
        name: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let (stanza, options) = (self.stanza(), lease_options(name));
        match LeaseGroup::acquire_or_outwait(repositories, stanza, name, &options, &self.cancel).await {
            Ok(lease) => beside(lease, work).await,
            Err(error) if error.is_full() => {
                LeaseGroup::outwait_unwritable(repositories, stanza, name, &options, &self.cancel).await?;
                tracing::warn!(lease = name, "no room for a lease; going on without one");
                work.await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How data is compressed and cut.
    #[must_use]
    pub fn data_path(&self) -> DataPath {
        let compression = &self.config.compression;
        let usual = if compression.codec == Codec::Gzip { 6 } else { 3 };
        let path = DataPath::default().level(compression.level.unwrap_or(usual));
        match compression.workers {
            Some(workers) => path.workers(usize::try_from(workers.get()).unwrap_or(1)),
            None => path,
        }
    }

    /// Until when new objects are locked: as long as the strictest repository asks for.
    #[must_use]
    pub fn retain_until(&self) -> Option<Timestamp> {
        let locks =
            self.config.repository.iter().filter_map(|repository| repository.s3.as_ref()?.object_lock);
        let days = locks.map(|lock| lock.days.get()).max()?;
        let span = SignedDuration::from_hours(24 * i64::from(days));
        Some(self.clock.now().saturating_add(span).unwrap_or(Timestamp::MAX))
    }

    /// Resolves references to secrets.
    #[must_use]
    pub fn secrets(&self) -> &dyn SecretSource {
        &self.secrets
    }

    /// The value behind a reference.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn secret(&self, reference: &SecretRef) -> Result<Secret<String>, Failure> {
        Ok(self.secrets.resolve(reference).await?)
    }

    /// The public keys that backups are encrypted to; none when they are not.
    ///
    /// # Errors
    /// A key that is none.
    pub fn recipients(&self) -> Result<Recipients, Failure> {
        Ok(Recipients::parse(self.config.encryption.recipients.iter().map(String::as_str))?)
    }

    /// The private keys that open backups; none when none is configured.
    ///
    /// # Errors
    /// The key cannot be had, or is none.
    pub async fn identities(&self) -> Result<Identities, Failure> {
        match &self.config.encryption.identity {
            Some(reference) => Ok(Identities::parse(self.secret(reference).await?.expose())?),
            None => Ok(Identities::none()),
        }
    }

    /// Awaits something that may be dropped at any time, and drops it when the program is told to stop.
    ///
    /// # Errors
    /// A failure of class temporary after a signal.
    pub async fn stoppable<T>(&self, action: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            result = action => Ok(result),
            () = self.cancel.cancelled() => Err(Failure::cancelled()),
        }
    }

    /// Prints the report of a run that did everything.
    ///
    /// # Errors
    /// Stdout cannot be written, unless its reader has gone away.
    pub fn print<R: Serialize + Display>(&self, report: &R) -> Result<Exit, Failure> {
        self.finish(report, Exit::Done)
    }

    /// Prints the report of a run that ends like this.
    ///
    /// # Errors
    /// As [`Context::print`].
    pub fn finish<R: Serialize + Display>(&self, report: &R, exit: Exit) -> Result<Exit, Failure> {
        output::report(report, self.json)?;
        Ok(exit)
    }
}

/// Works for as long as a lease is held, and gives it back.
async fn beside<T>(lease: LeaseGroup, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let result = tokio::select! {
        result = work => result,
        lost = lease.keep() => Err(lost.into()),
    };
    let name = lease.name().to_owned();
    match tokio::time::timeout(RELEASE_TIME, lease.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(name, %error, "lease not released; it ends by itself"),
        Err(_) => tracing::warn!(name, "lease not released in time; it ends by itself"),
    }
    result
}

fn lease_options(name: &str) -> LeaseOptions {
    LeaseOptions::new(&holder(name)).ttl(LEASE_TIME)
}

/// Who holds a lease, in words that help to find it.
fn holder(task: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "this host" } else { host.trim() };
    format!("{task} on {host}, process {}", std::process::id())
}
