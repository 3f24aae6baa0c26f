//! What the action of a program works with.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use backstay_backup_core::clock::{Clock, SystemClock};
use backstay_backup_core::config::Config;
use backstay_backup_core::encryption::{Identities, Recipients};
use backstay_backup_core::id::Stanza;
use backstay_backup_core::process::SystemRunner;
use backstay_backup_core::progress::Progress;
use backstay_backup_core::secret::{Secret, SecretRef, SecretSource};
use backstay_backup_core::secret_sources::Chain;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::open::{self, Opened};
use crate::{output, secrets};

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
}

impl Context {
    pub(crate) fn new(config: Config, environment: BTreeMap<String, String>, json: bool) -> Self {
        let secrets = secrets::chain(&environment);
        let clock = Arc::new(SystemClock);
        let (cancel, progress) = (CancellationToken::new(), Progress::new());
        Self { config, cancel, progress, clock, environment, secrets, json }
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

    /// Where secrets come from.
    #[cfg(feature = "postgres")]
    pub(crate) fn secrets(&self) -> &Chain {
        &self.secrets
    }

    /// Starts programs with the harmless part of the environment.
    #[must_use]
    pub fn runner(&self) -> SystemRunner {
        SystemRunner::new(&self.environment)
    }

    /// Opens the repositories for reading. Those that cannot be opened are left out with a warning.
    ///
    /// # Errors
    /// The first failure when none can be opened; a usage error when none is configured.
    pub async fn open_for_reading(&self) -> Result<Opened, Failure> {
        open::repositories(self, open::Purpose::Read).await
    }

    /// Opens the repositories for a backup, which makes an empty place a repository. Those that cannot be opened are
    /// left out with a warning as long as the quorum holds.
    ///
    /// # Errors
    /// The first failure when the quorum is missed; a usage error when none is configured.
    pub async fn open_for_writing(&self) -> Result<Opened, Failure> {
        open::repositories(self, open::Purpose::Write).await
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
